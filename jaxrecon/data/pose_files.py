"""Keypoint files of the user's own: a .npz or .mat of a few arrays.

    keypoints2d   (frames, joints, 2) pixels, or (frames, joints, 3) with a confidence
    visible       (frames, joints), above 0 where seen         may be missing; NaN counts too
    joints3d      (frames, joints, 3) metres, camera frame      may be missing; only to score with
    focal_length  one number, or (fx, fy), pixels               may be missing
    image_size    (width, height) pixels                        may be missing

VideoPose3D's custom archives (`positions_2d` by video) are read as well.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from jaxrecon.data.lifting import PoseSet, from_keypoints
from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.npz_objects import read_npz

_H36M_JOINTS = 17


def read_mat(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The variables of a MATLAB file (up to version 7.2).

    Raises:
      UserError: no such file, or none of that kind.
    """
    file = existing_file(path, "MATLAB file")
    try:
        found = scipy.io.loadmat(file)
    except NotImplementedError as error:
        raise UserError(
            f"{file} is a MATLAB 7.3 file, which is not read; save it with -v7 in MATLAB"
        ) from error
    except Exception as error:  # scipy raises many kinds for a damaged file
        reason = str(error) or type(error).__name__
        raise UserError(f"{file} is not a readable MATLAB file ({reason}); get it again") from error
    return {name: value for name, value in found.items() if not name.startswith("__")}


def read_pose_file(
    path: str | os.PathLike[str], focal_length: float = 0.0, factor: float | None = None
) -> PoseSet:
    """A set of poses from a file laid out as above.

    Args:
      focal_length: pixels, where the file has none; 0: twice the longer side of the image, or
        of the keypoints' extent.
      factor: of the set that the network was trained with (`PoseSet.factor`).

    Raises:
      UserError: unreadable, no keypoints in it, ragged, empty or not finite arrays.
    """
    file = Path(path)
    if file.suffix.lower() == ".mat":
        entries = read_mat(file)
    elif file.suffix.lower() == ".npz":
        entries = read_npz(file, "keypoint file")
    else:
        raise UserError(f"{file} is neither .npz nor .mat; see jaxrecon/data/pose_files.py")
    if isinstance(entries.get("positions_2d"), dict):
        entries = _custom_archive(file, entries)
    if "keypoints2d" not in entries:
        raise UserError(
            f"{file} has no 'keypoints2d' (frames, joints, 2); it has "
            + (", ".join(sorted(entries)) or "nothing")
        )
    points = entries["keypoints2d"]
    focal = entries.get("focal_length")
    if focal is None or not np.all(np.asarray(focal) > 0):
        focal = focal_length or _assumed_focal(entries, points)
    focal = np.asarray(focal, np.float32).ravel()
    joints = np.shape(points)[1] if np.ndim(points) == 3 else 0
    return from_keypoints(
        points,
        float(focal[0]) if focal.size == 1 else focal,
        entries.get("visible"),
        entries.get("joints3d"),
        factor,
        (0, 10) if joints == _H36M_JOINTS else None,
        where=str(file),
    )


def _assumed_focal(entries: dict[str, Any], points: Any) -> float:
    size = entries.get("image_size")
    if size is not None:
        return 2.0 * float(np.max(size))
    flat = np.asarray(points, np.float64).reshape(-1, np.shape(points)[-1])[:, :2]
    spread = np.nanmax(flat, axis=0) - np.nanmin(flat, axis=0) if flat.size else np.ones(1)
    return 2.0 * float(max(spread.max(), 1e-6))


def _custom_archive(file: Path, entries: dict[str, Any]) -> dict[str, Any]:
    videos = entries["positions_2d"]
    views = [view for video in videos.values() for view in video.get("custom", [])]
    if not views:
        raise UserError(f"{file} has no video with 'custom' keypoints")
    metadata = entries.get("metadata") or {}
    sizes = [(m["w"], m["h"]) for m in (metadata.get("video_metadata") or {}).values()]
    found: dict[str, Any] = {"keypoints2d": np.concatenate([np.asarray(v)[..., :2] for v in views])}
    if sizes:
        found["image_size"] = np.max(sizes, axis=0)
    return found
