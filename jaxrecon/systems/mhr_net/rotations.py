"""The published exponential map, whose guard makes it not quite orthonormal (spec 3.5, quirk 1)."""

import jax.numpy as jnp
import numpy as np

from jaxrecon.geometry.rotations import skew
from jaxrecon.typing import AnyArray, Array, Float

GUARD = 1e-4  # added to the angle where it divides
FULL_TURN_HALF = 3.1415926  # upper end of the random angles, as published


def exponential(vector: Float[AnyArray, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """exp([w]x) with 1 / (angle + 1e-4) for 1 / angle; its derivative is finite at w = 0.

    Args:
        vector: axis times angle, radians.
    """
    vector = jnp.asarray(vector)
    square = jnp.sum(vector * vector, axis=-1)[..., None, None]
    turned = square > 0
    angle = jnp.where(turned, jnp.sqrt(jnp.where(turned, square, 1.0)), 0.0)
    inverse = 1.0 / (angle + GUARD)
    k = skew(vector)
    second = jnp.square(inverse) * (1.0 - jnp.cos(angle))
    eye = jnp.eye(3, dtype=vector.dtype)
    # [w]x [w]x = w w^T - |w|^2 I: no product of matrices, full precision on accelerators too.
    twice = vector[..., :, None] * vector[..., None, :] - square * eye
    return eye + inverse * jnp.sin(angle) * k + second * twice


def rotation_vectors(
    axis: Float[AnyArray, "*b 3"], angle: Float[AnyArray, "*b"]
) -> Float[Array, "*b 3"]:
    """Axis (of any length) and angle as one vector; a zero axis stays zero."""
    axis = jnp.asarray(axis)
    length = jnp.maximum(jnp.linalg.norm(axis, axis=-1, keepdims=True), 1e-12)
    return axis / length * jnp.asarray(angle)[..., None]


def opposite_rotations(
    axis: Float[AnyArray, "*b 3"], angle: Float[AnyArray, "*b"]
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3 3"]]:
    """A turn by `angle`, and the one by 2 pi - angle that brings (almost) back."""
    angle = jnp.asarray(angle)
    back = np.float32(2 * np.pi) - angle
    return (
        exponential(rotation_vectors(axis, angle)),
        exponential(rotation_vectors(axis, back)),
    )
