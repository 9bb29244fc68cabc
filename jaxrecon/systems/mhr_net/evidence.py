"""What goes into MHR-Net beside its weights, what comes out, and how 2D evidence is centred."""

from typing import Any

import flax.struct
import jax.numpy as jnp

from jaxrecon.systems.base import Batch
from jaxrecon.typing import Array


@flax.struct.dataclass
class Noise:
    """All randomness of one forward pass, in the order in which the published code draws it.

    Attributes:
        z: (H * B, 4) normal, hypothesis-major.
        axis, angle: (R * B, 3) normal and (R * B,) uniform in [0, pi], row s * B + b: the random
            rotations of the canonicalisation. None where it is not computed.
        permutation: (B,) of the samples, for the Procrustean loss; None likewise.
        z_angle: (B,) signed radians of the augmentation about the optical axis; None: off.
        view: (B, 3) rotation vectors of the second views; None: off.
    """

    z: Any
    axis: Any = None
    angle: Any = None
    permutation: Any = None
    z_angle: Any = None
    view: Any = None


@flax.struct.dataclass
class Lifting:
    """What MHR-Net says about a batch; lengths in units in which the root is 5 from the camera.

    Attributes:
        joints3d: (B, J, 3) the chosen hypothesis in the camera frame, root near 0.
        shape: (B, J, 3) the same in the canonical frame.
        basis_shape: (B, J, 3) the coarse shape, canonical.
        coefficients: (B, K).
        rotation: (B, 3, 3); rows of a shape are multiplied from the right.
        hypotheses: (B, H, J, 3) all of them in the camera frame.
        errors: (B, H) how far each is from the 2D evidence, Frobenius norm over visible joints.
        chosen: (B,) int32, the hypothesis with the smallest.
        keypoints2d: (B, J, 2) what the network saw, centred; missing ones at 0.
        centre: (B, 2) what was subtracted.
    """

    joints3d: Any
    shape: Any
    basis_shape: Any
    coefficients: Any
    rotation: Any
    hypotheses: Any
    errors: Any
    chosen: Any
    keypoints2d: Any
    centre: Any


@flax.struct.dataclass
class Forward:
    """A forward pass with its losses (not weighted by `w_reprojection`), for training."""

    lifting: Lifting
    feature: Any
    rotation_vector: Any
    canonical_hypotheses: Any  # (H, B, J, 3)
    reprojection: Any
    cycle: Any
    view: Any
    likely: Any
    procrust: Any
    pairs: Any
    batch_stats: Any


def centre_keypoints(keypoints2d: Any, visible: Any = None) -> tuple[Array, Array, Any]:
    """(keypoints minus their root, the root (B, 2), visibility as float32 or None).

    Where the root is missing the mean of the visible joints stands for it. Missing joints
    become 0, whatever (also NaN) their coordinates were.
    """
    keypoints2d = jnp.asarray(keypoints2d)
    if visible is None:
        centre = keypoints2d[:, 0]
        return keypoints2d - centre[:, None], centre, None
    visible = jnp.asarray(visible, jnp.float32)
    weights = visible[..., None]
    known = jnp.where(weights > 0, keypoints2d, 0.0)
    mean = jnp.sum(known, 1) / jnp.maximum(jnp.sum(weights, 1), 1.0)
    centre = jnp.where(weights[:, 0] > 0, known[:, 0], mean)
    return jnp.where(weights > 0, known - centre[:, None], 0.0), centre, visible


def visibility(batch: Batch) -> Any:
    """(B, J) float32, or None where all joints are visible."""
    visible = batch.get("visible")
    return None if visible is None else jnp.asarray(visible, jnp.float32)


def turn_about_axis(keypoints2d: Array, angle: Array) -> Array:
    """2D points turned about the origin by radians (B,)."""
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    x, y = keypoints2d[..., 0], keypoints2d[..., 1]
    # Row vectors times R_z, as shapes are turned.
    return jnp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
