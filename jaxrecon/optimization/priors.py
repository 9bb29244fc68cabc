"""What a body may look like when the evidence leaves it open: priors on pose, root and shape.

A prior is a pytree of arrays and its energy is twice a negative log-likelihood, so that energies
of different origin add up without weights. The pose prior is a mixture of Gaussians over the
axis-angle vectors of the 23 joints, fitted here to the project's own anatomical pose sampler
(`jaxrecon.bodies.poses`): nothing is learned from licensed data, and nothing is read from disk.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrecon.bodies.joints import SMPL24, mirror_permutation
from jaxrecon.bodies.poses import pose_limits, sample_poses
from jaxrecon.typing import AnyArray, Array, Float

POSE_SIZE = 69
# Real people differ from the sampler: every angle may stray by this much on its own (radians).
STRAY = 0.15
# Share of its log-density that a component's offset counts. With 1 a maximum of the posterior
# flees from wide components into narrow ones, however few poses these hold.
DENSITY = 0.5
_ARM = ("collar", "shoulder", "elbow", "wrist", "hand")
_LEFT_ARM = np.array([SMPL24.index(f"l_{joint}") for joint in _ARM])
_RIGHT_ARM = np.array([SMPL24.index(f"r_{joint}") for joint in _ARM])
_TRUNK = np.setdiff1d(np.arange(1, 24), np.concatenate([_LEFT_ARM, _RIGHT_ARM]))
# Softness of a joint limit, radians: one unit of energy for this much beyond it.
LIMIT_SOFTNESS = 0.06
# Entries of the body pose, which way they must not bend (SMPLify, Bogo et al. 2016, eq. 4;
# spec multi_spin 4.2): left and right elbow about y, left and right knee about x.
BENDING = tuple(
    (3 * (SMPL24.index(joint) - 1) + axis, sign)
    for joint, axis, sign in (
        ("l_elbow", 1, 1.0),
        ("r_elbow", 1, -1.0),
        ("l_knee", 0, -1.0),
        ("r_knee", 0, -1.0),
    )
)


@struct.dataclass
class PosePrior:
    """Mixtures of Gaussians over parts of the body pose, and the box of anatomical limits.

    G parts (trunk with legs and head, left arm, right arm) are independent, each a mixture of K
    Gaussians: what the arms do says little about the legs, and K^G combinations are covered.
    means (G, K, 69), precisions (G, K, 69, 69): zero outside a part; offsets (G, K): the cost of
    choosing a component, the smallest one of a part is 0; lower, upper (69,) radians.
    """

    means: Array
    precisions: Array
    offsets: Array
    lower: Array
    upper: Array


def mixture_energy(
    prior: PosePrior, pose: Float[AnyArray, "69"]
) -> tuple[Float[Array, ""], Float[Array, "69"], Float[Array, "69 69"]]:
    """The nearest components' energy, half its gradient, and their precision (half the Hessian).

    Max-mixture as in SMPLify (Olson and Agarwal 2013): for each part the min over components of
    the squared Mahalanobis distance plus the component's offset.
    """
    difference = pose - prior.means
    pulls = jnp.einsum("gkab,gkb->gka", prior.precisions, difference)
    energies = jnp.sum(pulls * difference, axis=-1) + prior.offsets
    chosen = jax.nn.one_hot(jnp.argmin(energies, axis=-1), energies.shape[-1])
    return (
        jnp.sum(jnp.min(energies, axis=-1)),
        jnp.einsum("gk,gka->a", chosen, pulls),
        jnp.einsum("gk,gkab->ab", chosen, prior.precisions),
    )


def limit_excess(prior: PosePrior, pose: Float[AnyArray, "69"]) -> Float[Array, "69"]:
    """How far each angle lies beyond its limit, signed, in units of the limit's softness."""
    beyond = jnp.maximum(pose - prior.upper, 0.0) - jnp.maximum(prior.lower - pose, 0.0)
    return beyond / LIMIT_SOFTNESS


def bending_energy(pose: Float[AnyArray, "*b 69"]) -> Float[Array, "*b"]:
    """Sum over elbows and knees of exp(sign x angle)^2 (spec multi_spin 4.2, E_angle)."""
    pose = jnp.asarray(pose)
    entries = np.array([entry for entry, _ in BENDING])
    signs = np.array([sign for _, sign in BENDING], np.float32)
    return jnp.sum(jnp.exp(2.0 * signs * pose[..., entries]), axis=-1)


