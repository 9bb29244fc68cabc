"""What a body may look like when the evidence leaves it open: priors on pose, root and shape.

A prior is a pytree of arrays and its energy is twice a negative log-likelihood, so that energies
of different origin add up without weights. The pose prior is a mixture of Gaussians over the
axis-angle vectors of the 23 joints, fitted here to the project's own anatomical pose sampler
(`jaxrecon.bodies.poses`): nothing is learned from licensed data, and nothing is read from disk.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrecon.bodies.joints import SMPL24
from jaxrecon.bodies.poses import pose_limits, sample_poses
from jaxrecon.typing import AnyArray, Array, Float

POSE_SIZE = 69
# Real people differ from the sampler: every angle may stray by this much on its own (radians).
STRAY = 0.12
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
    """K Gaussians over 69 axis-angle entries, and the box of anatomical limits.

    means (K, 69), precisions (K, 69, 69), offsets (K,): -2 log weight + log det covariance, the
    smallest one 0; lower, upper (69,) radians.
    """

    means: Array
    precisions: Array
    offsets: Array
    lower: Array
    upper: Array

    @property
    def count(self) -> int:
        return self.means.shape[0]


def mixture_energy(
    prior: PosePrior, pose: Float[AnyArray, "69"]
) -> tuple[Float[Array, ""], Float[Array, "69"], Float[Array, "69 69"]]:
    """The nearest component's energy, half its gradient, and its precision (half the Hessian).

    Max-mixture as in SMPLify (Olson and Agarwal 2013): min over k of the squared Mahalanobis
    distance plus the component's offset.
    """
    difference = pose - prior.means
    pulls = jnp.einsum("kab,kb->ka", prior.precisions, difference)
    energies = jnp.sum(pulls * difference, axis=-1) + prior.offsets
    best = jnp.argmin(energies)
    return energies[best], pulls[best], prior.precisions[best]


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
    samples: Float[np.ndarray, "n 69"], components: int, stray: float = STRAY, rounds: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expectation maximisation; each covariance has `stray` squared added on its diagonal.

    Returns:
        weights (K,), means (K, 69), covariances (K, 69, 69). Deterministic.
    """
    rng = np.random.default_rng(0)
    count, size = samples.shape
    means = _spread_seeds(samples, components, rng)
    covariances = np.tile(np.cov(samples.T) + stray**2 * np.eye(size), (components, 1, 1))
    weights = np.full(components, 1.0 / components)
    for _ in range(rounds):
        scores = np.stack(
            [
                np.log(w) - 0.5 * _log_likelihood(samples - m, c)
                for w, m, c in zip(weights, means, covariances, strict=True)
            ],
            axis=1,
        )
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        total = shares.sum(0) + 1e-9
        weights = total / count
        means = (shares.T @ samples) / total[:, None]
        for k in range(components):
            centred = samples - means[k]
            scatter = (centred * shares[:, k, None]).T @ centred / total[k]
            covariances[k] = scatter + stray**2 * np.eye(size)
    return weights, means, covariances


def _log_likelihood(centred: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mahalanobis distance squared plus log determinant, (n,)."""
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, centred.T)
    return (white**2).sum(0) + 2 * np.log(np.diag(factor)).sum()


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
    from jaxrecon.bodies.joints import mirror_permutation

    swap = mirror_permutation("smpl24")[1:] - 1
    return (pose.reshape(-1, 23, 3)[:, swap] * np.array([1.0, -1.0, -1.0])).reshape(-1, POSE_SIZE)


@lru_cache(maxsize=4)
def default_pose_prior(components: int = 8, samples: int = 4096) -> PosePrior:
    """The pose prior of the project's own anatomical sampler, symmetric in left and right.

    Made in about a second at first use and kept.
    """
    poses = sample_poses(np.random.default_rng(0), samples)[:, 1:].reshape(samples, POSE_SIZE)
    weights, means, covariances = fit_mixture(poses, components)
    # Every component with its mirror image: the prior knows no left- or right-handed world.
    swap = mirror_pose(np.eye(POSE_SIZE))
    if components > 1:
        means = np.concatenate([means, mirror_pose(means)])
        covariances = np.concatenate([covariances, swap.T @ covariances @ swap])
        weights = np.concatenate([weights, weights]) / 2
    else:
        means = (means + mirror_pose(means)) / 2
        covariances = (covariances + swap.T @ covariances @ swap) / 2
    offsets = -2 * np.log(weights) + np.linalg.slogdet(covariances)[1]
    lower, upper = (limit.reshape(POSE_SIZE) for limit in pose_limits())
    return PosePrior(
        means=jnp.asarray(means, jnp.float32),
        precisions=jnp.asarray(np.linalg.inv(covariances), jnp.float32),
        offsets=jnp.asarray(offsets - offsets.min(), jnp.float32),
        lower=jnp.asarray(lower, jnp.float32),
        upper=jnp.asarray(upper, jnp.float32),
    )
