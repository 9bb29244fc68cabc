"""Where a fit starts, and the other poses that a picture could as well have shown.

Along a viewing ray a limb that leans to the camera and one that leans away cover the same
pixels (Sminchisescu and Triggs 2003). Both are proposed here by turning a limb's bones over in
depth with two-bone inverse kinematics, so that knees and elbows stay hinges.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies.joints import SMPL24
from jaxrecon.geometry.rotations import axis_rotation, matrix_to_axis_angle, skew
from jaxrecon.optimization.fit_energy import FitState, Problem, state_rotmats
from jaxrecon.optimization.landmarks import Landmarks, pose_landmarks
from jaxrecon.optimization.priors import PosePrior
from jaxrecon.typing import Array

_AT = {name: i for i, name in enumerate(SMPL24)}
# Joints of a limb from the trunk outwards, and the rest axis about which its hinge flexes.
_LIMBS = tuple(
    ((_AT[f"{side}_{upper}"], _AT[f"{side}_{lower}"], _AT[f"{side}_{end}"]), axis)
    for side, sign in (("l", 1.0), ("r", -1.0))
    for upper, lower, end, axis in (
        ("hip", "knee", "ankle", (1.0, 0.0, 0.0)),
        ("shoulder", "elbow", "wrist", (0.0, -sign, 0.0)),
    )
)
_FLIPS = tuple(
    (limb, upper, lower)
    for limb, (upper, lower) in itertools.product(
        range(len(_LIMBS)), ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    )
)
N_VARIANTS = len(_FLIPS) + 2  # the state itself, every limb flip, the trunk tilted over


def initial_states(
    model: Landmarks, prior: PosePrior, problem: Problem, count: int, postures: int
) -> FitState:
    """Bodies of the mean pose and of the prior's commonest postures, seen from all sides.

    Each is turned in the picture, sized and shifted on the keypoints by a 2D similarity
    (orthographic Procrustes), so that a person who lies is met lying.

    Returns:
        states with a leading axis of `count`.
    """
    mean = jnp.mean(prior.means, axis=0)
    common = jnp.argsort(prior.offsets)[:postures]
    poses = jnp.concatenate([mean[None], prior.means[common]])
    kinds = len(poses)
    index = np.arange(count)
    yaws = 2 * np.pi * (index // kinds) / -(-count // kinds)
    upright = jnp.diag(jnp.array([1.0, -1.0, -1.0]))
    roots = upright @ axis_rotation("y", jnp.asarray(yaws, jnp.float32))
    return jax.vmap(lambda root, pose: _place(model, problem, root, pose))(
        roots, poses[index % kinds]
    )


def _place(model: Landmarks, problem: Problem, root: Array, pose: Array) -> FitState:
    state = FitState(root, pose, jnp.zeros(10), jnp.zeros(3))
    points = pose_landmarks(model, state.betas, state_rotmats(state)).points
    share = problem.weights / jnp.sum(problem.weights)
    middle, target = share @ points, share @ problem.keypoints
    a = points[:, :2] - middle[:2]
    b = problem.keypoints - target
    # Least squares over similarity transforms of the plane, written with complex numbers.
    real = jnp.sum(share * jnp.sum(a * b, axis=-1))
    imaginary = jnp.sum(share * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]))
    spread = jnp.sum(share * jnp.sum(a * a, axis=-1)) + 1e-6
    roll = jnp.arctan2(imaginary, real + 1e-9)
    # A side view of crossed limbs may shrink the fit; a person is between 0.5 and 3 m of box.
    scale = jnp.sqrt(real**2 + imaginary**2) / spread
    scale = jnp.clip(scale, problem.side / 3.0, problem.side / 0.5)
    turn = axis_rotation("z", roll)
    depth = problem.focal / scale
    ray = (target - problem.center) / problem.focal
    where = jnp.append(ray, 1.0) * depth
    return state.replace(root=turn @ root, transl=where - turn @ middle)  # type: ignore[attr-defined]


def depth_variants(model: Landmarks, state: FitState) -> FitState:
    """A state and its flips in depth, with a leading axis of `N_VARIANTS`."""
    rest = model.joints + model.joints_shape @ state.betas
    posed = pose_landmarks(model, state.betas, state_rotmats(state))
    joints = posed.joints + state.transl
    world = posed.rotations

    def flip_limb(chain: Array, axis: Array, upper: Array, lower: Array) -> FitState:
        k, c, e = chain
        bones = jnp.stack([joints[c] - joints[k], joints[e] - joints[c]])
        flipped = jnp.stack([_over(bones[0], joints[k]), _over(bones[1], joints[k])])
        bones = jnp.where(jnp.stack([upper, lower])[:, None] > 0, flipped, bones)
        bones = bones / jnp.linalg.norm(bones, axis=-1, keepdims=True)
        # A hinge turns about the normal of its two bones; a straight limb keeps its old one.
        normal = jnp.cross(bones[0], bones[1]) + 0.1 * world[k] @ axis
        first = _frame(bones[0], normal) @ _frame(rest[c] - rest[k], axis).T
        second = _frame(bones[1], normal) @ _frame(rest[e] - rest[c], axis).T
        above = world[jnp.asarray(model.parents)[k]]
        local = matrix_to_axis_angle(jnp.stack([above.T @ first, first.T @ second]))
        pose = state.pose.reshape(23, 3).at[jnp.stack([k, c]) - 1].set(local)
        return state.replace(pose=pose.reshape(69))  # type: ignore[attr-defined]

    chains = jnp.asarray([_LIMBS[limb][0] for limb, _, _ in _FLIPS])
    axes = jnp.asarray([_LIMBS[limb][1] for limb, _, _ in _FLIPS])
    uppers = jnp.asarray([upper for _, upper, _ in _FLIPS])
    lowers = jnp.asarray([lower for _, _, lower in _FLIPS])
    limbs = jax.vmap(flip_limb)(chains, axes, uppers, lowers)
    trunk = _tilt_trunk(state, joints, world)
    return jax.tree.map(
        lambda own, other, many: jnp.concatenate([own[None], other[None], many]),
        state,
        trunk,
        limbs,
    )


def _tilt_trunk(state: FitState, joints: Array, world: Array) -> FitState:
    """The trunk leaning the other way in depth, while the limbs keep their directions."""
    trunk = joints[_AT["neck"]] - joints[0]
    turn = _between(trunk, _over(trunk, joints[0]))
    root = turn @ state.root
    pose = state.pose.reshape(23, 3)
    for limb, above in (("hip", "pelvis"), ("shoulder", "collar")):
        for side in "lr":
            joint = _AT[f"{side}_{limb}"]
            parent = _AT[above] if above == "pelvis" else _AT[f"{side}_{above}"]
            local = (turn @ world[parent]).T @ world[joint]
            pose = pose.at[joint - 1].set(matrix_to_axis_angle(local))
    return state.replace(root=root, pose=pose.reshape(69))  # type: ignore[attr-defined]


def _over(bone: Array, start: Array) -> Array:
    """A bone mirrored in the plane across the ray through its start."""
    ray = start / jnp.linalg.norm(start)
    return bone - 2 * jnp.dot(bone, ray) * ray


def _frame(direction: Array, normal: Array) -> Array:
    """Orthonormal columns: direction, normal made square to it, and their product."""
    x = direction / jnp.linalg.norm(direction)
    y = normal - jnp.dot(normal, x) * x
    y = y / jnp.linalg.norm(y)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=1)


def _between(a: Array, b: Array) -> Array:
    """Smallest rotation that takes direction a to direction b (not opposite ones)."""
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    k = skew(jnp.cross(a, b))
    return jnp.eye(3) + k + (k @ k) / jnp.maximum(1 + jnp.dot(a, b), 1e-3)
