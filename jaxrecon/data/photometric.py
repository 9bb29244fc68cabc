"""Changes of a photograph that leave its geometry: blur, compression, weather, colour, light.

What the published loader calls `--ALB`: two groups of changes, each of which strikes with
probability 0.3 and then by one of its members (spec of Meta-HMR, section 5.4). Here they are made
on the crop rather than on the whole photograph, which is cheaper and does not depend on what was
cached; lengths in pixels are those of a crop 256 pixels high and shrink with the crop. The
published code also leaves the channels swapped (quirk 20); they stay RGB here.

A draw is plain data, a name and a seed, and what it does follows from these alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.data.crops import Number

Image = UInt8[np.ndarray, "h w 3"]

GROUP_PROBABILITY = 0.3
# Crop height that lengths in pixels are meant for.
_NATIVE_HEIGHT = 256
_RAIN_GREY, _RAIN_LENGTH, _RAIN_DIMMING = 200, 20, 0.7
_SNOW_GAIN = 2.5
_POSTERISED_BITS = 4
_CLAHE_TILES = (8, 8)


@dataclass(frozen=True)
class Change:
    """One change: a name of `GROUPS`, and the seed of its strength."""

    name: str
    seed: int


def draw_changes(random: np.random.RandomState) -> tuple[Change, ...]:
    """None to two changes, one of each group; always three numbers a group."""
    changes = []
    for group in GROUPS:
        strikes = random.uniform() < GROUP_PROBABILITY
        name = list(group)[int(random.uniform() * len(group))]
        seed = random.randint(2**31)
        if strikes:
            changes.append(Change(name, int(seed)))
    return tuple(changes)


def change_image(image: Image, changes: tuple[Change, ...]) -> Image:
    """A crop after the changes, in their order; the given one stays as it is."""
    known = {name: change for group in GROUPS for name, change in group.items()}
    for change in changes:
        image = known[change.name](image, np.random.RandomState(change.seed))
    return image


# ---- the changes themselves, each of a given strength


def downscale(image: Image, factor: Number) -> Image:
    """Shrunk by `factor` and enlarged again, so that pixels become blocks."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def compress(image: Image, quality: int) -> Image:
    """Through JPEG of a quality from 1 to 100."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def blur(image: Image, size: int) -> Image:
    """The mean over squares of `size` pixels."""
    return cv2.blur(image, (size, size))


def motion_blur(image: Image, size: int, angle: Number) -> Image:
    """The mean along a line of `size` pixels at `angle` radians."""
    kernel = np.zeros((size, size), np.uint8)
    middle, reach = (size - 1) / 2, (size - 1) / 2
    ends = [
        (round(middle + way * reach * np.cos(angle)), round(middle + way * reach * np.sin(angle)))
        for way in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1)
    return cv2.filter2D(image, -1, kernel / np.float32(kernel.sum()))


def rain(image: Image, random: np.random.RandomState) -> Image:
    """Grey streaks, all of one slant, over a picture a little blurred and dimmed."""
    height, width = image.shape[:2]
    scale = height / _NATIVE_HEIGHT
    length, slant = max(2, round(_RAIN_LENGTH * scale)), round(random.uniform(-10, 10) * scale)
    drops = max(1, height * width // (30 * length))
    starts = random.randint(0, (width, height), (drops, 2))
    streaks = np.stack([starts, starts + (slant, length)], axis=1).astype(np.int32)
    wet = cv2.polylines(image.copy(), list(streaks), False, (_RAIN_GREY,) * 3)
    return _lookup(blur(wet, _odd(7, scale)), np.arange(256) * _RAIN_DIMMING)


def snow(image: Image, share: Number) -> Image:
    """What is darker than `share` (0 to 1) of a half lit picture turns brighter, as snow does."""
    hls = cv2.cvtColor(image, cv2.COLOR_RGB2HLS)
    light = np.arange(256, dtype=np.float64)
    threshold = 255 * (0.5 * share + 1 / 3)
    table = np.where(light < threshold, light * _SNOW_GAIN, light)
    hls[..., 1] = _lookup(hls[..., 1], table)
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)


def equalise_locally(image: Image, limit: Number) -> Image:
    """CLAHE of the lightness, with contrast limited to `limit`."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(float(limit), _CLAHE_TILES).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def equalise(image: Image) -> Image:
    """Each channel's levels spread evenly."""
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])


def grey(image: Image) -> Image:
    """Without colour."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def scale_levels(image: Image, gain: Number, offset: Number = 0.0) -> Image:
    """`gain` times each level, plus `offset` times 255."""
    return _lookup(image, np.arange(256) * gain + 255 * offset)


def shift_hue(image: Image, hue: Number, saturation: Number, value: Number) -> Image:
    """Hue turned by so many of 180 half degrees, saturation and value shifted by levels."""
    levels = np.arange(256)
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    tables = (np.mod(levels + hue, 180), levels + saturation, levels + value)
    turned = cv2.merge([_lookup(c, t) for c, t in zip(channels, tables)])
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)


def posterise(image: Image, bits: int) -> Image:
    """Only the highest bits of each level."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def gamma(image: Image, power: Number) -> Image:
    """Levels, from 0 to 1, to a power."""
    return _lookup(image, 255 * (np.arange(256) / 255) ** power)


def _lookup(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))


def _odd(size: Number, scale: Number) -> int:
    """An odd length of at least 3 near `size`, for a crop `scale` times the usual one."""
    return max(3, 2 * int(size * scale / 2) + 1)


def _scale(image: np.ndarray) -> float:
    return image.shape[0] / _NATIVE_HEIGHT


# ---- the two groups, with the published strengths

GROUPS: tuple[Mapping[str, Callable[[Image, np.random.RandomState], Image]], ...] = (
    {
        "downscale": lambda image, random: downscale(image, random.uniform(0.5, 0.9)),
        "compress": lambda image, random: compress(image, random.randint(20, 101)),
        "rain": rain,
        "motion_blur": lambda image, random: motion_blur(
            image, _odd(random.uniform(3, 15), _scale(image)), random.uniform(0, np.pi)
        ),
        "blur": lambda image, random: blur(image, _odd(random.uniform(3, 10), _scale(image))),
        "snow": lambda image, random: snow(image, random.uniform(0.1, 0.3)),
    },
    {
        "clahe": lambda image, random: equalise_locally(image, random.uniform(1, 4)),
        "grey": lambda image, random: grey(image),
        "light": lambda image, random: scale_levels(
            image, random.uniform(0.8, 1.2), random.uniform(-0.2, 0.2)
        ),
        "gain": lambda image, random: scale_levels(image, random.uniform(0.5, 1.5)),
        "hue": lambda image, random: shift_hue(
            image, *(random.uniform(-limit, limit) for limit in (20, 30, 20))
        ),
        "posterise": lambda image, random: posterise(image, _POSTERISED_BITS),
        "gamma": lambda image, random: gamma(image, random.uniform(0.8, 2.0)),
        "equalise": lambda image, random: equalise(image),
    },
)
