"""How MHR-Net sees a shape, and the Human3.6M cameras of its data (spec 3.7, 7.3, 7.4)."""

from typing import Literal

import flax.struct
import jax.numpy as jnp
import numpy as np

from jaxrecon.systems.base import Leaf
from jaxrecon.typing import AnyArray, Array, Float

DISTANCE = 5.0  # depth of the root plane; units in which hip to head is about 1
NEAREST = 1.0
Projection = Literal["perspective", "orthographic"]
PROJECTIONS: tuple[Projection, ...] = ("perspective", "orthographic")


def turn(shapes: Float[AnyArray, "*b j 3"], rotation: Float[AnyArray, "*r 3 3"]) -> Array:
    """S R: rows are points, the matrix acts from the right; leading axes broadcast.

    A sum, for full precision on accelerators too.
    """
    shapes, rows = jnp.asarray(shapes), jnp.asarray(rotation)[..., None, :, :]
    x, y, z = (shapes[..., axis, None] * rows[..., axis, :] for axis in range(3))
    return x + y + z


def see(points: Float[AnyArray, "*b j 3"], projection: str) -> Float[Array, "*b j 2"]:
    """Image of root-relative points, without translation (spec 3.7).

    Where a point comes nearer than depth 1 its depth is held there, and has no derivative.
    """
    points = jnp.asarray(points)
    if projection == "orthographic":
        return points[..., :2]
    depth = DISTANCE + points[..., 2:]
    # Not `maximum`, which would halve the derivative on the boundary.
    return points[..., :2] / jnp.where(depth >= NEAREST, depth, NEAREST)


def lift(
    keypoints2d: Float[AnyArray, "*b j 2"],
    depth: Float[AnyArray, "*b j"],
    projection: str = "perspective",
) -> Float[Array, "*b j 3"]:
    """Observed 2D at a predicted root-relative depth, as 3D (spec 6.1, step 1)."""
    depth = jnp.asarray(depth)[..., None]
    keypoints2d = jnp.asarray(keypoints2d)
    scale = 1.0 if projection == "orthographic" else DISTANCE + depth
    return jnp.concatenate([keypoints2d * scale, depth], axis=-1)


def rotate_by_quaternion(
    q: Float[AnyArray, "*b 4"], v: Float[AnyArray, "*b 3"]
) -> Float[Array, "*b 3"]:
    """v turned by q = (w, x, y, z), which is not normalised here."""
    q, v = jnp.asarray(q), jnp.asarray(v)
    vector = q[..., 1:]
    first = jnp.cross(vector, v)
    return v + 2 * (q[..., :1] * first + jnp.cross(vector, first))


def inverse_quaternion(q: Float[AnyArray, "*b 4"]) -> Float[Array, "*b 4"]:
    """The conjugate."""
    return jnp.asarray(q) * jnp.array([1.0, -1.0, -1.0, -1.0])


def world_to_camera(
    points: Float[AnyArray, "*b 3"],
    orientation: Float[AnyArray, "4"],
    position: Float[AnyArray, "3"],
) -> Float[Array, "*b 3"]:
    """q^-1 (X - t); metres."""
    moved = jnp.asarray(points) - position
    return rotate_by_quaternion(_spread(inverse_quaternion(orientation), moved), moved)


def camera_to_world(
    points: Float[AnyArray, "*b 3"],
    orientation: Float[AnyArray, "4"],
    position: Float[AnyArray, "3"],
) -> Float[Array, "*b 3"]:
    """The inverse of `world_to_camera`."""
    points = jnp.asarray(points)
    return rotate_by_quaternion(_spread(jnp.asarray(orientation), points), points) + position


def _spread(q: Array, like: Array) -> Array:
    return jnp.broadcast_to(q, (*like.shape[:-1], 4))


def project_distorted(
    points: Float[AnyArray, "b j 3"], intrinsics: Float[AnyArray, "b 9"]
) -> Float[Array, "b j 2"]:
    """Pinhole with radial and tangential distortion, as Human3.6M's (spec 7.3).

    Args:
        points: camera frame, metres.
        intrinsics: fx, fy, cx, cy, k1, k2, k3, p1, p2.
    """
    focal, center, radial, tangential = _parts(intrinsics)
    xy = _plane(points)
    r2 = jnp.sum(xy * xy, axis=-1, keepdims=True)
    bend = jnp.sum(radial * jnp.concatenate([r2, r2**2, r2**3], axis=-1), -1, keepdims=True)
    tilt = jnp.sum(tangential * xy, axis=-1, keepdims=True)
    return focal * (xy * (1 + bend + tilt) + tangential * r2) + center


