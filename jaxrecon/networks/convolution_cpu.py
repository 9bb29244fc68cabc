"""The arithmetic of convolution, its two gradients, and what XLA's CPU backend is quick at.

Measured on two cores with jaxlib 0.10.2 (Zen 3, per core and second): XLA's convolution runs at
the speed of PyTorch's (80 GFLOP), forward and as an input gradient. Its weight gradient treats
the image as a kernel of 64x48 taps, at 5 to 50 GFLOP; here it is matrix products of 40 to 70.
"""

import jax.numpy as jnp
from jax import lax

from jaxrecon.typing import Array

# Products that contract more rows than this are left to Eigen, which reads both operands by
# columns; below, a transposed copy of the smaller one is cheap and XLA's own kernel is faster.
_MANY_ROWS = 16384
# Images with fewer channels are unfolded with their columns contiguous.
_FEW_CHANNELS = 16


def matmul_convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Convolution as im2col and one matrix product; under `vmap` over kernels a batched one."""
    kh, kw, cin, cout = kernel.shape
    windows = _windows(_pad(x, padding), kh, kw, stride)
    columns = windows[0] if len(windows) == 1 else jnp.concatenate(windows, axis=-1)
    return _product(columns, kernel.reshape(kh * kw * cin, cout))


def matmul_input_gradient(
    g: Array, kernel: Array, stride: int, padding: int, size: tuple[int, int]
) -> Array:
    """The gradient of `matmul_convolution` in its image of the given (height, width)."""
    kh, kw, cin, cout = kernel.shape
    columns = _product(g, kernel.reshape(kh * kw * cin, cout).T)
    total = None
    for i in range(kh):
        for j in range(kw):
            tap = i * kw + j
            part = columns[..., tap * cin : (tap + 1) * cin]
            placed = lax.pad(
                part,
                jnp.zeros((), part.dtype),
                (
                    (0, 0, 0),
                    _placement(i - padding, stride, g.shape[1], size[0]),
                    _placement(j - padding, stride, g.shape[2], size[1]),
                    (0, 0, 0),
                ),
            )
            total = placed if total is None else total + placed
    assert total is not None
    return total


def flipped_input_gradient(
    g: Array, kernel: Array, stride: int, padding: int, size: tuple[int, int]
) -> Array:
    """The same as a convolution of the spread-out gradient with the kernel turned around.

    JAX's own transpose swaps the kernel's axes by name only. Inside a loop XLA leaves it at that,
    finds no fast convolution for such a kernel, and takes twenty times as long.
    """
    turned = jnp.swapaxes(lax.rev(kernel, (0, 1)), 2, 3)
    edges = []
    for taps, count, wanted in zip(kernel.shape[:2], g.shape[1:3], size, strict=True):
        low = taps - 1 - padding
        spread = stride * (count - 1) + 1
        edges.append((low, wanted - spread - low + taps - 1))
    return lax.conv_general_dilated(
        g,
        turned,
        window_strides=(1, 1),
        padding=edges,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def weight_gradient(x: Array, g: Array, stride: int, padding: int, size: tuple[int, int]) -> Array:
    """The gradient of a convolution in its kernel of the given (kh, kw), as matrix products."""
    if size == (1, 1):
        seen = _windows(_pad(x, padding), 1, 1, stride)[0]
        product = _contract_rows(_rows(seen), _rows(g), transpose=stride == 1)
        return product.reshape(1, 1, x.shape[-1], g.shape[-1])
    if x.shape[-1] < _FEW_CHANNELS:
        return _weight_gradient_of_few_channels(x, g, stride, padding, size)
    return _weight_gradient_by_rows(x, g, stride, padding, size)


def _weight_gradient_of_few_channels(
    x: Array, g: Array, stride: int, padding: int, size: tuple[int, int]
) -> Array:
    """im2col with the pixels innermost: windows of three channels would be copied in crumbs."""
    kh, kw = size
    planes = jnp.transpose(_pad(x, padding), (3, 0, 1, 2))
    height, width = g.shape[1:3]
    columns = jnp.stack(
        [
            _strided(_strided(planes, 2, i, height, stride), 3, j, width, stride)
            for i in range(kh)
            for j in range(kw)
        ]
    )
    rows = columns.reshape(kh * kw * x.shape[-1], -1)
    return _product(rows, _rows(g)).reshape(kh, kw, x.shape[-1], g.shape[-1])


def _weight_gradient_by_rows(
    x: Array, g: Array, stride: int, padding: int, size: tuple[int, int]
) -> Array:
    """Unfold the image along its width and the gradient along its height.

    Kernel row i meets image row stride * h + i - padding where the gradient has row h. So the
    image unfolded only in width (kw copies), times the gradient shifted by each i (kh copies),
    gives all taps in one product without waste, where im2col would copy the image kh * kw
    times. Image rows that a kernel row never meets (stride 2) are left out: the product splits
    by the remainder of i - padding.
    """
    kh, kw = size
    width = g.shape[2]
    padded = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (0, 0)))
    unfolded = jnp.concatenate([_strided(padded, 2, j, width, stride) for j in range(kw)], axis=-1)
    taps: dict[int, Array] = {}
    for remainder in range(stride):
        rows = [i for i in range(kh) if (i - padding) % stride == remainder]
        if not rows:
            continue
        image = unfolded[:, remainder::stride]
        shifted = [
            _shift_rows(g, (i - padding - remainder) // stride, image.shape[1]) for i in rows
        ]
        product = _contract_rows(_rows(image), _rows(jnp.concatenate(shifted, axis=-1)))
        product = product.reshape(kw, x.shape[-1], len(rows), g.shape[-1])
        taps |= {i: product[:, :, n] for n, i in enumerate(rows)}
    return jnp.stack([taps[i] for i in range(kh)])


def _contract_rows(a: Array, b: Array, transpose: bool = True) -> Array:
    """a^T b for tall matrices: (n, k), (n, m) -> (k, m), the smaller one on the left.

    With `transpose` a transposed copy of it may be made. Not worth it for a strided view: XLA
    would fuse what makes the image with the copy and compute it column by column.
    """
    rows, (k, m) = a.shape[0], (a.shape[1], b.shape[1])
    if k > m:
        # The barrier keeps XLA from turning the product around again.
        return lax.optimization_barrier(_contract_rows(b, a, transpose)).T
    if rows >= _MANY_ROWS or not transpose:
        return lax.dot_general(a, b, (((0,), (0,)), ((), ())))
    return _product(lax.optimization_barrier(a.T), b)


def _product(a: Array, b: Array) -> Array:
    return lax.dot_general(a, b, (((a.ndim - 1,), (0,)), ((), ())))


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _pad(x: Array, padding: int) -> Array:
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))) if padding else x


def _windows(padded: Array, kh: int, kw: int, stride: int) -> list[Array]:
    """For each tap of a kernel, what it sees of an already padded image."""
    height = (padded.shape[1] - kh) // stride + 1
    width = (padded.shape[2] - kw) // stride + 1
    return [
        _strided(_strided(padded, 1, i, height, stride), 2, j, width, stride)
        for i in range(kh)
        for j in range(kw)
    ]


def _strided(x: Array, axis: int, start: int, count: int, stride: int) -> Array:
    return lax.slice_in_dim(x, start, start + stride * (count - 1) + 1, stride, axis)


def _placement(start: int, stride: int, count: int, size: int) -> tuple[int, int, int]:
    """Padding of `lax.pad` that puts value n at start + stride * n of an axis of given size."""
    return start, size - (start + stride * (count - 1) + 1), stride - 1


def _shift_rows(g: Array, shift: int, count: int) -> Array:
    """Row n of the result is row n - shift of `g`, or zero; `count` rows in all."""
    edges = ((0, 0, 0), _placement(shift, 1, g.shape[1], count), (0, 0, 0), (0, 0, 0))
    return lax.pad(g, jnp.zeros((), g.dtype), edges)
