"""Poses of the SMPL skeleton: anatomical limits, and natural poses drawn from postures.

Angles are those of an anatomist, in radians, about the axes of SMPL's T-pose (x to the
body's left, y up, z to the front). A joint's rotation is a product of rotations about x, y and z
in an order that keeps the twist about the limb innermost:

    trunk, neck, head   R = R_y(turn) R_z(side) R_x(bend)
    hip, knee, ankle    R = R_x(flex) R_z(abduct) R_y(turn)
    collar, arm, hand   R = R_y(forward) R_z(raise) R_x(twist)

The right side is the mirror image of the left: (x, y, z) becomes (x, -y, -z).
Signs on the left: hip x < 0 flexes, knee x > 0 flexes, ankle x > 0 points the toes, shoulder
z < 0 lowers the arm, shoulder y < 0 brings it forward, elbow y < 0 flexes, spine x > 0 bends.

Ranges are common values of clinical range-of-motion tables, a little widened because the
model's joints share motion that the tables give to one joint. Nothing here is learned from data.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from jaxrecon.bodies.joints import SMPL24, SMPL_PARENTS, mirror_permutation
from jaxrecon.bodies.postures import POSTURE_CUMULATIVE, draw_angles, normal, pick, posture_index

_INDEX = {name: i for i, name in enumerate(SMPL24)}
_RIGHT = np.array([i for i, name in enumerate(SMPL24) if name.startswith("r_")])
_MIRROR = mirror_permutation("smpl24")
_FLIP = np.array([1.0, -1.0, -1.0])

# (lowest, highest) angle about x, y, z; sides are given for the left.
JOINT_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "hip": ((-2.2, 0.6), (-0.7, 0.8), (-0.45, 0.95)),
    "spine1": ((-0.35, 0.9), (-0.35, 0.35), (-0.35, 0.35)),
    "knee": ((-0.1, 2.6), (-0.4, 0.4), (-0.25, 0.25)),
    "spine2": ((-0.35, 0.55), (-0.35, 0.35), (-0.3, 0.3)),
    "ankle": ((-0.65, 0.9), (-0.45, 0.45), (-0.35, 0.35)),
    "spine3": ((-0.3, 0.45), (-0.35, 0.35), (-0.3, 0.3)),
    "foot": ((-0.8, 0.4), (-0.3, 0.3), (-0.25, 0.25)),
    "neck": ((-0.6, 0.6), (-0.7, 0.7), (-0.45, 0.45)),
    "collar": ((-0.3, 0.3), (-0.95, 0.4), (-0.65, 0.65)),
    "head": ((-0.6, 0.6), (-0.7, 0.7), (-0.4, 0.4)),
    "shoulder": ((-1.5, 1.5), (-1.9, 0.8), (-1.55, 1.4)),
    "elbow": ((-0.9, 0.9), (-2.6, 0.1), (-0.35, 0.35)),
    "wrist": ((-0.9, 0.9), (-0.6, 0.6), (-1.1, 1.1)),
    "hand": ((-0.4, 0.4), (-0.4, 0.4), (-1.0, 0.5)),
}
# The shoulder swings about x before all else (an arm that hangs moves to the front and back).
SHOULDER_SWING_RANGE = (-2.6, 0.9)

# Euler order of a joint, written as scipy does for intrinsic rotations.
_LEG = ("hip", "knee", "ankle", "foot")


def _kind(name: str) -> str:
    return name.removeprefix("l_").removeprefix("r_")


_LEG_JOINTS = np.array([i for i, n in enumerate(SMPL24) if _kind(n) in _LEG])
_OTHER_JOINTS = np.array([i for i, n in enumerate(SMPL24) if _kind(n) not in _LEG and i > 0])


def _range_table() -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest anatomical angles (24, 3) of both sides; the pelvis is free."""
    table = np.zeros((24, 3, 2))
    table[0] = (-np.pi, np.pi)
    for i, name in enumerate(SMPL24[1:], start=1):
        ranges = np.array(JOINT_RANGES[_kind(name)])
        if name.startswith("r_"):
            ranges[1:] = -ranges[1:, ::-1]
        table[i] = ranges
    return table[..., 0], table[..., 1]


