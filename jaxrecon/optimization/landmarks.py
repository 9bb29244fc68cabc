"""Body landmarks and their analytic Jacobian: what a fit to keypoints needs, and no vertex more.

A landmark is any fixed mix of vertices, or a joint of the chain. Linear blend skinning is linear
in the rest vertices, so the mix can be taken once, before skinning: each landmark keeps one
weighted rest point for each of the 24 bones. A forward pass then costs a few thousand
multiplications instead of 6,890 skinned vertices, and the derivative with respect to all
rotations is a cross product with the weighted lever arms (no forward or reverse differentiation).

Only the pose blend shapes are treated coarsely (they turn with the mix's mean rotation instead
of vertex by vertex, and are left out of the Jacobian); the difference is below a millimetre.
"""

import functools

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrecon.bodies.joints import SPIN49_FROM_54, index_map, joint_names
from jaxrecon.bodies.model import BodyModel
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import skew
from jaxrecon.typing import AnyArray, Array, Float

N_JOINTS = 24


@struct.dataclass
class Landmarks:
    """L landmarks of a body, each a rest point and a weight for each of the 24 bones.

    points (L, 24, 3) and points_shape (L, 24, 3, 10): sum over vertices of regressor x skinning
    weight x rest vertex, metres; weights (L, 24); pose_dirs (L, 3, 207); joints (24, 3) and
    joints_shape (24, 3, 10): the chain at rest; known (L,): 0 where the body has no such joint.
    """

    points: Array
    points_shape: Array
    weights: Array
    pose_dirs: Array
    joints: Array
    joints_shape: Array
    known: Array
    parents: tuple[int, ...] = struct.field(pytree_node=False)
    names: tuple[str, ...] = struct.field(pytree_node=False)


@struct.dataclass
class Posed:
    """A posed set of landmarks: points (L, 3), joints (24, 3), world rotations (24, 3, 3), and
    the parts x (L, 24, 3) that each bone contributes to each point."""

    points: Array
    joints: Array
    rotations: Array
    parts: Array


def landmarks(body: BodyModel, joint_set: str) -> Landmarks:
    """The landmarks of a named joint set (NumPy work, done once for each body and set).

    Raises:
        UserError: the joint set is unknown.
    """
    names = joint_names(joint_set)
    rows, known = _regressor(body, joint_set)
    template = np.asarray(body.v_template, np.float64)
    shapedirs = np.asarray(body.shapedirs, np.float64)
    skinning = np.asarray(body.weights, np.float64)
    posedirs = np.asarray(body.posedirs, np.float64)
    joints = np.asarray(body.J_template, np.float64)
    joints_shape = np.asarray(body.J_shapedirs, np.float64)

    vertex_rows, chain_rows = rows
    used = np.flatnonzero(np.any(vertex_rows != 0, axis=0))
    mix = vertex_rows[:, used, None] * skinning[None, used]
    points = np.einsum("luj,uc->ljc", mix, template[used])
    points_shape = np.einsum("luj,ucb->ljcb", mix, shapedirs[used])
    pose_dirs = np.einsum("lu,ucp->lcp", vertex_rows[:, used], posedirs[used])
    points += chain_rows[:, :, None] * joints
    points_shape += chain_rows[:, :, None, None] * joints_shape
    return Landmarks(
        points=_f32(points),
        points_shape=_f32(points_shape),
        weights=_f32(mix.sum(axis=1) + chain_rows),
        pose_dirs=_f32(pose_dirs),
        joints=_f32(joints),
        joints_shape=_f32(joints_shape),
        known=_f32(known),
        parents=tuple(body.parents),
        names=names,
    )


def _f32(x: np.ndarray) -> Array:
    return jnp.asarray(x, jnp.float32)


def _regressor(body: BodyModel, joint_set: str) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """((L, V) rows over posed vertices, (L, 24) rows over chain joints), and which are known."""
    n_vertices = body.v_template.shape[0]
    if joint_set == "smpl24":
        return (np.zeros((N_JOINTS, n_vertices)), np.eye(N_JOINTS)), np.ones(N_JOINTS, bool)
    if joint_set == "h36m17":
        if body.J_regressor_h36m is None:
            raise UserError(f"body model {body.name!r} has no J_regressor_h36m for 'h36m17'")
        rows = np.asarray(body.J_regressor_h36m)[index_map("h36m17_regressor", joint_set)[0]]
        return (rows, np.zeros((len(rows), N_JOINTS))), np.ones(len(rows), bool)
    if body.vertex_ids is None or body.J_regressor_extra is None:
        raise UserError(
            f"body model {body.name!r} lacks vertex_ids or J_regressor_extra for {joint_set!r}"
        )
    picks = np.zeros((len(body.vertex_ids), n_vertices))
    picks[np.arange(len(body.vertex_ids)), np.asarray(body.vertex_ids)] = 1.0
    vertex_rows = np.concatenate(
        [np.zeros((N_JOINTS, n_vertices)), picks, np.asarray(body.J_regressor_extra)]
    )
    chain_rows = np.eye(len(vertex_rows), N_JOINTS)
    # Names that both halves of spin49 hold mean OpenPose's joint only in OpenPose's own sets.
    if joint_set in ("openpose25", "spin49"):
        source = np.arange(len(joint_names(joint_set)))
        known = np.ones(len(source), bool)
    else:
        source, known = index_map("spin49", joint_set)
    order = SPIN49_FROM_54[source]
    return (vertex_rows[order] * known[:, None], chain_rows[order] * known[:, None]), known


