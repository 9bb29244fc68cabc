"""The iterative regressor of the HMR family (Kanazawa et al. 2018, section 3.2; CLIFF, 3.3).

Features and the current estimate go through two linear layers to a correction of pose (6D),
shape and camera, ten times over (three in auxiliary networks). There is no non-linearity.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from jaxrecon.geometry.rotations import rot6d_to_matrix
from jaxrecon.networks.backbones import backbone
from jaxrecon.networks.resnet import normalise_image
from jaxrecon.typing import AnyArray, Array, Float

POSE, SHAPE, CAMERA, BOX = 144, 10, 3, 3
STATE = POSE + SHAPE + CAMERA


@flax.struct.dataclass
class Regression:
    """Output of the regressor: pose6d (B,144), rotmats (B,24,3,3), betas (B,10), cam (B,3)."""

    pose6d: Any
    rotmats: Any
    betas: Any
    cam: Any


class _Linear(nn.Module):
    """A linear layer's arrays in PyTorch's default or a Xavier initialisation of given gain."""

    inputs: int
    outputs: int
    gain: float | None = None

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        def uniform(bound: float) -> nn.initializers.Initializer:
            return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
                key, shape, dtype, -bound, bound
            )

        default = self.inputs**-0.5
        xavier = (6.0 / (self.inputs + self.outputs)) ** 0.5
        bound = default if self.gain is None else self.gain * xavier
        kernel = self.param("kernel", uniform(bound), (self.inputs, self.outputs))
        bias = self.param("bias", uniform(default), (self.outputs,))
        return kernel, bias


class RegressionHead(nn.Module):
    """Five linear layers (fc1, fc2, decpose, decshape, deccam) applied `iterations` times.

    The mean parameters it starts from are buffers (`batch_stats`): init_pose, init_shape,
    init_cam. They come from a published checkpoint or from the data (`mean_parameters`).
    """

    iterations: int
    box_input: bool
    hidden: int = 1024
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        features: Float[AnyArray, "b c"],
        bbox_info: Float[AnyArray, "b 3"] | None = None,
        train: bool = False,
        dropout_rng: Array | None = None,
        initial: tuple[AnyArray, AnyArray, AnyArray] | None = None,
    ) -> Regression:
        """Args:
        features: Pooled features of the backbone.
        bbox_info: CLIFF's box information, where `box_input`.
        train: Drop units (after fc1 and fc2), with `dropout_rng`.
        initial: Pose (B, 144), shape (B, 10), camera (B, 3) to start from instead.
        """
        if self.box_input:
            features = jnp.concatenate([jnp.asarray(features), jnp.asarray(bbox_info)], axis=-1)
        fixed = features.shape[-1]
        w1, b1 = _Linear(fixed + STATE, self.hidden, name="fc1")()
        w2, b2 = _Linear(self.hidden, self.hidden, name="fc2")()
        decoders = [
            _Linear(self.hidden, size, gain=0.01, name=name)()
            for name, size in (("decpose", POSE), ("decshape", SHAPE), ("deccam", CAMERA))
        ]
        w3 = jnp.concatenate([kernel for kernel, _ in decoders], axis=1)
        b3 = jnp.concatenate([bias for _, bias in decoders])
        state = self._start(features.shape[0], initial)

        # The share of the features in fc1 is the same in every iteration.
        constant = jnp.asarray(features) @ w1[:fixed] + b1
        keep = 1.0 - self.dropout
        random = train and self.dropout > 0

        def mask(key: Array, x: Array) -> Array:
            return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0.0)

        def iterate(state: Array, key: Array | None) -> tuple[Array, None]:
            hidden = constant + state @ w1[fixed:]
            if random:
                assert key is not None
                first, second = jax.random.split(key)
                hidden = mask(second, mask(first, hidden) @ w2 + b2)
            else:
                hidden = hidden @ w2 + b2
            return state + hidden @ w3 + b3, None

        keys = None
        if random:
            if dropout_rng is None:
                raise ValueError("dropout in training needs dropout_rng")
            keys = jax.random.split(dropout_rng, self.iterations)
        state, _ = lax.scan(iterate, state, keys, length=self.iterations)
        pose6d, betas, cam = jnp.split(state, [POSE, POSE + SHAPE], axis=-1)
        rotmats = rot6d_to_matrix(pose6d.reshape(-1, 24, 6))
        return Regression(pose6d=pose6d, rotmats=rotmats, betas=betas, cam=cam)

    def _start(self, batch: int, initial: tuple | None) -> Array:
        identity = jnp.tile(jnp.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]), 24)[None]
        # The root starts half a turn about x: upright in a camera frame whose y points down.
        upright = identity.at[0, :6].set(jnp.array([1.0, 0.0, 0.0, -1.0, 0.0, 0.0]))
        buffers = [
            self.variable("batch_stats", "init_pose", lambda: upright).value,
            self.variable("batch_stats", "init_shape", lambda: jnp.zeros((1, SHAPE))).value,
            self.variable("batch_stats", "init_cam", lambda: jnp.array([[0.9, 0.0, 0.0]])).value,
        ]
        start = buffers if initial is None else list(initial)
        return jnp.concatenate([jnp.broadcast_to(x, (batch, x.shape[-1])) for x in start], -1)


class HMRNetwork(nn.Module):
    """Backbone and head: image (and box) to pose, shape and camera.

    Attributes:
        backbone_name: Key of `networks.backbones.BACKBONES`.
        iterations: Of the head; 10 in main networks, 3 in auxiliary ones.
        box_input: CLIFF's box information goes to the head.
        hidden: Units of fc1 and fc2.
        dropout: After fc1 and fc2, in training.
        axis_name: Mapped axis over which batch statistics are taken, if any.
    """

    backbone_name: str
    iterations: int
    box_input: bool
    hidden: int = 1024
    dropout: float = 0.5
    axis_name: str | None = None

    def setup(self) -> None:
        self.backbone = backbone(self.backbone_name, self.axis_name)
        self.head = RegressionHead(self.iterations, self.box_input, self.hidden, self.dropout)

    def __call__(
        self,
        image: AnyArray,
        bbox_info: AnyArray | None = None,
        train: bool = False,
        dropout_rng: Array | None = None,
    ) -> Regression:
        features = self.encode(image, train)["features"]
        return self.head(features, bbox_info, train, dropout_rng)

    def encode(self, image: AnyArray, train: bool = False, updates: int = 1) -> dict[str, Array]:
        """Named activations of the backbone; `features` (B, C) is what the head takes."""
        return self.backbone(normalise_image(image), train, updates)

    def regress(
        self,
        features: AnyArray,
        bbox_info: AnyArray | None = None,
        train: bool = False,
        dropout_rng: Array | None = None,
        initial: tuple[AnyArray, AnyArray, AnyArray] | None = None,
    ) -> Regression:
        """The head alone."""
        return self.head(features, bbox_info, train, dropout_rng, initial)
