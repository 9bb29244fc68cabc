"""The made-up body of the parity cases: SMPL's array names and tree, no SMPL data."""

import numpy as np

from jaxrecon.bodies.joints import SMPL_PARENTS, SMPL_VERTEX_IDS

PARENTS = np.array(SMPL_PARENTS)

# Rest joints of an imaginary person in centimetres: midline, then the left side by its joint.
_MIDLINE = {0: (0, 0, 0), 3: (0, 11, -2), 6: (0, 25, 0), 9: (0, 30, 2), 12: (0, 51, -2),
            15: (0, 60, 2)}  # fmt: skip
_LEFT = {1: (6, -9, 0), 4: (10, -47, 0), 7: (9, -87, -3), 10: (12, -93, 9), 13: (8, 41, -1),
         16: (17, 44, -2), 18: (43, 43, -4), 20: (68, 44, -4), 22: (76, 43, -5)}  # fmt: skip


def _rest_joints() -> np.ndarray:
    joints = np.zeros((24, 3))
    for joint, place in _MIDLINE.items():
        joints[joint] = place
    for joint, place in _LEFT.items():
        joints[joint] = place
        joints[joint + 1] = (-place[0], place[1], place[2])
    return joints / 100.0


def _sparse_rows(rng, rows: int, vertices: int, entries: int) -> np.ndarray:
    out = np.zeros((rows, vertices))
    for row in out:
        chosen = rng.choice(vertices, entries, replace=False)
        weights = rng.uniform(0.1, 1.0, entries)
        row[chosen] = weights / weights.sum()
    return out


def make_body(vertices: int = 431, variant: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the body; variants 1 (male) and 2 (female) differ in template and shape basis.

    Vertex v belongs to joint v % 24 and partly to that joint's parent.
    """
    rng = np.random.default_rng(vertices)
    owner = np.arange(vertices) % 24
    every = np.arange(vertices)
    template = _rest_joints()[owner] + 0.05 * rng.standard_normal((vertices, 3))
    shapedirs = 0.01 * rng.standard_normal((vertices, 3, 10))
    posedirs = 0.003 * rng.standard_normal((vertices, 3, 207))
    regressor = np.zeros((24, vertices))
    regressor[owner, every] = rng.uniform(0.1, 1.0, vertices)
    regressor /= regressor.sum(axis=1, keepdims=True)
    own = rng.uniform(0.5, 1.0, vertices)
    weights = np.zeros((vertices, 24))
    weights[every, owner] = own
    weights[every, np.maximum(PARENTS[owner], 0)] += 1.0 - own
    extra = _sparse_rows(rng, 9, vertices, 5)
    h36m = _sparse_rows(rng, 17, vertices, 6)
    if variant:
        more = np.random.default_rng(vertices + variant)
        template = template + 0.01 * more.standard_normal((vertices, 3))
        shapedirs = shapedirs + 0.003 * more.standard_normal((vertices, 3, 10))
    first = np.arange(vertices - 2)
    floats = {
        "v_template": template,
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "J_regressor": regressor,
        "weights": weights,
        "J_regressor_extra": extra,
        "J_regressor_h36m": h36m,
    }
    return {
        **{name: array.astype(np.float32) for name, array in floats.items()},
        "kintree_table": np.stack([PARENTS, np.arange(24)]).astype(np.int64),
        "f": np.stack([first, first + 1, first + 2], axis=1).astype(np.int64),
        "extra_vertex_ids": (SMPL_VERTEX_IDS % vertices).astype(np.int64),
    }
