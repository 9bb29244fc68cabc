"""What people do: postures of legs and trunk, gestures of arms, and draws from them.

Tables of means and spreads of anatomical angles in radians (axes and signs as in
`bodies.poses`), written by hand from what the activities look like; nothing is learned from data.
"""

import numpy as np

from jaxrecon.bodies.joints import SMPL24

_INDEX = {name: i for i, name in enumerate(SMPL24)}

# --- postures: what legs and trunk do ---------------------------------------------------------
# Columns of a posture: (mean, spread). Leg A is the left one until the pose is mirrored at random.
#   tilt   pelvis forward;  roll  pelvis to the side;  bend, turn, side  the whole spine
#   stride amplitude of the gait;  flex_a .. knee_b  the legs
_POSTURE_COLUMNS = (
    "tilt", "roll", "bend", "turn", "side", "stride", "flex_a", "abduct_a", "turn_a", "knee_a",
    "flex_b", "abduct_b", "turn_b", "knee_b",
)  # fmt: skip
_POSTURES: dict[str, dict[str, tuple[float, float]]] = {
    "stand": {
        "tilt": (0.03, 0.05), "roll": (0.0, 0.03), "bend": (0.05, 0.12), "turn": (0.0, 0.15),
        "side": (0.0, 0.08), "flex_a": (-0.03, 0.06), "abduct_a": (0.05, 0.08),
        "turn_a": (0.15, 0.15), "knee_a": (0.05, 0.06), "flex_b": (-0.15, 0.18),
        "abduct_b": (0.12, 0.12), "turn_b": (0.2, 0.18), "knee_b": (0.2, 0.22),
    },
    "wide_stand": {
        "tilt": (0.05, 0.08), "roll": (0.0, 0.06), "bend": (0.1, 0.15), "turn": (0.0, 0.25),
        "side": (0.0, 0.12), "flex_a": (-0.25, 0.2), "abduct_a": (0.35, 0.13),
        "turn_a": (0.25, 0.2), "knee_a": (0.35, 0.25), "flex_b": (-0.25, 0.2),
        "abduct_b": (0.35, 0.13), "turn_b": (0.25, 0.2), "knee_b": (0.35, 0.25),
    },
    "walk": {
        "tilt": (0.04, 0.05), "roll": (0.0, 0.04), "bend": (0.06, 0.1), "turn": (0.0, 0.12),
        "side": (0.0, 0.05), "stride": (0.42, 0.12), "flex_a": (-0.08, 0.05),
        "abduct_a": (0.0, 0.04), "turn_a": (0.08, 0.1), "knee_a": (0.12, 0.08),
        "flex_b": (-0.08, 0.05), "abduct_b": (0.0, 0.04), "turn_b": (0.08, 0.1),
        "knee_b": (0.12, 0.08),
    },
    "run": {
        "tilt": (0.2, 0.08), "roll": (0.0, 0.05), "bend": (0.12, 0.1), "turn": (0.0, 0.12),
        "side": (0.0, 0.05), "stride": (0.85, 0.18), "flex_a": (-0.25, 0.1),
        "abduct_a": (0.02, 0.05), "turn_a": (0.05, 0.1), "knee_a": (0.45, 0.15),
        "flex_b": (-0.25, 0.1), "abduct_b": (0.02, 0.05), "turn_b": (0.05, 0.1),
        "knee_b": (0.45, 0.15),
    },
    "sit": {
        "tilt": (-0.1, 0.15), "roll": (0.0, 0.04), "bend": (0.3, 0.25), "turn": (0.0, 0.2),
        "side": (0.0, 0.12), "flex_a": (-1.4, 0.18), "abduct_a": (0.22, 0.15),
        "turn_a": (0.05, 0.2), "knee_a": (1.45, 0.3), "flex_b": (-1.4, 0.18),
        "abduct_b": (0.22, 0.15), "turn_b": (0.05, 0.2), "knee_b": (1.45, 0.3),
    },
    "squat": {
        "tilt": (0.3, 0.2), "roll": (0.0, 0.04), "bend": (0.35, 0.2), "turn": (0.0, 0.15),
        "side": (0.0, 0.08), "flex_a": (-1.65, 0.3), "abduct_a": (0.4, 0.17),
        "turn_a": (0.25, 0.15), "knee_a": (1.9, 0.3), "flex_b": (-1.65, 0.3),
        "abduct_b": (0.4, 0.17), "turn_b": (0.25, 0.15), "knee_b": (1.9, 0.3),
    },
    "bend": {
        "tilt": (0.65, 0.3), "roll": (0.0, 0.05), "bend": (0.7, 0.3), "turn": (0.0, 0.25),
        "side": (0.0, 0.15), "flex_a": (-0.75, 0.3), "abduct_a": (0.12, 0.1),
        "turn_a": (0.12, 0.15), "knee_a": (0.3, 0.25), "flex_b": (-0.75, 0.3),
        "abduct_b": (0.12, 0.1), "turn_b": (0.12, 0.15), "knee_b": (0.3, 0.25),
    },
    "kick": {
        "tilt": (-0.1, 0.15), "roll": (0.0, 0.12), "bend": (0.15, 0.2), "turn": (0.0, 0.25),
        "side": (0.0, 0.15), "flex_a": (-1.1, 0.45), "abduct_a": (0.2, 0.25),
        "turn_a": (0.15, 0.2), "knee_a": (0.6, 0.5), "flex_b": (0.05, 0.12),
        "abduct_b": (0.06, 0.08), "turn_b": (0.15, 0.15), "knee_b": (0.2, 0.15),
    },
    "lunge": {
        "tilt": (0.08, 0.12), "roll": (0.0, 0.05), "bend": (0.1, 0.18), "turn": (0.0, 0.25),
        "side": (0.0, 0.12), "flex_a": (-1.25, 0.25), "abduct_a": (0.08, 0.1),
        "turn_a": (0.08, 0.12), "knee_a": (1.3, 0.25), "flex_b": (0.2, 0.2),
        "abduct_b": (0.08, 0.1), "turn_b": (0.05, 0.12), "knee_b": (1.1, 0.45),
    },
    "dance": {
        "tilt": (0.0, 0.2), "roll": (0.0, 0.15), "bend": (0.05, 0.35), "turn": (0.0, 0.4),
        "side": (0.0, 0.3), "flex_a": (-0.6, 0.5), "abduct_a": (0.3, 0.25),
        "turn_a": (0.2, 0.25), "knee_a": (0.9, 0.5), "flex_b": (-0.2, 0.3),
        "abduct_b": (0.15, 0.2), "turn_b": (0.2, 0.25), "knee_b": (0.4, 0.4),
    },
    "lie": {
        "tilt": (0.0, 0.1), "roll": (0.0, 0.1), "bend": (0.1, 0.2), "turn": (0.0, 0.2),
        "side": (0.0, 0.15), "flex_a": (-0.4, 0.4), "abduct_a": (0.12, 0.15),
        "turn_a": (0.15, 0.2), "knee_a": (0.6, 0.5), "flex_b": (-0.15, 0.2),
        "abduct_b": (0.12, 0.12), "turn_b": (0.15, 0.2), "knee_b": (0.25, 0.25),
    },
}  # fmt: skip
_POSTURE_SHARES = {
    "stand": 0.27, "wide_stand": 0.09, "walk": 0.16, "run": 0.08, "sit": 0.11, "squat": 0.05,
    "bend": 0.06, "kick": 0.05, "lunge": 0.05, "dance": 0.06, "lie": 0.02,
}  # fmt: skip
POSTURES = tuple(_POSTURES)

