"""A dense layer, batch norm and ReLU with a derivative written by hand.

What autodiff makes of the three reads and writes every activation several times more than it
must, and on a CPU that costs about as much as the matrix products do.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrecon.typing import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def dense_norm_relu(
    x: Float[Array, "b i"],
    kernel: Float[Array, "i o"],
    offset: Float[Array, "o"],
    scale: Float[Array, "o"],
    bias: Float[Array, "o"],
    skip: Float[Array, "b o"] | None,
    epsilon: float,
) -> tuple[Float[Array, "b o"], Float[Array, "o"], Float[Array, "o"]]:
    """relu(normalised(x @ kernel + offset) * scale + bias + skip), by the batch's statistics.

    Args:
        offset: The dense layer's bias. It is taken out again with the mean, so its derivative
            is zero.
        skip: Added before the ReLU; None: nothing is.

    Returns:
        The activations, and mean and biased variance of x @ kernel + offset, which carry no
        derivative.
    """
    return _forward(x, kernel, offset, scale, bias, skip, epsilon)[0]


def _forward(
    x: Array,
    kernel: Array,
    offset: Array,
    scale: Array,
    bias: Array,
    skip: Array | None,
    epsilon: float,
) -> tuple[tuple[Array, Array, Array], Any]:
    y = x @ kernel + offset
    mean = jnp.mean(y, 0)
    var = jnp.mean(jnp.square(y - mean), 0)
    inverse = lax.rsqrt(var + epsilon)
    factor = scale * inverse
    out = y * factor + (bias - mean * factor)
    if skip is not None:
        out = out + skip
    out = jnp.maximum(out, 0)
    return (out, mean, var), (x, kernel, scale, y, out, mean, inverse, skip is not None)


def _backward(epsilon: float, kept: Any, cotangents: Any) -> tuple[Array | None, ...]:
    x, kernel, scale, y, out, mean, inverse, skipped = kept
    count = len(y)
    # At zero the ReLU has no derivative, as in PyTorch.
    passed = jnp.where(out > 0, cotangents[0], 0)
    of_bias = jnp.sum(passed, 0)
    of_scale = jnp.sum(passed * (y - mean), 0) * inverse
    # scale / deviation * (passed - mean(passed) - normalised y * mean(passed * normalised y))
    factor = scale * inverse
    slope = factor * inverse * of_scale / count
    of_y = passed * factor - y * slope + (mean * slope - factor * of_bias / count)
    return (
        of_y @ kernel.T,
        x.T @ of_y,
        jnp.zeros_like(of_bias),
        of_scale,
        of_bias,
        passed if skipped else None,
    )


dense_norm_relu.defvjp(_forward, _backward)
