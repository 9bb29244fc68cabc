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
from jaxrecon.optimization.fit_hypotheses import N_VARIANTS, depth_variants, initial_states
from jaxrecon.optimization.landmarks import Landmarks, landmarks, pose_landmarks
from jaxrecon.optimization.priors import PosePrior, default_pose_prior
from jaxrecon.typing import AnyArray, Array, Float

CHUNK = 64  # people in one call of the compiled fit
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


def _search(
    model: Landmarks,
    prior: PosePrior,
    settings: FitSettings,
    problem: Problem,
    starts: FitState,
) -> tuple[FitState, Array, Array, Array]:
    """The best body of one person, from starts with a leading axis of candidates.

    One scan over stages around one over steps, so that each piece is compiled once.
    """
    step_all = jax.vmap(
        functools.partial(damped_step, model, prior, problem, settings), in_axes=(0, 0, None)
    )

    def step(carry, weights):  # type: ignore[no-untyped-def]
        states, damping, _ = carry
        states, damping, energies = step_all(states, damping, weights)
        energies = jnp.where(jnp.isfinite(energies), energies, jnp.inf)
        return (states, damping, energies), jnp.min(energies)

    def stage(states, schedule):  # type: ignore[no-untyped-def]
        count = states.pose.shape[0]
        carry = (states, jnp.full(count, 1e-2), jnp.zeros(count))
        (states, _, energies), history = jax.lax.scan(step, carry, schedule)
        kept = _distinct(model, states, energies, settings.keep)
        best = jax.tree.map(lambda x: x[0], kept)
        variants = jax.vmap(functools.partial(depth_variants, model))(kept)
        variants = jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), variants)
        return variants, (best, jnp.min(energies), history)

    # The first stage starts with a strong prior and blurred evidence (SMPLify's annealing).
    ramp = jnp.linspace(1.0, 0.0, settings.steps)
    ramp = jnp.zeros((settings.stages, settings.steps)).at[0].set(ramp)
    _, (best, energies, history) = jax.lax.scan(stage, starts, Weights(8.0**ramp, 3.0**ramp))
    last = jax.tree.map(lambda x: x[-1], best)
    points = pose_landmarks(model, last.betas, state_rotmats(last)).points + last.transl
    return last, points, energies[-1], history.reshape(-1)


def _distinct(model: Landmarks, states: FitState, energies: Array, count: int) -> FitState:
    """The best candidate and the best ones that differ from those before it by 3 cm or more."""
    rotmats = jax.vmap(state_rotmats)(states)
    joints = jax.vmap(lambda b, r: pose_landmarks(model, b, r).joints)(states.betas, rotmats)
    chosen = []
    for _ in range(count):
        best = jnp.argmin(energies)
        chosen.append(best)
        distance = jnp.mean(jnp.linalg.norm(joints - joints[best], axis=-1), axis=-1)
        energies = jnp.where(distance < 0.03, energies + 1e9, energies)
    return jax.tree.map(lambda x: x[jnp.stack(chosen)], states)


@functools.partial(jax.jit, static_argnames=("settings",))
def _start(
    model: Landmarks, prior: PosePrior, settings: FitSettings, problems: Problem
) -> FitState:
    count = settings.keep * N_VARIANTS
    return jax.vmap(lambda p: initial_states(model, prior, p, count, settings.postures))(problems)


@functools.partial(jax.jit, static_argnames=("settings",))
def _fit_chunk(
    model: Landmarks,
    prior: PosePrior,
    settings: FitSettings,
    problems: Problem,
    starts: FitState,
    count: Array,
) -> tuple[FitState, Array, Array, Array]:
    """Bodies of the first `count` of CHUNK people (the rest are zeros).

    `count` is traced: one compilation serves every batch size. A CPU takes people one by one
    (their candidates already fill it), an accelerator all at once.
    """
    search = functools.partial(_search, model, prior, settings)
    if jax.default_backend() != "cpu":
        return jax.vmap(search)(problems, starts)
    first = jax.tree.map(lambda x: x[0], (problems, starts))
    empty = jax.tree.map(
        lambda x: jnp.zeros((CHUNK, *x.shape), x.dtype), jax.eval_shape(search, *first)
    )

    def one(i, results):  # type: ignore[no-untyped-def]
        problem, start = jax.tree.map(lambda x: x[i], (problems, starts))
        result = search(problem, start)
        return jax.tree.map(lambda all_, one_: all_.at[i].set(one_), results, result)

    return jax.lax.fori_loop(0, count, one, empty)


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
    size = len(keypoints)
    pad=-(-size//CHUNK)*CHUNK
    results=[]
    for b in range(0,size,CHUNK):
        index=np.minimum(np.arange(b,b+CHUNK),size-1)
        chunk=jax.tree.map(lambda x:x[index],problems)
        starts=_start(model,prior,settings,chunk)
        results.append(_fit_chunk(model,prior,settings,chunk,starts,jnp.asarray(min(CHUNK,size-b))))
    state,joints,energy,history=jax.tree.map(lambda *x:jnp.concatenate(x)[:size],*results)
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
