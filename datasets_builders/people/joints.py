"""Joints of other people's annotations in the 24 annotated slots ("gt24").

Source: spec of Meta-HMR, section 7, and of Multi-SPIN, section 7.2.
"""

from collections.abc import Sequence

import numpy as np

from jaxrecon.bodies.joints import JOINT_SETS, convert_keypoints, index_map

# The 17 joints of the studio data sets, by the slots they go to. Their upper neck counts as the
# neck of LSP, which is not what the names of "h36m17" would give.
STUDIO17 = (
    "pelvis", "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle", "spine", "neck", "jaw",
    "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
)  # fmt: skip
LIMBS = JOINT_SETS["gt24"][:12]


def to_slots(joints: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(N, J, C) joints of these names, last channel their confidence, as (N, 24, C) gt24."""
    slots = [JOINT_SETS["gt24"].index(name) for name in names]
    placed = np.zeros((len(joints), len(JOINT_SETS["gt24"]), joints.shape[-1]), np.float32)
    placed[:, slots] = joints
    return placed


def from_set(joints: np.ndarray, joint_set: str) -> np.ndarray:
    """(N, J, C) joints of a set of `jaxrecon.bodies.joints` as (N, 24, C) gt24."""
    return convert_keypoints(joints, joint_set, "gt24").astype(np.float32)


def with_confidence(joints: np.ndarray) -> np.ndarray:
    """(..., C) joints with a last channel of ones."""
    return np.concatenate([joints, np.ones((*joints.shape[:-1], 1), joints.dtype)], axis=-1)


def nearest_detection(people: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The detected person that an annotation means.

    Args:
      people: (P, 25, 3) BODY_25 joints: pixels and confidence.
      part: (24, 3) the annotation, gt24.

    Returns:
      (25, 3) of the person whose limbs are nearest to the annotated ones on average; zeros where
      nobody has any limb in common with it.
    """
    index, _ = index_map("openpose25", "gt24")
    limbs, wanted = people[:, index[: len(LIMBS)]], part[: len(LIMBS)]
    both = (limbs[..., 2] > 0) & (wanted[:, 2] > 0)
    if not both.any():
        return np.zeros((25, 3), np.float32)
    distance = np.linalg.norm(limbs[..., :2] - wanted[:, :2], axis=-1)
    total = np.where(both, distance, 0).sum(1) / np.maximum(both.sum(1), 1)
    return people[int(np.argmin(np.where(both.any(1), total, np.inf)))]
