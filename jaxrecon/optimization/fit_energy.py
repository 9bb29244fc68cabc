"""The energy of a body over 2D keypoints, and one damped Gauss-Newton step down it.

Energies are twice negative log-likelihoods: squared errors over variances. SMPLify's terms
(Bogo et al. 2016, eq. 1-5): robust reprojection error, pose prior, bending, shape; besides,
anatomical limits and a weak, heavy-tailed wish for people to stand upright in the picture.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.linalg import cho_factor, cho_solve

from jaxrecon.geometry.rotations import axis_angle_to_matrix, skew
from jaxrecon.optimization.landmarks import (
    Landmarks,
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
from jaxrecon.typing import Array

_ROOT, _POSE, _BETAS, _TRANSL = slice(0, 3), slice(3, 72), slice(72, 82), slice(82, 85)
_NEAR = 0.05  # metres: nothing is projected from nearer to the camera than this


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How hard to search, and how far each kind of evidence is trusted.

    keep: candidates that survive a stage; each comes back with its flips in depth.
    stages: how often candidates are improved and selected; steps: optimiser steps of a stage.
    postures: common postures of the prior to start from, beside the mean pose.
    noise: expected error of a keypoint, outlier: error beyond which it is disbelieved, both in
        units of the longer side of the keypoints' box; vague: how much more joints may err that
        every data set defines in its own way.
    """

    keep: int = 3
    stages: int = 4
    steps: int = 8
    postures: int = 2
    noise: float = 0.012
    outlier: float = 0.08
    vague: float = 2.0
    pose_weight: float = 1.0
    bending_weight: float = 1.0
    betas_weight: float = 1.0
    upright_weight: float = 1.0


@struct.dataclass
class FitState:
    """Root orientation (3, 3), body pose axis-angle (69,), betas (10,), translation (3,) metres."""

    root: Array
    pose: Array
    betas: Array
    transl: Array


@struct.dataclass
class Problem:
    """One person's evidence: keypoints (L, 2) px, weights (L,), box side px, camera."""

    keypoints: Array
    weights: Array
    side: Array
    focal: Array
    center: Array


@struct.dataclass
class Weights:
    """Multipliers of one step: of the prior, and of the noise (large at first)."""

    prior: Array
    noise: Array


def _robust(square: Array, outlier: float) -> tuple[Array, Array]:
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
    return (pixels - problem.keypoints) / problem.side


def _upright(state: FitState) -> Array:
    """The body's up axis minus the camera's, whitened (3,)."""
    return (state.root[:, 1] - jnp.array([0.0, -1.0, 0.0])) / 0.4


def fit_energy(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    weights: Weights,
) -> Array:
    """Twice the negative log-likelihood of a state, ()."""
    points = pose_landmarks(model, state.betas, state_rotmats(state)).points + state.transl
    return _energy_at(prior, problem, settings, state, weights, points)


def _energy_at(
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    weights: Weights,
    points: Array,
) -> Array:
    noise = settings.noise * weights.noise
    square = jnp.sum(_residual(problem, points) ** 2, axis=-1) / noise**2
    data = problem.weights * _robust(square, settings.outlier / settings.noise)[0]
    behind = problem.weights * jnp.maximum(0.3 - points[:, 2], 0.0) * 1e3
    gauss, _, _ = mixture_energy(prior, state.pose)
    limits = jnp.sum(limit_excess(prior, state.pose) ** 2)
    entries, signs = _bending()
    bending = jnp.sum(jnp.exp(2 * signs * state.pose[entries]))
    upright = _robust(jnp.sum(_upright(state) ** 2), 3.0)[0]
    body = (
        settings.pose_weight * gauss
        + limits
        + settings.bending_weight * bending
        + settings.betas_weight * jnp.sum(state.betas**2)
        + settings.upright_weight * upright
    )
    return jnp.sum(data + behind) + weights.prior * body


def _bending() -> tuple[np.ndarray, np.ndarray]:
    return np.array([e for e, _ in BENDING]), np.array([s for _, s in BENDING], np.float32)


def _normal_equations(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    weights: Weights,
) -> tuple[Array, Array, Array]:
    """Gauss-Newton's H (85, 85) and g (85,) of half the energy, and the energy."""
    posed = pose_landmarks(model, state.betas, state_rotmats(state))
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
    moves = _translation_directions(state.transl)
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

    scale = weights.prior
    _, pull, precision = mixture_energy(prior, state.pose)
    excess = limit_excess(prior, state.pose)
    entries, signs = _bending()
    bend = settings.bending_weight * jnp.exp(2 * signs * state.pose[entries])
    diagonal = jnp.where(excess != 0, 1 / LIMIT_SOFTNESS**2, 0.0).at[entries].add(bend)
    pose_gradient = settings.pose_weight * pull + excess / LIMIT_SOFTNESS
    pose_gradient = pose_gradient.at[entries].add(signs * bend)
    hessian = hessian.at[_POSE, _POSE].add(
        scale * (settings.pose_weight * precision + jnp.diag(diagonal))
    )
    gradient = gradient.at[_POSE].add(scale * pose_gradient)
    hessian = hessian.at[_BETAS, _BETAS].add(scale * settings.betas_weight * jnp.eye(10))
    gradient = gradient.at[_BETAS].add(scale * settings.betas_weight * state.betas)
    tilt = _upright(state)
    tilt_jacobian = -skew(state.root[:, 1]) / 0.4
    trust = scale * settings.upright_weight * _robust(jnp.sum(tilt**2), 3.0)[1]
    hessian = hessian.at[_ROOT, _ROOT].add(trust * tilt_jacobian.T @ tilt_jacobian)
    gradient = gradient.at[_ROOT].add(trust * tilt_jacobian.T @ tilt)
    return hessian, gradient, _energy_at(prior, problem, settings, state, weights, points)


def _translation_directions(transl: Array) -> Array:
    """Columns: sideways and up at the body's distance, and along the ray (3, 3)."""
    depth = transl[2]
    zero = jnp.zeros_like(depth)
    return jnp.stack(
        [jnp.stack([depth, zero, zero]), jnp.stack([zero, depth, zero]), transl], axis=1
    )


def _move(state: FitState, step: Array) -> FitState:
    transl = state.transl.at[:2].add(state.transl[2] * step[_TRANSL][:2])
    return FitState(
        root=axis_angle_to_matrix(step[_ROOT]) @ state.root,
        pose=state.pose + step[_POSE],
        betas=state.betas + step[_BETAS],
        transl=transl * jnp.exp(jnp.clip(step[_TRANSL][2], -0.5, 0.5)),
    )


def damped_step(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    state: FitState,
    damping: Array,
    weights: Weights,
) -> tuple[FitState, Array, Array]:
    """One step of Levenberg-Marquardt.

    Returns:
        the better of the old and the new state, the next damping, the energy.
    """
    equations = _normal_equations(model, prior, problem, settings, state, weights)
    hessian, gradient, before = equations
    system = hessian + jnp.diag(damping * jnp.diagonal(hessian) + 1e-3)
    step = -cho_solve(cho_factor(system), gradient)
    moved = _move(state, jnp.clip(step, -1.0, 1.0))
    after = fit_energy(model, prior, problem, settings, moved, weights)
    better = after < before  # also false where the step is not finite
    state = jax.tree.map(lambda new, old: jnp.where(better, new, old), moved, state)
    damping = jnp.clip(jnp.where(better, damping / 3, damping * 5), 1e-5, 1e4)
    return state, damping, jnp.where(better, after, before)
