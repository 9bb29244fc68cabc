"""Sampled grasps and their principal components: the pose space of the hand (section 10)."""

import numpy as np
from scipy.spatial.transform import Rotation

HAND_JOINTS = (
    "wrist", "index1", "index2", "index3", "middle1", "middle2", "middle3", "pinky1", "pinky2",
    "pinky3", "ring1", "ring2", "ring3", "thumb1", "thumb2", "thumb3",
)  # fmt: skip
HAND_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
_SAMPLES = 1554
_NOISE = 0.015


def hand_pose_space(
    joints: np.ndarray, tips: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """hands_mean (45,), hands_components (45, 45) and hands_coeffs (1554, 45).

    Args:
      joints: (16, 3) rest joints in MANO order.
      tips: (5, 3) finger tips: thumb, index, middle, ring, pinky.
    """
    rng = np.random.default_rng(0)
    grasp = rng.beta(0.9, 1.3, _SAMPLES)
    poses = np.zeros((_SAMPLES, 15, 3))
    for finger in ("index", "middle", "pinky", "ring"):
        first = HAND_JOINTS.index(f"{finger}1")
        direction = _unit(joints[first + 2] - joints[first])
        bend = np.clip(grasp + rng.normal(0, 0.18, _SAMPLES), -0.1, 1.1)
        axis = _unit(np.cross(direction, [0, -1, 0]))
        knuckle = 65 * bend + rng.normal(0, 9, _SAMPLES)
        spread = rng.normal(0, 5, _SAMPLES) * (1.1 - bend)
        middle = np.maximum(85 * bend + rng.normal(0, 12, _SAMPLES), -3)
        last = 0.6 * middle + rng.normal(0, 5, _SAMPLES)
        poses[:, first - 1] = _turn((knuckle, axis), (spread, np.array([0.0, 1, 0])))
        poses[:, first] = _turn((middle, axis))
        poses[:, first + 1] = _turn((last, axis))
    poses[:, 12:15] = _thumb(rng, grasp, joints, tips)
    flat = poses.reshape(_SAMPLES, 45) + rng.normal(0, _NOISE, (_SAMPLES, 45))
    mean = flat.mean(0)
    _, _, components = np.linalg.svd(flat - mean, full_matrices=False)
    components *= np.where(components.sum(1, keepdims=True) < 0, -1, 1)
    return mean, components, (flat - mean) @ components.T


def _thumb(
    rng: np.random.Generator, grasp: np.ndarray, joints: np.ndarray, tips: np.ndarray
) -> np.ndarray:
    first = HAND_JOINTS.index("thumb1")
    direction = _unit(tips[0] - joints[first])
    across = joints[HAND_JOINTS.index("ring1")] - joints[first + 1]
    axis = _unit(np.cross(direction, across))
    bend = grasp + rng.normal(0, 0.2, len(grasp))
    base = _turn(
        (20 * bend + rng.normal(0, 8, len(grasp)), axis),
        (rng.normal(0, 9, len(grasp)), np.array([1.0, 0, 0])),
        (rng.normal(0, 6, len(grasp)), direction),
    )
    second = _turn((25 * bend + rng.normal(5, 9, len(grasp)), axis))
    third = _turn((40 * bend + rng.normal(5, 14, len(grasp)), axis))
    return np.stack([base, second, third], 1)


def _turn(*parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Axis-angle (N, 3) of rotations by degrees (N,) about axes (3,), the last applied first."""
    total = Rotation.identity(len(parts[0][0]))
    for degrees, axis in parts:
        total = total * Rotation.from_rotvec(np.radians(degrees)[:, None] * axis)
    return total.as_rotvec()


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
