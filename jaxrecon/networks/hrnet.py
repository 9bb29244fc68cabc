"""High-resolution networks (Sun et al. 2019; Wang et al. 2020) that return every stage's maps.

Branches at strides 4, 8, 16 and 32 run side by side and exchange what they see after every
module. Two ways to features are published with HMR-like regressors: strided convolutions of
every branch to stride 32, side by side (pose networks), and bottlenecks that widen each branch
and pass it down to the next (classification networks).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrecon.networks.layers import BatchNorm, Conv, kaiming_normal_fan_out
from jaxrecon.networks.resnet import BasicBlock, Bottleneck
from jaxrecon.typing import AnyArray, Array, Float

_POSE_JOINTS = 24  # of the heatmap layer that pose checkpoints carry
_FINAL = 2048


@dataclasses.dataclass(frozen=True)
class HRNetSpec:
    """Shape of a high-resolution network.

    Attributes:
        width: Channels of the finest branch; every further one has twice as many.
        head: "strided" (features: 15 times the width) or "classification" (2048).
        modules: Of stages 2, 3 and 4, which have 2, 3 and 4 branches.
        blocks: Residual blocks of the first stage, and of every branch of a module.
        stem: Channels of the stem and of the bottlenecks of the first stage.
        incre: Bottleneck channels of the finest branch in the classification head.
    """

    width: int
    head: Literal["strided", "classification"]
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    stem: int = 64
    incre: int = 32


_TINY: dict[str, Any] = {"width": 4, "modules": (1, 1, 1), "blocks": 1, "stem": 8, "incre": 2}

HRNETS: dict[str, HRNetSpec] = {
    "hrnet_w48": HRNetSpec(48, "strided"),
    "hrnet_w48_classification": HRNetSpec(48, "classification"),
    "hrnet_tiny": HRNetSpec(head="strided", **_TINY),
    "hrnet_tiny_classification": HRNetSpec(head="classification", **_TINY),
}


def _pytorch_bias(fan_in: int) -> nn.initializers.Initializer:
    """Uniform within 1 / sqrt(fan in), PyTorch's default for the bias of a convolution."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def _conv_norm(
    settings: dict[str, Any], name: str, x: Array, features: int, stride: int,
    kernel: int = 3, index: int = 0, bias: bool = False,
) -> Array:  # fmt: skip
    """Convolution `name_index` and batch norm `name_(index + 1)` of the module that calls."""
    x = Conv(
        features, kernel, stride, kernel // 2, bias,
        kernel_init=settings["kernel_init"], bias_init=_pytorch_bias(kernel**2 * x.shape[-1]),
        name=f"{name}_{index}",
    )(x)  # fmt: skip
    return BatchNorm(**settings["norm"], name=f"{name}_{index + 1}")(x)


