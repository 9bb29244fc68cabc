"""Fitting a body to 2D keypoints by optimisation alone, in the manner of SMPLify.

    keypoints -> many starts (headings, postures) -> a few steps each -> the best few
              -> with each limb also flipped in depth -> a few steps each -> the best -> many steps

The energy is SMPLify's (Bogo et al. 2016); the optimiser is Levenberg-Marquardt instead of
Adam: the Jacobian of the landmarks is known in closed form (`optimization.landmarks`), there are
85 unknowns, and a dozen steps do what hundreds do there. A picture alone cannot tell an arm that
points to the camera from one that points away; the flips search those pairs, the prior decides.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.spatial.transform import Rotation

from jaxrecon.bodies.model import BodyModel
from jaxrecon.errors import UserError
from jaxrecon.optimization.fit_energy import (
    FitSettings,
    FitState,
    Problem,
    Weights,
    normal_equations,
    pose_and_energy,
    propose,
)
from jaxrecon.optimization.fit_hypotheses import N_VARIANTS, depth_variants, initial_states
from jaxrecon.optimization.landmarks import Landmarks, Posed, landmarks
from jaxrecon.optimization.priors import PosePrior, default_pose_prior
from jaxrecon.typing import AnyArray, Array, Float

T = TypeVar("T")
CHUNK = 64  # people in one call of the compiled fit
LEAST_KEYPOINTS = 3
# These joints mean something a little different in every data set.
_VAGUE = ("hip", "pelvis", "spine", "thorax", "neck", "jaw", "head", "ear", "toe", "heel")


@struct.dataclass
class FitResult:
    """Fitted bodies as NumPy arrays; the batch comes first.

    betas (B, 10); rotmats (B, 24, 3, 3), the root's in the camera frame; pose (B, 72), the same
    as axis-angle; transl (B, 3) metres, camera frame; joints (B, J, 3) metres in the camera
    frame, in the joint set of the keypoints (NaN where the body has no such joint);
    reprojected (B, J, 2) and error (B, J) pixels; energy (B,); history (B, S): the lowest energy
    over all candidates after each step. The first stage blurs the evidence and each stage lets
    go of some candidates, so history falls within a stage only.
    """

    betas: AnyArray
    rotmats: AnyArray
    pose: AnyArray
    transl: AnyArray
    joints: AnyArray
    reprojected: AnyArray
    error: AnyArray
    energy: AnyArray
    history: AnyArray


def fit_keypoints(
    body: BodyModel,
    keypoints2d: Float[AnyArray, "b j 3"],
    focal: Float[AnyArray, "b"],
    center: Float[AnyArray, "b 2"],
    joint_set: str = "openpose25",
    init: FitState | None = None,
    settings: FitSettings | None = None,
    prior: PosePrior | None = None,
) -> FitResult:
    """Bodies that explain 2D keypoints, with no trained weights.

    Args:
        keypoints2d: full-image pixels and confidence (0 to 1; above 1 counts as 1, 0 is missing).
        focal: pixels. center: principal point, pixels.
        joint_set: name of the keypoints' joint set (`bodies.joints.JOINT_SETS`).
        init: a further start for each person (of a network, say), leading axis B.
        settings: how hard to search; its numbers may change without a new compilation.
        prior: the pose prior; by default that of the project's anatomical sampler.

    Raises:
        UserError: unknown joint set, wrong shapes, values that are not finite, fewer than three
            keypoints with confidence, a focal length that is not positive.
    """
    settings = FitSettings() if settings is None else settings
    model = landmarks(body, joint_set)
    keypoints = np.asarray(keypoints2d, np.float32)
    problems = make_problems(model, keypoints, focal, center, settings)
    prior = default_pose_prior() if prior is None else prior
    count = settings.keep * N_VARIANTS
    # On the host: indexing there compiles nothing.
    starts = jax.device_get(initial_states(model, prior, problems, count, settings.postures))
    if init is not None:
        starts = jax.tree.map(_with_first, starts, init)
    size = len(keypoints)
    pieces = []
    for begin in range(0, size, CHUNK):
        people = np.minimum(np.arange(begin, begin + CHUNK), size - 1)
        chunk, chunk_starts = _take((problems, starts), people)
        count = min(CHUNK, size - begin)
        pieces.append(
            jax.device_get(_fit_chunk(model, prior, settings, chunk, chunk_starts, count))
        )
    state, joints, energy, history = jax.tree.map(lambda *x: np.concatenate(x)[:size], *pieces)
    return _result(model, problems, state, joints, energy, history)


def make_problems(
    model: Landmarks,
    keypoints: Float[np.ndarray, "b j 3"],
    focal: Float[AnyArray, "b"],
    center: Float[AnyArray, "b 2"],
    settings: FitSettings,
) -> Problem:
    """Checked evidence of B people, NumPy arrays.

    Raises:
        UserError: see `fit_keypoints`.
    """
    focal = np.asarray(focal, np.float32)
    center = np.asarray(center, np.float32)
    if keypoints.shape[1] != len(model.names):
        raise UserError(
            f"keypoints2d has {keypoints.shape[1]} joints, its joint set {len(model.names)}; "
            "name the right joint set"
        )
    if len(keypoints) == 0:
        raise UserError("keypoints2d holds nobody: there is nothing to fit")
    confidence = np.clip(keypoints[..., 2], 0.0, 1.0) * np.asarray(model.known)
    seen = confidence > 0
    if not np.isfinite(np.where(seen[..., None], keypoints, keypoints[..., 2:])).all():
        raise UserError("keypoints2d has values that are not finite; give them confidence 0")
    if not (np.isfinite(focal).all() and np.isfinite(center).all() and (focal > 0).all()):
        raise UserError("focal and center must be finite pixels, and the focal length positive")
    few = np.flatnonzero(seen.sum(1) < LEAST_KEYPOINTS)
    if few.size:
        raise UserError(
            f"person {few[0]} has {seen[few[0]].sum()} keypoints with confidence above 0; "
            f"a fit needs {LEAST_KEYPOINTS} or more"
        )
    places = np.where(seen[..., None], keypoints[..., :2], 0.0)
    low = np.where(seen[..., None], places, np.inf).min(1)
    high = np.where(seen[..., None], places, -np.inf).max(1)
    vague = np.array([any(word in name for word in _VAGUE) for name in model.names])
    weights = confidence**2 / np.where(vague, settings.vague, 1.0) ** 2
    return Problem(
        keypoints=places,
        weights=weights.astype(np.float32),
        side=np.maximum((high - low).max(-1), 1.0),
        focal=focal,
        center=center,
    )


def _with_first(starts: np.ndarray, init: AnyArray) -> np.ndarray:
    """Starts (B, H, ...) whose first is `init` (B, ...)."""
    starts = np.array(starts)
    starts[:, 0] = np.asarray(init)
    return starts


def _take(tree: T, index: np.ndarray) -> T:
    return jax.tree.map(lambda x: x[index], tree)


def _result(
    model: Landmarks,
    problems: Problem,
    state: FitState,
    joints: np.ndarray,
    energy: np.ndarray,
    history: np.ndarray,
) -> FitResult:
    size = len(energy)
    root = Rotation.from_matrix(state.root).as_rotvec()
    pose = np.concatenate([root, state.pose], axis=-1).astype(np.float32)
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(size, 24, 3, 3)
    known = np.asarray(model.known)[:, None] > 0
    joints = np.where(known, joints, np.nan).astype(np.float32)
    pixels = problems.focal[:, None, None] * joints[..., :2] / joints[..., 2:]
    pixels = (pixels + problems.center[:, None]).astype(np.float32)
    return FitResult(
        betas=state.betas,
        rotmats=rotmats.astype(np.float32),
        pose=pose,
        transl=state.transl,
        joints=joints,
        reprojected=pixels,
        error=np.linalg.norm(pixels - problems.keypoints, axis=-1),
        energy=energy,
        history=history,
    )


def _search(
    model: Landmarks,
    prior: PosePrior,
    settings: FitSettings,
    problem: Problem,
    starts: FitState,
) -> tuple[FitState, Array, Array, Array]:
    """The best body of one person, from starts with a leading axis of candidates.

    One scan over stages around one over steps, so that each piece is compiled once.

    Returns:
        state, landmarks in the camera frame (L, 3), energy, lowest energy after each step.
    """
    evaluate = jax.vmap(
        functools.partial(pose_and_energy, model, prior, problem, settings), in_axes=(0, None)
    )
    equations = jax.vmap(
        functools.partial(normal_equations, model, prior, problem, settings), in_axes=(0, 0, None)
    )

    def step(carry, weights):  # type: ignore[no-untyped-def]
        proposed, damping, *accepted = carry
        posed, energies = evaluate(proposed, weights)
        better = energies < accepted[-1]  # also false where the proposal is not finite
        state, posed, energies = jax.tree.map(
            lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            (proposed, posed, energies),
            tuple(accepted),
        )
        damping = jnp.clip(jnp.where(better, damping / 3, damping * 5), 1e-5, 1e4)
        hessian, gradient = equations(state, posed, weights)
        proposed = jax.vmap(propose)(state, hessian, gradient, damping)
        return (proposed, damping, state, posed, energies), jnp.min(energies)

    def stage(states, weights):  # type: ignore[no-untyped-def]
        count = states.pose.shape[0]
        nothing = _unposed(count, len(model.names))
        carry = (states, jnp.full(count, 3e-2), states, nothing, jnp.full(count, jnp.inf))
        steps = jax.tree.map(lambda w: jnp.full(settings.steps, w), weights)
        (_, _, states, posed, energies), history = jax.lax.scan(step, carry, steps)
        kept = _distinct(states, energies, settings.keep)
        states, posed = jax.tree.map(lambda x: x[kept], (states, posed))
        variants = jax.vmap(functools.partial(depth_variants, model))(states, posed)
        variants = jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), variants)
        best = jax.tree.map(lambda x: x[0], (states, posed.points))
        return variants, (*best, energies[kept[0]], history)

    # The first stage starts with a strong prior and blurred evidence (SMPLify's annealing).
    first = jnp.arange(settings.stages) == 0
    weights = Weights(jnp.where(first, 3.0, 1.0), jnp.where(first, 2.0, 1.0))
    _, (states, points, energies, history) = jax.lax.scan(stage, starts, weights)
    last = jax.tree.map(lambda x: x[-1], states)
    return last, points[-1] + last.transl, energies[-1], history.reshape(-1)


def _unposed(count: int, points: int) -> Posed:
    """What a candidate carries before its first evaluation."""
    return Posed(
        points=jnp.zeros((count, points, 3)),
        joints=jnp.zeros((count, 24, 3)),
        rotations=jnp.zeros((count, 24, 3, 3)),
        parts=jnp.zeros((count, points, 24, 3)),
    )


def _distinct(states: FitState, energies: Array, count: int) -> Array:
    """Indices of the best candidate and of the best ones unlike those before it."""
    orientation = jnp.concatenate([states.root.reshape(-1, 9), states.pose], axis=-1)
    chosen = []
    for _ in range(count):
        best = jnp.argmin(energies)
        chosen.append(best)
        far = jnp.sum((orientation - orientation[best]) ** 2, axis=-1) > 0.1
        energies = jnp.where(far, energies, energies + 1e9)
    return jnp.stack(chosen)


@jax.jit
def _fit_chunk(
    model: Landmarks,
    prior: PosePrior,
    settings: FitSettings,
    problems: Problem,
    starts: FitState,
    count: int | Array,
) -> tuple[FitState, Array, Array, Array]:
    """Bodies of the first `count` of CHUNK people (the rest are zeros).

    `count` is traced: one compilation serves every batch size. A CPU takes people one by one
    (their candidates already fill it), an accelerator all at once.
    """
    search = functools.partial(_search, model, prior, settings)
    if jax.default_backend() != "cpu":
        return jax.vmap(search)(problems, starts)
    zeros = jax.tree.map(lambda x: jnp.zeros_like(x[:, 0]), starts)
    steps = settings.stages * settings.steps
    empty = (
        zeros,
        jnp.zeros((CHUNK, len(model.names), 3)),
        jnp.zeros(CHUNK),
        jnp.zeros((CHUNK, steps)),
    )

    def one(i, results):  # type: ignore[no-untyped-def]
        problem, start = jax.tree.map(lambda x: x[i], (problems, starts))
        result = search(problem, start)
        return jax.tree.map(lambda all_, one_: all_.at[i].set(one_), results, result)

    return jax.lax.fori_loop(0, count, one, empty)
