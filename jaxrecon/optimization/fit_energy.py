"""The energy of a body over 2D keypoints, and one damped Gauss-Newton step down it.

Energies are twice negative log-likelihoods: squared errors over variances. SMPLify's terms
(Bogo et al. 2016, eq. 1-5): robust reprojection error, pose prior, bending, shape; besides,
anatomical limits and a weak, heavy-tailed wish for people to stand upright in the picture.
"""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.linalg import block_diag, cho_factor, cho_solve

from jaxrecon.geometry.rotations import axis_angle_to_matrix, skew
from jaxrecon.optimization.landmarks import (
    Landmarks,
    Posed,
    landmark_jacobian,
    left_jacobian,
    pose_landmarks,
)
from jaxrecon.optimization.priors import (
    BENDING,
    LIMIT_SOFTNESS,
    PosePrior,
    limit_excess,
    mixture_energy,
)
from jaxrecon.typing import AnyArray, Array

_ROOT, _POSE, _BETAS, _TRANSL = slice(0, 3), slice(3, 72), slice(72, 82), slice(82, 85)
_LEAN = 0.15  # radians: cameras are held level or look down a little
_UPRIGHT = 0.3  # spread of the body's up axis about that, as a chord
_LIE = 3.0  # ... and how many spreads count as lying down, whatever the angle
_NEAR = 0.05  # metres: nothing is projected from nearer to the camera than this


@struct.dataclass
class FitSettings:
    """How hard to search, and how far each kind of evidence is trusted.

    keep: candidates that survive a stage; each comes back with its flips in depth.
    stages: how often candidates are improved and selected; steps: optimiser steps of a stage.
    postures: common postures of the prior to start from, beside the mean pose.
    noise: expected error of a keypoint, outlier: error beyond which it is disbelieved, both in
        units of the longer side of the keypoints' box; vague: how much more joints may err that
        every data set defines in its own way.
    """

    keep: int = struct.field(pytree_node=False, default=3)
    stages: int = struct.field(pytree_node=False, default=4)
    steps: int = struct.field(pytree_node=False, default=8)
    postures: int = struct.field(pytree_node=False, default=2)
    noise: float | Array = 0.016
    outlier: float | Array = 0.15
    vague: float | Array = 2.0
    pose_weight: float | Array = 1.0
    bending_weight: float | Array = 1.0
    betas_weight: float | Array = 1.0
    upright_weight: float | Array = 3.0


@struct.dataclass
class FitState:
    """Root orientation (3, 3), body pose axis-angle (69,), betas (10,), translation (3,) metres."""

    root: AnyArray
    pose: AnyArray
    betas: AnyArray
    transl: AnyArray


@struct.dataclass
class Problem:
    """One person's evidence: keypoints (L, 2) px, weights (L,), box side px, camera."""

    keypoints: AnyArray
    weights: AnyArray
    side: AnyArray
    focal: AnyArray
    center: AnyArray


@struct.dataclass
class Weights:
    """Multipliers of one step: of the prior, and of the noise (large at first)."""

    prior: Array
    noise: Array


def _robust(square: Array, outlier: float | Array) -> tuple[Array, Array]:
    """Geman-McClure's function of a squared, whitened error, and its derivative."""
    scale = outlier * outlier
    return scale * square / (scale + square), (scale / (scale + square)) ** 2


def state_rotmats(state: FitState) -> Array:
    body = axis_angle_to_matrix(state.pose.reshape(23, 3))
    return jnp.concatenate([state.root[None], body])


def _residual(problem: Problem, points: Array) -> Array:
    """Reprojection error in units of the box side, (L, 2)."""
    depth = jnp.maximum(points[:, 2:], _NEAR)
    pixels = problem.focal * points[:, :2] / depth + problem.center
    return jnp.asarray(pixels - problem.keypoints) / problem.side


def _upright(state: FitState) -> Array:
    """The body's up axis minus the expected one, whitened (3,)."""
    return (
        jnp.asarray(state.root)[:, 1] - jnp.array([0.0, -np.cos(_LEAN), -np.sin(_LEAN)])
    ) / _UPRIGHT


def pose_and_energy(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    weights: Weights,
) -> tuple[Posed, Array]:
    """The landmarks of a state (without translation), and twice its negative log-likelihood."""
    posed = pose_landmarks(model, state.betas, state_rotmats(state))
    points = posed.points + state.transl
    noise = settings.noise * weights.noise
    square = jnp.sum(_residual(problem, points) ** 2, axis=-1) / noise**2
    data = problem.weights * _robust(square, settings.outlier / settings.noise)[0]
    behind = problem.weights * jnp.maximum(0.3 - points[:, 2], 0.0) * 1e3
    entries, signs = _bending()
    body = (
        settings.pose_weight * mixture_energy(prior, state.pose)[0]
        + jnp.sum(limit_excess(prior, state.pose) ** 2)
        + settings.bending_weight * jnp.sum(jnp.exp(2 * signs * state.pose[entries]))
        + settings.betas_weight * jnp.sum(state.betas**2)
        + settings.upright_weight * _robust(jnp.sum(_upright(state) ** 2), _LIE)[0]
    )
    return posed, jnp.sum(data + behind) + weights.prior * body


