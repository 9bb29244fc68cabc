"""Convolution as a bilinear operator that is fast on every backend, in every order of derivative.

`conv2d` is the door. On GPU and TPU it is `lax.conv_general_dilated`. XLA's CPU backend is slow
at the gradients of that operator and hopeless at their gradients, so on CPU a 1x1 convolution is
a matrix product and a k x k one gathers its windows (im2col) and multiplies.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxrecon.typing import Array, Float

Implementation = Literal["auto", "lax", "matmul"]


def conv2d(
    x: Float[Array, "batch height width cin"],
    kernel: Float[Array, "kh kw cin cout"],
    stride: int = 1,
    padding: int = 0,
    implementation: Implementation = "auto",
) -> Float[Array, "batch out_height out_width cout"]:
    """Cross-correlation of images with a kernel, `padding` zeros on every side.

    Args:
        x: Images, NHWC.
        kernel: HWIO.
        stride: The same for both axes.
        padding: Rows and columns of zeros added on each side.
        implementation: "lax" is XLA's own operator; "matmul" is im2col and a matrix product;
            "auto" takes "matmul" on CPU and "lax" elsewhere.
    """
    if implementation == "auto":
        implementation = "matmul" if jax.default_backend() == "cpu" else "lax"
    if implementation == "matmul":
        return _conv_matmul(x, kernel, stride, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_matmul(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    kh, kw, cin, cout = kernel.shape
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    columns = _windows(x, kh, kw, stride)
    return lax.dot_general(columns, kernel.reshape(kh * kw * cin, cout), (((3,), (0,)), ((), ())))


def _windows(x: Array, kh: int, kw: int, stride: int) -> Array:
    """The kh x kw windows of an already padded image, laid side by side in the last axis."""
    height = (x.shape[1] - kh) // stride + 1
    width = (x.shape[2] - kw) // stride + 1
    shifts = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(kh)
        for j in range(kw)
    ]
    return shifts[0] if len(shifts) == 1 else jnp.concatenate(shifts, axis=-1)
