"""The open body, put together in the layout of an SMPL file."""

import json
from collections.abc import Callable

import numpy as np

from jaxrecon.bodies.open_body.generate.decimate import decimate
from jaxrecon.bodies.open_body.generate.population import ModestyFill, People, Shapes, adults
from jaxrecon.bodies.open_body.generate.pose_corrections import pose_corrections
from jaxrecon.bodies.open_body.generate.regressors import (
    VERTEX_NAMES,
    body_regressor,
    landmarks,
    other_regressors,
)
from jaxrecon.bodies.open_body.generate.shape_space import shape_space
from jaxrecon.bodies.open_body.generate.skeleton import (
    JOINTS,
    PARENTS,
    body_weights,
    joint_centres,
    mirrored_joints,
)
from jaxrecon.bodies.open_body.generate.source import N_BODY, Source, pinned
from jaxrecon.bodies.open_body.generate.surface import (
    EYE_FRONTS,
    compact,
    half_surface,
    islands,
    mirrored,
)
from jaxrecon.bodies.open_body.generate.t_pose import TPose

_PEOPLE = 600
_FIRST = 60  # the samples whose mean the surface is made on
_HALF_VERTICES = 3560
_FINGER_FLATTENING = 0.9
_PELVIS = np.array([0.0, -0.22, 0.03])  # about where SMPL has it


def generate_body(source: Source, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """All arrays of `open_body.npz`, from the source."""
    shapes, fill = Shapes(source), ModestyFill(source)
    people = adults(shapes, _PEOPLE, seed=0)
    say(f"{len(people)} people drawn, {len(shapes.names)} targets")
    bone_weights = filled_weights(source, fill)
    pose = TPose(source, _FINGER_FLATTENING)

    # The surface is made on the mean of the first samples, with all vertices.
    wide = np.concatenate([np.arange(N_BODY), np.sort(EYE_FRONTS)])
    first = people.part(slice(0, _FIRST))
    posed, _ = pose(fill(shapes.meshes(first)), wide, bone_weights[wide])
    positions = np.zeros_like(source.vertices)
    positions[wide] = posed.mean(0, dtype=np.float64)
    half = half_surface(source, positions)
    triangles = decimate(
        half.positions, half.triangles, _HALF_VERTICES, half.importance, half.midline
    )
    ids, faces = compact(mirrored(source, triangles, half.midline))
    mirror = np.searchsorted(ids, np.where(half.midline[ids], ids, source.mirror[ids]))
    say(f"surface of {len(ids)} vertices and {len(faces)} triangles")

    samples, heads = pose_all(shapes, fill, pose, people, ids, bone_weights)
    flip = np.array([-1, 1, 1], np.float32)
    samples = (samples + samples[:, mirror] * flip) / 2
    centres = joint_centres(source, heads)
    centres = (centres + centres[:, mirrored_joints(JOINTS)] * flip) / 2
    say(f"{len(samples)} people posed")

    mean = samples.mean(0, dtype=np.float64)
    regressor = body_regressor(samples[::4], centres[::4], mirror)
    weights = body_weights(source, bone_weights[ids], mean, regressor @ mean, mirror)
    say("weights and joint regressor found")

    samples += (_PELVIS - regressor[0] @ samples).astype(np.float32)[:, None]
    space = shape_space(samples, faces)
    template = _symmetric(space.mean, mirror)
    directions = _symmetric(space.directions, mirror)
    joints = regressor @ template
    posedirs = pose_corrections(template, joints, weights, PARENTS, mirror, mirrored_joints(JOINTS))
    on_head = np.isin(ids, np.unique(islands(source)["head"]))
    marks = landmarks(
        template,
        ids,
        mirror,
        joints,
        weights,
        lambda bone: bone_weights[ids, source.bone(bone)],
        on_head,
    )
    not_arms = weights[:, [JOINTS.index(f"{s}_{j}") for s in "lr" for j in _ARM]].sum(1) < 0.1
    h36m, extra = other_regressors(template, regressor, int(marks[0]), mirror, not_arms)
    genders = np.stack([space.betas[people.is_male].mean(0), space.betas[~people.is_male].mean(0)])
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": directions.astype(np.float16),
        "posedirs": posedirs.astype(np.float16),
        "J_regressor": regressor.astype(np.float32),
        "J": joints.astype(np.float32),
        "weights": weights.astype(np.float32),
        "kintree_table": kintree_table(PARENTS),
        "f": faces.astype(np.uint32),
        "bs_style": np.array("lbs"),
        "bs_type": np.array("lrotmin"),
        "vert_sym_idxs": mirror.astype(np.int32),
        "J_regressor_extra": extra.astype(np.float32),
        "J_regressor_h36m": h36m.astype(np.float32),
        "vertex_ids": marks,
        "vertex_names": np.array(VERTEX_NAMES),
        "joint_names": np.array(JOINTS),
        "gender_betas": genders.astype(np.float32),
        "makehuman_vertex_ids": ids.astype(np.int32),
        "explained_variance": space.explained.astype(np.float32),
        "meta": np.array(provenance()),
    }


_ARM = ("collar", "shoulder", "elbow", "wrist", "hand")


def _symmetric(values: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The mean of (V, 3, ...) with its mirror image; exact, also where a vertex is its own."""
    flip = np.array([-1.0, 1, 1]).reshape(3, *[1] * (values.ndim - 2))
    return (values + values[mirror] * flip) / 2


def filled_weights(source: Source, fill: ModestyFill) -> np.ndarray:
    """MakeHuman's skinning weights (19158, bones), smoothed where the surface is."""
    weights = np.array(source.weights.todense())
    weights = np.clip(fill(weights), 0, None)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)


def pose_all(
    shapes: Shapes,
    fill: ModestyFill,
    pose: TPose,
    people: People,
    ids: np.ndarray,
    bone_weights: np.ndarray,
    extra: Callable[[slice], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """T-posed vertices (N, V, 3) float32 and bone heads (N, bones, 3) of all people.

    `extra` gives displacements (n, 19158, 3) that a part of the people has besides.
    """
    samples = np.empty((len(people), len(ids), 3), np.float32)
    heads = []
    for start in range(0, len(people), 50):
        part = slice(start, min(start + 50, len(people)))
        meshes = shapes.meshes(people.part(part), None if extra is None else extra(part))
        samples[part], found = pose(fill(meshes), ids, bone_weights[ids])
        heads.append(found)
    return samples, np.concatenate(heads)


def kintree_table(parents: tuple[int, ...]) -> np.ndarray:
    """(2, J) uint32 as SMPL files have it: the root's parent is 4294967295."""
    table = np.stack([np.array(parents, np.int64), np.arange(len(parents))])
    return (table % 2**32).astype(np.uint32)


def provenance() -> str:
    """What the file says about itself, as JSON."""
    name, digest = pinned()
    return json.dumps(
        {
            "source": "MakeHuman / MPFB2 base mesh hm08, targets and rig (CC0 1.0), as shipped in "
            f"the PyPI wheel {name.replace('==', '-')}",
            "sha256": digest,
            "licence": "CC0-1.0",
            "units": "metre",
            "axes": "y up, facing +z, left = +x",
        }
    )
