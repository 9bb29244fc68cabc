"""Rotations in five notations, each batched over leading axes, with gradients that stay finite.

Matrices are row-major and act on column vectors. Quaternions are (w, x, y, z). Angles are in
radians. The 6D form is the one of Zhou et al. 2019 in the memory order of the SPIN family: the
six numbers are a 3x2 matrix row by row, so its columns are (x0, x2, x4) and (x1, x3, x5).
"""

import jax.numpy as jnp

from jaxrecon.typing import AnyArray, Array, Float

# Below this length a direction carries no information in float32.
_TINY = 1e-12


def _normalise(x: Array) -> Array:
    """x over max(|x|, 1e-12) along the last axis, with a zero gradient of the norm at x = 0."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    safe = jnp.where(square > _TINY**2, square, 1.0)
    return x / jnp.where(square > _TINY**2, jnp.sqrt(safe), _TINY)


def rot6d_to_matrix(x: Float[AnyArray, "*b 6"]) -> Float[Array, "*b 3 3"]:
    """6D to rotation matrix by Gram-Schmidt (Zhou et al. 2019, eq. 15; spec meta_hmr 3.5)."""
    columns = jnp.reshape(jnp.asarray(x), (*x.shape[:-1], 3, 2))
    a1, a2 = columns[..., 0], columns[..., 1]
    b1 = _normalise(a1)
    b2 = _normalise(a2 - jnp.sum(b1 * a2, axis=-1, keepdims=True) * b1)
    b3 = jnp.cross(b1, b2, axis=-1)
    return jnp.stack([b1, b2, b3], axis=-1)


def matrix_to_rot6d(matrix: Float[AnyArray, "*b 3 3"]) -> Float[Array, "*b 6"]:
    """The first two columns, row by row: the inverse of `rot6d_to_matrix`."""
    return jnp.reshape(jnp.asarray(matrix)[..., :2], (*matrix.shape[:-2], 6))


def skew(v: Float[AnyArray, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """The matrix K with K w = v x w."""
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = jnp.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return jnp.reshape(jnp.stack(rows, axis=-1), (*v.shape[:-1], 3, 3))


def _angle(theta: Array) -> Array:
    """|theta + 1e-8|, (..., 1): the published guard against a zero angle, kept for parity."""
    shifted = theta + 1e-8
    square = jnp.sum(shifted * shifted, axis=-1, keepdims=True)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 1e-8)


def axis_angle_to_matrix(theta: Float[AnyArray, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rodrigues' formula I + sin(a) K + (1 - cos(a)) K^2 (SMPL's own; spec meta_hmr 3.1)."""
    theta = jnp.asarray(theta)
    angle = _angle(theta)
    k = skew(theta / angle)
    sin, cos = jnp.sin(angle)[..., None], jnp.cos(angle)[..., None]
    return jnp.eye(3, dtype=theta.dtype) + sin * k + (1.0 - cos) * (k @ k)


def axis_angle_to_quaternion(theta: Float[AnyArray, "*b 3"]) -> Float[Array, "*b 4"]:
    """(cos a/2, sin(a/2) theta/a), the angle guarded as in `axis_angle_to_matrix`."""
    theta = jnp.asarray(theta)
    angle = _angle(theta)
    half = 0.5 * angle
    return jnp.concatenate([jnp.cos(half), jnp.sin(half) * theta / angle], axis=-1)


def quaternion_to_matrix(q: Float[AnyArray, "*b 4"]) -> Float[Array, "*b 3 3"]:
    """Rotation of the normalised quaternion."""
    w, x, y, z = jnp.moveaxis(_normalise(jnp.asarray(q)), -1, 0)
    rows = [
        w * w + x * x - y * y - z * z,
        2 * (x * y - w * z),
        2 * (w * y + x * z),
        2 * (w * z + x * y),
        w * w - x * x + y * y - z * z,
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (w * x + y * z),
        w * w - x * x - y * y + z * z,
    ]
    return jnp.reshape(jnp.stack(rows, axis=-1), (*q.shape[:-1], 3, 3))


