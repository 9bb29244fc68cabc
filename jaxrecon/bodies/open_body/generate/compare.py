"""How far a regenerated model is from a reference, by the bounds of the design (section 11).

Topology depends on the last bits of the decimation, so vertices are compared where both models
kept the same base-mesh vertex, never index by index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

VERTEX_BOUND = 1e-3
JOINT_BOUND = 2e-3
SPAN_BOUND = 0.99


@dataclass(frozen=True)
class Comparison:
    """Distances of two models in metres.

    Attributes:
      common: share of the reference's vertices that both kept.
      vertices: mean distance of those, mean size and shape of the population included.
      vertices_max: the largest of them.
      joints: largest distance of two rest joints.
      span: share of the reference's shape directions that lies in the span of the new ones.
      weights: mean over the common vertices of the largest difference of a skinning weight.
      identical: every array is equal.
    """

    common: float
    vertices: float
    vertices_max: float
    joints: float
    span: float
    weights: float
    identical: bool

    def text(self) -> str:
        """One line a measure, with its bound."""
        return "\n".join(
            [
                f"common vertices   {100 * self.common:.1f} %",
                f"their distance    mean {1e3 * self.vertices:.2f} mm, largest "
                f"{1e3 * self.vertices_max:.2f} mm (bound {1e3 * VERTEX_BOUND:.0f} mm)",
                f"rest joints       largest {1e3 * self.joints:.2f} mm "
                f"(bound {1e3 * JOINT_BOUND:.0f} mm)",
                f"shape directions  {100 * self.span:.2f} % in the span "
                f"(bound {100 * SPAN_BOUND:.0f} %)",
                f"skinning weights  mean of the largest difference {self.weights:.4f}",
                f"identical         {'yes' if self.identical else 'no'}",
            ]
        )


def compare(new: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> Comparison:
    """Compare two models made from the same base mesh."""
    _, ours, theirs = np.intersect1d(
        new["makehuman_vertex_ids"], reference["makehuman_vertex_ids"], return_indices=True
    )
    apart = np.linalg.norm(new["v_template"][ours] - reference["v_template"][theirs], axis=1)
    basis, _ = np.linalg.qr(new["shapedirs"][ours].reshape(-1, 10).astype(np.float64))
    wanted = reference["shapedirs"][theirs].reshape(-1, 10).astype(np.float64)
    missed = wanted - basis @ (basis.T @ wanted)
    return Comparison(
        common=len(theirs) / len(reference["v_template"]),
        vertices=float(apart.mean()),
        vertices_max=float(apart.max()),
        joints=float(np.linalg.norm(new["J"] - reference["J"], axis=1).max()),
        span=float(1 - (missed**2).sum() / (wanted**2).sum()),
        weights=float(
            np.abs(new["weights"][ours] - reference["weights"][theirs]).max(axis=1).mean()
        ),
        identical=set(new) == set(reference)
        and all(np.array_equal(new[key], reference[key]) for key in new),
    )
