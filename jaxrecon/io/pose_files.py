"""Keypoint files of the user's own: a .npz or .mat of a few arrays, checked.

    keypoints2d   (frames, joints, 2) pixels, or (frames, joints, 3) with a confidence
    visible       (frames, joints), above 0 where seen         may be missing; NaN counts too
    joints3d      (frames, joints, 3) metres, camera frame      may be missing; only to score with
    focal_length  one number, or (fx, fy), pixels               may be missing
    image_size    (width, height) pixels                        may be missing

VideoPose3D's custom archives (`positions_2d` by video) are read as well.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.npz_objects import read_npz

FEWEST = 2  # visible keypoints of a frame


@dataclasses.dataclass(frozen=True)
class PoseArrays:
    """What a keypoint file holds, checked.

    Attributes:
      keypoints2d: (N, J, 2) float32 pixels; missing ones at 0.
      visible: (N, J) float32 of 0 and 1; None where all are.
      joints3d: (N, J, 3) float32 metres in the camera frame; None: unknown.
      focal_length: (2,) float32 pixels, or (N, 2), one pair for each frame.
    """

    keypoints2d: np.ndarray
    visible: np.ndarray | None
    joints3d: np.ndarray | None
    focal_length: np.ndarray


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


def read_pose_arrays(path: str | os.PathLike[str], focal_length: float = 0.0) -> PoseArrays:
    """The arrays of a keypoint file laid out as above.

    Args:
      focal_length: pixels, where the file has none; 0: twice the longer side of the image, or
        of the keypoints' extent.

    Raises:
      UserError: unreadable, no keypoints in it, ragged, empty or not finite arrays, a frame with
        too few keypoints.
    """
    file = Path(path)
    if file.suffix.lower() == ".mat":
        entries = read_mat(file)
    elif file.suffix.lower() == ".npz":
        entries = read_npz(file, "keypoint file")
    else:
        raise UserError(
            f"{file} is neither .npz nor .mat; write its keypoints as `keypoints2d` "
            "(frames, joints, 2) into one of these"
        )
    if isinstance(entries.get("positions_2d"), dict):
        entries = _custom_archive(file, entries)
    if "keypoints2d" not in entries:
        raise UserError(
            f"{file} has no 'keypoints2d' (frames, joints, 2); it has "
            + (", ".join(sorted(entries)) or "nothing")
        )
    given = entries["keypoints2d"]
    points, visible = check_keypoints(given, entries.get("visible"), str(file))
    focal = entries.get("focal_length")
    if focal is None or not np.size(focal):
        focal = focal_length or _assumed_focal(entries, points, visible)
    return PoseArrays(
        points,
        visible,
        check_joints3d(entries.get("joints3d"), points.shape[:2], str(file)),
        check_focal(focal, str(file)),
    )


def check_keypoints(
    keypoints2d: Any, visible: Any = None, where: str = "keypoints2d"
) -> tuple[np.ndarray, np.ndarray | None]:
    """(keypoints2d (N, J, 2) float32 with missing ones at 0, visible or None), checked.

    NaN coordinates are missing keypoints. A frame needs two visible ones at least.

    Raises:
      UserError: ragged or of another shape, empty, infinite, or a frame with too few keypoints.
    """
    try:
        points = np.asarray(keypoints2d, np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where} is ragged or no numbers; it is one array (frames, joints, 2)"
        ) from error
    if points.ndim != 3 or points.shape[-1] not in (2, 3):
        raise UserError(f"{where} has shape {points.shape}; it is (frames, joints, 2)")
    if not points.shape[0] or not points.shape[1]:
        raise UserError(f"{where} has shape {points.shape}: there is nothing in it")
    if points.shape[-1] == 3 and visible is None:
        visible = points[..., 2] > 0  # a third column is confidence
    points = points[..., :2]
    missing = np.isnan(points).any(-1)
    if np.isinf(points).any():
        raise UserError(f"{where} has infinite coordinates; mark missing keypoints by NaN")
    try:
        seen = np.ones(points.shape[:2], bool) if visible is None else np.asarray(visible) > 0
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: visible is ragged or no numbers") from error
    if seen.shape != points.shape[:2]:
        raise UserError(
            f"visible has shape {seen.shape}, {where} {points.shape}; frames and joints must agree"
        )
    seen = seen & ~missing
    few = np.flatnonzero(seen.sum(1) < FEWEST)
    if len(few):
        raise UserError(
            f"{where}: frame {few[0]} has {seen[few[0]].sum()} visible keypoints "
            f"({len(few)} such frames); two are needed, leave such frames out"
        )
    known = np.where(seen[..., None], points, 0.0).astype(np.float32)
    return known, (None if seen.all() else seen.astype(np.float32))


def check_joints3d(joints3d: Any, shape: tuple[int, ...], where: str) -> np.ndarray | None:
    """3D points that belong to (frames, joints) of 2D, as float32; None stays None.

    Raises:
      UserError: another shape, or not finite.
    """
    if joints3d is None or not np.size(joints3d):
        return None
    try:
        target = np.asarray(joints3d, np.float32)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: joints3d is ragged or no numbers") from error
    if target.shape != (*shape, 3) or not np.isfinite(target).all():
        raise UserError(
            f"joints3d has shape {target.shape} or is not finite; with this {where} it is "
            f"{(*shape, 3)}"
        )
    return target


def check_focal(focal: Any, where: str) -> np.ndarray:
    """(2,) float32 from one number or (fx, fy).

    Raises:
      UserError: not one or two positive numbers.
    """
    try:
        flat = np.asarray(focal, np.float32).ravel()
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: focal_length is no number of pixels") from error
    if flat.size not in (1, 2) or not (np.isfinite(flat).all() and (flat > 0).all()):
        raise UserError(
            f"{where}: focal_length is {flat.tolist()}; it is one positive number of pixels, or "
            "(fx, fy)"
        )
    return np.broadcast_to(flat, (2,)).astype(np.float32)


def _assumed_focal(entries: dict[str, Any], points: np.ndarray, visible: Any) -> float:
    size = entries.get("image_size")
    if size is not None and np.size(size):
        return 2.0 * float(np.max(size))
    known = points.reshape(-1, 2) if visible is None else points[visible > 0]
    return 2.0 * float(max(np.ptp(known, axis=0).max(), 1e-6))


def _custom_archive(file: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """VideoPose3D's layout for one's own videos, all of them one after the other."""
    videos = entries["positions_2d"]
    views = [np.asarray(view) for video in videos.values() for view in video.get("custom", [])]
    if not views:
        raise UserError(f"{file} has no video with 'custom' keypoints")
    if any(view.ndim != 3 or view.shape[1:] != views[0].shape[1:] for view in views):
        shapes = ", ".join(str(view.shape) for view in views)
        raise UserError(f"{file}: its videos do not have the same joints: {shapes}")
    metadata = entries.get("metadata") or {}
    sizes = [(m["w"], m["h"]) for m in (metadata.get("video_metadata") or {}).values()]
    found: dict[str, Any] = {"keypoints2d": np.concatenate([view[..., :2] for view in views])}
    if sizes:
        found["image_size"] = np.max(sizes, axis=0)
    return found