# --- what an arm does -------------------------------------------------------------------------
# swing, forward, raise and twist of the upper arm (left), flexion and twist of the forearm,
# rise and protraction of the collar: means, then spreads.
_ARMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "hang": ((0.0, -0.12, -1.13, 0.1, 0.32, 0.1, -0.12, -0.1),
             (0.14, 0.15, 0.11, 0.2, 0.2, 0.25, 0.08, 0.12)),
    "swing": ((0.0, -0.1, -1.15, 0.1, 0.35, 0.1, -0.1, -0.05),
              (0.08, 0.1, 0.08, 0.15, 0.12, 0.2, 0.06, 0.08)),
    "hip": ((0.05, 0.25, -0.85, 1.05, 1.65, 0.1, 0.0, -0.05),
            (0.1, 0.12, 0.1, 0.12, 0.15, 0.2, 0.08, 0.1)),
    "front": ((0.0, -1.1, -0.25, 0.1, 0.5, 0.0, 0.05, -0.3),
              (0.1, 0.35, 0.4, 0.35, 0.4, 0.35, 0.12, 0.15)),
    "hold": ((-0.35, -0.1, -1.1, 0.3, 1.45, 0.2, -0.08, -0.15),
             (0.25, 0.15, 0.13, 0.25, 0.3, 0.35, 0.08, 0.12)),
    "face": ((-1.0, -0.1, -1.05, 0.3, 2.2, 0.0, 0.0, -0.2),
             (0.25, 0.15, 0.15, 0.2, 0.17, 0.3, 0.1, 0.12)),
    "up": ((0.0, -0.35, 0.95, -0.9, 0.6, 0.0, 0.32, -0.1),
           (0.1, 0.3, 0.3, 0.35, 0.5, 0.3, 0.12, 0.12)),
    "wave": ((0.0, -0.45, -0.2, -1.25, 1.5, 0.0, 0.1, -0.1),
             (0.1, 0.3, 0.3, 0.25, 0.35, 0.35, 0.12, 0.12)),
    "side": ((0.0, -0.1, -0.05, 0.0, 0.15, 0.0, 0.05, -0.03),
             (0.08, 0.2, 0.22, 0.25, 0.2, 0.25, 0.08, 0.1)),
    "slant": ((0.0, -0.1, -0.72, 0.05, 0.25, 0.0, -0.03, -0.05),
              (0.1, 0.15, 0.15, 0.2, 0.25, 0.25, 0.08, 0.1)),
    "lap": ((-0.55, -0.05, -1.15, 0.25, 0.85, 0.2, -0.1, -0.12),
            (0.15, 0.1, 0.1, 0.2, 0.25, 0.25, 0.06, 0.1)),
    "back": ((0.55, 0.1, -1.05, 0.1, 0.25, 0.0, 0.0, 0.1),
             (0.2, 0.15, 0.12, 0.25, 0.25, 0.25, 0.08, 0.1)),
    "fall": ((-1.1, -0.1, -1.15, 0.1, 0.3, 0.0, -0.05, -0.25),
             (0.4, 0.15, 0.15, 0.25, 0.3, 0.3, 0.08, 0.12)),
    "free": ((-0.3, -0.5, -0.4, 0.0, 0.9, 0.0, 0.0, -0.1),
             (0.5, 0.6, 0.6, 0.5, 0.7, 0.4, 0.15, 0.15)),
}  # fmt: skip
_ARM_SHARES: dict[str, dict[str, float]] = {
    "stand": {"hang": 8, "hip": 2, "front": 2, "hold": 3, "face": 1.3, "up": 1.5, "wave": 1.5,
              "side": 1.2, "slant": 1.5, "back": 0.5, "free": 1.5},
    "wide_stand": {"hang": 2, "hip": 2, "front": 2, "hold": 2, "up": 2, "wave": 1, "side": 2,
                   "slant": 2, "free": 2},
    "walk": {"swing": 12, "hold": 2, "wave": 0.5, "front": 0.5, "face": 0.7},
    "run": {"swing": 12, "free": 1},
    "sit": {"lap": 7, "hold": 3, "front": 2, "face": 1.2, "back": 1, "wave": 0.7, "up": 0.5,
            "free": 1},
    "squat": {"lap": 2, "front": 3, "hold": 2, "fall": 2, "free": 1},
    "bend": {"fall": 8, "back": 1, "front": 1, "hip": 0.7, "hang": 1, "free": 1},
    "kick": {"side": 2, "slant": 3, "hold": 2, "free": 3, "front": 1},
    "lunge": {"hang": 2, "hip": 1, "front": 2, "up": 1, "hold": 2, "side": 1, "free": 2},
    "dance": {"up": 2, "wave": 2, "side": 2, "slant": 2, "free": 4, "hip": 1, "front": 1},
    "lie": {"hang": 3, "slant": 2, "up": 1, "free": 1, "hold": 1},
}  # fmt: skip
_ARM_MODES = tuple(_ARMS)


