"""A body of the SMPL family as a pytree, and its forward pass (Loper et al. 2015, eq. 2-10).

Linear blend skinning with the kinematic tree walked level by level (9 levels of SMPL rather
than 24 joints) and one fused product for shape and pose blend shapes. Fits and losses that
need joints only restrict the body first (`body_subset`), which costs a hundredth.
"""

import math

import flax.struct
import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies.joints import EXTRA_JOINTS, SPIN49_FROM_54, evaluation_rows
from jaxrecon.errors import UserError
from jaxrecon.typing import AnyArray, Array, Float, Int


@flax.struct.dataclass
class BodyModel:
    """Arrays of a body (or hand) model; metres, y up, left at +x, zero pose facing +z.

    `J_template` and `J_shapedirs` are the joint regressor applied to the template and to the
    shape directions, so that no forward pass multiplies by the (joints, V) regressor.
    """

    v_template: Float[AnyArray, "v 3"]
    shapedirs: Float[AnyArray, "v 3 s"]
    posedirs: Float[AnyArray, "v 3 p"]
    weights: Float[AnyArray, "v j"]
    faces: Int[AnyArray, "f 3"]
    J_template: Float[AnyArray, "j 3"]
    J_shapedirs: Float[AnyArray, "j 3 s"]
    J_regressor_extra: Float[AnyArray, "e v"] | None = None
    J_regressor_h36m: Float[AnyArray, "17 v"] | None = None
    vertex_ids: Int[AnyArray, "n"] | None = None
    parents: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())
    name: str = flax.struct.field(pytree_node=False, default="body")

    @property
    def num_joints(self) -> int:
        return len(self.parents)


@flax.struct.dataclass
class BodyOutput:
    """Vertices (..., V, 3) and posed joints (..., J, 3) in metres, without translation."""

    vertices: Float[Array, "*b v 3"]
    joints: Float[Array, "*b j 3"]


def tree_levels(parents: tuple[int, ...]) -> list[np.ndarray]:
    """Joint indices by depth: all parents of a level lie in the level before it."""
    depth = np.zeros(len(parents), int)
    for joint, parent in enumerate(parents):
        depth[joint] = 0 if parent < 0 else depth[parent] + 1
    return [np.flatnonzero(depth == d) for d in range(depth.max() + 1)]


def forward_kinematics(
    rotmats: Float[AnyArray, "*b j 3 3"],
    joints: Float[AnyArray, "*b j 3"],
    parents: tuple[int, ...],
) -> tuple[Float[Array, "*b j 3 3"], Float[Array, "*b j 3"]]:
    """World rotation and position of every joint, one step for each level of the tree.

    Args:
        rotmats: rotation of each joint relative to its parent.
        joints: rest positions, metres.
    """
    levels = tree_levels(parents)
    order = np.concatenate(levels)
    offsets = joints - joints[..., np.maximum(parents, 0), :]
    rotation, position = rotmats[..., levels[0], :, :], joints[..., levels[0], :]
    rotations, positions = [rotation], [position]
    for above, level in zip(levels[:-1], levels[1:], strict=True):
        place = {joint: i for i, joint in enumerate(above)}
        up = np.array([place[parents[joint]] for joint in level])
        parent = rotation[..., up, :, :]
        position = position[..., up, :] + _rotate(parent, offsets[..., level, :])
        rotation = _compose(parent, rotmats[..., level, :, :])
        rotations.append(rotation)
        positions.append(position)
    back = np.argsort(order)
    return (
        jnp.concatenate(rotations, axis=-3)[..., back, :, :],
        jnp.concatenate(positions, axis=-2)[..., back, :],
    )


def _rotate(matrix: AnyArray, vector: AnyArray) -> Array:
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def _compose(left: AnyArray, right: AnyArray) -> Array:
    # As sums: XLA's CPU compiler rejects its own simplification of the batched product where two
    # axes were added by `vmap` (jaxlib 0.10.2), and this is no slower for 3 x 3.
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)


def body_forward(
    body: BodyModel,
    betas: Float[AnyArray, "*b s"],
    rotmats: Float[AnyArray, "*b j 3 3"],
) -> BodyOutput:
    """Posed and shaped body.

    Args:
        betas: shape coefficients; fewer than the model has are padded with zeros.
        rotmats: root orientation and the rotation of every joint relative to its parent.
    """
    betas, rotmats = jnp.asarray(betas), jnp.asarray(rotmats)
    batch = betas.shape[:-1]
    shapedirs = jnp.asarray(body.shapedirs)[..., : betas.shape[-1]]
    j_shapedirs = body.J_shapedirs[..., : betas.shape[-1]]
    rest = body.J_template + jnp.einsum("jcs,...s->...jc", j_shapedirs, betas)

    feature = rotmats[..., 1:, :, :] - jnp.eye(3)
    rotation, position = forward_kinematics(rotmats, rest, body.parents)
    # Skinning transforms take rest coordinates to posed ones: x -> R x + (position - R rest).
    shift = position - _rotate(rotation, rest)
    transform = jnp.concatenate([rotation, shift[..., None]], axis=-1)

    # All bodies in one plain matrix product each, vertices last: on CPU three times faster than
    # products batched over the bodies. Nothing the size of the model is copied.
    count, joints = body.v_template.shape[0], body.num_joints
    bodies = math.prod(batch)
    by_pose = feature.reshape(bodies, -1) @ jnp.asarray(body.posedirs).reshape(count * 3, -1).T
    by_shape = betas.reshape(bodies, -1) @ shapedirs.reshape(count * 3, -1).T
    shaped = body.v_template + (by_pose + by_shape).reshape(bodies, count, 3)
    moves = jnp.moveaxis(transform.reshape(bodies, joints, 3, 4), 1, -1).reshape(-1, joints)
    blended = (moves @ jnp.asarray(body.weights).T).reshape(bodies, 3, 4, count)
    posed = blended[:, :, 3] + sum(blended[:, :, k] * shaped[:, None, :, k] for k in range(3))
    vertices = jnp.moveaxis(posed, 1, -1).reshape(*batch, count, 3)
    return BodyOutput(vertices=vertices, joints=position)


