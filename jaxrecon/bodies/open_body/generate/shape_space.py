"""Principal components of the samples as shape directions (design, section 8)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShapeSpace:
    """Mean (V, 3), directions (V, 3, 10) for betas ~ N(0, 1), their share of the variance (10,),
    and the betas of every sample (N, 10)."""

    mean: np.ndarray
    directions: np.ndarray
    explained: np.ndarray
    betas: np.ndarray


def shape_space(samples: np.ndarray, faces: np.ndarray, components: int = 10) -> ShapeSpace:
    """Principal components from the N x N Gram matrix, signed so that more is more volume.

    Args:
      samples: (N, V, 3).
      faces: (F, 3), for the volume.
      components: how many.
    """
    count = len(samples)
    mean = samples.mean(0, dtype=np.float64)
    centred = (samples - mean).reshape(count, -1).astype(np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T / (count - 1))
    order = np.argsort(values)[::-1][:components]
    deviations = np.sqrt(values[order])
    units = centred.T @ vectors[:, order] / (deviations * np.sqrt(count - 1))
    directions = (units * deviations).reshape(*mean.shape, components)
    gain = np.array(
        [
            volume(mean + directions[..., k], faces) - volume(mean - directions[..., k], faces)
            for k in range(components)
        ]
    )
    sign = np.where(gain < 0, -1.0, 1.0)
    return ShapeSpace(
        mean=mean,
        directions=directions * sign,
        explained=values[order] / values.sum(),
        betas=centred @ (units * sign) / deviations,
    )


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume that a closed mesh encloses."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)
