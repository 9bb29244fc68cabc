"""Losses of Meta-HMR (spec meta_hmr section 4): plain functions of predictions and labels.

A mean over the samples that carry a label is 0 where none does. With `axis_name` every mean is
that of the global batch of a mapped axis.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxrecon.networks.points import SPOT, grid
from jaxrecon.typing import AnyArray, Array, Bool, Float

_HIPS = (2, 3)  # right and left hip among gt24: their middle is the root of 3D losses
_OPENPOSE = 25  # the first 25 of the 49 joints are OpenPose's


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the summed objective; the defaults are the published ones."""

    keypoints2d: float = 5.0
    joints3d: float = 5.0
    vertices: float = 0.5
    pose: float = 1.0
    betas: float = 0.001
    camera: float = 1.0
    points: float = 0.0  # not published: only networks that read their maps at points have it
    lifting: float = 0.0  # not published: of bodies without a photograph, see `lifting`


def masked_mean(
    values: Float[AnyArray, "b *rest"],
    mask: AnyArray | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over the samples whose mask is not zero, over all their entries; 0 if there is none."""
    values = jnp.asarray(values)
    per_sample = jnp.mean(values.reshape(values.shape[0], -1), axis=1)
    keep = jnp.ones_like(per_sample) if mask is None else (jnp.asarray(mask) != 0) * 1.0
    total, count = jnp.sum(per_sample * keep), jnp.sum(keep)
    if axis_name is not None:
        total, count = lax.psum(total, axis_name), lax.psum(count, axis_name)
    return total / jnp.maximum(count, 1.0)


def keypoint_loss(
    pred: Float[AnyArray, "b 49 2"],
    gt: Float[AnyArray, "b 49 3"],
    openpose_weight: float = 0.0,
    gt_weight: float = 1.0,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Confidence-weighted squared 2D error in crop units of [-1, 1] (L_2D).

    The mean divides by all 49 joints even where only one of the two groups counts.
    """
    joint = jnp.where(jnp.arange(pred.shape[1]) < _OPENPOSE, openpose_weight, gt_weight)
    weight = gt[..., 2:] * joint[:, None]
    return masked_mean(weight * (pred - gt[..., :2]) ** 2, None, axis_name)


def joint_loss(
    pred: Float[AnyArray, "b 49 3"],
    gt: Float[AnyArray, "b 24 c"],
    mask: AnyArray,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Squared error of the 24 annotated joints, both rooted at the middle of the hips (L_3D).

    Args:
        pred: metres, SPIN's 49.
        gt: metres, and a confidence as fourth column unless it is 1 throughout (pseudo labels).
        mask: (B,) which samples have 3D joints.
    """
    pred, gt = jnp.asarray(pred)[:, _OPENPOSE:], jnp.asarray(gt)
    confidence = gt[..., 3:] if gt.shape[-1] == 4 else 1.0
    target = gt[..., :3]

    def rooted(x: Array) -> Array:
        return x - 0.5 * (x[:, _HIPS[0]] + x[:, _HIPS[1]])[:, None]

    return masked_mean(confidence * (rooted(pred) - rooted(target)) ** 2, mask, axis_name)


def vertex_loss(
    pred: Float[AnyArray, "b v 3"],
    gt: Float[AnyArray, "b v 3"],
    mask: AnyArray,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean absolute difference of the meshes, not rooted (L_V)."""
    return masked_mean(jnp.abs(pred - gt), mask, axis_name)


def pose_loss(
    pred: Float[AnyArray, "b 24 3 3"],
    gt: Float[AnyArray, "b 24 3 3"],
    mask: AnyArray,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean squared difference of rotation matrices (L_pose)."""
    return masked_mean((pred - gt) ** 2, mask, axis_name)


def betas_loss(
    pred: Float[AnyArray, "b s"],
    gt: Float[AnyArray, "b s"],
    mask: AnyArray,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean squared difference of shape coefficients (L_beta)."""
    return masked_mean((pred - gt) ** 2, mask, axis_name)


def camera_loss(scale: Float[AnyArray, "b"], axis_name: str | None = None) -> Float[Array, ""]:
    """exp(-10 s)^2: keeps the scale of the camera positive (L_cam)."""
    return masked_mean(jnp.exp(-10.0 * jnp.asarray(scale)) ** 2, None, axis_name)


def point_loss(
    logits: Float[AnyArray, "b h w 24"],
    gt: Float[AnyArray, "b 24 3"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Cross-entropy of maps over places with a spot around each annotated joint, and how many
    cells the mean place of the map is off (Sun et al. 2018, "Integral human pose regression").

    Teaches a small network where joints are before it can know the pose, in the way that the
    published backbones were taught before (heat maps of COCO's joints). The spot alone says little
    of what lies within a cell; the mean place alone does not say which way to look.

    Args:
        logits: one map for each of the 24 annotated joints.
        gt: joints and confidence in crop units of [-1, 1]; those outside of the crop do not count.
    """
    count, height, width, joints = logits.shape
    label = jnp.asarray(gt)
    cell = jnp.asarray([2.0 / width, 2.0 / height])
    cells = (grid(height, width)[None, :, None] - label[:, None, :, :2]) / cell
    target = nn.softmax(-0.5 * jnp.sum(cells**2, axis=-1) / SPOT**2, axis=1)
    scores = nn.log_softmax(jnp.asarray(logits).reshape(count, height * width, joints), axis=1)
    place = jnp.einsum("bpj,pc->bjc", jnp.exp(scores), grid(height, width))
    off = jnp.sum(jnp.abs(place - label[..., :2]) / cell, axis=-1)
    inside = jnp.all(jnp.abs(label[..., :2]) < 1.0, axis=-1)
    weight = jnp.where(inside, label[..., 2], 0.0)
    total = jnp.sum(weight * (off - jnp.sum(target * scores, axis=1)))
    number = jnp.sum(weight)
    if axis_name is not None:
        total, number = lax.psum(total, axis_name), lax.psum(number, axis_name)
    return total / jnp.maximum(number, 1.0)


def all_of(mask: AnyArray) -> Bool[Array, "b"]:
    """A mask that keeps every sample of the batch."""
    return jnp.ones(jnp.shape(mask), bool)
