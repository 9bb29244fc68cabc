"""Layers with PyTorch's semantics, so that published weights mean here what they mean there."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxrecon.networks.convolution import Implementation, conv2d
from jaxrecon.typing import Array, Float

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""N(0, sqrt(2 / (kh * kw * out_channels))): the initialisation of the ResNet family."""


class Conv(nn.Module):
    """2D convolution of NHWC images; parameters `kernel` (kh, kw, in, out) and maybe `bias`.

    Attributes:
        features: Channels that come out.
        kernel_size: Side of the square kernel, or (kh, kw).
        strides: The same for both axes.
        padding: Zeros on every side, as PyTorch counts them.
        implementation: See `jaxrecon.networks.convolution.conv2d`.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int = 0
    use_bias: bool = False
    implementation: Implementation = "auto"
    kernel_init: nn.initializers.Initializer = kaiming_normal_fan_out
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        size = self.kernel_size
        kh, kw = (size, size) if isinstance(size, int) else size
        kernel = self.param("kernel", self.kernel_init, (kh, kw, x.shape[-1], self.features))
        y = conv2d(x, kernel, self.strides, self.padding, self.implementation)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,))
        return y


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as `torch.nn.BatchNorm2d`.

    The biased variance normalises; the running buffer receives the unbiased one. Parameters
    `scale`, `bias`; collection `batch_stats` holds `mean`, `var`. All in float32.

    Attributes:
        use_running_average: Normalise with the running buffers and leave them alone. May be
            given at the call instead.
        axis_name: Mapped axis (of `pmap`) over which the statistics are taken. The same as one
            device with the whole batch if the shards are of equal size.
        momentum: Share of the old running value that stays (PyTorch's is one minus this).
        updates: How many times the running buffers receive the batch's statistics. Networks
            that would run twice on one batch and run once say 2.
    """

    use_running_average: bool | None = None
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    updates: int = 1
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b c"], use_running_average: bool | None = None
    ) -> Float[Array, "*b c"]:
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", self.bias_init, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if running:
            mean, var = running_mean.value, running_var.value
        else:
            axis = None if self.is_initializing() else self.axis_name
            mean, var, count = _batch_statistics(
                x.astype(jnp.promote_types(x.dtype, jnp.float32)), axis
            )
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep = self.momentum**self.updates
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        factor = scale * lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(x.dtype)


def _batch_statistics(x: Array, axis_name: str | None) -> tuple[Array, Array, int]:
    """Mean, biased variance and number of values of each channel, over all devices."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean = x.mean(axes)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count = count * lax.axis_size(axis_name)
    var = jnp.square(x - mean).mean(axes)
    if axis_name is not None:
        var = lax.pmean(var, axis_name)
    return mean, var, count


def max_pool_3x3_s2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    """3x3 maximum, stride 2, one row and column of -inf on each side (ResNet's pooling).

    Written as maxima of shifted halves: XLA's own windowed maximum has a gradient many times
    slower on CPU. Where values tie, the first in reading order receives the gradient, as in
    PyTorch.
    """
    return _max_of_three(_max_of_three(x, 2), 1)


def _max_of_three(x: Array, axis: int) -> Array:
    """Entry n is the maximum of entries 2n - 1, 2n, 2n + 1 along an axis."""
    if x.shape[axis] % 2:
        x = lax.pad(x, -jnp.inf, _edges(x, axis, 0, 1))
    # Even and odd entries by reshape and split, whose gradient is a plain concatenation; that
    # of strided slices would be sums of interior paddings.
    paired = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (half.squeeze(axis + 1) for half in lax.split(paired, (1, 1), axis + 1))
    before = lax.pad(odd, -jnp.inf, _edges(odd, axis, 1, -1))
    return _first_maximum(_first_maximum(before, even), odd)


def _edges(x: Array, axis: int, low: int, high: int) -> list[tuple[int, int, int]]:
    return [(low, high, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]


def _first_maximum(a: Array, b: Array) -> Array:
    return jnp.where((b > a) | jnp.isnan(b), b, a)
