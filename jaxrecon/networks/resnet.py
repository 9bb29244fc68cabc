"""Residual networks (He et al. 2016) that return the activations of every stage.

The stride of a bottleneck is in its 3x3 convolution, as in all published weights here.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxrecon.networks.layers import BatchNorm, Conv, kaiming_normal_fan_out, max_pool_3x3_s2
from jaxrecon.networks.points import PointPooling
from jaxrecon.typing import AnyArray, Array, Float


@dataclasses.dataclass(frozen=True)
class ResNetSpec:
    """Shape of a residual network.

    Attributes:
        stages: Blocks of each stage.
        width: Channels of the first stage.
        bottleneck: Blocks of three convolutions rather than two.
        points: Read its maps at this many points (`networks.points`) instead of their mean.
    """

    stages: tuple[int, ...]
    width: int
    bottleneck: bool
    points: int = 0


RESNETS: dict[str, ResNetSpec] = {
    "resnet50": ResNetSpec((3, 4, 6, 3), 64, True),
    "resnet18": ResNetSpec((2, 2, 2, 2), 64, False),
    # For two CPU cores: a fifth of ResNet-18's work, and points, so that it learns from nothing.
    "resnet_small": ResNetSpec((1, 2, 2, 1), 32, False, points=24),
    "resnet_mini": ResNetSpec((1, 1, 1, 1), 16, False),
    "resnet_tiny": ResNetSpec((1, 1, 1, 1), 8, False),
}


_POINT_FEATURES = 512
_FIRST, _SECOND, _THIRD = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
_SHORTCUT = ("downsample_0", "downsample_1")


class _Normed(nn.Module, kw_only=True):
    """Base of the blocks: convolution and batch norm under their published names."""

    norm: dict
    kernel_init: nn.initializers.Initializer = kaiming_normal_fan_out

    def conv_norm(
        self, names: tuple[str, str], x: Array, features: int, kernel: int, stride: int = 1
    ) -> Array:
        padding, init = kernel // 2, self.kernel_init
        x = Conv(features, kernel, stride, padding, kernel_init=init, name=names[0])(x)
        return BatchNorm(**self.norm, name=names[1])(x)


class Bottleneck(_Normed):
    """1x1, 3x3 (with the stride), 1x1 to four times the channels."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        y = nn.relu(self.conv_norm(_FIRST, x, self.features, 1))
        y = nn.relu(self.conv_norm(_SECOND, y, self.features, 3, self.stride))
        y = self.conv_norm(_THIRD, y, 4 * self.features, 1)
        if x.shape != y.shape:
            x = self.conv_norm(_SHORTCUT, x, 4 * self.features, 1, self.stride)
        return nn.relu(x + y)


class BasicBlock(_Normed):
    """Two 3x3 convolutions, the first with the stride."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        y = nn.relu(self.conv_norm(_FIRST, x, self.features, 3, self.stride))
        y = self.conv_norm(_SECOND, y, self.features, 3)
        if x.shape != y.shape:
            x = self.conv_norm(_SHORTCUT, x, self.features, 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Backbone: images to pooled features.

    Attributes:
        spec: Which network.
        axis_name: Mapped axis over which batch statistics are taken, if any.
    """

    spec: ResNetSpec
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, image: Float[AnyArray, "b h w 3"], train: bool = False, updates: int = 1
    ) -> dict[str, Array]:
        """Activations by name: layer1 ... layer4 (NHWC), and `features` (B, C): the mean of the
        last, or what `PointPooling` makes of them (then `point_logits` too).

        Args:
            image: Normalised pixels.
            train: Use, and record `updates` times, the statistics of the batch.
            updates: See `BatchNorm`.
        """
        norm: dict[str, Any] = {
            "use_running_average": not train,
            "axis_name": self.axis_name,
            "updates": updates,
        }
        block = Bottleneck if self.spec.bottleneck else BasicBlock
        out = {}
        x = Conv(self.spec.width, 7, 2, 3, name="conv1")(jnp.asarray(image))
        x = max_pool_3x3_s2(nn.relu(BatchNorm(**norm, name="bn1")(x)))
        for stage, blocks in enumerate(self.spec.stages):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                x = block(
                    norm=norm,
                    features=self.spec.width * 2**stage,
                    stride=stride,
                    name=f"layer{stage + 1}_{i}",
                )(x)
            out[f"layer{stage + 1}"] = x
        if self.spec.points:
            pooling = PointPooling(self.spec.points, _POINT_FEATURES, norm, name="points")
            return {**out, **pooling([out["layer2"], out["layer3"], out["layer4"]])}
        out["features"] = x.mean((1, 2))
        return out


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_image(image: AnyArray) -> Float[Array, "b h w 3"]:
    """Bytes (B, h, w, 3) RGB to network input; an image of floats is taken as normalised."""
    image = jnp.asarray(image)
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    mean = jnp.asarray(IMAGENET_MEAN, jnp.float32)
    std = jnp.asarray(IMAGENET_STD, jnp.float32)
    return (image.astype(jnp.float32) / 255.0 - mean) / std