def fit_mixture(
    samples: Float[np.ndarray, "n d"], components: int, stray: float = STRAY, rounds: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expectation maximisation; each covariance has `stray` squared added on its diagonal.

    Returns:
        weights (K,), means (K, d), covariances (K, d, d). Deterministic.
    """
    rng = np.random.default_rng(0)
    count, size = samples.shape
    floor = stray**2 * np.eye(size)
    means = _spread_seeds(samples, components, rng)
    covariances = np.tile(np.cov(samples.T) + floor, (components, 1, 1))
    weights = np.full(components, 1.0 / components)
    # 1, x and x x^T of every sample: both halves of a round are then single matrix products.
    outer = (samples[:, :, None] * samples[:, None, :]).reshape(count, -1)
    moments = np.concatenate([np.ones((count, 1)), samples, outer], axis=1)
    for _ in range(rounds):
        precisions = np.linalg.inv(covariances)
        pulls = np.einsum("kab,kb->ka", precisions, means)
        constant = np.einsum("ka,ka->k", pulls, means) + np.linalg.slogdet(covariances)[1]
        constant = constant - 2 * np.log(weights)
        terms = np.concatenate(
            [constant[:, None], -2 * pulls, precisions.reshape(components, -1)], axis=1
        )
        scores = -0.5 * (moments @ terms.T)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        sums = (moments.T @ shares).T  # eight times faster here than shares.T @ moments
        total = sums[:, 0] + 1e-9
        weights = total / count
        means = sums[:, 1 : size + 1] / total[:, None]
        second = (sums[:, size + 1 :] / total[:, None]).reshape(components, size, size)
        covariances = second - means[:, :, None] * means[:, None, :] + floor
    return weights, means, covariances


def _spread_seeds(samples: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ seeds: each drawn in proportion to its squared distance from those before."""
    seeds = [samples.mean(0)]
    distance = ((samples - seeds[0]) ** 2).sum(1)
    for _ in range(components - 1):
        seed = samples[rng.choice(len(samples), p=distance / distance.sum())]
        seeds.append(seed)
        distance = np.minimum(distance, ((samples - seed) ** 2).sum(1))
    return np.stack(seeds)


def mirror_pose(pose: np.ndarray) -> np.ndarray:
    """Body poses (n, 69) of the people in a mirror: sides swapped, y and z components negated."""
    swap = mirror_permutation("smpl24")[1:] - 1
    return (pose.reshape(-1, 23, 3)[:, swap] * np.array([1.0, -1.0, -1.0])).reshape(-1, POSE_SIZE)


@lru_cache(maxsize=4)
def default_pose_prior(components: int = 8, samples: int = 3000) -> PosePrior:
    """The pose prior of the project's own anatomical sampler, symmetric in left and right.

    Made in about a second at first use and kept.
    """
    poses = sample_poses(np.random.default_rng(0), samples)[:, 1:].reshape(samples, POSE_SIZE)
    lower, upper = (limit.reshape(POSE_SIZE) for limit in pose_limits())
    return pose_prior(poses, lower, upper, components)


def pose_prior(
    poses: Float[np.ndarray, "n 69"],
    lower: Float[np.ndarray, "69"],
    upper: Float[np.ndarray, "69"],
    components: int = 8,
    stray: float = STRAY,
    density: float = DENSITY,
) -> PosePrior:
    """A pose prior fitted to body poses (axis-angle, joints 1..23) and their mirror images.

    Args:
        stray: see `STRAY`. density: how much a component's height counts, see `DENSITY`.
    """
    poses = np.concatenate([poses, mirror_pose(poses)])
    mirror = mirror_pose(np.eye(POSE_SIZE))
    parts = []
    for joints in (_TRUNK, _LEFT_ARM):
        entries = (3 * (joints[:, None] - 1) + np.arange(3)).reshape(-1)
        weights, means, covariances = fit_mixture(poses[:, entries], components, stray)
        offsets = density * (np.linalg.slogdet(covariances)[1] - 2 * np.log(weights))
        wide_means = np.zeros((components, POSE_SIZE))
        wide_means[:, entries] = means
        wide = np.zeros((components, POSE_SIZE, POSE_SIZE))
        wide[:, entries[:, None], entries] = np.linalg.inv(covariances)
        parts.append((wide_means, wide, offsets - offsets.min()))
    means, precisions, offsets = parts[1]
    parts.append((means @ mirror, mirror.T @ precisions @ mirror, offsets))
    means, precisions, offsets = (np.stack(x) for x in zip(*parts, strict=True))
    return PosePrior(
        *(jnp.asarray(x, jnp.float32) for x in (means, precisions, offsets, lower, upper))
    )
