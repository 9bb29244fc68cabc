"""The open right hand, put together in the layout of a MANO file (design, section 10)."""

from collections.abc import Callable

import numpy as np

from jaxrecon.bodies.open_body.generate.body import (
    filled_weights,
    kintree_table,
    pose_all,
    provenance,
)
from jaxrecon.bodies.open_body.generate.decimate import decimate
from jaxrecon.bodies.open_body.generate.hand_poses import (
    HAND_JOINTS,
    HAND_PARENTS,
    hand_pose_space,
)
from jaxrecon.bodies.open_body.generate.population import ModestyFill, People, Shapes, adults
from jaxrecon.bodies.open_body.generate.regressors import fit_row
from jaxrecon.bodies.open_body.generate.shape_space import shape_space
from jaxrecon.bodies.open_body.generate.skeleton import strongest
from jaxrecon.bodies.open_body.generate.source import N_BODY, Source
from jaxrecon.bodies.open_body.generate.surface import (
    border,
    chains,
    islands,
    split_quads,
    within,
    zip_closed,
)
from jaxrecon.bodies.open_body.generate.t_pose import TPose

_PEOPLE = 400
_FIRST = 60
_VERTICES = 900
_BEHIND_WRIST = 2  # edges that the cut lies beyond the hand's texture island
_LENGTH = 0.185  # metres from the wrist joint to the most distal vertex
_RADII = {"wrist": 0.05}
_RADIUS = 0.028
_FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
_TIP_ORDER = ("thumb", "index", "middle", "ring", "pinky")
_LOCAL = {"fingers-diameter": 0.35, "fingers-length": 0.2, "fingers-distance": 0.25, "scale": 0.12}


def generate_hand(source: Source, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """All arrays of `open_hand_right.npz`, from the source."""
    shapes, fill = Shapes(source), ModestyFill(source)
    people = adults(shapes, _PEOPLE, seed=1)
    local = _LocalTargets(source, len(people))
    bone_weights = filled_weights(source, fill)
    pose = TPose(source, flatten=1.0)
    wide = np.arange(N_BODY)

    def pose_some(part: People, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pose_all(shapes, fill, pose, part, ids, bone_weights, local)

    posed, _ = pose_some(people.part(slice(0, _FIRST)), wide)
    positions = np.round(posed.mean(0, dtype=np.float64), 5)
    ids, faces, loop = _cut(source, positions)
    say(f"hand of {len(ids)} vertices and {len(faces)} triangles")

    samples, heads = pose_some(people, ids)
    joints = np.stack([heads[:, source.bone(_bone(name))] for name in HAND_JOINTS], 1)
    fit = slice(None, None, 4)
    regressor = np.stack(
        [
            fit_row(samples[fit], joints[fit, j], _RADII.get(name, _RADIUS))
            for j, name in enumerate(HAND_JOINTS)
        ]
    )
    wrist = regressor[0] @ samples
    reach = np.linalg.norm(samples - wrist[:, None], axis=2).max(1).mean()
    samples = (samples - wrist[:, None]) * (_LENGTH / reach)
    space = shape_space(samples, faces)
    template = space.mean - space.mean.mean(0)
    rest = regressor @ template
    weights = _weights(source, bone_weights[ids])
    tips = _tips(template, rest, weights)
    mean, components, coefficients = hand_pose_space(rest, template[tips])
    say("joints, shapes and grasps found")
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": space.directions.astype(np.float32),
        "posedirs": np.zeros((len(ids), 3, 9 * (len(HAND_JOINTS) - 1)), np.float16),
        "J_regressor": regressor.astype(np.float32),
        "J": rest.astype(np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": kintree_table(HAND_PARENTS),
        "f": faces.astype(np.uint32),
        "bs_style": np.array("lbs"),
        "bs_type": np.array("lrotmin"),
        "hands_components": components.astype(np.float32),
        "hands_mean": mean.astype(np.float32),
        "hands_coeffs": coefficients.astype(np.float16),
        "vertex_ids": tips.astype(np.int32),
        "vertex_names": np.array(_TIP_ORDER),
        "joint_names": np.array(HAND_JOINTS),
        "wrist_loop": loop.astype(np.int32),
        "makehuman_vertex_ids": ids.astype(np.int32),
        "explained_variance": space.explained.astype(np.float32),
        "meta": np.array(provenance()),
    }


class _LocalTargets:
    """Displacements of the hand's own targets, drawn for every person."""

    def __init__(self, source: Source, count: int):
        rng = np.random.default_rng(2)
        self.targets = {
            sign: source.targets([f"hands/r-hand-{name}-{sign}" for name in _LOCAL])
            for sign in ("decr", "incr")
        }
        spreads = np.array(list(_LOCAL.values()))
        self.amounts = np.clip(rng.normal(size=(count, len(_LOCAL))) * spreads, -1, 1)

    def __call__(self, part: slice) -> np.ndarray:
        amounts = self.amounts[part].astype(np.float32)
        more = np.tensordot(np.maximum(amounts, 0), self.targets["incr"], 1)
        return more + np.tensordot(np.maximum(-amounts, 0), self.targets["decr"], 1)


def _cut(source: Source, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The right hand: base-mesh ids, closed triangles (the cap last), and the wrist's border."""
    hands = islands(source)["hands"]
    right = hands[positions[hands, 0].mean(1) < 0]
    near = within(source.quads, right, _BEHIND_WRIST)
    quads = source.quads[near[source.quads].all(1)]
    triangles = split_quads(quads, positions)
    ring = chains(border(triangles), set(np.unique(triangles).tolist()))
    if len(ring) != 1:
        raise RuntimeError(f"the hand has {len(ring)} borders")
    loop = np.array(ring[0])
    kept = decimate(positions, triangles, _VERTICES, np.ones(len(positions)), fixed=loop)
    cap = zip_closed(ring[0], positions)
    ids = np.unique(kept)
    faces = np.searchsorted(ids, np.concatenate([kept, cap]))
    return ids, faces, np.searchsorted(ids, loop)


def _bone(joint: str) -> str:
    if joint == "wrist":
        return "wrist.R"
    return f"finger{_FINGERS[joint[:-1]]}-{joint[-1]}.R"


def _weights(source: Source, bone_weights: np.ndarray) -> np.ndarray:
    """(V, 16): fingers one to one, everything else to the wrist."""
    table = np.zeros((len(bone_weights), len(HAND_JOINTS)))
    for j, name in enumerate(HAND_JOINTS[1:], 1):
        table[:, j] = bone_weights[:, source.bone(_bone(name))]
    table[:, 0] = 1 - table.sum(1)
    return strongest(table)


def _tips(template: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The vertex of each finger furthest along its last bone, in the order of the names."""
    found = []
    for name in _TIP_ORDER:
        last = HAND_JOINTS.index(f"{name}3")
        along = template @ (joints[last] - joints[last - 1])
        found.append(np.argmax(np.where(weights[:, last] > 0.5, along, -np.inf)))
    return np.array(found)
