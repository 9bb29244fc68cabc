"""Pictures that move: one file of frames, shown by any browser."""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes

SUFFIXES = (".webp", ".gif", ".png")


def encode_animation(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    suffix: str = ".webp",
    fps: float | int = 18,
    quality: int = 80,
) -> bytes:
    """RGB frames of one size as the bytes of an endless animation.

    Args:
      suffix: .webp (small, smooth colours), .gif (everywhere), .png (APNG, exact).
      fps: frames a second.
      quality: 1..100, for WebP.

    Raises:
      UserError: no frames, frames of different sizes, another suffix.
    """
    suffix = suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"cannot write an animation as {suffix!r}; use {', '.join(SUFFIXES)}")
    if not frames:
        raise UserError("an animation needs at least one frame")
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise UserError(f"the frames of an animation differ in size: {sorted(sizes)}")
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(frame[:, :, ::-1]) for frame in frames]
    animation.durations = [round(1000 / fps)] * len(frames)
    animation.loop_count = 0
    options = [cv2.IMWRITE_WEBP_QUALITY, quality] if suffix == ".webp" else []
    done, data = cv2.imencodeanimation(suffix, animation, options)
    if not done:
        raise UserError(f"could not encode {len(frames)} frames as {suffix}")
    return np.asarray(data).tobytes()


def write_animation(
    path: str | os.PathLike[str],
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    fps: float | int = 18,
    quality: int = 80,
) -> None:
    """Writes an animation by suffix, whole or not at all; see `encode_animation`."""
    write_bytes(path, encode_animation(frames, os.path.splitext(path)[1], fps, quality))
