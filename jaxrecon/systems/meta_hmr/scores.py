"""What Meta-HMR is measured by (spec 6.2), and in which words that is told."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies import body_forward, h36m_joints, lsp14_centred
from jaxrecon.geometry import metrics as errors
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from jaxrecon.systems.base import Batch, Prediction, Variables
from jaxrecon.typing import Array

if TYPE_CHECKING:
    from jaxrecon.systems.meta_hmr.system import MetaHMR

MILLIMETRES = 1000.0
# Slots of the 24 annotated joints that hold the 17 of Human3.6M and MPI-INF-3DHP, in the order
# of the rows of J_regressor_h36m (spec 7).
GT24_OF_H36M = np.array([14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6])


def evaluate(
    system: "MetaHMR", variables: Variables, prediction: Prediction, batch: Batch
) -> dict[str, Array]:
    """mpjpe, pa_mpjpe, pve in mm and keypoint_error in pixels, (B,) each.

    Examples with SMPL labels are measured against their mesh; those with annotated joints alone
    (the test set of MPI-INF-3DHP) against these, if all 17 are there; others are NaN.
    """
    neutral = variables["constants"]["neutral"]
    mesh = true_vertices(system, variables, batch)
    found, wanted = (lsp14_centred(neutral, x) for x in (prediction.vertices, mesh))
    found17 = h36m_joints(neutral, prediction.vertices)
    found17 = found17 - found17[:, :1]
    annotated = jnp.asarray(batch["joints3d"])[:, GT24_OF_H36M]
    wanted17 = annotated[..., :3] - annotated[:, :1, :3]

    has_mesh = jnp.asarray(batch["has_smpl"]) != 0
    has_joints = jnp.asarray(batch["has_joints3d"]) != 0
    has_joints = has_joints & jnp.all(annotated[..., 3] > 0, axis=-1)

    def millimetres(of_mesh: Array, of_joints: Array | float = jnp.nan) -> Array:
        return MILLIMETRES * jnp.where(has_mesh, of_mesh, jnp.where(has_joints, of_joints, jnp.nan))

    return {
        "mpjpe": millimetres(errors.mpjpe(found, wanted), errors.mpjpe(found17, wanted17)),
        "pa_mpjpe": millimetres(errors.pa_mpjpe(found, wanted), errors.pa_mpjpe(found17, wanted17)),
        "pve": millimetres(errors.pve(prediction.vertices, mesh)),
        "keypoint_error": errors.keypoint_error(
            prediction.keypoints2d[:, 25:], jnp.asarray(batch["keypoints2d_full"])[:, 25:]
        ),
    }


def true_vertices(system: "MetaHMR", variables: Variables, batch: Batch) -> Array:
    """Ground-truth mesh (B, V, 3): female where gender is 1, neutral where it is 2, male where
    it is 0, and `unknown_gender` elsewhere."""
    bodies = variables["constants"]
    pose = jnp.asarray(batch["pose"]).reshape(-1, 24, 3)
    rotmats = axis_angle_to_matrix(pose)
    gender = jnp.asarray(batch["gender"])
    unknown = 2 if system.unknown_gender == "neutral" else 0
    gender = jnp.where(gender < 0, unknown, gender)[:, None, None]
    male, female, neutral = (
        body_forward(bodies[name], batch["betas"], rotmats).vertices
        for name in ("male", "female", "neutral")
    )
    return jnp.where(gender == 1, female, jnp.where(gender == 2, neutral, male))


def protocol(system: "MetaHMR") -> dict[str, Any]:
    """The facts that belong beside every number of `evaluate`."""
    test_time = system.test_time
    return {
        "joints": "14 of LSP, regressed from the posed mesh by J_regressor_h36m; where there are "
        "no SMPL labels the 17 annotated ones",
        "root": "regressed pelvis subtracted for mpjpe; no root for pve",
        "alignment": "pa_mpjpe: similarity (rotation, scale, translation) per example",
        "ground_truth": "SMPL-format labels; the body of the labelled gender, "
        f"{system.unknown_gender} where unknown",
        "prediction": "neutral body",
        "body": system.body or "open_body (not comparable with published SMPL numbers)",
        "keypoint_source": "openpose" if test_time.openpose else "annotated",
        "adaptation_unit": "image" if test_time.per_image else "batch",
        "kept": "each image's most probable state, keypoints off by "
        f"{100 * test_time.keypoint_noise:g} % of the crop, joints by "
        f"{MILLIMETRES * test_time.prior_deviation:g} mm",
        "units": "mm for mpjpe, pa_mpjpe, pve; pixels for keypoint_error",
    }
