"""SMPL's 24 joints and skinning weights from MakeHuman's 163 bones (design, section 6)."""

import numpy as np

from jaxrecon.bodies.open_body.generate.source import Source

JOINTS = (
    "pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle", "r_ankle",
    "spine3", "l_foot", "r_foot", "neck", "l_collar", "r_collar", "head", "l_shoulder",
    "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist", "l_hand", "r_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

# Half widths in metres of the bands over which the trunk passes from one joint to the next.
_TRUNK_BANDS = (("spine1", 0.08), ("spine2", 0.07), ("spine3", 0.07))
_CHEST_LEAN = 0.4
_LIMBS = {
    "hip": ("upperleg01", "upperleg02"),
    "knee": ("lowerleg01", "lowerleg02"),
    "ankle": ("foot",),
    "foot": tuple(f"toe{t}-{i}" for t in range(1, 6) for i in range(1, 3 if t == 1 else 4)),
    "collar": ("clavicle", "shoulder01"),
    "shoulder": ("upperarm01", "upperarm02"),
    "elbow": ("lowerarm01", "lowerarm02"),
    "wrist": (
        "wrist",
        *(f"metacarpal{i}" for i in range(1, 5)),
        *(f"finger1-{i}" for i in range(1, 4)),
    ),
    "hand": tuple(f"finger{f}-{i}" for f in range(2, 6) for i in range(1, 4)),
}
_TRUNK = ("root", *(f"spine0{i}" for i in range(1, 6)), "pelvis.L", "pelvis.R", "breast.L",
          "breast.R")  # fmt: skip


def mirrored_joints(names: tuple[str, ...]) -> np.ndarray:
    """Index of each joint's mirror image, by the prefixes l_ and r_."""
    other = {"l_": "r_", "r_": "l_"}
    return np.array([names.index(other.get(n[:2], n[:2]) + n[2:]) for n in names])


def joint_centres(source: Source, heads: np.ndarray) -> np.ndarray:
    """The 24 joint centres (N, 24, 3) from T-posed bone heads (N, bones, 3)."""

    def head(*names: str) -> np.ndarray:
        return np.mean([heads[:, source.bone(name)] for name in names], axis=0)

    centre = {"pelvis": head("spine04")}
    centre["pelvis"][:, 2] = head("upperleg01.L", "upperleg01.R")[:, 2]
    centre["spine1"] = head("spine03", "spine02")
    centre["spine2"] = 0.3 * head("spine02") + 0.7 * head("spine01")
    centre["spine3"] = head("spine01")
    centre["neck"] = head("neck02")
    centre["head"] = head("head")
    for prefix, side in (("l_", ".L"), ("r_", ".R")):
        for joint, bone in (
            ("hip", "upperleg01"),
            ("knee", "lowerleg01"),
            ("ankle", "foot"),
            ("shoulder", "upperarm01"),
            ("elbow", "lowerarm01"),
            ("wrist", "wrist"),
        ):
            centre[prefix + joint] = head(bone + side)
        centre[prefix + "foot"] = head(*(f"toe{i}-1{side}" for i in range(1, 6)))
        collar = 0.25 * head("clavicle" + side) + 0.75 * head("shoulder01" + side)
        centre[prefix + "collar"] = collar
        knuckles = head(*(f"finger{i}-1{side}" for i in range(2, 6)))
        centre[prefix + "hand"] = 0.2 * head("wrist" + side) + 0.8 * knuckles
    return np.stack([centre[name] for name in JOINTS], 1)


def body_weights(
    source: Source,
    bone_weights: np.ndarray,
    positions: np.ndarray,
    centres: np.ndarray,
    mirror: np.ndarray,
) -> np.ndarray:
    """Skinning weights (V, 24) of the body.

    Args:
      source: the rig.
      bone_weights: (V, 163) MakeHuman's weights of the vertices.
      positions: (V, 3) mean T-posed mesh.
      centres: (24, 3) mean joint centres.
      mirror: (V,) index of each vertex's mirror image.
    """
    column = {name: bone_weights[:, i] for i, name in enumerate(source.bones)}
    weight = {name: np.zeros(len(positions)) for name in JOINTS}
    used = set()
    for prefix, side in (("l_", ".L"), ("r_", ".R")):
        for joint, bones in _LIMBS.items():
            for bone in bones:
                weight[prefix + joint] += column[bone + side]
                used.add(bone + side)
    weight["neck"] = column["neck02"] + column["neck03"] + 0.5 * column["neck01"]
    trunk = np.sum([column[b] for b in _TRUNK], axis=0) + 0.5 * column["neck01"]
    used |= {"neck01", "neck02", "neck03", *_TRUNK}
    weight["head"] = np.sum([column[b] for b in source.bones if b not in used], axis=0)
    _share_trunk(weight, trunk, positions, dict(zip(JOINTS, centres, strict=True)))
    table = np.stack([weight[name] for name in JOINTS], 1)
    table = (table + table[mirror][:, mirrored_joints(JOINTS)]) / 2
    return strongest(table)


def _share_trunk(
    weight: dict[str, np.ndarray],
    trunk: np.ndarray,
    positions: np.ndarray,
    centre: dict[str, np.ndarray],
) -> None:
    """Share the trunk's weight out by height; `weight` is filled in place."""
    x, y, z = positions.T
    # The lean keeps the front of the chest with spine3, so that it does not fold over itself.
    height = y + _CHEST_LEAN * np.maximum(z - centre["spine3"][2], 0)
    above = np.ones_like(y)
    owner = "pelvis"
    for name, half_width in _TRUNK_BANDS:
        step = smoothstep((height - centre[name][1]) / (2 * half_width) + 0.5)
        step = np.minimum(step, above)
        weight[owner] += trunk * (above - step)
        above, owner = step, name
    chest = trunk * above
    side = smoothstep((np.abs(x) - 0.04) / 0.10)
    to_collar = 0.7 * side * smoothstep((y - centre["spine3"][1] - 0.03) / 0.08) * chest
    weight["l_collar"] += np.where(x > 0, to_collar, 0)
    weight["r_collar"] += np.where(x < 0, to_collar, 0)
    weight["spine3"] += chest - to_collar


def strongest(weights: np.ndarray, keep: int = 4, smallest: float = 1e-3) -> np.ndarray:
    """The `keep` largest weights of each vertex (more on ties), small ones dropped, sum 1."""
    limit = np.sort(weights, axis=1)[:, -keep]
    # Left and right share tie at the midline, up to rounding: neither may be dropped alone.
    kept = np.where(weights >= limit[:, None] * (1 - 1e-9), weights, 0)
    kept = kept / kept.sum(1, keepdims=True)
    kept[kept < smallest] = 0
    return kept / kept.sum(1, keepdims=True)


def smoothstep(t: np.ndarray) -> np.ndarray:
    """3 t^2 - 2 t^3 of t clipped to 0..1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
