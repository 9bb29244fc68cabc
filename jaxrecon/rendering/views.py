"""A mesh by itself: from the side, from all sides."""

import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.rendering.rasterize import check_mesh
from jaxrecon.rendering.shading import STUDIO, Light, render_mesh
from jaxrecon.typing import AnyArray, Float, Int

_DISTANCE = 2.0  # of the camera, in longer sides of the picture: a calm perspective


def view_mesh(
    vertices: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    yaw: float | int = 90,
    image_size: tuple[int, int] = (256, 256),
    pitch: float | int = 0,
    colours: tuple[float, float, float] | AnyArray | None = None,
    background: tuple[float, float, float] = STUDIO,
    light: Light | None = None,
    height: float | int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The mesh turned about its centre and framed by a camera of its own.

    Args:
      vertices: camera frame (y down), metres.
      yaw: degrees about the vertical axis; 90 shows the side that was at the left.
      pitch: degrees; positive looks down from above.
      image_size: (height, width).
      height: metres that the picture's shorter side shows; None fits the mesh. Give the same
        number to compare two meshes at one scale.
    """
    vertices = np.asarray(vertices, np.float32)
    check_mesh(vertices, np.asarray(faces))
    if len(vertices) == 0:
        raise UserError("the mesh has no vertices; nothing can be drawn")
    middle = (vertices.max(0) + vertices.min(0)) / 2
    centred = vertices - middle
    if height is None:
        height = fitting_height(vertices, image_size)
    rotation = _yaw_pitch(yaw, pitch)
    rows, columns = image_size
    distance = _DISTANCE * height * max(rows, columns) / min(rows, columns)
    placed = centred @ rotation.T + np.array([0, 0, distance], np.float32)
    focal = distance * min(rows, columns) / height
    return render_mesh(
        placed,
        faces,
        focal,
        (columns / 2, rows / 2),
        image_size,
        colours,
        light,
        background,
    )


def fitting_height(vertices: Float[AnyArray, "v 3"], image_size: tuple[int, int]) -> float:
    """The `height` at which the mesh fits a picture of (height, width) in every yaw, metres."""
    vertices = np.asarray(vertices, np.float32)
    centred = vertices - (vertices.max(0) + vertices.min(0)) / 2
    around = np.linalg.norm(centred[:, [0, 2]], axis=1).max()
    # What comes near as it turns looks taller, and lower under a pitch.
    upright = np.abs(centred[:, 1]).max() + 0.25 * around
    rows, columns = image_size
    fit = max(around / columns, upright / rows) * min(rows, columns)
    return float(max(2.12 * fit, 1e-6))


def turntable(
    vertices: Float[AnyArray, "v 3"],
    faces: Int[AnyArray, "f 3"],
    frames: int = 36,
    image_size: tuple[int, int] = (320, 256),
    pitch: float | int = 8,
    colours: tuple[float, float, float] | AnyArray | None = None,
    background: tuple[float, float, float] = STUDIO,
    light: Light | None = None,
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One turn about the vertical axis as `frames` RGB pictures, all at one scale."""
    height = fitting_height(vertices, image_size)
    return [
        view_mesh(
            vertices,
            faces,
            360.0 * frame / frames,
            image_size,
            pitch,
            colours,
            background,
            light,
            height,
        )
        for frame in range(frames)
    ]


def _yaw_pitch(yaw: float | int, pitch: float | int) -> np.ndarray:
    yaw, pitch = np.radians([yaw, pitch])
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return (about_x @ about_y).astype(np.float32)
