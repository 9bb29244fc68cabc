"""The network of MHR-Net (spec mhr_net, section 2): two trunks, and small heads on them.

Published 1x1 convolutions are dense layers here. Names are those of the published state dict,
so that conversion is a rule and no table.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrecon.networks.dense_norm import dense_norm_relu
from jaxrecon.networks.layers import BatchNorm
from jaxrecon.typing import AnyArray, Array, Float

NOISE = 4  # published size of the noise that drives the deformation
HIDDEN = 64  # width inside the deformation
TRUNK_STD = 0.01


def _uniform(low: float, high: float) -> Callable[..., Array]:
    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, low, high)

    return init


class Block(nn.Module):
    """Dense layers with batch norm and ReLU: one (`inner` 0), or a residual bottleneck of three.

    Attributes:
        width: Features that come out; for a bottleneck also those that come in.
        inner: Width inside a bottleneck; 0 for the first block of a trunk.
    """

    width: int
    inner: int = 0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i"], train: bool) -> Float[Array, "b o"]:
        if not self.inner:
            return self._layer(1, self.width, x, train)
        y = self._layer(1, self.inner, x, train)
        y = self._layer(2, self.inner, y, train)
        return self._layer(3, self.width, y, train, x)

    def _layer(
        self, number: int, width: int, x: Array, train: bool, skip: Array | None = None
    ) -> Array:
        dense, norm = f"conv{number}", f"bn{number}"
        if train and self.axis_name is None and not self.is_initializing():
            return self._fused(dense, norm, x, skip)
        init = nn.initializers.normal(TRUNK_STD)
        y = nn.Dense(width, kernel_init=init, name=dense)(x)
        y = BatchNorm(axis_name=self.axis_name, scale_init=_uniform(0.0, 1.0), name=norm)(
            y, not train
        )
        return nn.relu(y if skip is None else y + skip)

    def _fused(self, dense: str, norm: str, x: Array, skip: Array | None) -> Array:
        """The same, faster, from the same weights: statistics of the whole batch, one device."""
        layer: Any = self.get_variable("params", dense)
        scaled: Any = self.get_variable("params", norm)
        # Outside of jit they may be NumPy's, which the hand-written derivative would see as such.
        weights = map(
            jnp.asarray, (layer["kernel"], layer["bias"], scaled["scale"], scaled["bias"])
        )
        out, mean, var = dense_norm_relu(x, *weights, skip, BatchNorm.epsilon)
        if self.is_mutable_collection("batch_stats"):
            batch = {"mean": mean, "var": var * (len(x) / max(len(x) - 1, 1))}
            running: Any = self.get_variable("batch_stats", norm)
            keep = BatchNorm.momentum
            moved = {name: keep * running[name] + (1 - keep) * batch[name] for name in batch}
            self.put_variable("batch_stats", norm, moved)
        return out


class Trunk(nn.Module):
    """A first block and `blocks` bottlenecks of a quarter of the width."""

    width: int
    blocks: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i"], train: bool) -> Float[Array, "b d"]:
        x = Block(self.width, 0, self.axis_name, name="0")(x, train)
        for number in range(1, self.blocks + 1):
            x = Block(self.width, self.width // 4, self.axis_name, name=str(number))(x, train)
        return x


class Deformation(nn.Module):
    """(feature, coefficients, noise) -> what a hypothesis adds to the basis shape."""

    joints: int

    @nn.compact
    def __call__(self, told: Float[Array, "b i"], noise: Float[Array, "n z"]) -> Array:
        """Told (B, D + K) is the same for all hypotheses of a sample; noise, hypothesis-major."""

        def uniform(fan_in: int) -> Callable[..., Array]:
            return _uniform(-(fan_in**-0.5), fan_in**-0.5)

        inputs = told.shape[-1] + noise.shape[-1]
        kernel, bias = _Weights(HIDDEN, uniform(inputs), name="0")(inputs)
        # What all hypotheses share is multiplied once.
        shared = told @ kernel[: told.shape[-1]] + bias
        own = (noise @ kernel[told.shape[-1] :]).reshape(-1, *shared.shape)
        hidden = nn.relu(shared + own).reshape(-1, HIDDEN)
        init = uniform(HIDDEN)
        return nn.Dense(3 * self.joints, kernel_init=init, bias_init=init, name="2")(hidden)


class _Weights(nn.Module):
    """Kernel and bias of a dense layer that is not applied as one."""

    width: int
    weights: Callable[..., Array]

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", self.weights, (inputs, self.width))
        return kernel, self.param("bias", self.weights, (self.width,))


class MHRNetwork(nn.Module):
    """Weights of one MHR-Net; the forward pass that uses them is in `forward`.

    Attributes:
        joints: J.
        width, blocks: D and L of both trunks.
        bases: K.
        init_std: Deviation of the weights of the heads.
        see_visibility: The first trunk is also told which joints are visible (3J inputs); not
            published, for data with missing joints.
    """

    joints: int = 17
    width: int = 1024
    blocks: int = 6
    bases: int = 10
    init_std: float = 0.01
    see_visibility: bool = False
    axis_name: str | None = None

    def setup(self) -> None:
        def head(width: int) -> nn.Dense:
            return nn.Dense(width, kernel_init=nn.initializers.normal(self.init_std))

        self.fe_net = Trunk(self.width, self.blocks, self.axis_name)
        self.alpha_layer = head(self.bases)
        self.shape_layer = head(3 * self.joints)
        self.rot_layer = head(3)
        self.trans_layer = head(1)  # never used; kept so that checkpoints convert without loss
        self.psi_net = Trunk(self.width, self.blocks, self.axis_name)
        self.alpha_layer_psi = head(self.bases)
        self.deformation_layer = Deformation(self.joints)

    def features(
        self, keypoints2d: Float[Array, "b j 2"], visible: Float[AnyArray, "b j"], train: bool
    ) -> Float[Array, "b d"]:
        """What the trunk says about root-centred keypoints, the missing ones at zero."""
        flat = keypoints2d.reshape(len(keypoints2d), -1)
        if self.see_visibility:
            flat = jnp.concatenate([flat, jnp.asarray(visible)], axis=-1)
        return self.fe_net(flat, train)

    def coefficients(self, feature: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.alpha_layer(feature)

    def shape(self, coefficients: Float[Array, "b k"]) -> Float[Array, "b j 3"]:
        """The combination of basis shapes, S^B."""
        return self.shape_layer(coefficients).reshape(-1, self.joints, 3)

    def rotation_vector(self, feature: Float[Array, "b d"]) -> Float[Array, "b 3"]:
        return self.rot_layer(feature)

    def deformation(
        self,
        feature: Float[Array, "b d"],
        coefficients: Float[Array, "b k"],
        noise: Float[AnyArray, "n 4"],
    ) -> Float[Array, "h b j 3"]:
        """S^D of each hypothesis; the noise is hypothesis-major (row k * B + b)."""
        told = jnp.concatenate([feature, coefficients], axis=-1)
        flat = self.deformation_layer(told, jnp.asarray(noise))
        return flat.reshape(-1, len(feature), self.joints, 3)

    def recover(self, shapes: Float[Array, "n j 3"], train: bool) -> Float[Array, "n j 3"]:
        """The canonical shape of rotated ones, by the second trunk."""
        feature = self.psi_net(shapes.reshape(len(shapes), -1), train)
        return self.shape(self.alpha_layer_psi(feature))

    def everything(self, keypoints2d: Float[Array, "b j 2"]) -> Float[Array, "b 1"]:
        """Touches every layer, so that `init` makes every weight."""
        visible = jnp.ones(keypoints2d.shape[:2])
        feature = self.features(keypoints2d, visible, True)
        coefficients = self.coefficients(feature)
        self.rotation_vector(feature)
        self.deformation(feature, coefficients, jnp.zeros((len(feature), NOISE)))
        self.recover(self.shape(coefficients), True)
        return self.trans_layer(feature)
