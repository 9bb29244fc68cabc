"""posedirs that give back part of the volume which linear skinning loses (design, section 9).

The goal is dual-quaternion blending (Kavan et al. 2008) of each joint alone; the correction is its
difference to the linear blend, as a linear function of the joint's rotation.
"""

import numpy as np
from scipy.spatial.transform import Rotation

_ROTATIONS = 80
_LARGEST_ANGLE = 1.9
_DAMPING = 0.01
_RIDGE = 0.01
_SHARE = 0.7
_SMALLEST = 5e-5


def pose_corrections(
    template: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    parents: tuple[int, ...],
    mirror: np.ndarray,
    mirror_joint: np.ndarray,
) -> np.ndarray:
    """posedirs (V, 3, 9 (J - 1)) for the features (R_1 - I, ..., R_{J-1} - I), row-major.

    Args:
      template: (V, 3) rest mesh.
      joints: (J, 3) rest joints.
      weights: (V, J).
      parents: of the joints.
      mirror: (V,) mirror image of each vertex.
      mirror_joint: (J,) mirror image of each joint.
    """
    rng = np.random.default_rng(0)
    found = np.zeros((len(template), 3, len(parents) - 1, 9))
    for joint in range(1, len(parents)):
        share = weights[:, _descendants(joint, parents)].sum(1)
        moved = np.flatnonzero((share > 0.01) & (share < 0.99))
        axes = rng.normal(size=(_ROTATIONS, 3))
        angles = rng.uniform(0, _LARGEST_ANGLE, (_ROTATIONS, 1))
        turns = Rotation.from_rotvec(axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles)
        found[moved, :, joint - 1] = _fit(
            turns, template[moved] - joints[joint], share[moved][:, None]
        )
    # The mirror image of a rotation has entry (i, j) times s_i s_j, and its effect s_i.
    s = np.array([-1.0, 1, 1])
    feature_sign = np.outer(s, s).ravel()
    image = found[mirror][:, :, mirror_joint[1:] - 1] * s[:, None, None] * feature_sign
    found = (found + image) / 2
    found[np.abs(found) < _SMALLEST] = 0
    return found.reshape(len(template), 3, -1)


def _fit(turns: Rotation, offsets: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Coefficients (v, 3, 9) for vertices at `offsets` (v, 3) from the joint."""
    matrices = turns.as_matrix()
    quaternions = turns.as_quat()
    quaternions *= np.where(quaternions[:, 3:] < 0, -1, 1)
    wanted = np.empty((len(matrices), len(offsets), 3))
    for r, (matrix, quaternion) in enumerate(zip(matrices, quaternions, strict=True)):
        blended = share[..., None] * matrix + (1 - share[..., None]) * np.eye(3)
        mixed = share * quaternion + (1 - share) * np.array([0.0, 0, 0, 1])
        # About the joint, blending dual quaternions is blending quaternions.
        goal = Rotation.from_quat(mixed).apply(offsets)
        missing = goal - np.einsum("vij,vj->vi", blended, offsets)
        square = np.einsum("vji,vjk->vik", blended, blended) + _DAMPING * np.eye(3)
        pulled = np.einsum("vji,vj->vi", blended, missing)
        wanted[r] = np.linalg.solve(square, pulled[..., None])[..., 0]
    features = (matrices - np.eye(3)).reshape(len(matrices), 9)
    ridge = _RIDGE * len(features) * np.eye(9)
    solve = np.linalg.solve(features.T @ features + ridge, features.T)
    return _SHARE * np.einsum("fr,rvi->vif", solve, wanted)


def _descendants(joint: int, parents: tuple[int, ...]) -> list[int]:
    found = [joint]
    for child in range(joint + 1, len(parents)):
        if parents[child] in found:
            found.append(child)
    return found
