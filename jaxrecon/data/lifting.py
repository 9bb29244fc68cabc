"""Sets of 2D poses for lifting: what MHR-Net trains on and is measured with.

All of a set is a few arrays, which the training keeps on the device. Coordinates follow spec
mhr_net, section 7.4: root-relative, divided by the focal length, and scaled so that the typical
hip-to-head length is 0.2: one unit of 3D seen from a distance of five.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError
from jaxrecon.io.pose_files import check_joints3d, check_keypoints

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
      depth: (N, J) found by other means for an orthographic sequence (see `optimization.nonrigid`),
        in the unit of the 2D, relative to each frame's mean; training may lean on it.
      depth_method: which.
    """

    keypoints2d: np.ndarray
    visible: np.ndarray | None = None
    joints3d: np.ndarray | None = None
    groups: dict[str, list[tuple[int, int]]] = dataclasses.field(default_factory=dict)
    factor: float = 1.0
    intrinsics: np.ndarray | None = None
    clips: tuple[tuple[str, int], ...] = ()
    depth: np.ndarray | None = None
    depth_method: str = ""

    def __post_init__(self) -> None:
        count, joints = self.keypoints2d.shape[:2]
        if not count:
            raise UserError("the pose set is empty; is the file or the selection?")
        for name, array in (
            ("visible", self.visible),
            ("joints3d", self.joints3d),
            ("depth", self.depth),
        ):
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
        given = {
            "keypoints2d": self.keypoints2d,
            "visible": self.visible,
            "depth": self.depth,
        }
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
            depth=part(self.depth),
            depth_method=self.depth_method,
        )


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
        try:
            factor = (
                spread_factor(points, seen) if ends is None else length_factor(points, seen, ends)
            )
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    target = check_joints3d(joints3d, points.shape[:2], where)
    if target is not None:
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


ORTHOGRAPHIC_UNIT = 0.5  # root mean square distance of the normalised points from their middle


def from_orthographic(
    keypoints2d: Any, visible: Any = None, joints3d: Any = None, where: str = "keypoints2d"
) -> PoseSet:
    """A set of keypoints without perspective: centred on each frame's middle, at a common scale.

    Returns:
      `joints3d` is centred likewise, in the unit given; `factor` brings it to the 2D's.

    Raises:
      UserError: see `check_keypoints`; all points of every frame coincide.
    """
    seen, visible = check_keypoints(keypoints2d, visible, where)
    weights = np.ones(seen.shape[:2]) if visible is None else visible
    middle = (seen * weights[..., None]).sum(1, keepdims=True) / weights.sum(1)[:, None, None]
    seen = np.where(weights[..., None] > 0, seen - middle, 0.0)
    spread = np.sqrt((seen**2).sum() / weights.sum())
    if not spread > 0:
        raise UserError(f"{where}: all points of every frame coincide")
    factor = ORTHOGRAPHIC_UNIT / spread
    target = check_joints3d(joints3d, seen.shape[:2], where)
    if target is not None:
        target = target - target.mean(1, keepdims=True)
    return PoseSet((factor * seen).astype(np.float32), visible, target, factor=float(factor))
