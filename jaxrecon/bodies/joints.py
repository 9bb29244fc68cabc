"""Joint sets by name, and the maps between them.

Losses and metrics refer to joints through these tables, never through bare numbers. Left and
right are the person's own; names start with `l_` or `r_`.
"""

from functools import cache

import numpy as np

from jaxrecon.errors import UserError

_LIMBS_LSP = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle",
    "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow", "l_wrist",
)  # fmt: skip
_FEET_OPENPOSE = (
    "l_big_toe", "l_small_toe", "l_heel", "r_big_toe", "r_small_toe", "r_heel",
)  # fmt: skip
_FACE_COCO = ("nose", "l_eye", "r_eye", "l_ear", "r_ear")
_FINGERS = tuple(f"{finger}{i}" for finger in ("thumb", "index", "middle", "ring", "pinky")
                 for i in range(1, 5))  # fmt: skip

SMPL24 = (
    "pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle", "r_ankle",
    "spine3", "l_foot", "r_foot", "neck", "l_collar", "r_collar", "head", "l_shoulder",
    "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist", "l_hand", "r_hand",
)  # fmt: skip
SMPL_PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip

OPENPOSE25 = (
    "nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist",
    "pelvis", "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye",
    "r_ear", "l_ear", *_FEET_OPENPOSE,
)  # fmt: skip
GT24 = (
    *_LIMBS_LSP, "neck", "head_top", "pelvis", "thorax", "spine", "jaw", "head", *_FACE_COCO,
)  # fmt: skip
COCO17 = (
    *_FACE_COCO, "l_shoulder", "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist",
    "l_hip", "r_hip", "l_knee", "r_knee", "l_ankle", "r_ankle",
)  # fmt: skip

JOINT_SETS: dict[str, tuple[str, ...]] = {
    "smpl24": SMPL24,
    "openpose25": OPENPOSE25,
    "gt24": GT24,
    # OpenPose's 25 and the 24 "ground-truth" joints: what the SPIN family predicts.
    "spin49": (*OPENPOSE25, *GT24),
    "lsp14": (*_LIMBS_LSP, "neck", "head_top"),
    "coco17": COCO17,
    "coco18": (
        "nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist",
        "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear",
        "l_ear",
    ),
    "coco_wholebody133": (
        *COCO17, *_FEET_OPENPOSE, *(f"face{i}" for i in range(68)),
        *(f"{side}_hand_{j}" for side in "lr" for j in ("wrist", *_FINGERS)),
    ),
    "mpii16": (
        *_LIMBS_LSP[:6], "pelvis", "thorax", "neck", "head_top", *_LIMBS_LSP[6:],
    ),
    # Human3.6M in the order of its annotations and of VideoPose3D (right leg first) ...
    "h36m17": (
        "pelvis", "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "spine", "thorax",
        "jaw", "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
    ),
    # ... and in the row order of J_regressor_h36m (left leg first).
    "h36m17_regressor": (
        "pelvis", "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle", "spine", "thorax",
        "jaw", "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
    ),
    "mpi_inf_3dhp17": (
        "head_top", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow",
        "l_wrist", "r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "pelvis",
        "spine", "head",
    ),
    "mediapipe33": (
        "nose", "l_eye_inner", "l_eye", "l_eye_outer", "r_eye_inner", "r_eye", "r_eye_outer",
        "l_ear", "r_ear", "l_mouth", "r_mouth", "l_shoulder", "r_shoulder", "l_elbow",
        "r_elbow", "l_wrist", "r_wrist", "l_pinky", "r_pinky", "l_index", "r_index", "l_thumb",
        "r_thumb", "l_hip", "r_hip", "l_knee", "r_knee", "l_ankle", "r_ankle", "l_heel",
        "r_heel", "l_big_toe", "r_big_toe",
    ),
}  # fmt: skip

# Rows of J_regressor_h36m that give the 17 evaluation joints; the first 14 are LSP's
# (spec meta_hmr 3.1), whose neck and head top are the thorax and head rows.
_EVALUATION17 = (*_LIMBS_LSP, "thorax", "head", "pelvis", "spine", "jaw")

# The 45 joints and landmarks that a SMPL layer gives (24 joints, 21 vertices), then the 9 of
# J_regressor_extra: indices into these 54 make SPIN's 49.
VERTEX_JOINTS = (
    "nose", "r_eye", "l_eye", "r_ear", "l_ear", *_FEET_OPENPOSE,
    *(f"{side}_{finger}" for side in "lr" for finger in
      ("thumb", "index", "middle", "ring", "pinky")),
)  # fmt: skip
EXTRA_JOINTS = (
    "r_hip", "l_hip", "neck", "head_top", "pelvis", "thorax", "spine", "jaw", "head",
)  # fmt: skip
SPIN49_FROM_54 = np.array(
    [24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, *range(25, 35),
     8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27]
)  # fmt: skip
SMPL_VERTEX_IDS = np.array(
    [332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787,
     2746, 2319, 2445, 2556, 2673, 6191, 5782, 5905, 6016, 6133], np.int32
)  # fmt: skip

