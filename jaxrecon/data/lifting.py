"""Sets of 2D poses for lifting: what MHR-Net trains on and is measured with.

All of a set is a few arrays, which the training keeps on the device. Coordinates follow spec
mhr_net, section 7.4: root-relative, divided by the focal length, and scaled so that the typical
hip-to-head length is 0.2: one unit of 3D seen from a distance of five.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError

TYPICAL_LENGTH = 0.2  # of hip to head, in the normalised image
_HIP = JOINT_SETS["h36m17"].index("pelvis")
_HEAD = JOINT_SETS["h36m17"].index("head")


@dataclasses.dataclass(frozen=True)
class PoseSet:
    """2D poses of one skeleton, with what else is known of them.

    Attributes:
      keypoints2d: (N, J, 2) float32, normalised, relative to joint 0 where that is visible.
      visible: (N, J) float32 of 0 and 1; None where all joints are.
      joints3d: (N, J, 3) float32 metres, camera frame, relative to joint 0; None: unknown.
      groups: name -> row ranges (first, end), to report on (an action, a sequence).
      factor: what root-relative coordinates were multiplied by.
      intrinsics: (N, 9) of the cameras, or None.
      clips: (name, length) of the parts, in order.
    """

    keypoints2d: np.ndarray
    visible: np.ndarray | None = None
    joints3d: np.ndarray | None = None
    groups: dict[str, list[tuple[int, int]]] = dataclasses.field(default_factory=dict)
    factor: float = 1.0
    intrinsics: np.ndarray | None = None
    clips: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        count, joints = self.keypoints2d.shape[:2]
        if not count:
            raise UserError("the pose set is empty; is the file or the selection?")
        for name, array in (("visible", self.visible), ("joints3d", self.joints3d)):
            if array is not None and array.shape[:2] != (count, joints):
                raise UserError(
                    f"{name} of shape {array.shape} does not fit keypoints2d of shape "
                    f"{self.keypoints2d.shape}: frames and joints must agree"
                )

    def __len__(self) -> int:
        return len(self.keypoints2d)

    @property
    def joints(self) -> int:
        return self.keypoints2d.shape[1]

    def arrays(self, ground_truth: bool = False) -> dict[str, np.ndarray]:
        """The arrays that make batches; 3D only where asked for, it is never trained with."""
        given = {"keypoints2d": self.keypoints2d, "visible": self.visible}
        if ground_truth:
            given["joints3d"] = self.joints3d
        return {name: array for name, array in given.items() if array is not None}

    def take(self, rows: Any) -> "PoseSet":
        """Some of the frames; without groups and clips."""

        def part(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return PoseSet(
            self.keypoints2d[rows],
            part(self.visible),
            part(self.joints3d),
            factor=self.factor,
            intrinsics=part(self.intrinsics),
        )


def check_keypoints(keypoints2d: Any, visible: Any = None, where: str = "keypoints2d") -> Any:
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
    seen = np.ones(points.shape[:2], bool) if visible is None else np.asarray(visible) > 0
    if seen.shape != points.shape[:2]:
        raise UserError(
            f"visible has shape {seen.shape}, {where} {points.shape}; frames and joints must agree"
        )
    seen = seen & ~missing
    few = np.flatnonzero(seen.sum(1) < 2)
    if len(few):
        raise UserError(
            f"{where}: frame {few[0]} has {seen[few[0]].sum()} visible keypoints "
            f"({len(few)} such frames); two are needed, leave such frames out"
        )
    known = np.where(seen[..., None], points, 0.0).astype(np.float32)
    return known, (None if seen.all() else seen.astype(np.float32))


def relative_to_root(keypoints2d: np.ndarray, visible: np.ndarray | None) -> np.ndarray:
    """Minus joint 0, or minus the mean of the visible joints where joint 0 is missing."""
    if visible is None:
        return keypoints2d - keypoints2d[:, :1]
    weights = visible[..., None]
    mean = (keypoints2d * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    centre = np.where(weights[:, :1] > 0, keypoints2d[:, :1], mean)
    return np.where(weights > 0, keypoints2d - centre, 0.0)


def length_factor(
    keypoints2d: np.ndarray,
    visible: np.ndarray | None = None,
    ends: tuple[int, int] = (_HIP, _HEAD),
) -> float:
    """What brings the mean length between two joints, over all frames that show both, to 0.2.

    Raises:
      UserError: no frame shows both, or their distance is 0 everywhere.
    """
    first, second = ends
    apart = np.linalg.norm(keypoints2d[:, second] - keypoints2d[:, first], axis=-1)
    if visible is not None:
        apart = apart[(visible[:, first] > 0) & (visible[:, second] > 0)]
    if not len(apart) or not apart.mean() > 0:
        raise UserError(f"no frame shows both joints {first} and {second}, which set the scale")
    return float(np.float32(TYPICAL_LENGTH) / np.float32(apart.mean()))


def spread_factor(keypoints2d: np.ndarray, visible: np.ndarray | None = None) -> float:
    """What brings the root mean square distance from the middle to half of 0.2.

    For skeletons without hip and head; for H36M-17 the two factors are nearly the same.
    """
    weights = np.ones(keypoints2d.shape[:2]) if visible is None else visible
    weights = weights[..., None]
    mean = (keypoints2d * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    square = (((keypoints2d - mean) ** 2) * weights).sum() / weights.sum()
    if not square > 0:
        raise UserError("all keypoints of every frame coincide, so there is no scale")
    return float(TYPICAL_LENGTH / 2 / np.sqrt(square))


def from_keypoints(
    keypoints2d: Any,
    focal: float | Sequence[float] | np.ndarray = 1.0,
    visible: Any = None,
    joints3d: Any = None,
    factor: float | None = None,
    ends: tuple[int, int] | None = (_HIP, _HEAD),
    where: str = "keypoints2d",
) -> PoseSet:
    """A set of the user's own keypoints.

    Args:
      keypoints2d: (N, J, 2) pixels, or (N, J, 3) with confidence; NaN where missing.
      focal: pixels; one number, fx and fy, or one pair a frame.
      visible: (N, J), above 0 where seen.
      joints3d: (N, J, 3) metres in the camera frame, to score with.
      factor: of another set (its `PoseSet.factor`); None: of this one's own lengths.
      ends: two joints whose mean length sets the scale; None: the spread of all joints does.

    Raises:
      UserError: see `check_keypoints`; 3D of another shape; a focal length that is not positive.
    """
    points, seen = check_keypoints(keypoints2d, visible, where)
    focal = np.asarray(focal, np.float32)
    if not (np.isfinite(focal).all() and (focal > 0).all()):
        raise UserError(f"the focal length is {focal}; it must be a positive number of pixels")
    if focal.ndim:
        focal = focal.reshape(-1, 1, 2)
    points = relative_to_root(points, seen) / focal
    if factor is None:
        factor = spread_factor(points, seen) if ends is None else length_factor(points, seen, ends)
    target = None
    if joints3d is not None:
        target = np.asarray(joints3d, np.float32)
        if target.shape != (*points.shape[:2], 3) or not np.isfinite(target).all():
            raise UserError(
                f"joints3d has shape {target.shape} or is not finite; with this {where} it is "
                f"{(*points.shape[:2], 3)}"
            )
        target = target - target[:, :1]
    scaled = (points * np.float32(factor)).astype(np.float32)
    return PoseSet(scaled, seen, target, factor=factor)


def hide_keypoints(poses: PoseSet, share: float, seed: int = 0, never_fewer: int = 3) -> PoseSet:
    """The same set with a share of the keypoints missing at random.

    Args:
      share: probability of each keypoint, in [0, 1).
      never_fewer: visible ones that every frame keeps.
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of missing keypoints is {share}; it is in [0, 1)")
    if share == 0:
        return poses
    rng = np.random.default_rng(seed)
    draw = rng.uniform(size=poses.keypoints2d.shape[:2])
    if poses.visible is not None:
        draw = np.where(poses.visible > 0, draw, -1.0)
    kept = np.sort(draw, axis=1)[:, -min(never_fewer, poses.joints)][:, None]
    visible = ((draw >= share) | (draw >= kept)) & (draw >= 0)
    visible = visible.astype(np.float32)
    points = relative_to_root(poses.keypoints2d, visible)
    return dataclasses.replace(poses, keypoints2d=points.astype(np.float32), visible=visible)


def pathlike(path: str | os.PathLike[str]) -> str:
    """The path as text, with `~` for the home folder."""
    return os.path.expanduser(os.fspath(path))
