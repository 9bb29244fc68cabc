"""Synthetic occlusion: objects pasted over a crop, as in Sarandi et al. 2018.

An occluder is an RGBA uint8 image. The published systems use cut-outs from Pascal VOC, which the
user brings (`load_occluders`); without them, procedural shapes serve (`make_occluders`).
"""

import random as python_random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.pickle_machine import parse
from jaxrecon.io.pickled_arrays import ARRAY_RECIPES
from jaxrecon.io.pickles import Resolver, explained

# Sides differ from one occluder to the next, so they bear no name.
Occluder = UInt8[np.ndarray, "_ _ 4"]

# Crop side that the sizes of the cut-outs were made for.
_NATIVE_SIDE = 256
_MOST_OBJECTS = 7


def resize_occluder(occluder: Occluder, factor: float) -> Occluder:
    """Resize by `factor` (sides rounded, at least 1): by area to shrink, bilinear to grow."""
    height, width = occluder.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor <= 1 else cv2.INTER_LINEAR
    return cv2.resize(occluder, size, interpolation=method)


def paste_occluder(
    image: UInt8[np.ndarray, "h w 3"], occluder: Occluder, center: Shaped[np.ndarray, "2"]
) -> None:
    """Blend an occluder into `image`, in place, its middle at `center` (x, y).

    What falls outside is cut off; fractions of grey levels are cut off too, as published.
    """
    rows, cols = image.shape[:2]
    height, width = occluder.shape[:2]
    middle = np.rint(center).astype(int)
    left, top = int(middle[0]) - width // 2, int(middle[1]) - height // 2
    x0, x1 = max(left, 0), min(left + width, cols)
    y0, y1 = max(top, 0), min(top + height, rows)
    if x1 <= x0 or y1 <= y0:
        return
    part = occluder[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:].astype(np.float32) / np.float32(255)
    region = image[y0:y1, x0:x1]
    region[:] = alpha * part[..., :3] + (1 - alpha) * region


def occlude(
    image: UInt8[np.ndarray, "h w 3"],
    occluders: Sequence[Occluder],
    random: np.random.RandomState,
    choice: python_random.Random,
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of a crop with one to seven occluders over it.

    Two generators, as published: `random` (NumPy) draws the number, then for each object its
    centre and its size; `choice` (Python's) draws which object.
    """
    occluded = image.copy()
    height, width = image.shape[:2]
    factor = min(width, height) / _NATIVE_SIDE
    for _ in range(random.randint(1, _MOST_OBJECTS + 1)):
        occluder = choice.choice(occluders)
        center = random.uniform([0, 0], [width, height])
        paste_occluder(
            occluded, resize_occluder(occluder, random.uniform(0.2, 1.0) * factor), center
        )
    return occluded


def load_occluders(path: str | Path) -> list[Occluder]:
    """RGBA cut-outs from `pascal_occluders.npy` (an object array) or an `.npz` of RGBA arrays.

    The object array is a pickle; it is read without running code.
    Raises UserError if the file is missing or holds anything but RGBA uint8 images.
    """
    file = existing_file(
        path, "occluder file", "give pascal_occluders.npy or an .npz of RGBA images"
    )
    with explained(file, "occluder file"):
        objects = _read_npz(file) if file.suffix == ".npz" else _read_object_array(file)
    for number, item in enumerate(objects):
        if not (isinstance(item, np.ndarray) and item.dtype == np.uint8 and _is_rgba(item.shape)):
            raise UserError(
                f"item {number} of the occluder file {file} is not an RGBA image of bytes (h, w, 4)"
            )
    if not objects:
        raise UserError(f"the occluder file {file} holds no image")
    return objects


def _is_rgba(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 4 and 0 not in shape


def _read_npz(file: Path) -> list[np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return [data[key] for key in data.files]
    except BadZipFile as error:
        raise ValueError(str(error)) from error


def _read_object_array(file: Path) -> list[Any]:
    with file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            _, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            _, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if dtype.hasobject:
            return list(Resolver(ARRAY_RECIPES)(parse(stream, ARRAY_RECIPES)).reshape(-1))
    return list(np.load(file, allow_pickle=False))


def make_occluders(count: int = 64, seed: int = 0) -> list[Occluder]:
    """Procedural occluders: blobs, boxes and rings with textures; the same for the same seed."""
    return [_make_occluder(np.random.RandomState((seed, number))) for number in range(count)]


def _make_occluder(random: np.random.RandomState) -> Occluder:
    height, width = (int(side) for side in random.randint(40, 240, 2))
    # Coordinates from -1 to 1 over the image, turned by a random angle.
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    turn = random.uniform(0, 2 * np.pi)
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    shape = random.randint(4)
    if shape == 0:  # a blob whose outline is a short Fourier series
        waves = np.arange(2, 7)
        amplitude = random.uniform(-0.12, 0.12, 5)
        outline = 0.75 + np.cos(waves * angle[..., None] + random.uniform(0, 6, 5)) @ amplitude
        distance = outline - radius
    elif shape == 1:  # a box with cut corners
        distance = np.minimum(0.7 - np.maximum(abs(u), abs(v)), 0.9 - 0.7 * (abs(u) + abs(v)))
    elif shape == 2:  # a ring, so that something shows through
        distance = 0.25 - abs(radius - 0.7)
    else:  # a bar, like a post or a rail
        distance = np.minimum(random.uniform(0.1, 0.35) - abs(u), 0.95 - abs(v))
    softness = 2.0 / min(height, width)
    alpha = np.clip(0.5 + distance / softness, 0, 1)
    base, other = random.uniform(0, 255, (2, 3))
    pattern = random.randint(4)
    if pattern == 0:  # shading from one side to the other
        mix = (u + 1.5) / 3
    elif pattern == 1:  # stripes
        mix = 0.5 + 0.5 * np.sign(np.sin(u * random.uniform(5, 25)))
    elif pattern == 2:  # checks
        mix = 0.5 + 0.5 * np.sign(np.sin(u * random.uniform(5, 20)) * np.sin(v * 12))
    else:  # mottled
        coarse = random.uniform(0, 1, (6, 6)).astype(np.float32)
        mix = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    mix = np.clip(mix, 0, 1)[..., None]
    color = base * mix + other * (1 - mix) + random.normal(0, 6, (height, width, 1))
    rgba = np.concatenate([color, 255 * alpha[..., None]], axis=-1)
    return np.clip(np.rint(rgba), 0, 255).astype(np.uint8)
