"""Keypoints as a detector would give them, for evaluations: annotated ones with errors."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.systems.base import Batch
from jaxrecon.typing import Array


def with_noise(batches: Iterable[Batch], share: float, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The batches with Gaussian noise on `keypoints2d`, what adaptation sees.

    `keypoints2d_full`, what the 2D error is measured against, stays as it is. The noise of an
    example depends on its `index` and the seed alone, not on the batches.

    Args:
        share: standard deviation of x and of y, as a share of the crop's height; 0 changes
            nothing.

    Raises:
        UserError: a negative share.
    """
    if share < 0:
        raise UserError(f"evaluation.keypoint_noise={share}; it must be 0 or more")
    for batch in batches:
        if not share:
            yield dict(batch)
            continue
        keypoints = np.array(batch["keypoints2d"])
        height = batch["image"].shape[1]
        noise = _normal(jnp.asarray(batch["index"]), jnp.asarray(seed), keypoints.shape[1])
        keypoints[..., :2] += share * height * np.asarray(noise)
        yield {**batch, "keypoints2d": keypoints}


@functools.partial(jax.jit, static_argnames="joints")
def _normal(index: Array, seed: Array, joints: int) -> Array:
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (joints, 2)))(index)
