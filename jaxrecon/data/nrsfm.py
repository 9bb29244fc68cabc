"""Sequences of the non-rigid structure-from-motion literature: a .mat with 3D in every frame.

`X` is (3, points, frames): camera-frame points, whose first two rows are the orthographic 2D
evidence. `W` (2 frames, points) and `S` (3 frames, points) are read as well.
"""

import os
from typing import Any

import numpy as np

from jaxrecon.data.lifting import PoseSet, from_orthographic
from jaxrecon.errors import UserError
from jaxrecon.io.pose_files import read_mat


def read_sequence(path: str | os.PathLike[str]) -> PoseSet:
    """One sequence, orthographic: 2D centred on each frame's middle, at a common scale.

    Returns:
      `joints3d` is centred likewise, in the file's unit; `factor` brings it to the 2D's.

    Raises:
      UserError: no such arrays, arrays that do not fit each other, points that are not finite.
    """
    points, target = _arrays(path, read_mat(path))
    return from_orthographic(points, None, target, str(path))


def _arrays(path: Any, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """2D (frames, points, 2) and 3D (frames, points, 3) or None."""
    if "X" in found and np.ndim(found["X"]) == 3 and len(found["X"]) == 3:
        cloud = np.asarray(found["X"], np.float64).transpose(2, 1, 0)
        return cloud[..., :2], cloud
    if "W" in found and np.ndim(found["W"]) == 2:
        flat = np.asarray(found["W"], np.float64)
        points = flat.reshape(-1, 2, flat.shape[1]).transpose(0, 2, 1)
        solid = found.get("S", found.get("S_GT"))
        if solid is None:
            return points, None
        solid = np.asarray(solid, np.float64)
        if solid.shape != (3 * len(points), points.shape[1]):
            raise UserError(f"{path}: S has shape {solid.shape}, W {flat.shape}; 3F x P and 2F x P")
        return points, solid.reshape(-1, 3, solid.shape[1]).transpose(0, 2, 1)
    raise UserError(
        f"{path} has neither X (3, points, frames) nor W (2 frames, points); it has "
        + (", ".join(sorted(found)) or "nothing")
    )
