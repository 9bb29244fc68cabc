"""Meshes out: .obj, .ply and .glb by suffix, each whole or not at all."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from jaxtyping import Float, Int, Shaped

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes

MESH_SUFFIXES = (".obj", ".ply", ".glb")
Frame = Literal["camera", "y_up"]


def write_mesh(
    path: str | os.PathLike[str],
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Shaped[np.ndarray, "faces 3"],
    colours: Shaped[np.ndarray, "vertices 3"] | None = None,
    frame: Frame = "camera",
) -> None:
    """Write one mesh; the suffix chooses the format.

    .obj and .ply keep the coordinates as they are. glTF fixes y as up and viewers look along -z,
    so a mesh in the camera frame (x right, y down, z forward) is turned by 180 degrees about x
    when it is written as .glb.

    Args:
      path: ends in .obj, .ply or .glb; missing folders are made.
      vertices: (V, 3) metres.
      faces: (F, 3) indices, counter-clockwise seen from outside.
      colours: (V, 3) RGB, uint8, or floats in 0..1.
      frame: of the vertices: "camera" (y down) or "y_up".

    Raises:
      UserError: another suffix, no vertices, a value that is not finite, an index out of range.
    """
    suffix = mesh_suffix(path)
    vertices, faces = checked_mesh(vertices, faces)
    if suffix == ".glb" and frame == "camera":
        vertices = turn_upright(vertices)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if colours is not None:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=to_uint8(colours))
    if suffix == ".glb":
        data = trimesh.exchange.gltf.export_glb(mesh, include_normals=True)
    else:
        data = mesh.export(file_type=suffix[1:])
    write_bytes(path, data.encode("ascii") if isinstance(data, str) else bytes(data))


def mesh_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a mesh file, lower case.

    Raises:
      UserError: it is none that can be written; the message names those.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UserError(
            f"cannot write a mesh as {Path(path).name!r}: the name must end in "
            f"{', '.join(MESH_SUFFIXES)}"
        )
    return suffix


def checked_mesh(
    vertices: Shaped[np.ndarray, "vertices 3"], faces: Shaped[np.ndarray, "faces 3"]
) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "faces 3"]]:
    """The mesh as float32 and int64, once it can be drawn; see `write_mesh` for what it raises."""
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int64)
    if len(vertices) == 0:
        raise UserError("there is no mesh to write: it has no vertices")
    if not np.isfinite(vertices).all():
        raise UserError("the mesh has vertices that are not finite and was not written")
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise UserError(f"the mesh has faces of vertices beyond its {len(vertices)}")
    return vertices, faces


def turn_upright(points: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """Points of the camera frame (y down, z forward) with y up, z backward; and back again."""
    return points * np.array([1, -1, -1], points.dtype)


def to_uint8(colours: Shaped[np.ndarray, "vertices 3"]) -> np.ndarray:
    """RGB colours as uint8; floats are taken as 0..1."""
    if np.issubdtype(colours.dtype, np.floating):
        colours = np.clip(np.round(colours * 255), 0, 255)
    return colours.astype(np.uint8)


def vertex_normals(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Unit normals at the vertices: those of the faces around, weighted by area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], normals)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    # A vertex of no face, or of flat ones only, needs some unit normal to be valid glTF.
    unit = total / np.maximum(length, 1e-20)
    return np.where(length > 1e-20, unit, np.array([0, 1, 0], unit.dtype)).astype(np.float32)