def _bending() -> tuple[np.ndarray, np.ndarray]:
    return np.array([e for e, _ in BENDING]), np.array([s for _, s in BENDING], np.float32)


def normal_equations(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    posed: Posed,
    weights: Weights,
) -> tuple[Array, Array]:
    """Gauss-Newton's H (85, 85) and g (85,) of half the energy, at a posed state."""
    points = posed.points + state.transl
    residual = _residual(problem, points)
    depth = jnp.maximum(points[:, 2], _NEAR)
    slope = problem.focal / (depth * problem.side)
    zero = jnp.zeros_like(depth)
    toward = -points[:, :2] / depth[:, None]
    rows = jnp.stack(
        [
            jnp.stack([slope, zero, slope * toward[:, 0]], -1),
            jnp.stack([zero, slope, slope * toward[:, 1]], -1),
        ],
        axis=1,
    )  # (L, 2, 3): d residual / d point

    levers, shape = landmark_jacobian(model, posed)
    turns = jnp.cross(levers[:, None], rows[:, :, None])  # (L, 2, 24, 3): about world axes
    above = posed.rotations[np.asarray(model.parents[1:])]
    axes = above @ left_jacobian(state.pose.reshape(23, 3))
    body = jnp.einsum("lrka,kab->lrkb", turns[:, :, 1:], axes)
    moves = _translation_directions(jnp.asarray(state.transl))
    count = 2 * rows.shape[0]
    jacobian = jnp.concatenate(
        [
            turns[:, :, 0].reshape(count, 3),
            body.reshape(count, 69),
            (rows @ shape).reshape(count, 10),
            (rows @ moves).reshape(count, 3),
        ],
        axis=1,
    )

    noise = settings.noise * weights.noise
    square = jnp.sum(residual**2, axis=-1) / noise**2
    weight = problem.weights * _robust(square, settings.outlier / settings.noise)[1] / noise**2
    weighted = jacobian * jnp.repeat(weight, 2)[:, None]
    hessian = weighted.T @ jacobian
    gradient = weighted.T @ residual.reshape(count)

    # Blocks of the priors: root, body pose, betas; nothing is known of the translation.
    _, pull, precision = mixture_energy(prior, state.pose)
    excess = limit_excess(prior, state.pose)
    entries, signs = _bending()
    bend = settings.bending_weight * jnp.exp(2 * signs * state.pose[entries])
    stiff = jnp.where(excess != 0, 1 / LIMIT_SOFTNESS**2, 0.0).at[entries].add(bend)
    force = (settings.pose_weight * pull + excess / LIMIT_SOFTNESS).at[entries].add(signs * bend)
    tilt = _upright(state)
    trust = settings.upright_weight * _robust(jnp.sum(tilt**2), _LIE)[1]
    tilt_jacobian = -skew(state.root[:, 1]) / _UPRIGHT
    own = block_diag(
        trust * tilt_jacobian.T @ tilt_jacobian,
        settings.pose_weight * precision + jnp.diag(stiff),
        settings.betas_weight * jnp.eye(10),
        jnp.zeros((3, 3)),
    )
    pulls = jnp.concatenate(
        [
            trust * tilt_jacobian.T @ tilt,
            force,
            settings.betas_weight * state.betas,
            jnp.zeros(3),
        ]
    )
    return hessian + weights.prior * own, gradient + weights.prior * pulls


def _translation_directions(transl: Array) -> Array:
    """Columns: sideways and up at the body's distance, and along the ray (3, 3)."""
    depth = transl[2]
    zero = jnp.zeros_like(depth)
    return jnp.stack(
        [jnp.stack([depth, zero, zero]), jnp.stack([zero, depth, zero]), 0.5 * transl], axis=1
    )


def propose(state: FitState, hessian: Array, gradient: Array, damping: Array) -> FitState:
    """The state after a damped step (Marquardt 1963: the diagonal scaled by 1 + damping)."""
    system = hessian + jnp.diag(damping * jnp.diagonal(hessian) + 1e-3)
    # No step turns a joint, or changes the distance, by more than makes sense at once.
    step = jnp.clip(-cho_solve(cho_factor(system), gradient), -1.0, 1.0)
    transl = jnp.asarray(state.transl)
    transl = transl.at[:2].add(transl[2] * step[_TRANSL][:2])
    return FitState(
        root=axis_angle_to_matrix(step[_ROOT]) @ state.root,
        pose=state.pose + step[_POSE],
        betas=state.betas + step[_BETAS],
        transl=transl * jnp.exp(0.5 * step[_TRANSL][2]),
    )