def body_subset(body: BodyModel, vertex_ids: np.ndarray) -> BodyModel:
    """The same body with some of its vertices only; joints are unchanged.

    Faces are dropped. Regressors and landmarks stay where the subset holds all that they use,
    and are None where it does not, so that a wrong result cannot be had.
    """
    ids = np.unique(np.asarray(vertex_ids))
    kept = np.zeros(body.v_template.shape[0], bool)
    kept[ids] = True
    place = np.cumsum(kept) - 1

    def columns(regressor: AnyArray | None) -> AnyArray | None:
        if regressor is None or np.any(np.asarray(regressor)[:, ~kept]):
            return None
        return regressor[:, ids]

    landmarks = None
    if body.vertex_ids is not None and kept[np.asarray(body.vertex_ids)].all():
        landmarks = jnp.asarray(place[np.asarray(body.vertex_ids)], jnp.int32)
    return body.replace(  # type: ignore[attr-defined]
        v_template=body.v_template[ids],
        shapedirs=body.shapedirs[ids],
        posedirs=body.posedirs[ids],
        weights=body.weights[ids],
        faces=jnp.zeros((0, 3), jnp.int32),
        J_regressor_extra=columns(body.J_regressor_extra),
        J_regressor_h36m=columns(body.J_regressor_h36m),
        vertex_ids=landmarks,
    )


def regressor_support(body: BodyModel, h36m: bool = False) -> np.ndarray:
    """Vertices that `joints49` (and, if asked, `h36m_joints`) depend on."""
    if body.vertex_ids is None or body.J_regressor_extra is None:
        raise UserError(f"body model {body.name!r} lacks vertex_ids or J_regressor_extra")
    used = np.any(np.asarray(body.J_regressor_extra) != 0, axis=0)
    used[np.asarray(body.vertex_ids)] = True
    if h36m:
        used |= np.any(np.asarray(body.J_regressor_h36m) != 0, axis=0)
    return np.flatnonzero(used)


def joints49_model(body: BodyModel, h36m: bool = False) -> BodyModel:
    """The body restricted to what `joints49` (and `h36m_joints` if asked) need."""
    return body_subset(body, regressor_support(body, h36m))


def joints49_forward(
    body: BodyModel,
    betas: Float[AnyArray, "*b s"],
    rotmats: Float[AnyArray, "*b j 3 3"],
) -> Float[Array, "*b 49 3"]:
    """SPIN's 49 joints of a body, best of one made by `joints49_model`."""
    return joints49(body, body_forward(body, betas, rotmats))


def joints49(body: BodyModel, output: BodyOutput) -> Float[Array, "*b 49 3"]:
    """SPIN's 49 joints (set "spin49"), metres: OpenPose's 25 then the 24 annotated ones.

    Source: 24 posed joints, 21 surface points, 9 rows of J_regressor_extra (spec meta_hmr 3.1).
    """
    if body.vertex_ids is None or body.J_regressor_extra is None:
        raise UserError(
            f"body model {body.name!r} lacks the landmarks of the 49 joints "
            f"(vertex_ids and J_regressor_extra for {', '.join(EXTRA_JOINTS)})"
        )
    landmarks = jnp.take(output.vertices, body.vertex_ids, axis=-2)
    extra = body.J_regressor_extra @ output.vertices
    everything = jnp.concatenate([output.joints, landmarks, extra], axis=-2)
    return everything[..., SPIN49_FROM_54, :]


def h36m_joints(body: BodyModel, vertices: Float[AnyArray, "*b v 3"]) -> Float[Array, "*b 17 3"]:
    """The 17 joints regressed from the mesh, metres; joint set "h36m17_regressor"."""
    if body.J_regressor_h36m is None:
        raise UserError(f"body model {body.name!r} has no J_regressor_h36m")
    return jnp.asarray(body.J_regressor_h36m) @ vertices


def lsp14_centred(body: BodyModel, vertices: Float[AnyArray, "*b v 3"]) -> Float[Array, "*b 14 3"]:
    """The 14 evaluation joints minus the regressed pelvis (spec meta_hmr 6.2), metres."""
    joints = h36m_joints(body, vertices)
    return joints[..., evaluation_rows()[:14], :] - joints[..., :1, :]