# Bones to draw, by joint name; a set draws those whose two ends it has.
BONES = (
    ("pelvis", "r_hip"), ("pelvis", "l_hip"), ("r_hip", "r_knee"), ("r_knee", "r_ankle"),
    ("l_hip", "l_knee"), ("l_knee", "l_ankle"), ("pelvis", "spine"), ("spine", "thorax"),
    ("thorax", "jaw"), ("jaw", "head"), ("thorax", "neck"), ("neck", "head_top"),
    ("neck", "r_shoulder"), ("neck", "l_shoulder"), ("thorax", "r_shoulder"),
    ("thorax", "l_shoulder"), ("r_shoulder", "r_elbow"), ("r_elbow", "r_wrist"),
    ("l_shoulder", "l_elbow"), ("l_elbow", "l_wrist"), ("neck", "nose"), ("nose", "r_eye"),
    ("nose", "l_eye"), ("r_eye", "r_ear"), ("l_eye", "l_ear"), ("r_ankle", "r_big_toe"),
    ("l_ankle", "l_big_toe"), ("r_big_toe", "r_small_toe"), ("l_big_toe", "l_small_toe"),
    ("r_ankle", "r_heel"), ("l_ankle", "l_heel"), ("r_shoulder", "l_shoulder"),
    ("r_hip", "l_hip"), ("r_shoulder", "r_hip"), ("l_shoulder", "l_hip"),
)  # fmt: skip


def joint_names(joint_set: str) -> tuple[str, ...]:
    """Names of a joint set.

    Raises:
        UserError: for an unknown set, naming those there are.
    """
    if joint_set not in JOINT_SETS:
        raise UserError(f"joint set {joint_set!r} is unknown; known: {', '.join(JOINT_SETS)}")
    return JOINT_SETS[joint_set]


@cache
def index_map(source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Which joint of `source` serves each joint of `target`.

    A name that occurs twice in `source` (spin49) is served by its last, ground-truth, place.

    Returns:
        indices (len(target),) int, 0 where there is none; whether there is one, bool.
    """
    place = {name: i for i, name in enumerate(joint_names(source))}
    names = joint_names(target)
    found = np.array([name in place for name in names])
    return np.array([place.get(name, 0) for name in names]), found


def convert_keypoints(keypoints: np.ndarray, source: str, target: str) -> np.ndarray:
    """(..., J, C) of one set as (..., K, C) of another; joints it lacks are zeros.

    The last channel is the confidence, so a missing joint has none.
    """
    keypoints = np.asarray(keypoints)
    names = joint_names(source)
    if keypoints.ndim < 2 or keypoints.shape[-2] != len(names):
        raise UserError(
            f"keypoints of shape {keypoints.shape} are not of joint set {source!r}, "
            f"which has {len(names)} joints"
        )
    index, found = index_map(source, target)
    return np.where(found[:, None], keypoints[..., index, :], np.zeros((), keypoints.dtype))


@cache
def mirror_permutation(joint_set: str) -> np.ndarray:
    """Index of each joint's mirror image, (J,) int; joints of the midline map to themselves."""
    names = joint_names(joint_set)
    # The two halves of spin49 repeat names; each is mirrored within itself.
    if joint_set == "spin49":
        first, second = mirror_permutation("openpose25"), mirror_permutation("gt24")
        return np.concatenate([first, second + len(first)])
    if joint_set == "coco_wholebody133":
        return np.concatenate([_mirror(names[:23]), _FACE68_MIRROR + 23, _mirror(names[91:]) + 91])
    return _mirror(names)


def _mirror(names: tuple[str, ...]) -> np.ndarray:
    other = {"l": "r", "r": "l"}
    place = {name: i for i, name in enumerate(names)}
    swapped = [other[n[0]] + n[1:] if n[:2] in ("l_", "r_") else n for n in names]
    return np.array([place[name] for name in swapped])


# The 68 face points of the iBUG scheme, mirrored.
_FACE68_MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
     45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56,
     55, 64, 63, 62, 61, 60, 67, 66, 65]
)  # fmt: skip


def bones(joint_set: str) -> np.ndarray:
    """Pairs of joint indices to draw, (bones, 2) int."""
    place = {name: i for i, name in enumerate(joint_names(joint_set))}
    return np.array([(place[a], place[b]) for a, b in BONES if a in place and b in place])


def evaluation_rows() -> np.ndarray:
    """Rows of J_regressor_h36m for the 17 evaluation joints; [:14] are LSP's 14."""
    place = {name: i for i, name in enumerate(JOINT_SETS["h36m17_regressor"])}
    return np.array([place[name] for name in _EVALUATION17])
