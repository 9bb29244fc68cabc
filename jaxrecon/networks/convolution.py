"""Convolution as a bilinear operator that is fast on every backend, in every order of derivative.

Convolution, its input gradient and its weight gradient are three bilinear operators, and the
derivatives of each are the other two. Here each is a JAX primitive that says so. However deep
`jax.grad` and `jax.jvp` are nested, nothing but these three ever reaches the compiler, which
lowers them by platform: to XLA's own convolutions on GPU and TPU, on CPU to whatever is quick
there (`jaxrecon.networks.convolution_cpu`). Left to itself, XLA:CPU is slow at the gradients of
its convolution and hopeless at theirs.

A kernel for each sample (`jax.vmap` over kernels) becomes a batched matrix product of unfolded
images; XLA would make it a grouped convolution, several times slower.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxrecon.networks import convolution_cpu as cpu
from jaxrecon.typing import Array, Float

Implementation = Literal["auto", "lax", "matmul"]
Size = tuple[int, int]


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
        implementation: "auto" is the family of primitives described above; "lax" is XLA's own
            operator with JAX's derivatives; "matmul" is im2col and a matrix product.
    """
    if implementation == "lax":
        return _lax_convolution(x, kernel, stride, padding)
    if implementation == "matmul":
        return cpu.matmul_convolution(x, kernel, stride, padding)
    dtype = jnp.result_type(x, kernel)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    return _convolution.bind(x, kernel, stride=stride, padding=padding)


_convolution = Primitive("jaxrecon_convolution")
_input_gradient = Primitive("jaxrecon_convolution_input_gradient")
_weight_gradient = Primitive("jaxrecon_convolution_weight_gradient")


def _lax_convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _lax_input_gradient(g: Array, kernel: Array, stride: int, padding: int, size: Size) -> Array:
    x = jax.ShapeDtypeStruct((g.shape[0], *size, kernel.shape[2]), g.dtype)
    forward = functools.partial(_lax_convolution, kernel=kernel, stride=stride, padding=padding)
    return jax.linear_transpose(forward, x)(g)[0]


def _lax_weight_gradient(x: Array, g: Array, stride: int, padding: int, size: Size) -> Array:
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), g.dtype)
    forward = functools.partial(_lax_convolution, x, stride=stride, padding=padding)
    return jax.linear_transpose(forward, kernel)(g)[0]


def _cpu_convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    one_by_one = kernel.shape[:2] == (1, 1)
    compute = cpu.matmul_convolution if one_by_one else _lax_convolution
    return compute(x, kernel, stride, padding)


def _cpu_input_gradient(g: Array, kernel: Array, stride: int, padding: int, size: Size) -> Array:
    one_by_one = kernel.shape[:2] == (1, 1)
    compute = cpu.matmul_input_gradient if one_by_one else cpu.flipped_input_gradient
    return compute(g, kernel, stride, padding, size)


def _bind_convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _convolution.bind(x, kernel, stride=stride, padding=padding)


def _bind_input_gradient(g: Array, kernel: Array, stride: int, padding: int, size: Size) -> Array:
    return _input_gradient.bind(g, kernel, stride=stride, padding=padding, size=size)


def _bind_weight_gradient(x: Array, g: Array, stride: int, padding: int, size: Size) -> Array:
    return _weight_gradient.bind(x, g, stride=stride, padding=padding, size=size)


# Derivatives: the transpose in one operand, given the cotangent and the other operand. An
# operand to be transposed arrives as a placeholder that knows its shape.


def _transpose_to_image(g: Array, x: Any, kernel: Array, *, stride: int, padding: int) -> Array:
    return _bind_input_gradient(g, kernel, stride, padding, x.aval.shape[1:3])


def _transpose_to_kernel(g: Array, x: Array, kernel: Any, *, stride: int, padding: int) -> Array:
    return _bind_weight_gradient(x, g, stride, padding, kernel.aval.shape[:2])


def _input_gradient_transposes() -> tuple[Callable, Callable]:
    def to_gradient(x, g, kernel, *, stride, padding, size):
        return _bind_convolution(x, kernel, stride, padding)

    def to_kernel(x, g, kernel, *, stride, padding, size):
        return _bind_weight_gradient(x, g, stride, padding, kernel.aval.shape[:2])

    return to_gradient, to_kernel


def _weight_gradient_transposes() -> tuple[Callable, Callable]:
    def to_image(kernel, x, g, *, stride, padding, size):
        return _bind_input_gradient(g, kernel, stride, padding, x.aval.shape[1:3])

    def to_gradient(kernel, x, g, *, stride, padding, size):
        return _bind_convolution(x, kernel, stride, padding)

    return to_image, to_gradient


ad.defbilinear(_convolution, _transpose_to_image, _transpose_to_kernel)
ad.defbilinear(_input_gradient, *_input_gradient_transposes())
ad.defbilinear(_weight_gradient, *_weight_gradient_transposes())


def _fold(bind: Callable, matmul: Callable) -> Callable:
    """Batching rule where the first operand carries a batch and the second is a kernel."""

    def rule(operands: tuple[Array, Array], axes: tuple[Any, Any], **settings: Any) -> Any:
        first, kernel = operands
        if not isinstance(axes[1], int):
            first = batching.bdim_at_front(first, axes[0], first.shape[axes[0]])
            flat = bind(first.reshape(-1, *first.shape[2:]), kernel, **settings)
            return flat.reshape(*first.shape[:2], *flat.shape[1:]), 0
        compute = functools.partial(matmul, **settings)
        return jax.vmap(compute, in_axes=axes)(first, kernel), 0

    return rule


def _batch_weight_gradient(operands: Any, axes: Any, **settings: Any) -> Any:
    compute = functools.partial(cpu.weight_gradient, **settings)
    return jax.vmap(compute, in_axes=axes)(*operands), 0


batching.primitive_batchers[_convolution] = _fold(_bind_convolution, cpu.matmul_convolution)
batching.primitive_batchers[_input_gradient] = _fold(
    _bind_input_gradient, cpu.matmul_input_gradient
)
batching.primitive_batchers[_weight_gradient] = _batch_weight_gradient


def _register(primitive: Primitive, on_cpu: Callable, elsewhere: Callable) -> None:
    """Shapes, eager evaluation and lowering, all derived from what computes the operator."""

    @functools.partial(jax.jit, static_argnames=("stride", "padding", "size"))
    def eagerly(a: Array, b: Array, **settings: Any) -> Array:
        return primitive.bind(a, b, **settings)

    def shape(a: Any, b: Any, **settings: Any) -> Any:
        compute = functools.partial(elsewhere, **settings)
        structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in (a, b)]
        out = jax.eval_shape(compute, *structs)
        return a.update(shape=out.shape, dtype=out.dtype, weak_type=False)

    primitive.def_impl(eagerly)
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere, multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu"
    )


_register(_convolution, _cpu_convolution, _lax_convolution)
_register(_input_gradient, _cpu_input_gradient, _lax_input_gradient)
_register(_weight_gradient, cpu.weight_gradient, _lax_weight_gradient)