def project_linear(
    points: Float[AnyArray, "b j 3"], intrinsics: Float[AnyArray, "b 9"]
) -> Float[Array, "b j 2"]:
    """The same without distortion."""
    focal, center, _, _ = _parts(intrinsics)
    return focal * _plane(points) + center


def _plane(points: AnyArray) -> Array:
    points = jnp.asarray(points)
    return jnp.clip(points[..., :2] / points[..., 2:], -1.0, 1.0)


def _parts(intrinsics: AnyArray) -> tuple[Array, Array, Array, Array]:
    i = jnp.asarray(intrinsics)[:, None, :]
    return i[..., :2], i[..., 2:4], i[..., 4:7], i[..., 7:]


def normalise_screen(
    pixels: Float[AnyArray, "*b 2"], width: float, height: float
) -> Float[Array, "*b 2"]:
    """Pixels so that x spans [-1, 1] and the aspect ratio stays."""
    return jnp.asarray(pixels) / width * 2 - jnp.array([1.0, height / width])


def screen_to_pixels(
    points: Float[AnyArray, "*b 2"], width: float, height: float
) -> Float[Array, "*b 2"]:
    """The inverse of `normalise_screen`."""
    return (jnp.asarray(points) + jnp.array([1.0, height / width])) * width / 2


def split_depth(
    points: Float[AnyArray, "*b 3"], projection: str, nearest: float = 0.1
) -> tuple[Float[Array, "*b 2"], Float[Array, "*b 1"]]:
    """Image of points in a plain camera of focal length one, and their depth.

    In perspective no depth is below `nearest`.
    """
    points = jnp.asarray(points)
    xy, depth = points[..., :2], points[..., 2:]
    if projection == "orthographic":
        return xy, depth
    depth = jnp.maximum(depth, nearest)
    return xy / depth, depth


def join_depth(
    image: Float[AnyArray, "*b 2"],
    depth: Float[AnyArray, "*b 1"],
    projection: str,
    rescale: float = 1.0,
) -> Float[Array, "*b 3"]:
    """The inverse of `split_depth`, at `depth / rescale`."""
    depth = jnp.asarray(depth) / rescale
    xy = jnp.asarray(image) * (1.0 if projection == "orthographic" else depth)
    return jnp.concatenate([xy, depth], axis=-1)


@flax.struct.dataclass
class RadialProjection:
    """Pixels (N, 2), depth and the factors of the distortion (N,)."""

    pixels: Leaf  # (n, 2)
    depth: Leaf  # (n)
    radial: Leaf  # (n)
    tangential: Leaf  # (n)
    r2: Leaf  # (n)


def project_radial(
    points: Float[AnyArray, "n 3"],
    rotation: Float[AnyArray, "3 3"],
    position: Float[AnyArray, "3"],
    focal: Float[AnyArray, "2"],
    center: Float[AnyArray, "2"],
    radial: Float[AnyArray, "3"],
    tangential: Float[AnyArray, "2"],
) -> RadialProjection:
    """Human3.6M's own projection: world to pixels, with p1 belonging to y and p2 to x."""
    moved = jnp.asarray(points) - position
    camera = jnp.sum(jnp.asarray(rotation) * moved[:, None, :], axis=-1)
    xy = camera[:, :2] / camera[:, 2:]
    r2 = jnp.sum(xy * xy, axis=-1)
    k, p = jnp.asarray(radial), jnp.asarray(tangential)[::-1]
    bend = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3
    tilt = jnp.sum(xy * p, axis=-1)
    bent = xy * (bend + tilt)[:, None] + r2[:, None] * p
    pixels = jnp.asarray(focal) * bent + jnp.asarray(center)
    return RadialProjection(pixels, camera[:, 2], bend, tilt, r2)


def euler_degrees(matrix: Float[AnyArray, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """Angles about x, y, z in degrees of R = Rz Ry Rx."""
    m = jnp.asarray(matrix)
    level = jnp.sqrt(m[..., 0, 0] ** 2 + m[..., 1, 0] ** 2)
    angles = [
        jnp.arctan2(m[..., 2, 1], m[..., 2, 2]),
        jnp.arctan2(-m[..., 2, 0], level),
        jnp.arctan2(m[..., 1, 0], m[..., 0, 0]),
    ]
    return jnp.stack(angles, axis=-1) * np.float32(180.0 / np.pi)
