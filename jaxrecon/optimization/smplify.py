"""Fitting a body to 2D keypoints by optimisation alone, in the manner of SMPLify.

    keypoints -> many starts (headings, postures) -> a few steps each -> the best few
              -> with each limb also flipped in depth -> a few steps each -> the best -> many steps

The energy is SMPLify's (Bogo et al. 2016); the optimiser is Levenberg-Marquardt instead of
Adam: the Jacobian of the landmarks is known in closed form (`optimization.landmarks`), there are
85 unknowns, and a dozen steps do what hundreds do there. A picture alone cannot tell an arm that
points to the camera from one that points away; the flips search those pairs, the prior decides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrecon.bodies.joints import joint_names
from jaxrecon.bodies.model import BodyModel
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import matrix_to_axis_angle
from jaxrecon.optimization.fit_energy import (
    FitSettings,
    FitState,
    Problem,
    Weights,
    damped_step,
    fit_energy,
    state_rotmats,
)
from jaxrecon.optimization.fit_hypotheses import depth_variants, initial_states
from jaxrecon.optimization.landmarks import Landmarks, landmarks, pose_landmarks
from jaxrecon.optimization.priors import PosePrior, default_pose_prior
from jaxrecon.typing import AnyArray, Array, Float

# These joints mean something a little different in every data set.
_VAGUE = ("hip", "pelvis", "spine", "thorax", "neck", "jaw", "head", "ear", "toe", "heel")


@struct.dataclass
class FitResult:
    """Fitted bodies; the batch comes first.

    betas (B, 10); rotmats (B, 24, 3, 3); pose (B, 72) axis-angle; transl (B, 3) metres, camera
    frame; joints (B, J, 3) metres in the camera frame, in the joint set of the keypoints;
    reprojected (B, J, 2) and error (B, J), pixels; energy (B,); history (B, S): the lowest
    energy over all candidates after each step, final weights.
    """

    betas: Array
    rotmats: Array
    pose: Array
    transl: Array
    joints: Array
    reprojected: Array
    error: Array
    energy: Array
    history: Array


def _descend(
    model: Landmarks,
    prior: PosePrior,
    problem: Problem,
    settings: FitSettings,
    states: FitState,
    schedule: Weights,
) -> tuple[FitState, Array, Array]:
    """Levenberg-Marquardt on all candidates (H, ...): states, final energies (H,), history."""
    last = Weights(jnp.ones(()), jnp.ones(()))
    final = jax.vmap(lambda s: fit_energy(model, prior, problem, settings, s, last))

    def step(carry, weights):  # type: ignore[no-untyped-def]
        states, damping = carry
        states, damping = jax.vmap(
            lambda s, d: damped_step(model, prior, problem, settings, s, d, weights)
        )(states, damping)
        return (states, damping), jnp.min(final(states))

    damping = jnp.full(states.pose.shape[0], 1e-2)
    (states, _), history = jax.lax.scan(step, (states, damping), schedule)
    energies = final(states)
    return states, jnp.where(jnp.isfinite(energies), energies, jnp.inf), history


def _best(states: FitState, energies: Array, count: int) -> FitState:
    order = jnp.argsort(energies)[:count]
    return jax.tree.map(lambda x: x[order], states)


@functools.partial(jax.jit, static_argnames=("settings",))
def _fit(
    model: Landmarks,
    prior: PosePrior,
    problems: Problem,
    settings: FitSettings,
    init: FitState | None,
) -> tuple[FitState, Array, Array, Array]:
    def one(args):  # type: ignore[no-untyped-def]
        problem, start = args
        descend = functools.partial(_descend, model, prior, problem, settings)
        histories = []
        if start is None:
            states = initial_states(model, prior, problem, settings.headings, settings.postures)
            ramp = jnp.linspace(1.0, 0.0, settings.start_steps)
            states, energies, history = descend(states, Weights(8.0**ramp, 3.0**ramp))
            histories.append(history)
        else:
            states, energies = jax.tree.map(lambda x: x[None], start), jnp.zeros(1)
        flat = Weights(jnp.ones(settings.flip_steps), jnp.ones(settings.flip_steps))
        for _ in range(settings.flip_rounds):
            kept = _best(states, energies, settings.keep)
            variants = jax.vmap(lambda s: depth_variants(model, s))(kept)
            variants = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), variants)
            states, energies, history = descend(variants, flat)
            histories.append(history)
        flat = Weights(jnp.ones(settings.final_steps), jnp.ones(settings.final_steps))
        states, energies, history = descend(_best(states, energies, 1), flat)
        state = jax.tree.map(lambda x: x[0], states)
        points = pose_landmarks(model, state.betas, state_rotmats(state)).points
        history = jnp.concatenate([*histories, history])
        return state, points + state.transl, energies[0], history

    return jax.lax.map(one, (problems, init))


def fit_keypoints(
    body: BodyModel,
    keypoints2d: Float[AnyArray, "b j 3"],
    focal: Float[AnyArray, "b"],
    center: Float[AnyArray, "b 2"],
    joint_set: str = "openpose25",
    init: FitState | None = None,
    settings: FitSettings = FitSettings(),  # noqa: B008 (frozen)
    prior: PosePrior | None = None,
) -> FitResult:
    keypoints = np.asarray(keypoints2d, np.float32)
    model = landmarks(body, joint_set)
    problems = make_problems(model, keypoints, focal, center, settings, joint_set)
    prior = default_pose_prior() if prior is None else prior
    state, joints, energy, history = _fit(model, prior, problems, settings, init)
    rotmats = jax.vmap(state_rotmats)(state)
    pose = matrix_to_axis_angle(rotmats).reshape(len(keypoints), 72)
    pixels = problems.focal[:, None, None] * joints[..., :2] / joints[..., 2:]
    pixels = pixels + problems.center[:, None]
    error = jnp.linalg.norm(pixels - keypoints[..., :2], axis=-1)
    return FitResult(
        state.betas, rotmats, pose, state.transl, joints, pixels, error, energy, history
    )


def make_problems(model, keypoints, focal, center, settings, joint_set):
    confidence = np.clip(keypoints[..., 2], 0.0, 1.0) * np.asarray(model.known)
    vague = np.array([any(v in n for v in _VAGUE) for n in joint_names(joint_set)])
    weights = confidence**2 / np.where(vague, settings.vague, 1.0) ** 2
    low = np.where(confidence[..., None] > 0, keypoints[..., :2], np.inf).min(1)
    high = np.where(confidence[..., None] > 0, keypoints[..., :2], -np.inf).max(1)
    side = np.maximum((high - low).max(-1), 1.0)
    f32 = lambda x: jnp.asarray(np.asarray(x), jnp.float32)
    return Problem(
        f32(keypoints[..., :2]), f32(weights), f32(side), f32(focal), f32(center)
    )
