"""Random changes of a training example: flip, rotation, scale, channel gains, and photometric.

A draw is plain data (`Augmentation`), so it can be forced, stored and tested; the functions that
apply it are deterministic. Random numbers come from NumPy's legacy generator in the order of the
published loader (spec of Meta-HMR, section 5.4), so that a seed gives the published draws.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from jaxrecon.bodies.joints import mirror_permutation
from jaxrecon.data.crops import Number
from jaxrecon.data.photometric import Change, draw_changes

_MIRROR_GT24 = mirror_permutation("gt24")
_MIRROR_SPIN49 = mirror_permutation("spin49")
_MIRROR_SMPL24 = mirror_permutation("smpl24")


@dataclass(frozen=True)
class AugmentationConfig:
    """Strength of the augmentation; the defaults are the published ones."""

    flip_probability: float = 0.5
    noise: float = 0.4  # channel gains lie in 1 +- noise
    rotation: float = 30.0  # standard deviation in degrees, cut at twice that
    scale: float = 0.25  # standard deviation of the box factor, cut at one
    upright_probability: float = 0.6  # share of examples that are not rotated
    photometric: bool = False  # also blur, compress, colour, ... (see `data.photometric`)


@dataclass(frozen=True)
class Augmentation:
    """One draw: mirror?, gain of each channel, rotation in degrees, factor of the box size, and
    what happens to the picture alone."""

    flip: bool = False
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rotation: float = 0.0
    scale: float = 1.0
    changes: tuple[Change, ...] = ()


NO_AUGMENTATION = Augmentation()


def draw_augmentation(
    random: np.random.RandomState, config: AugmentationConfig | None = None
) -> Augmentation:
    """Draw one augmentation: flip, gains, rotation, scale, upright; always seven numbers.

    With `photometric`, the draws of `draw_changes` follow.
    """
    config = config or AugmentationConfig()
    flip = random.uniform() <= config.flip_probability
    gains = random.uniform(1 - config.noise, 1 + config.noise, 3)
    limit = 2 * config.rotation
    rotation = min(limit, max(-limit, random.randn() * config.rotation))
    scale = min(1 + config.scale, max(1 - config.scale, random.randn() * config.scale + 1))
    if random.uniform() <= config.upright_probability:
        rotation = 0.0
    changes = draw_changes(random) if config.photometric else ()
    gain = tuple(gains.tolist())
    return Augmentation(bool(flip), gain, float(rotation), float(scale), changes)


def flip_keypoints(
    keypoints: Float[np.ndarray, "n 3"], image_width: int
) -> Float[np.ndarray, "n 3"]:
    """Mirror 24 ("gt24") or 49 ("spin49") keypoints of an image: sides swapped, x = W - 1 - x."""
    order = _MIRROR_SPIN49 if len(keypoints) == 49 else _MIRROR_GT24
    flipped = keypoints[order]
    flipped[:, 0] = image_width - 1 - flipped[:, 0]
    return flipped


def flip_joints(joints: Float[np.ndarray, "24 d"]) -> Float[np.ndarray, "24 d"]:
    """Mirror the 24 annotated 3D joints: sides swapped, x negated."""
    flipped = joints[_MIRROR_GT24]
    flipped[:, 0] = -flipped[:, 0]
    return flipped


def flip_pose(pose: Float[np.ndarray, "72"]) -> Float[np.ndarray, "72"]:
    """Mirror an SMPL pose (24 axis-angles): sides swapped, components y and z negated."""
    flipped = pose.reshape(24, 3)[_MIRROR_SMPL24]
    flipped[:, 1:] = -flipped[:, 1:]
    return flipped.reshape(72)


def rotate_axis_angle(
    axis_angle: Float[np.ndarray, "3"], degrees: Number
) -> Float[np.ndarray, "3"]:
    """Axis-angle of R_z(-degrees) R(axis_angle): a body turned within the image plane."""
    turn, _ = cv2.Rodrigues(np.array([0.0, 0.0, np.deg2rad(-degrees)]))
    rotation, _ = cv2.Rodrigues(axis_angle.astype(np.float64))
    result, _ = cv2.Rodrigues(turn @ rotation)
    return result[:, 0]


def rotate_pose(pose: Float[np.ndarray, "72"], degrees: Number) -> Float[np.ndarray, "72"]:
    """Turn the root of an SMPL pose within the image plane."""
    rotated = pose.copy()
    rotated[:3] = rotate_axis_angle(pose[:3], degrees)
    return rotated


def rotate_joints(joints: Float[np.ndarray, "n d"], degrees: Number) -> Float[np.ndarray, "n d"]:
    """Turn 3D joints by -degrees about the optical axis; further columns stay."""
    angle = np.deg2rad(-degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    rotated = joints.copy()
    rotated[:, :3] = joints[:, :3] @ turn.T
    return rotated


def scale_channels(
    image: UInt8[np.ndarray, "h w 3"], gains: tuple[float, float, float] | Shaped[np.ndarray, "3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply each channel, clamp to [0, 255] and cut the fraction off."""
    levels = np.arange(256, dtype=np.float64)
    table = np.minimum(255.0, np.maximum(0.0, levels[:, None] * np.asarray(gains, np.float64)))
    return cv2.LUT(image, table.astype(np.uint8)[None])