_LOWEST, _HIGHEST = _range_table()


def _rotations(angles: np.ndarray, swing: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 24, 3, 3) from angles (n, 24, 3) and shoulder swings (n, 2)."""
    count = angles.shape[0]
    matrices = np.tile(np.eye(3), (count, 24, 1, 1))
    leg = angles[:, _LEG_JOINTS][..., [0, 2, 1]].reshape(-1, 3)
    matrices[:, _LEG_JOINTS] = (
        Rotation.from_euler("XZY", leg).as_matrix().reshape(count, len(_LEG_JOINTS), 3, 3)
    )
    other = angles[:, _OTHER_JOINTS][..., [1, 2, 0]].reshape(-1, 3)
    matrices[:, _OTHER_JOINTS] = (
        Rotation.from_euler("YZX", other).as_matrix().reshape(count, len(_OTHER_JOINTS), 3, 3)
    )
    swings = Rotation.from_euler("X", swing.reshape(-1, 1)).as_matrix().reshape(count, 2, 3, 3)
    shoulders = [_INDEX["l_shoulder"], _INDEX["r_shoulder"]]
    matrices[:, shoulders] = swings @ matrices[:, shoulders]
    return matrices


@lru_cache(maxsize=1)
def _axis_angle_box() -> tuple[np.ndarray, np.ndarray]:
    steps = np.linspace(0.0, 1.0, 9)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    angles = _LOWEST + grid * (_HIGHEST - _LOWEST)
    low, high = SHOULDER_SWING_RANGE
    boxes = []
    for swing in np.linspace(low, high, 8):
        matrices = _rotations(angles, np.full((len(angles), 2), swing))
        vectors = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3)
        boxes.append((vectors.min(0), vectors.max(0)))
    lower = np.min([b[0] for b in boxes], axis=0)[1:]
    upper = np.max([b[1] for b in boxes], axis=0)[1:]
    return lower, upper


def pose_limits() -> tuple[Float[np.ndarray, "23 3"], Float[np.ndarray, "23 3"]]:
    """The box of axis-angle vectors that holds every anatomical pose: (lower, upper), radians.

    Rows are joints 1..23 of SMPL (all but the pelvis). Each row is the bounding box of the
    axis-angle vectors that `JOINT_RANGES` allows, so it is tight for hinges (knee, elbow) and
    wide for the shoulders, whose axis-angle components say little on their own.
    """
    lower, upper = _axis_angle_box()
    return lower.copy(), upper.copy()


def _draw(rng: np.random.Generator, posture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (n, 24, 3) and swings (n, 2) of both sides, inside the ranges."""
    angles, swings = draw_angles(rng, posture)
    angles[:, _RIGHT] *= _FLIP
    np.clip(angles, _LOWEST, _HIGHEST, out=angles)
    np.clip(swings, *SHOULDER_SWING_RANGE, out=swings)
    swap = rng.uniform(size=len(posture)) < 0.5
    angles[swap] = angles[swap][:, _MIRROR] * _FLIP
    swings[swap] = swings[swap][:, ::-1]
    return angles, swings


# --- limbs must not go through the body -------------------------------------------------------
@lru_cache(maxsize=1)
def _rest_joints() -> np.ndarray:
    from jaxrecon.bodies.load import load_body

    return np.asarray(load_body().J_template)


def _joint_positions(matrices: np.ndarray) -> np.ndarray:
    """Joints (n, 24, 3) of the mean body, the pelvis upright at the origin."""
    rest = _rest_joints()
    world = matrices.copy()
    world[:, 0] = np.eye(3)
    positions = np.zeros((len(matrices), 24, 3))
    for i, parent in enumerate(SMPL_PARENTS[1:], start=1):
        positions[:, i] = positions[:, parent] + world[:, parent] @ (rest[i] - rest[parent])
        world[:, i] = world[:, parent] @ matrices[:, i]
    return positions


