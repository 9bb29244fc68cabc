"""Gradient steps that can be differentiated through: the inner loop of meta-learning.

An SGD step theta' = theta - lr * grad L(theta, phi) sits inside an outer loss, whose gradient
needs a product with the second derivatives of L (Finn et al. 2017, MAML). Three orders:

- "first": the inner gradient counts as a constant (first-order MAML).
- "second": exact, by differentiating the inner gradient as it stands.
- "second_fast": exact as well. With the cotangent v of the inner gradient, the scalar
  s = jvp(L(., phi), theta, v) has as its gradient in (theta, phi) the Hessian-vector product
  and the cross product at once, so no gradient operator is ever transposed (Pearlmutter 1994).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrecon.typing import Array

Order = Literal["first", "second", "second_fast"]
LossFn = Callable[..., Any]

_UNROLLED_STEPS = 2


class StepAux(NamedTuple):
    """What a step saw before it moved: the loss, and what the loss function returned beside."""

    loss: Array
    metrics: Any


def sgd_step(
    loss_fn: LossFn,
    params: Any,
    *args: Any,
    lr: float | Array,
    order: Order = "second_fast",
    has_aux: bool = False,
) -> tuple[Any, StepAux]:
    """One step of gradient descent on `params`, differentiable as `order` says.

    All orders give the same values and differ in what an outer gradient sees.

    Args:
        loss_fn: `loss_fn(params, *args)` gives a scalar, or (scalar, metrics) with `has_aux`.
            Values that it closes over are differentiated like arguments.
        params: Pytree of floating-point arrays.
        args: Pytrees; integers, masks and random keys among them are constants.
        lr: Step size; may be traced and differentiated.

    Returns:
        (new params, StepAux).
    """
    loss_and_grad = _ORDERS[order](_with_aux(loss_fn, has_aux))
    aux, grads = loss_and_grad(params, *args)
    return jax.tree.map(lambda p, g: p - (lr * g).astype(p.dtype), params, grads), aux


def adapt(
    loss_fn: LossFn,
    params: Any,
    args: tuple[Any, ...] = (),
    *,
    steps: int,
    lr: float | Array,
    order: Order = "second_fast",
    has_aux: bool = False,
    step_args: tuple[Any, ...] = (),
) -> tuple[Any, StepAux]:
    """Several steps of `sgd_step` on the same arguments.

    Args:
        steps: Number of steps; up to two are unrolled, more are one `lax.scan`.
        step_args: Pytrees whose leaves have a leading axis of length `steps`; step i gives
            `loss_fn(params, *args, *(entry i of each))`. For random keys, say.

    Returns:
        (new params, StepAux with a leading axis of length `steps`).
    """

    def step(params: Any, extra: tuple[Any, ...]) -> tuple[Any, StepAux]:
        return sgd_step(loss_fn, params, *args, *extra, lr=lr, order=order, has_aux=has_aux)

    if steps < 1:
        raise ValueError(f"steps is {steps}; at least one is needed")
    if steps > _UNROLLED_STEPS:
        return lax.scan(step, params, step_args, length=steps)
    history = []
    for i in range(steps):
        params, aux = step(params, jax.tree.map(lambda leaf, i=i: leaf[i], step_args))
        history.append(aux)
    return params, jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)


def _with_aux(loss_fn: LossFn, has_aux: bool) -> Callable[..., tuple[Array, StepAux]]:
    """The loss function as one that returns (loss, StepAux)."""

    def run(params: Any, *args: Any) -> tuple[Array, StepAux]:
        loss, metrics = loss_fn(params, *args) if has_aux else (loss_fn(params, *args), None)
        return loss, StepAux(loss, metrics)

    return run


def _second(loss_fn: Callable[..., tuple[Array, StepAux]]) -> Callable[..., tuple[StepAux, Any]]:
    def run(params: Any, *args: Any) -> tuple[StepAux, Any]:
        (_, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, *args)
        return aux, grads

    return run


def _first(loss_fn: Callable[..., tuple[Array, StepAux]]) -> Callable[..., tuple[StepAux, Any]]:
    def run(params: Any, *args: Any) -> tuple[StepAux, Any]:
        aux, grads = _second(loss_fn)(params, *args)
        return aux, lax.stop_gradient(grads)

    return run


def _second_fast(
    loss_fn: Callable[..., tuple[Array, StepAux]],
) -> Callable[..., tuple[StepAux, Any]]:
    """`_second` with a derivative rule that reverses one tangent of the loss."""

    def run(params: Any, *args: Any) -> tuple[StepAux, Any]:
        # What the loss closes over must become an argument, or the rule would not see it.
        converted, consts = jax.closure_convert(loss_fn, params, *args)
        leaves, tree = jax.tree.flatten((args, consts))
        smooth = [_is_smooth(leaf) for leaf in leaves]

        def loss(params: Any, moving: list[Any], fixed: list[Any]) -> tuple[Array, StepAux]:
            sources = {True: iter(moving), False: iter(fixed)}
            args, consts = jax.tree.unflatten(tree, [next(sources[s]) for s in smooth])
            return converted(params, *args, *consts)

        moving = [leaf for leaf, s in zip(leaves, smooth) if s]
        fixed = [leaf for leaf, s in zip(leaves, smooth) if not s]
        return _reverse_of_tangent(loss)(params, moving, fixed)

    return run


def _reverse_of_tangent(loss: Callable[..., tuple[Array, StepAux]]) -> Callable[..., Any]:
    @jax.custom_vjp
    def loss_and_grad(params: Any, moving: Any, fixed: Any) -> tuple[StepAux, Any]:
        return _second(loss)(params, moving, fixed)

    def forward(params: Any, moving: Any, fixed: Any) -> tuple[tuple[StepAux, Any], Any]:
        return loss_and_grad(params, moving, fixed), (params, moving, fixed)

    def backward(inputs: Any, cotangents: tuple[StepAux, Any]) -> tuple[Any, Any, None]:
        params, moving, fixed = inputs
        aux_cotangent, direction = cotangents

        def scalar(params: Any, moving: Any) -> Array:
            _, tangent, aux = jax.jvp(
                lambda p: loss(p, moving, fixed), (params,), (direction,), has_aux=True
            )
            return tangent + _inner_product(aux_cotangent, aux)

        return *jax.grad(scalar, argnums=(0, 1))(params, moving), None

    loss_and_grad.defvjp(forward, backward)
    return loss_and_grad


def _inner_product(cotangent: Any, value: Any) -> Array:
    pairs = zip(jax.tree.leaves(cotangent), jax.tree.leaves(value))
    return sum((jnp.vdot(c, v) for c, v in pairs if _is_smooth(v)), jnp.zeros(()))


def _is_smooth(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


_ORDERS: dict[str, Callable[..., Callable[..., tuple[StepAux, Any]]]] = {
    "first": _first,
    "second": _second,
    "second_fast": _second_fast,
}
