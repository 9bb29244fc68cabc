"""What the annotation of a photograph says: joints, boxes, and joints as a detector finds them."""

from typing import Any

import numpy as np
from jaxrecon.datasets_builders.open_body.scenes import Camera

from jaxrecon.bodies.joints import JOINT_SETS

OPENPOSE = len(JOINT_SETS["openpose25"])
PELVIS = JOINT_SETS["gt24"].index("pelvis")


def inside(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Whether points (..., 2) fall into the image."""
    within = (pixels >= 0) & (pixels < [camera.width, camera.height])
    return within[..., 0] & within[..., 1]


def box_of(keypoints: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and scale of the person's box from joints (J, 3) with confidence > 0.

    The middle of the extremes; size = 1.2 max(4/3 width, height), scale = size / 200
    (Meta-HMR spec, section 3, step 1).
    """
    seen = keypoints[keypoints[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    width, height = high - low
    size = 1.2 * max(4 / 3 * width, height)
    return 0.5 * (low + high), float(size / 200.0)


def detect(
    rng: np.random.Generator,
    pixels: np.ndarray,
    hidden: np.ndarray,
    camera: Camera,
    size: float,
) -> np.ndarray:
    """Joints (25, 3) as a detector might give them: pixels and score.

    Errors are about 1 % of the box, a quarter of them three times as large, and larger again
    for hidden joints; scores fall with the error. Joints outside of the image are never found,
    hidden ones in 45 % of the cases, others missed in 3 %. A joint not found is (0, 0, 0).

    Args:
        pixels: true joints (25, 2).  hidden: (25,) bool.  size: side of the box in pixels.
    """
    count = len(pixels)
    spread = size * 0.008 * np.where(rng.uniform(size=count) < 0.25, 3.0, 1.0)
    spread = spread * np.where(hidden, 2.0, 1.0)
    error = rng.standard_normal((count, 2)) * spread[:, None]
    missed = rng.uniform(size=count) < np.where(hidden, 0.45, 0.03)
    score = 0.92 * np.exp(-12.0 * np.linalg.norm(error, axis=1) / size)
    score = np.clip(score * np.where(hidden, 0.6, 1.0) + rng.normal(0, 0.04, count), 0.05, 1.0)
    found = np.column_stack([pixels + error, score])
    found[missed | ~inside(pixels, camera) | ~inside(found[:, :2], camera)] = 0.0
    return found


def label(
    rng: np.random.Generator,
    joints: np.ndarray,
    transl: np.ndarray,
    camera: Camera,
    hidden: np.ndarray,
) -> dict[str, Any]:
    """keypoints2d, joints3d, center and scale of a record.

    Args:
        joints: SPIN's 49 joints (49, 3) without translation.
        transl: (3,).
        hidden: whether something stands before each joint, (49,) bool.
    """
    pixels = camera.project(joints + transl)
    truth = np.column_stack([pixels, inside(pixels, camera)])[OPENPOSE:]
    centre, scale = box_of(truth)
    found = detect(rng, pixels[:OPENPOSE], hidden[:OPENPOSE], camera, 200.0 * scale)
    annotated = joints[OPENPOSE:] - joints[OPENPOSE + PELVIS]
    return {
        "keypoints2d": np.concatenate([found, truth]).astype(np.float32),
        "joints3d": np.column_stack([annotated, np.ones(len(annotated))]).astype(np.float32),
        "center": centre.astype(np.float32),
        "scale": np.float32(scale),
    }