# Segments (from, to, radius in metres) of the thick parts, and the thin ones that must keep out.
_TRUNK = (
    ("l_hip", "l_collar", 0.085), ("r_hip", "r_collar", 0.085),
    ("neck", "head", 0.07),
)  # fmt: skip
_THIGHS = (("l_hip", "l_knee", 0.065), ("r_hip", "r_knee", 0.065))


def _segment_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of points (n, p, 3) from one segment a sample (n, 3): (n, p)."""
    along = (end - start)[:, None]
    offset = points - start[:, None]
    t = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0.0, 1.0)
    return np.linalg.norm(offset - t[..., None] * along, axis=-1)


def limbs_clear(rotmats: Float[np.ndarray, "n 24 3 3"]) -> Bool[np.ndarray, "n"]:
    """Whether arms and legs stay out of the trunk, the head and each other (mean body).

    Capsules stand in for the parts, so touching is allowed and deep cuts are not.
    """
    at = _joint_positions(rotmats)

    def points(start: str, end: str, first: float, last: float, steps: int) -> np.ndarray:
        t = np.linspace(first, last, steps)[:, None]
        a, b = at[:, _INDEX[start], None], at[:, _INDEX[end], None]
        return a + t * (b - a)

    clear = np.ones(len(rotmats), bool)
    forearms = {}
    for side in ("l", "r"):
        forearm = points(f"{side}_elbow", f"{side}_wrist", 0.0, 1.0, 5)
        hand = points(f"{side}_wrist", f"{side}_hand", 0.5, 1.6, 4)
        forearms[side] = np.concatenate([forearm, hand], axis=1)
        thick = [(*part, 0.04) for part in _TRUNK + _THIGHS]
        crown = 2.2 * at[:, _INDEX["head"]] - 1.2 * at[:, _INDEX["neck"]]
        clear &= _segment_distance(forearms[side], at[:, _INDEX["head"]], crown).min(1) > 0.11
        for start, end, radius, own in thick:
            distance = _segment_distance(forearms[side], at[:, _INDEX[start]], at[:, _INDEX[end]])
            clear &= distance.min(1) > radius + own
    for start, end in (("r_elbow", "r_wrist"), ("r_wrist", "r_hand")):
        distance = _segment_distance(forearms["l"], at[:, _INDEX[start]], at[:, _INDEX[end]])
        clear &= distance.min(1) > 0.075
    shank = points("l_knee", "l_foot", 0.1, 1.0, 6)
    for start, end, radius in (
        ("r_knee", "r_ankle", 0.095),
        ("r_hip", "r_knee", 0.12),
        ("r_ankle", "r_foot", 0.08),
    ):
        distance = _segment_distance(shank, at[:, _INDEX[start]], at[:, _INDEX[end]])
        clear &= distance.min(1) > radius
    other = points("r_knee", "r_foot", 0.1, 1.0, 6)
    distance = _segment_distance(other, at[:, _INDEX["l_hip"]], at[:, _INDEX["l_knee"]])
    clear &= distance.min(1) > 0.12
    return clear


def sample_body(
    rng: np.random.Generator, count: int, rounds: int = 12
) -> Float[np.ndarray, "n 24 3 3"]:
    """Natural poses as rotation matrices; row 0 leans the pelvis, without a heading.

    Args:
        rng: NumPy generator; the same state gives the same poses.
        count: number of poses.
        rounds: how often a pose whose limbs cut the body is drawn again at most.
    """
    posture = pick(POSTURE_CUMULATIVE, rng.uniform(size=count))
    lie = posture == posture_index("lie")
    matrices = np.zeros((count, 24, 3, 3))
    root = np.zeros((count, 3))

    def lean(angles: np.ndarray) -> np.ndarray:
        return Rotation.from_euler("XZ", angles[:, 0, [0, 2]]).as_matrix()

    todo = np.arange(count)
    for _ in range(rounds):
        angles, swings = _draw(rng, posture[todo])
        matrices[todo] = _rotations(angles, swings)
        matrices[todo, 0] = lean(angles)
        todo = todo[~limbs_clear(matrices[todo])]
        if todo.size == 0:
            break
    # People lie on their back, their front or a side.
    if lie.any():
        down = rng.choice([-np.pi / 2, np.pi / 2], size=int(lie.sum()), p=[0.7, 0.3])
        root[lie, 0] = down + 0.1 * normal(rng, int(lie.sum()))
        matrices[:, 0] = Rotation.from_rotvec(root).as_matrix() @ matrices[:, 0]
    return matrices


def sample_views(
    rng: np.random.Generator, count: int, frontal: float = 0.0
) -> Float[np.ndarray, "n 3 3"]:
    """Rotations from the upright world (y up) to the camera (y down).

    Cameras are held roughly level: most look a little down, few up, hardly any is rolled.
    Columns are the world's x, up and z axes in the camera frame.

    Args:
        rng: NumPy generator; the same state gives the same views.
        count: number of views.
        frontal: share of views from the front, give or take 35 degrees; the others come from
            all sides alike.
    """
    yaw = rng.uniform(-np.pi, np.pi, count)
    if frontal:
        facing = rng.normal(0.0, np.deg2rad(35.0), count)
        yaw = np.where(rng.uniform(size=count) < frontal, facing, yaw)
    pitch = np.clip(rng.normal(0.1, 0.16, count), -0.35, 0.7)
    roll = np.clip(rng.normal(0.0, 0.05, count), -0.2, 0.2)
    heading = Rotation.from_euler("Y", yaw[:, None]).as_matrix()
    upright = Rotation.from_euler("X", np.full((count, 1), np.pi)).as_matrix()
    # Looking down by `pitch` brings the world's upper end towards the camera.
    camera = Rotation.from_euler("ZX", np.stack([roll, pitch], -1)).as_matrix()
    return camera @ upright @ heading


def sample_poses(
    rng: np.random.Generator, count: int, frontal: float = 0.0
) -> Float[np.ndarray, "n 24 3"]:
    """Natural poses of people seen by a camera, as axis-angle vectors in radians.

    Args:
        rng: NumPy generator; the same state gives the same poses.
        count: number of poses.
        frontal: see `sample_views`.

    Returns:
        (count, 24, 3) float64; row 0 is the global orientation in the camera frame (y down),
        rows 1..23 lie inside `pose_limits`.
    """
    matrices = sample_body(rng, count)
    matrices[:, 0] = sample_views(rng, count, frontal) @ matrices[:, 0]
    return Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(count, 24, 3)


@lru_cache(maxsize=1)
def _mean_rotations() -> np.ndarray:
    matrices = sample_body(np.random.default_rng(0), 1024).mean(0)
    # The mirror image of a rotation R is S R S with S = diag(-1, 1, 1).
    mirror = np.diag([-1.0, 1.0, 1.0])
    matrices = 0.5 * (matrices + mirror @ matrices[_MIRROR] @ mirror)
    matrices[0] = Rotation.from_euler("X", np.pi).as_matrix() @ matrices[0]
    u, _, vt = np.linalg.svd(matrices)
    sign = np.linalg.det(u @ vt)
    u[..., 2] *= sign[:, None]
    return u @ vt


def mean_pose6d() -> Float[np.ndarray, "144"]:
    """The mean pose, facing the camera, as 24 six-dimensional rotations (float32).

    The mean is the rotation nearest to the average matrix of 1024 poses of `sample_body` and
    their mirror images, before any heading: a mean over all headings would be no rotation at
    all. Six numbers a joint are its matrix's first two columns, read row by row (Meta-HMR spec,
    section 3, step 5).
    """
    return _mean_rotations()[:, :, :2].reshape(144).astype(np.float32)
