"""How likely an image is to be one of a person: a mixture of Gaussians over 2D poses.

A shape that is right looks like a pose from every side; one that is flat, or has its limbs bent
the wrong way, does not. The 2D keypoints of a training set say what poses look like, so this
needs no 3D. Its relatives are the discriminator of Drover et al. 2018 ("Can 3D pose be learned
from 2D projections alone?") and the flow of Wandt et al. 2022 (ElePose, section 3.3).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrecon.typing import AnyArray, Array, Float

COMPONENTS = 64
PER_COMPONENT = 100  # poses; fewer of them get fewer components
FLOOR = 0.15  # least deviation in any direction, as a share of the whole set's
_ROUNDS = 30
_SAMPLES = 40_000

Mixture = dict[str, Any]


def fit_views(keypoints2d: Float[AnyArray, "n j 2"], seed: int = 0) -> Mixture | None:
    """A mixture of poses with their joint 0 at the origin, by expectation maximisation.

    Args:
        keypoints2d: poses without missing joints.
        seed: of the choice of poses and of where components start.

    Returns:
        `mean` (k, d), `whiten` (k, d, d) and `log_weight` (k,) of the densities, d = 2 j; None
        if there are too few poses for one component.
    """
    poses = np.asarray(keypoints2d, np.float32)
    rng = np.random.default_rng(seed)
    poses = rng.permutation(poses)[:_SAMPLES]
    count = min(COMPONENTS, len(poses) // PER_COMPONENT)
    if not count:
        return None
    points = jnp.asarray((poses - poses[:, :1]).reshape(len(poses), -1))
    return _maximise(points, points[:count])


@jax.jit
def _maximise(points: Float[Array, "n d"], start: Float[Array, "k d"]) -> Mixture:
    width = points.shape[1]
    floor = FLOOR**2 * jnp.mean(jnp.var(points, axis=0)) * jnp.eye(width)

    def mixture(mean: Array, spread: Array, weight: Array) -> Mixture:
        factor = jnp.linalg.cholesky(spread + floor)
        identity = jnp.broadcast_to(jnp.eye(width), factor.shape)
        whiten = lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)
        volume = jnp.sum(jnp.log(jnp.diagonal(whiten, axis1=1, axis2=2)), axis=1)
        constant = 0.5 * width * jnp.log(2 * jnp.pi)
        return {
            "mean": mean,
            "whiten": whiten,
            "log_weight": jnp.log(weight + 1e-8) + volume - constant,
        }

    def improve(found: Mixture, _: None) -> tuple[Mixture, None]:
        share = jax.nn.softmax(_log_densities(found, points), axis=1)
        mass = jnp.sum(share, axis=0)
        mean = share.T @ points / (mass[:, None] + 1e-6)

        def spread(row: Array, center: Array) -> Array:
            away = points - center
            return (away * row[:, None]).T @ away

        spreads = lax.map(lambda pair: spread(*pair), (share.T, mean)) / (mass[:, None, None] + 1)
        return mixture(mean, spreads, mass / len(points)), None

    everything = jnp.broadcast_to(jnp.cov(points.T), (len(start), width, width))
    first = mixture(start, everything / 4, jnp.full(len(start), 1.0 / len(start)))
    return lax.scan(improve, first, None, length=_ROUNDS)[0]


def _log_densities(mixture: Mixture, points: Float[Array, "n d"]) -> Float[Array, "n k"]:
    # W x - W m: one matrix product for all components.
    whiten, mean = mixture["whiten"], mixture["mean"]
    count, width = mean.shape
    placed = points @ whiten.reshape(count * width, width).T
    away = placed.reshape(-1, count, width) - jnp.einsum("kde,ke->kd", whiten, mean)
    return mixture["log_weight"] - 0.5 * jnp.sum(away**2, axis=-1)


def surprise(mixture: Mixture, keypoints2d: Float[AnyArray, "b j 2"]) -> Float[Array, "b"]:
    """Negative log likelihood of poses, nats for each coordinate; joint 0 is put at the origin."""
    points = jnp.asarray(keypoints2d)
    points = (points - points[:, :1]).reshape(len(points), -1)
    density = jax.nn.logsumexp(_log_densities(mixture, points), axis=1)
    return -density / points.shape[1]
