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
# The means of two draws of 600 people differ by about sqrt(2 / 600) = 0.06 in each beta.
BETA_BOUND = 0.25


@dataclass(frozen=True)
class Comparison:
    """Distances of two models in metres.

    The design does not fix the order in which the people are drawn, so the means of two generators
    differ by what chance makes of 600 people: in shape, and in the pelvis joint that the model
    hangs on. That part is found as betas and a translation of the new model; vertices and joints
    are compared without it.

    Attributes:
      common: share of the reference's vertices that both kept.
      raw: largest distance of those as they are.
      betas: largest of the betas that take the new mean to the reference's.
      shift: length of the translation that does.
      vertices: 99th percentile of the distances of common vertices without that part.
      joints: largest distance of two rest joints without that part.
      span: share of the reference's shape directions that lies in the span of the new ones.
      weights: mean over the common vertices of the largest difference of a skinning weight.
      identical: every array is equal.
    """

    common: float
    raw: float
    betas: float
    shift: float
    vertices: float
    joints: float
    span: float
    weights: float
    identical: bool

    def within_bounds(self) -> bool:
        """Whether the new model is the reference, up to the draw of the people."""
        return (
            self.vertices < VERTEX_BOUND
            and self.joints < JOINT_BOUND
            and self.span > SPAN_BOUND
            and self.betas < BETA_BOUND
            and self.shift < JOINT_BOUND
        )

    def text(self) -> str:
        """One line a measure, with its bound."""
        return "\n".join(
            [
                f"common vertices    {100 * self.common:.1f} %, at most "
                f"{1e3 * self.raw:.2f} mm apart",
                f"mean shape         {self.betas:.2f} standard deviations apart at most "
                f"(bound {BETA_BOUND}),",
                f"  and its origin   {1e3 * self.shift:.2f} mm (bound {1e3 * JOINT_BOUND:.0f}); "
                "without those:",
                f"  vertices         {1e3 * self.vertices:.2f} mm (bound {1e3 * VERTEX_BOUND:.0f})",
                f"  rest joints      {1e3 * self.joints:.2f} mm (bound {1e3 * JOINT_BOUND:.0f})",
                f"shape directions   {100 * self.span:.2f} % in the span "
                f"(bound {100 * SPAN_BOUND:.0f} %)",
                f"skinning weights   {self.weights:.4f} apart",
                f"identical          {'yes' if self.identical else 'no'}",
                f"within the bounds  {'yes' if self.within_bounds() else 'NO'}",
            ]
        )


def compare(new: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> Comparison:
    """Compare two models made from the same base mesh."""
    _, ours, theirs = np.intersect1d(
        new["makehuman_vertex_ids"], reference["makehuman_vertex_ids"], return_indices=True
    )
    directions = new["shapedirs"].astype(np.float64)
    apart = (reference["v_template"][theirs] - new["v_template"][ours]).astype(np.float64)
    system = directions[ours].reshape(-1, directions.shape[2])
    both = np.concatenate([system, np.tile(np.eye(3), (len(ours), 1))], 1)
    found = np.linalg.lstsq(both, apart.ravel(), rcond=None)[0]
    betas, shift = found[:-3], found[-3:]
    rest = apart - directions[ours] @ betas - shift
    moved = new["v_template"] + directions @ betas + shift
    joints = new["J_regressor"] @ moved - reference["J"]
    basis, _ = np.linalg.qr(system)
    wanted = reference["shapedirs"][theirs].reshape(system.shape).astype(np.float64)
    missed = wanted - basis @ (basis.T @ wanted)
    return Comparison(
        common=len(theirs) / len(reference["v_template"]),
        raw=float(np.linalg.norm(apart, axis=1).max()),
        betas=float(np.abs(betas).max()),
        shift=float(np.linalg.norm(shift)),
        vertices=float(np.quantile(np.linalg.norm(rest, axis=1), 0.99)),
        joints=float(np.linalg.norm(joints, axis=1).max()),
        span=float(1 - (missed**2).sum() / (wanted**2).sum()),
        weights=float(
            np.abs(new["weights"][ours] - reference["weights"][theirs]).max(axis=1).mean()
        ),
        identical=set(new) == set(reference)
        and all(np.array_equal(new[key], reference[key]) for key in new),
    )
