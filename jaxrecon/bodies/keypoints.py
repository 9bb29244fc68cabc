"""Detected and annotated keypoints as the 49 joints that the networks of the SPIN family use."""

import numpy as np
from jaxtyping import Float

from jaxrecon.bodies.joints import JOINT_SETS, OPENPOSE25, convert_keypoints, index_map
from jaxrecon.errors import UserError

_OPENPOSE_FAMILY = ("openpose25", "coco18")


def to_spin49(
    keypoints: Float[np.ndarray, "*people joints 3"], joint_set: str
) -> Float[np.ndarray, "*people 49 3"]:
    """Keypoints of a named set in the 49 slots: OpenPose's 25, then the 24 annotated joints.

    OpenPose detections fill their own slots 0..24, and of slots 25..48 the limbs, neck, nose, eyes
    and ears that both sets share (not the pelvis, which annotators place lower). Other sets fill
    slots 25..48 by name, and of the first 25 only the feet, which slots 25..48 lack.

    Args:
      keypoints: (..., joints, 3) pixels and confidence.
      joint_set: its name; "spin49" is returned as it is.

    Returns:
      (..., 49, 3) float32; a slot that nothing serves is zero.

    Raises:
      UserError: the set is unknown or the number of joints is not its.
    """
    keypoints = np.asarray(keypoints, np.float32)
    annotated = convert_keypoints(keypoints, joint_set, "gt24")
    if joint_set == "spin49":
        return keypoints
    detected = convert_keypoints(keypoints, joint_set, "openpose25")
    if joint_set in _OPENPOSE_FAMILY:
        annotated[..., JOINT_SETS["gt24"].index("pelvis"), :] = 0
    else:
        shared = np.isin(OPENPOSE25, JOINT_SETS["gt24"])
        detected[..., shared, :] = 0
    if not index_map(joint_set, "spin49")[1].any():
        raise UserError(f"joint set {joint_set!r} shares no joint with the 49 of the networks")
    return np.concatenate([detected, annotated], -2)
