"""Keypoint files of the user's own as pose sets; `jaxrecon.io.pose_files` has the layout."""

import os

from jaxrecon.data.lifting import PoseSet, from_keypoints
from jaxrecon.io.pose_files import PoseArrays, read_pose_arrays

_H36M_JOINTS = 17


def read_pose_file(
    path: str | os.PathLike[str], focal_length: float = 0.0, factor: float | None = None
) -> PoseSet:
    """A set of poses from a file.

    Args:
      focal_length: pixels, where the file has none; 0: assumed.
      factor: of the set that the network was trained with (`PoseSet.factor`).

    Raises:
      UserError: unreadable, no keypoints in it, ragged, empty or not finite arrays.
    """
    return poses_of_arrays(read_pose_arrays(path, focal_length), factor, str(path))


def poses_of_arrays(
    arrays: PoseArrays, factor: float | None = None, where: str = "keypoints2d"
) -> PoseSet:
    """A set of poses, scaled by hip to head for 17 joints and by their spread for others."""
    joints = arrays.keypoints2d.shape[1]
    return from_keypoints(
        arrays.keypoints2d,
        arrays.focal_length,
        arrays.visible,
        arrays.joints3d,
        factor,
        (0, 10) if joints == _H36M_JOINTS else None,
        where=where,
    )