def matrix_to_quaternion(matrix: Float[AnyArray, "*b 3 3"]) -> Float[Array, "*b 4"]:
    """Unit quaternion with w >= 0.

    Each of the four components is recovered from the largest one, so nothing is divided by a
    small number and the gradient is finite at every rotation (Shepperd 1978).
    """
    m = jnp.asarray(matrix)
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = jnp.stack(
        [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22],
        axis=-1,
    )
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    w2, x2, y2, z2 = jnp.moveaxis(squares, -1, 0)
    candidates = jnp.stack(
        [
            jnp.stack([w2, wx, wy, wz], axis=-1),
            jnp.stack([wx, x2, xy, xz], axis=-1),
            jnp.stack([wy, xy, y2, yz], axis=-1),
            jnp.stack([wz, xz, yz, z2], axis=-1),
        ],
        axis=-2,
    )
    best = jnp.argmax(squares, axis=-1)
    q = jnp.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    q = _normalise(q)
    return jnp.where(q[..., :1] < 0, -q, q)


def quaternion_to_axis_angle(q: Float[AnyArray, "*b 4"]) -> Float[Array, "*b 3"]:
    """Rotation vector of length at most pi."""
    q = _normalise(jnp.asarray(q))
    q = jnp.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    square = jnp.sum(v * v, axis=-1, keepdims=True)
    small = square < 1e-12
    sin = jnp.sqrt(jnp.where(small, 1.0, square))
    # For a small angle a, a / sin(a/2) tends to 2.
    factor = jnp.where(small, 2.0, 2.0 * jnp.arctan2(sin, w) / sin)
    return factor * v


def matrix_to_axis_angle(matrix: Float[AnyArray, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """Rotation vector of length at most pi."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def axis_rotation(axis: str, angle: Float[AnyArray, "*b"]) -> Float[Array, "*b 3 3"]:
    """Rotation by `angle` about the coordinate axis "x", "y" or "z"."""
    index = "xyz".index(axis)
    vector = jnp.zeros(3).at[index].set(1.0)
    angle = jnp.asarray(angle)[..., None, None]
    k = skew(vector)
    return jnp.eye(3) + jnp.sin(angle) * k + (1.0 - jnp.cos(angle)) * (k @ k)


def euler_to_matrix(angles: Float[AnyArray, "*b 3"], order: str = "xyz") -> Float[Array, "*b 3 3"]:
    """R = R_order[0](a0) R_order[1](a1) R_order[2](a2), intrinsic rotations."""
    first, second, third = (axis_rotation(o, angles[..., i]) for i, o in enumerate(order))
    return first @ second @ third


def geodesic_distance(
    a: Float[AnyArray, "*b 3 3"], b: Float[AnyArray, "*b 3 3"]
) -> Float[Array, "*b"]:
    """Angle of a^T b, in [0, pi], by atan2: accurate and differentiable near 0."""
    relative = jnp.swapaxes(a, -1, -2) @ b
    q = matrix_to_quaternion(relative)
    square = jnp.sum(q[..., 1:] ** 2, axis=-1)
    sin = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return 2.0 * jnp.arctan2(sin, q[..., 0])


def global_orientation(
    root: Float[AnyArray, "3"],
    body_yaw: float,
    camera_pitch: float,
    camera_yaw: float,
    camera_roll: float,
) -> tuple[Array, Array, Array]:
    """Root orientation in the world and in the camera (spec meta_hmr 3.2).

    Angles in degrees. World = R_y(body_yaw - 90 + camera_yaw) diag(1, -1, -1) R(root); camera
    rotation E = R_z(roll) R_x(pitch).

    Returns:
        axis-angle in the world (3,), axis-angle in the camera (3,), E (3, 3).
    """
    degrees = jnp.deg2rad(jnp.asarray([body_yaw - 90 + camera_yaw, camera_pitch, camera_roll]))
    flip = jnp.diag(jnp.asarray([1.0, -1.0, -1.0]))
    world = axis_rotation("y", degrees[0]) @ flip @ axis_angle_to_matrix(root)
    extrinsic = axis_rotation("z", degrees[2]) @ axis_rotation("x", degrees[1])
    return matrix_to_axis_angle(world), matrix_to_axis_angle(extrinsic @ world), extrinsic
