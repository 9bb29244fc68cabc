"""Losses of MHR-Net (spec mhr_net, section 4). Norms have a zero derivative at zero."""

import flax.struct
import jax.numpy as jnp
from jax import lax

from jaxrecon.geometry.procrustes import nearest_orthogonal
from jaxrecon.systems.base import Leaf
from jaxrecon.typing import AnyArray, Array, Float, Int


def safe_norm(x: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Euclidean norm; at zero its derivative is 0, as in PyTorch."""
    square = jnp.sum(x * x, axis=axis)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def mean_point_distance(
    a: Float[AnyArray, "b j c"],
    b: Float[AnyArray, "b j c"],
    visible: Float[AnyArray, "b j"] | None = None,
) -> Float[Array, ""]:
    """Mean over batch and points of |a - b| ("mpd" of the spec), over the visible points only."""
    distance = safe_norm(jnp.asarray(a) - b)
    if visible is None:
        return jnp.mean(distance)
    total = jnp.sum(visible)
    return jnp.sum(distance * visible) / jnp.where(total > 0, total, 1.0)


@flax.struct.dataclass
class Pairs:
    """What the Procrustean loss found out about its n pairs of shapes.

    `rotation` is O with O S_j^T nearest to S_i^T; `values` the singular values of S_j^T S_i.
    """

    rotation: Leaf  # (n, 3, 3)
    values: Leaf  # (n, 3)
    before: Leaf  # (n)
    after: Leaf  # (n)
    ratio: Leaf  # (n)
    selected: Leaf  # (n)


def procrustean_residual(
    shapes: Float[AnyArray, "b j 3"],
    permutation: Int[AnyArray, "b"],
    pairs: int,
    margin: float | Float[AnyArray, ""],
) -> tuple[Float[Array, ""], Pairs | None]:
    """Pushes pairs that agree up to an orthogonal transform to agree without it (4.3).

    Returns:
        the loss, not weighted; zero and None where the batch has less than two for each pair.
    """
    shapes = jnp.asarray(shapes)
    if 2 * pairs > len(shapes):
        return jnp.zeros((), shapes.dtype), None
    first = shapes[permutation[:pairs]]
    second = shapes[permutation[pairs : 2 * pairs]]
    covariance = jnp.einsum("nja,njb->nab", second, first, precision=lax.Precision.HIGHEST)
    # A = S_j^T S_i = U diag(s) V^T; the spec's O is V U^T, and S_j' = S_j U V^T.
    nearest, values = nearest_orthogonal(lax.stop_gradient(covariance))
    aligned = jnp.einsum("nja,nab->njb", second, nearest, precision=lax.Precision.HIGHEST)
    before = safe_norm(first - second, (-2, -1))
    after = safe_norm(first - aligned, (-2, -1))
    size = lax.stop_gradient(safe_norm(second, (-2, -1)))
    ratio = lax.stop_gradient(after) / jnp.where(size > 0, size, 1.0)
    selected = (ratio < margin).astype(shapes.dtype)
    count = jnp.sum(selected)
    loss = jnp.sum(selected * (before - after)) / jnp.where(count > 0, count, 1.0)
    return loss, Pairs(jnp.swapaxes(nearest, -1, -2), values, before, after, ratio, selected)


def normalised_reprojection(
    pred: Float[AnyArray, "b j c"], target: Float[AnyArray, "b j c"]
) -> Float[Array, ""]:
    """Mean over the batch of |pred - target| / |target| in the Frobenius norm (4.5)."""
    size = safe_norm(jnp.asarray(target), (-2, -1))
    return jnp.mean(safe_norm(jnp.asarray(pred) - target, (-2, -1)) / size)


def shape_consistency(
    shapes: Float[AnyArray, "b k j 3"], target: Float[AnyArray, "b j 3"]
) -> Float[Array, ""]:
    """Mean point distance of K shapes of each sample from the one they should all be (4.5)."""
    return jnp.mean(safe_norm(jnp.asarray(shapes) - jnp.asarray(target)[:, None]))


def mean_l1(a: Float[AnyArray, "*b c"], b: Float[AnyArray, "*b c"]) -> Float[Array, ""]:
    """Mean absolute difference (4.5); its derivative at zero is zero, which JAX's is not."""
    difference = jnp.asarray(a) - b
    return jnp.mean(difference * lax.stop_gradient(jnp.sign(difference)))


def depth_distance(
    depth: Float[AnyArray, "b j"], target: Float[AnyArray, "b j"]
) -> Float[Array, ""]:
    """Mean absolute difference after each frame's mean depth is taken out."""
    difference = jnp.asarray(depth) - target
    return mean_l1(difference - jnp.mean(difference, -1, keepdims=True), jnp.zeros_like(difference))