def _repeat(module: nn.Module, times: int, x: Any) -> Any:
    """The module applied `times` times with weights of its own each time, as one compiled loop.

    Its parameters and statistics get a leading axis of that length. Written out, the gradient
    of HRNet-W48 has some thousand different operators to compile.
    """
    loop = nn.scan(
        lambda module, x, _: (module(x), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=times,
    )
    return loop(module, x, None)[0]


class HighResolutionModule(nn.Module):
    """Residual blocks on every branch, then every branch becomes the sum of all.

    Attributes:
        settings: Of the layers: `norm`, and `kernel_init` of the convolutions.
        blocks: How many on each branch.
    """

    settings: dict
    blocks: int

    @nn.compact
    def __call__(self, branches: list[Float[Array, "b _h _w _c"]]) -> list[Array]:
        outputs = []
        for i, x in enumerate(branches):
            block = BasicBlock(x.shape[-1], 1, name=f"branches_{i}", **self.settings)
            outputs.append(_repeat(block, self.blocks, x))
        return [self._fuse(outputs, target) for target in range(len(outputs))]

    def _fuse(self, branches: list[Array], target: int) -> Array:
        shape = branches[target].shape
        total = None
        for source, x in enumerate(branches):
            name = f"fuse_layers_{target}_{source}"
            if source > target:
                x = _conv_norm(self.settings, name, x, shape[-1], 1, kernel=1)
                x = _upsample(x, shape)
            for k in range(target - source):
                last = k == target - source - 1
                channels = shape[-1] if last else x.shape[-1]
                x = _conv_norm(self.settings, f"{name}_{k}", x, channels, 2)
                x = x if last else nn.relu(x)
            total = x if total is None else total + x
        assert total is not None
        return nn.relu(total)


def _upsample(x: Array, shape: tuple[int, ...]) -> Array:
    """Every pixel repeated to the next power of two times, cut to the (b, height, width, c)."""
    factor = 1
    while factor * x.shape[1] < shape[1] or factor * x.shape[2] < shape[2]:
        factor *= 2
    batch, height, width, channels = x.shape
    repeated = jnp.broadcast_to(
        x[:, :, None, :, None], (batch, height, factor, width, factor, channels)
    ).reshape(batch, height * factor, width * factor, channels)
    return repeated[:, : shape[1], : shape[2]]


class _Heatmaps(nn.Module):
    """The 1x1 convolution to heatmaps of pose checkpoints: kept for conversion, never used."""

    @nn.compact
    def __call__(self, channels: int) -> None:
        shape = (1, 1, channels, _POSE_JOINTS)
        self.param("kernel", nn.initializers.normal(0.001), shape)
        self.param("bias", nn.initializers.zeros_init(), (_POSE_JOINTS,))


class HRNet(nn.Module):
    """Backbone: images to pooled features.

    Sides that are multiples of 32 are the published case; others work too.

    Attributes:
        spec: Which network.
        axis_name: Mapped axis over which batch statistics are taken, if any.
    """

    spec: HRNetSpec
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, image: Float[AnyArray, "b h w 3"], train: bool = False, updates: int = 1
    ) -> dict[str, Array]:
        """Activations by name: layer1, stage{2,3,4}_{branch} and backbone (NHWC), the last of
        them at stride 32, and `features` (B, C), its mean.

        Args:
            image: Normalised pixels.
            train: Use, and record `updates` times, the statistics of the batch.
            updates: See `BatchNorm`.
        """
        norm = {
            "use_running_average": not train,
            "axis_name": self.axis_name,
            "updates": updates,
        }
        strided = self.spec.head == "strided"
        kernel_init = nn.initializers.normal(0.001) if strided else kaiming_normal_fan_out
        settings = {"norm": norm, "kernel_init": kernel_init}
        out, branches = self._stages(jnp.asarray(image), settings)
        head = self._strided_head if strided else self._classification_head
        out["backbone"] = head(branches, settings)
        out["features"] = out["backbone"].mean((1, 2))
        return out

    def _stages(self, x: Array, settings: dict[str, Any]) -> tuple[dict[str, Array], list[Array]]:
        """Activations of all stages by name, and the branches of the last one."""
        spec = self.spec
        for number in (1, 2):
            init = settings["kernel_init"]
            x = Conv(spec.stem, 3, 2, 1, kernel_init=init, name=f"conv{number}")(x)
            x = nn.relu(BatchNorm(**settings["norm"], name=f"bn{number}")(x))
        for i in range(spec.blocks):
            x = Bottleneck(spec.stem, 1, name=f"layer1_{i}", **settings)(x)
        out = {"layer1": x}
        branches = [
            nn.relu(_conv_norm(settings, "transition1_0", x, spec.width, 1)),
            nn.relu(_conv_norm(settings, "transition1_1_0", x, 2 * spec.width, 2)),
        ]
        for stage, modules in enumerate(spec.modules, start=2):
            if stage > 2:
                name = f"transition{stage - 1}_{stage - 1}_0"
                x = _conv_norm(settings, name, branches[-1], 2 * branches[-1].shape[-1], 2)
                branches = [*branches, nn.relu(x)]
            module = HighResolutionModule(settings, spec.blocks, name=f"stage{stage}")
            branches = _repeat(module, modules, branches)
            out |= {f"stage{stage}_{i}": x for i, x in enumerate(branches)}
        return out, branches

    def _strided_head(self, branches: list[Array], settings: dict[str, Any]) -> Array:
        """Every branch to stride 32 by convolutions of its own width, side by side."""
        coarse = []
        for i, x in enumerate(branches):
            for k in range(len(branches) - 1 - i):
                name = f"downsample_stage_{i + 1}"
                x = nn.relu(_conv_norm(settings, name, x, x.shape[-1], 2, index=3 * k))
            coarse.append(x)
        _Heatmaps(name="final_layer")(self.spec.width)
        return jnp.concatenate(coarse, axis=-1)

    def _classification_head(self, branches: list[Array], settings: dict[str, Any]) -> Array:
        """Bottlenecks widen each branch; the sum goes down from the finest to the coarsest."""
        total = None
        for i, x in enumerate(branches):
            x = Bottleneck(self.spec.incre * 2**i, 1, name=f"incre_modules_{i}_0", **settings)(x)
            if total is not None:
                name = f"downsamp_modules_{i - 1}"
                down = _conv_norm(settings, name, total, x.shape[-1], 2, bias=True)
                x = x + nn.relu(down)
            total = x
        assert total is not None
        x = _conv_norm(settings, "final_layer", total, _FINAL, 1, kernel=1, bias=True)
        return nn.relu(x)
