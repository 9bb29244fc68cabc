"""Pictures of 2D and 3D skeletons and point clouds, on a plain ground."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from jaxrecon.rendering.drawing import draw_keypoints
from jaxrecon.typing import AnyArray, Float

_GROUND = (246, 247, 249)
_MARGIN = 0.12
# Side by side: what the camera sees, from the right, from above.
VIEWS = {"front": 0.0, "three quarters": 50.0, "side": 90.0}


def draw_points2d(
    points: Float[AnyArray, "j c"],
    names: Sequence[str],
    bones: Sequence[tuple[int, int]],
    size: int = 240,
    reach: float | None = None,
    visible: Float[AnyArray, "j"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """One skeleton, x right and y down, the middle of the picture being the origin.

    Args:
      reach: the coordinate at the edge; by default all points have room.
      visible: those at 0 are left out.
    """
    points = np.asarray(points, np.float32)[:, :2]
    shown = np.ones(len(points)) if visible is None else np.asarray(visible)
    if reach is None:
        known = points[shown > 0]
        middle = (known.min(0) + known.max(0)) / 2
        points = points - middle
        reach = float(np.abs(known - middle).max()) * (1 + 2 * _MARGIN) + 1e-9
    pixels = size / 2 * (1 + points / reach)
    canvas = np.full((size, size, 3), _GROUND, np.uint8)
    confident = np.concatenate([pixels, shown[:, None]], axis=1).astype(np.float32)
    return draw_keypoints(canvas, confident, names, list(bones), opacity=1.0)


def turned(points: Float[AnyArray, "*b j 3"], degrees: float) -> Float[np.ndarray, "*b j 3"]:
    """Points turned about the vertical of the image (y) through their middle."""
    given = np.asarray(points, np.float32)
    points = given - given.mean(-2, keepdims=True)
    angle = np.deg2rad(degrees)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y, z = (points[..., axis] for axis in range(3))
    return np.stack([cos * x - sin * z, y, sin * x + cos * z], axis=-1)


def draw_points3d(
    points: Float[AnyArray, "j 3"],
    names: Sequence[str],
    bones: Sequence[tuple[int, int]],
    degrees: float = 0.0,
    size: int = 240,
    reach: float | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A skeleton seen without perspective, turned about the vertical."""
    return draw_points2d(turned(points, degrees), names, bones, size, reach)


def turntable_of_points(
    shapes: Float[AnyArray, "n j 3"],
    names: Sequence[str],
    bones: Sequence[tuple[int, int]],
    frames: int = 24,
    size: int = 240,
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Shapes beside each other, turning once round."""
    middled = turned(shapes, 0.0)
    reach = float(np.sqrt((middled**2).sum(-1)).max()) * (1 + _MARGIN) + 1e-9
    return [
        np.concatenate(
            [draw_points3d(s, names, bones, 360.0 * i / frames, size, reach) for s in middled], 1
        )
        for i in range(frames)
    ]


def skeleton_mesh(
    points: Float[AnyArray, "*t j 3"],
    bones: Sequence[tuple[int, int]],
    radius: float | None = None,
) -> tuple[Float[np.ndarray, "*t v 3"], Int[np.ndarray, "f 3"]]:
    """Points as octahedra and bones as double cones of four sides, for viewers and mesh files.

    Args:
      points: one skeleton or one for each step of time; all give the same faces.
      radius: of a point; by default a fortieth of the largest extent.

    Returns:
      vertices, faces (counter-clockwise seen from outside, in a right-handed frame).
    """
    points = np.asarray(points, np.float32)
    if radius is None:
        radius = float(np.ptp(points.reshape(-1, 3), axis=0).max()) / 40 + 1e-9
    corners = radius * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    vertices = [(points[..., None, :] + corners).reshape(*points.shape[:-2], -1, 3)]
    ball = []
    for i, j, k in itertools.product((0, 3), (1, 4), (2, 5)):
        mirrored = ((i == 3) + (j == 4) + (k == 5)) % 2
        ball.append((i, k, j) if mirrored else (i, j, k))
    faces = [np.array(ball, np.int32) + 6 * n for n in range(points.shape[-2])]
    start = 6 * points.shape[-2]
    for a, b in bones:
        first, last = points[..., a, :], points[..., b, :]
        along = last - first
        along = along / (np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9)
        # Any direction that is not nearly that of the bone.
        least = np.eye(3, dtype=np.float32)[np.abs(along).argmin(-1)]
        side = np.cross(along, least)
        side = side / (np.linalg.norm(side, axis=-1, keepdims=True) + 1e-9)
        other = np.cross(along, side)
        waist = first + 0.2 * (last - first)
        ring = [waist + 0.7 * radius * d for d in (side, other, -side, -other)]
        vertices.append(np.stack([first, last, *ring], axis=-2))
        cone = [(0, 2 + (i + 1) % 4, 2 + i) for i in range(4)]
        cone += [(1, 2 + i, 2 + (i + 1) % 4) for i in range(4)]
        faces.append(np.array(cone, np.int32) + start)
        start += 6
    return np.concatenate(vertices, axis=-2), np.concatenate(faces)