def _share_table() -> np.ndarray:
    table = np.array([[_ARM_SHARES[p].get(mode, 0.0) for mode in _ARM_MODES] for p in POSTURES])
    return np.cumsum(table / table.sum(1, keepdims=True), axis=1)


_ARM_CUMULATIVE = _share_table()
_ARM_MEAN = np.array([_ARMS[m][0] for m in _ARM_MODES])
_ARM_SPREAD = np.array([_ARMS[m][1] for m in _ARM_MODES])
_POSTURE_TABLE = np.array(
    [[_POSTURES[p].get(c, (0.0, 0.0)) for c in _POSTURE_COLUMNS] for p in POSTURES]
)
POSTURE_CUMULATIVE = np.cumsum([_POSTURE_SHARES[p] for p in POSTURES])
POSTURE_CUMULATIVE /= POSTURE_CUMULATIVE[-1]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers without tails."""
    return np.clip(rng.standard_normal(shape), -2.5, 2.5)


def pick(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    return np.minimum((uniform[..., None] >= cumulative).sum(-1), cumulative.shape[-1] - 1)


def posture_index(name: str) -> int:
    return POSTURES.index(name)


def draw_angles(rng: np.random.Generator, posture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anatomical angles for postures (n,): angles (n, 24, 3) and shoulder swings (n, 2).

    Both sides are written as if they were the left; row 0 is the lean of the pelvis. Angles may
    pass the joints' ranges.
    """
    count = len(posture)
    angles = np.zeros((count, 24, 3))
    table = _POSTURE_TABLE[posture]
    draw = table[..., 0] + table[..., 1] * normal(rng, count, len(_POSTURE_COLUMNS))
    value = {name: draw[:, i] for i, name in enumerate(_POSTURE_COLUMNS)}

    def joint(name: str) -> np.ndarray:
        return angles[:, _INDEX[name]]

    # Both legs of a sitter or squatter move together; a flexed hip brings its knee along.
    shared = normal(rng, count) * 0.2
    together = np.isin(posture, [posture_index("sit"), posture_index("squat")])
    lifted = np.isin(posture, [posture_index("kick"), posture_index("dance")])
    # A pelvis that tilts further than usual leaves the legs where they stand.
    leaning = value["tilt"] - _POSTURE_TABLE[posture, 0, 0]
    stride, phase = np.abs(value["stride"]), rng.uniform(0, 2 * np.pi, count)
    for side, sign in (("a", 1.0), ("b", -1.0)):
        name = "l" if side == "a" else "r"
        wave = sign * np.sin(phase)
        # The knee bends most while the leg swings to the front, a quarter behind the hip.
        lift = np.maximum(0.0, sign * np.cos(phase)) ** 1.5
        flex = value[f"flex_{side}"] - stride * wave - leaning
        knee = value[f"knee_{side}"] + stride * 1.6 * lift + together * shared
        knee = knee - 0.35 * np.minimum(flex, 0.0) * (posture == posture_index("dance"))
        flex = flex - together * shared * 0.8
        knee = np.maximum(knee, 0.02 + 0.03 * np.abs(knee))
        joint(f"{name}_hip")[:, 0] = flex
        joint(f"{name}_hip")[:, 2] = value[f"abduct_{side}"]
        joint(f"{name}_hip")[:, 1] = value[f"turn_{side}"]
        joint(f"{name}_knee")[:, 0] = knee
        joint(f"{name}_knee")[:, 1:] = normal(rng, count, 2) * (0.08, 0.04)
        # A foot on the floor lies flat; one in the air hangs.
        flat = -(value["tilt"] + flex + knee)
        airborne = (stride > 0) * lift + (posture == posture_index("lie"))
        airborne = np.clip(airborne + (side == "a") * lifted, 0, 1)
        joint(f"{name}_ankle")[:, 0] = (1 - airborne) * np.clip(flat, -0.5, 0.5) + airborne * 0.35
        joint(f"{name}_ankle")[:] += normal(rng, count, 3) * (0.08, 0.1, 0.07)
        joint(f"{name}_foot")[:, 0] = -np.maximum(0.0, flat - 0.5) * 0.5
        joint(f"{name}_foot")[:] += normal(rng, count, 3) * (0.08, 0.04, 0.04)

    # The spine shares its bend; neck and head share theirs and look where the body goes.
    for name, share in (("spine1", 0.38), ("spine2", 0.34), ("spine3", 0.28)):
        joint(name)[:] = share * np.stack([value["bend"], value["turn"], value["side"]], -1)
        joint(name)[:] += normal(rng, count, 3) * 0.04
    bent = value["bend"] + np.maximum(value["tilt"], 0.0)
    gaze = np.stack([0.1 - 0.4 * bent, -0.3 * value["turn"], -0.5 * value["side"]], -1)
    gaze += normal(rng, count, 3) * (0.25, 0.35, 0.12)
    joint("neck")[:] = 0.45 * gaze + normal(rng, count, 3) * 0.04
    joint("head")[:] = 0.55 * gaze + normal(rng, count, 3) * 0.04

    # Arms: both do the same half of the time.
    modes = pick(_ARM_CUMULATIVE[posture][:, None], rng.uniform(size=(count, 2)))
    modes[:, 1] = np.where(rng.uniform(size=count) < 0.55, modes[:, 0], modes[:, 1])
    swings = np.zeros((count, 2))
    both = normal(rng, count, 8)
    running = posture == posture_index("run")
    gait = modes == _ARM_MODES.index("swing")
    for k, (name, sign) in enumerate((("l", 1.0), ("r", -1.0))):
        own = 0.6 * both + 0.8 * normal(rng, count, 8)
        arm = _ARM_MEAN[modes[:, k]] + _ARM_SPREAD[modes[:, k]] * own
        swing = arm[:, 0] + gait[:, k] * sign * 0.9 * stride * np.sin(phase)
        elbow = arm[:, 4] + gait[:, k] * (running * 1.2 - 0.4 * np.minimum(swing, 0.0))
        # Where the trunk leans, the arms that hang go with gravity.
        hanging = np.isin(modes[:, k], [_ARM_MODES.index("hang"), _ARM_MODES.index("swing")])
        swings[:, k] = swing - hanging * 0.8 * bent
        joint(f"{name}_shoulder")[:] = arm[:, [3, 1, 2]]
        joint(f"{name}_elbow")[:, 1] = -np.abs(elbow)
        joint(f"{name}_elbow")[:, 0] = arm[:, 5]
        joint(f"{name}_collar")[:, 2] = arm[:, 6]
        joint(f"{name}_collar")[:, 1] = arm[:, 7]
        joint(f"{name}_wrist")[:] = normal(rng, count, 3) * (0.2, 0.15, 0.2)
        joint(f"{name}_hand")[:] = (0.0, 0.0, -0.2) + normal(rng, count, 3) * (0.05, 0.05, 0.2)
    angles[:, 0, 0], angles[:, 0, 2] = value["tilt"], value["roll"]
    return angles, swings