@functools.cache
def _ancestors(parents: tuple[int, ...]) -> np.ndarray:
    """(24, 24) with 1 at [k, j] where k is j or above it."""
    table = np.eye(len(parents), dtype=np.float32)
    for joint in range(1, len(parents)):
        table[:, joint] += table[:, parents[joint]]
    return table


def world_rotations(
    rotmats: Float[AnyArray, "24 3 3"], parents: tuple[int, ...]
) -> Float[Array, "24 3 3"]:
    """Rotations of the bones in the camera frame from those relative to the parents.

    By doubling: after round r a bone holds the product over its 2^r nearest ancestors, so four
    rounds serve SMPL's nine levels (and compile in half the time of a walk by levels).
    """
    # Index 24 is a bone above the root that never turns.
    table = jnp.concatenate([jnp.asarray(rotmats), jnp.eye(3)[None]])
    count = len(parents)
    above = np.array([p if p >= 0 else count for p in parents] + [count])
    while np.any(above != count):
        table = jnp.sum(table[above][..., None] * table[..., None, :, :], axis=-2)
        above = above[above]
    return table[:count]


def pose_landmarks(
    model: Landmarks, betas: Float[AnyArray, "10"], rotmats: Float[AnyArray, "24 3 3"]
) -> Posed:
    """Landmarks of a posed body, no translation, metres (batch it with `vmap`)."""
    rotmats = jnp.asarray(rotmats)
    rest = model.joints + model.joints_shape @ betas
    rotations = world_rotations(rotmats, model.parents)
    joints = _chain(model, rest[..., None], rotations)[..., 0]
    local = model.points + model.points_shape @ betas - model.weights[..., None] * rest
    parts = jnp.einsum("jab,ljb->lja", rotations, local) + model.weights[..., None] * joints
    feature = jnp.reshape(rotmats[1:] - jnp.eye(3), -1)
    turn = jnp.einsum("lj,jab->lab", model.weights, rotations)
    bulge = jnp.einsum("lab,lb->la", turn, model.pose_dirs @ feature)
    return Posed(jnp.sum(parts, axis=1) + bulge, joints, rotations, parts)


def landmark_jacobian(
    model: Landmarks, posed: Posed
) -> tuple[Float[Array, "l 24 3"], Float[Array, "l 3 10"]]:
    """How the landmarks move.

    Returns:
        levers (L, 24, 3): turning joint k by a small world rotation w moves landmark l by
        w x levers[l, k]; and the derivative (L, 3, 10) with respect to betas.
    """
    above = _ancestors(model.parents)
    mass = model.weights @ above.T
    levers = jnp.einsum("kj,lja->lka", above, posed.parts) - mass[..., None] * posed.joints
    rest_shape = model.joints_shape
    joints_shape = _chain(model, rest_shape, posed.rotations)
    local = model.points_shape - model.weights[..., None, None] * rest_shape
    shape = jnp.einsum("jab,ljbs->las", posed.rotations, local)
    return levers, shape + jnp.einsum("lj,jas->las", model.weights, joints_shape)


def _chain(model: Landmarks, rest: Array, rotations: Array) -> Array:
    """Joint positions (24, 3, S) from rest positions (24, 3, S), linear in them."""
    parents = np.asarray(model.parents[1:])
    bones = jnp.einsum("jab,jbs->jas", rotations[parents], rest[1:] - rest[parents])
    bones = jnp.concatenate([rest[:1], bones])
    return jnp.einsum("kj,kas->jas", _ancestors(model.parents), bones)


def left_jacobian(theta: Float[AnyArray, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """J with exp(theta + d) = exp(J d) exp(theta) for small d (Barfoot 2017, eq. 7.77)."""
    theta = jnp.asarray(theta)
    square = jnp.sum(theta * theta, axis=-1)[..., None, None]
    small = square < 1e-4
    safe = jnp.where(small, 1.0, square)
    angle = jnp.sqrt(safe)
    first = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / safe)
    second = jnp.where(small, 1 / 6 - square / 120, (angle - jnp.sin(angle)) / (safe * angle))
    k = skew(theta)
    return jnp.eye(3) + first * k + second * (k @ k)
