"""Errors of bodies against ground truth, one number for each example, in the unit of the input.

Nothing here scales to millimetres or averages over examples: protocols do that, and name it.
"""

import jax.numpy as jnp

from jaxrecon.geometry.procrustes import similarity_align
from jaxrecon.typing import AnyArray, Array, Float


def mean_distance(a: Float[AnyArray, "*b n 3"], b: Float[AnyArray, "*b n 3"]) -> Float[Array, "*b"]:
    """Mean over points of |a - b|."""
    return jnp.mean(jnp.sqrt(jnp.sum((jnp.asarray(a) - b) ** 2, axis=-1)), axis=-1)


def mpjpe(pred: Float[AnyArray, "*b j 3"], gt: Float[AnyArray, "*b j 3"]) -> Float[Array, "*b"]:
    """Mean per-joint position error of joints that share their root already."""
    return mean_distance(pred, gt)


def pa_mpjpe(pred: Float[AnyArray, "*b j 3"], gt: Float[AnyArray, "*b j 3"]) -> Float[Array, "*b"]:
    """MPJPE after the best similarity (rotation, scale, translation), reflections excluded."""
    return mean_distance(similarity_align(pred, gt), gt)


def pve(pred: Float[AnyArray, "*b v 3"], gt: Float[AnyArray, "*b v 3"]) -> Float[Array, "*b"]:
    """Per-vertex error without any alignment, as this line of work reports it (spec 6.2)."""
    return mean_distance(pred, gt)


def keypoint_error(
    pred: Float[AnyArray, "*b j 2"],
    keypoints2d: Float[AnyArray, "*b j 3"],
    threshold: float = 0.0,
) -> Float[Array, "*b"]:
    """Mean pixel distance over keypoints with confidence above `threshold`; NaN if none has."""
    seen = keypoints2d[..., 2] > threshold
    distance = jnp.sqrt(jnp.sum((jnp.asarray(pred) - keypoints2d[..., :2]) ** 2, axis=-1))
    total = jnp.sum(jnp.where(seen, distance, 0.0), axis=-1)
    return total / jnp.where(jnp.any(seen, axis=-1), jnp.sum(seen, axis=-1), jnp.nan)
