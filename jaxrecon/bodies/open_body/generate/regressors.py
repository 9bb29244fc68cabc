"""Joints as mixes of vertices: J_regressor, the H36M and extra rows, landmarks (sections 7, 9)."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

from jaxrecon.bodies.open_body.generate.skeleton import JOINTS, mirrored_joints
from jaxrecon.bodies.open_body.generate.surface import EYE_FRONTS

_MOST_CANDIDATES = 240
_SUM_WEIGHT = 30.0
_RIDGE = 3e-4
RADII = {
    "pelvis": 0.2, "spine1": 0.2, "spine2": 0.2, "spine3": 0.2, "hip": 0.18, "knee": 0.10,
    "ankle": 0.09, "foot": 0.08, "neck": 0.11, "collar": 0.14, "head": 0.14, "shoulder": 0.13,
    "elbow": 0.09, "wrist": 0.07, "hand": 0.07,
}  # fmt: skip
VERTEX_NAMES = (
    "nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe",
    "RSmallToe", "RHeel", "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex",
    "rmiddle", "rring", "rpinky",
)  # fmt: skip


def fit_row(vertices: np.ndarray, joints: np.ndarray, radius: float) -> np.ndarray:
    """Non-negative weights (V,), sum 1, that give a joint from the vertices around it.

    The radius reaches all around the limb: the nearest vertices alone lie on one side of it.

    Args:
      vertices: (N, V, 3) samples.
      joints: (N, 3) the joint in each.
      radius: in metres about the mean joint.
    """
    mean = vertices.mean(0, dtype=np.float64)
    near = np.flatnonzero(np.linalg.norm(mean - joints.mean(0), axis=1) < radius)
    if len(near) > _MOST_CANDIDATES:
        near = near[np.linspace(0, len(near) - 1, _MOST_CANDIDATES).astype(int)]
    count = len(near)
    offsets = vertices[:, near].astype(np.float64) - joints[:, None]
    rows = offsets.transpose(0, 2, 1).reshape(-1, count) / np.sqrt(len(vertices))
    system = np.concatenate([rows, np.full((1, count), _SUM_WEIGHT), _RIDGE * np.eye(count)])
    right = np.zeros(len(system))
    right[len(rows)] = _SUM_WEIGHT
    right[len(rows) + 1 :] = _RIDGE / count
    found, _ = nnls(system, right)
    found[found < 1e-4 * found.max()] = 0
    row = np.zeros(vertices.shape[1])
    row[near] = found / found.sum()
    return row


def body_regressor(vertices: np.ndarray, joints: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """J_regressor (24, V): left rows fitted, right ones mirrored, midline ones symmetric."""
    image = mirrored_joints(JOINTS)
    rows = np.zeros((len(JOINTS), vertices.shape[1]))
    for j, name in enumerate(JOINTS):
        if name.startswith("r_"):
            continue
        row = fit_row(vertices, joints[:, j], RADII[name.removeprefix("l_")])
        if image[j] == j:
            rows[j] = (row + row[mirror]) / 2
        else:
            rows[j], rows[image[j]] = row, row[mirror]
    return rows


def landmarks(
    template: np.ndarray,
    ids: np.ndarray,
    mirror: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    bone_weight: Callable[[str], np.ndarray],
    head_vertices: np.ndarray,
) -> np.ndarray:
    """The 21 landmark vertices, in the order of `VERTEX_NAMES`.

    Args:
      template: (V, 3).
      ids: (V,) base-mesh ids.
      mirror: (V,) mirror image of each vertex.
      joints: (24, 3) rest joints.
      weights: (V, 24) skinning weights.
      bone_weight: MakeHuman's weight (V,) of a bone.
      head_vertices: (V,) mask of the head.
    """
    x, y, z = template.T
    everyone = np.arange(len(template))

    def best(score: np.ndarray, mask: np.ndarray) -> int:
        return int(everyone[mask][np.argmax(score[mask])])

    found = {}
    eyes = {side: int(np.flatnonzero(ids == i)[0]) for side, i in zip("rl", EYE_FRONTS)}
    eye_height = y[eyes["l"]]
    found["nose"] = best(z, (mirror == everyone) & head_vertices & (y < eye_height))
    found["reye"], found["leye"] = eyes["r"], eyes["l"]
    at_eyes = head_vertices & (np.abs(y - eye_height) < 0.03)
    left = {
        "lear": best(x, at_eyes),
        "LBigToe": best(z, _toe(bone_weight, 1) > 0.5),
        "LSmallToe": best(z, _toe(bone_weight, 5) > 0.5),
    }
    ankle = joints[JOINTS.index("l_ankle")]
    foot = weights[:, JOINTS.index("l_ankle")] + weights[:, JOINTS.index("l_foot")] > 0.5
    left["LHeel"] = best(-z, foot & (y < ankle[1] - 0.025))
    for finger, name in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1):
        left["l" + name] = best(x, bone_weight(f"finger{finger}-3.L") > 0.5)
    found |= left
    right = {"lear": "rear", "LBigToe": "RBigToe", "LSmallToe": "RSmallToe", "LHeel": "RHeel"}
    for name, vertex in left.items():
        found[right.get(name, "r" + name[1:])] = int(mirror[vertex])
    return np.array([found[name] for name in VERTEX_NAMES], np.int32)


def _toe(bone_weight: Callable[[str], np.ndarray], toe: int) -> np.ndarray:
    segments = range(1, 3 if toe == 1 else 4)
    return np.sum([bone_weight(f"toe{toe}-{i}.L") for i in segments], axis=0)


def other_regressors(
    template: np.ndarray,
    regressor: np.ndarray,
    nose: int,
    mirror: np.ndarray,
    hip_vertices: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """J_regressor_h36m (17, V) and J_regressor_extra (9, V): mixes of joint rows and vertices.

    Geometric, not calibrated against the usual files: errors computed with them are not
    comparable with published ones.

    Args:
      template: (V, 3).
      regressor: (24, V).
      nose: the nose vertex.
      mirror: (V,) mirror images.
      hip_vertices: (V,) mask of the vertices among which the outermost at hip height is sought.
    """
    row = dict(zip(JOINTS, regressor, strict=True))
    joint_y = regressor @ template[:, 1]

    def vertex(index: int) -> np.ndarray:
        return np.eye(1, len(template), index)[0]

    crown = int(np.argmax(template[:, 1]))
    top = (vertex(crown) + vertex(int(mirror[crown]))) / 2
    level = np.abs(template[:, 1] - joint_y[JOINTS.index("l_hip")]) < 0.02
    among = np.flatnonzero(level & hip_vertices)
    outer = int(among[np.argmax(template[among, 0])])

    def hip(side: str, a: float) -> np.ndarray:
        index = outer if side == "l" else int(mirror[outer])
        return (1 - a) * row[f"{side}_hip"] + a * vertex(index)

    shoulders = (row["l_shoulder"] + row["r_shoulder"]) / 2
    spine = 0.7 * row["spine1"] + 0.3 * row["spine2"]
    jaw = 0.6 * row["neck"] + 0.4 * vertex(nose)
    head = 0.5 * top + 0.5 * row["head"]
    h36m = [(hip("l", 0.25) + hip("r", 0.25)) / 2]
    for side in "lr":
        h36m += [hip(side, 0.25), row[f"{side}_knee"], row[f"{side}_ankle"]]
    h36m += [spine, 0.5 * shoulders + 0.25 * row["neck"] + 0.25 * row["spine3"], jaw, head]
    for side in "lr":
        h36m += [row[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist")]
    hips = (row["l_hip"] + row["r_hip"]) / 2
    extra = [
        hip("r", 0.15),
        hip("l", 0.15),
        0.5 * row["neck"] + 0.5 * shoulders,
        0.9 * top + 0.1 * row["head"],
        0.35 * row["pelvis"] + 0.65 * hips,
        0.4 * row["neck"] + 0.6 * shoulders,
        spine,
        jaw,
        head,
    ]
    return np.stack(h36m), np.stack(extra)
