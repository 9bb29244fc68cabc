"""Where a fit starts, and the other poses that a picture could as well have shown.

Along a viewing ray a limb that leans to the camera and one that leans away cover the same
pixels (Sminchisescu and Triggs 2003). Both are proposed here by turning a limb's bones over in
depth with two-bone inverse kinematics, so that knees and elbows stay hinges.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from jaxrecon.bodies.joints import SMPL24
from jaxrecon.geometry.rotations import matrix_to_axis_angle, skew
from jaxrecon.optimization.fit_energy import FitState, Problem
from jaxrecon.optimization.landmarks import Landmarks, Posed
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
# Which limb, and which of its two bones turn over.
_FLIPS = tuple(itertools.product(range(len(_LIMBS)), ((1, 0), (0, 1), (1, 1))))
N_VARIANTS = len(_FLIPS) + 2  # the state itself, every limb flip, the trunk tilted over


def initial_states(
    model: Landmarks, prior: PosePrior, problems: Problem, count: int, postures: int
) -> FitState:
    """Bodies of the mean pose and of the prior's commonest postures, seen from all sides.

    Each is turned in the picture, sized and shifted on the keypoints by a 2D similarity
    (orthographic Procrustes), so that a person who lies is met lying. NumPy: it costs
    milliseconds and nothing is compiled.

    Returns:
        states with leading axes B x `count`.
    """
    means = np.asarray(prior.means, np.float64)  # (parts, components, 69), zero outside the part
    offsets = np.asarray(prior.offsets)
    share = np.exp(-0.5 * offsets) / np.exp(-0.5 * offsets).sum(-1, keepdims=True)
    mean = np.einsum("gk,gka->ga", share, means)
    common = np.argsort(offsets[0], kind="stable")[:postures]
    postured = [mean.sum(0) - mean[0] + means[0, k] for k in common]
    poses = np.stack([mean.sum(0), *postured])
    kinds = len(poses)
    index = np.arange(count)
    yaws = 2 * np.pi * (index // kinds) / -(-count // kinds)
    facing = np.diag([1.0, -1.0, -1.0])  # y up, seen from the front, in a y-down camera
    roots = facing @ Rotation.from_euler("y", yaws[:, None]).as_matrix()
    rest = np.stack([_pose_in_numpy(model, pose) for pose in poses])
    points = rest[index % kinds] @ np.swapaxes(roots, -1, -2)  # (count, L, 3)

    weights = np.asarray(problems.weights, np.float64)
    share = (weights / weights.sum(-1, keepdims=True))[:, None]  # (B, 1, L)
    keypoints = np.asarray(problems.keypoints, np.float64)[:, None]
    focal = np.asarray(problems.focal, np.float64)[:, None]
    side = np.asarray(problems.side, np.float64)[:, None]
    target = np.einsum("bnl,bnlc->bnc", share, keypoints)
    middle = np.einsum("bnl,klc->bkc", share, points)
    # Least squares over similarity transforms of the plane, written with complex numbers.
    plane = points[..., 0] + 1j * points[..., 1]
    seen = keypoints[..., 0] + 1j * keypoints[..., 1]
    plane = plane - (middle[..., 0] + 1j * middle[..., 1])[..., None]
    seen = seen - (target[..., 0] + 1j * target[..., 1])[..., None]
    match = (share * np.conj(plane) * seen).sum(-1)
    roll = np.angle(match)
    # Crossed limbs may shrink the match; a person is between 0.5 and 3 m of the box.
    scale = np.abs(match) / ((share * np.abs(plane) ** 2).sum(-1) + 1e-6)
    scale = np.clip(scale, side / 3.0, side / 0.5)
    depth = focal / scale
    turn = Rotation.from_euler("z", roll.reshape(-1, 1)).as_matrix().reshape(*roll.shape, 3, 3)
    ray = (target - np.asarray(problems.center)[:, None]) / focal[..., None]
    where = np.concatenate([ray * depth[..., None], depth[..., None]], axis=-1)
    transl = where - np.einsum("bkac,bkc->bka", turn, middle)
    batch = roll.shape
    return FitState(
        root=jnp.asarray(turn @ roots, jnp.float32),
        pose=jnp.asarray(np.broadcast_to(poses[index % kinds], (*batch, 69)), jnp.float32),
        betas=jnp.asarray(np.zeros((*batch, 10)), jnp.float32),
        transl=jnp.asarray(transl, jnp.float32),
    )


def _pose_in_numpy(model: Landmarks, pose: np.ndarray) -> np.ndarray:
    """Landmarks (L, 3) of the mean shape in a body pose (69,), upright, without pose blends."""
    local = Rotation.from_rotvec(pose.reshape(23, 3)).as_matrix()
    rest = np.asarray(model.joints)
    turn, place = [np.eye(3)], [rest[0]]
    for joint, parent in enumerate(model.parents[1:], start=1):
        place.append(place[parent] + turn[parent] @ (rest[joint] - rest[parent]))
        turn.append(turn[parent] @ local[joint - 1])
    weights = np.asarray(model.weights)[..., None]
    arms = np.asarray(model.points) - weights * rest
    return np.einsum("jab,ljb->la", turn, arms) + np.sum(weights * np.stack(place), axis=1)


def depth_variants(model: Landmarks, state: FitState, posed: Posed) -> FitState:
    """A state and its flips in depth, with a leading axis of `N_VARIANTS`."""
    rest = model.joints + model.joints_shape @ state.betas
    joints = posed.joints + state.transl
    world = posed.rotations

    def flip_limb(chain: Array, axis: Array, over: Array) -> Array:
        """World rotations of the two upper joints of a limb (2, 3, 3)."""
        at, ends = joints[chain], rest[chain]
        bones = at[1:] - at[:-1]
        flipped = bones - 2 * (bones @ _ray(at[0]))[:, None] * _ray(at[0])
        bones = jnp.where(over[:, None] > 0, flipped, bones)
        # A hinge turns about the normal of its two bones; a straight limb keeps its old one.
        normal = jnp.cross(_unit(bones[0]), _unit(bones[1])) + 0.1 * world[chain[0]] @ axis
        new = jax.vmap(_frame, in_axes=(0, None))(bones, normal)
        old = jax.vmap(_frame, in_axes=(0, None))(ends[1:] - ends[:-1], axis)
        return new @ jnp.swapaxes(old, -1, -2)

    chains = np.array([_LIMBS[limb][0] for limb, _ in _FLIPS])
    axes = np.array([_LIMBS[limb][1] for limb, _ in _FLIPS], np.float32)
    overs = np.array([over for _, over in _FLIPS], np.float32)
    flips = jax.vmap(flip_limb)(jnp.asarray(chains), jnp.asarray(axes), jnp.asarray(overs))
    above = world[np.asarray(model.parents)[chains[:, 0]]]
    upper = jnp.swapaxes(above, -1, -2) @ flips[:, 0]
    lower = jnp.swapaxes(flips[:, 0], -1, -2) @ flips[:, 1]
    # The trunk leans the other way in depth, while the limbs keep their directions.
    trunk = joints[_AT["neck"]] - joints[0]
    turn = _between(trunk, trunk - 2 * jnp.dot(trunk, _ray(joints[0])) * _ray(joints[0]))
    ends = np.array([limb[0][0] for limb in _LIMBS])
    kept = jnp.swapaxes(turn @ world[np.asarray(model.parents)[ends]], -1, -2) @ world[ends]

    turned = matrix_to_axis_angle(jnp.concatenate([upper, lower, kept]))
    count = len(_FLIPS)
    row = np.arange(count)
    pose = jnp.asarray(state.pose).reshape(23, 3)
    limbs = jnp.tile(pose, (count, 1, 1))
    limbs = limbs.at[row, chains[:, 0] - 1].set(turned[:count])
    limbs = limbs.at[row, chains[:, 1] - 1].set(turned[count : 2 * count])
    leaning = pose.at[ends - 1].set(turned[2 * count :])
    poses = jnp.concatenate([pose[None], leaning[None], limbs]).reshape(N_VARIANTS, 69)
    roots = jnp.tile(state.root, (N_VARIANTS, 1, 1)).at[1].set(turn @ state.root)
    return FitState(
        root=roots,
        pose=poses,
        betas=jnp.tile(state.betas, (N_VARIANTS, 1)),
        transl=jnp.tile(state.transl, (N_VARIANTS, 1)),
    )


def _unit(v: Array) -> Array:
    return v / jnp.linalg.norm(v)


def _ray(point: Array) -> Array:
    """Direction from the camera to a point."""
    return _unit(point)


def _frame(direction: Array, normal: Array) -> Array:
    """Orthonormal columns: direction, normal made square to it, and their product."""
    x = _unit(direction)
    y = _unit(normal - jnp.dot(normal, x) * x)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=1)


def _between(a: Array, b: Array) -> Array:
    """Smallest rotation that takes direction a to direction b (not opposite ones)."""
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    k = skew(jnp.cross(a, b))
    return jnp.eye(3) + k + (k @ k) / jnp.maximum(1 + jnp.dot(a, b), 1e-3)
