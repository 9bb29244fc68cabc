"""Noise, colours and fabrics: plain functions of coordinates, in NumPy."""

import colorsys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# Skin from light to dark, sRGB.
_SKIN = np.array(
    [[248, 216, 195], [236, 190, 158], [208, 152, 113], [165, 108, 73], [112, 70, 47], [66, 42, 32]]
) / 255.0  # fmt: skip
_HAIR = np.array(
    [[22, 18, 17], [35, 25, 20], [60, 40, 27], [95, 62, 38], [140, 98, 56], [196, 160, 104],
     [150, 68, 38], [150, 148, 146], [214, 212, 208]]
) / 255.0  # fmt: skip
_CLOTH = np.array(
    [[24, 24, 27], [52, 54, 60], [105, 107, 112], [232, 231, 228], [250, 250, 250], [30, 38, 66],
     [58, 80, 118], [98, 122, 158], [112, 92, 70], [178, 156, 124], [84, 92, 66], [120, 34, 40]]
) / 255.0  # fmt: skip
# Plaster, stone, wood, earth, plants and asphalt: what rooms and grounds are made of.
_GROUND = np.array(
    [[236, 232, 224], [214, 206, 190], [182, 178, 172], [140, 138, 136], [96, 96, 98], [58, 60, 64],
     [198, 170, 130], [160, 118, 78], [112, 78, 52], [70, 48, 36], [176, 92, 70], [206, 188, 150],
     [110, 132, 72], [78, 104, 52], [150, 158, 96], [150, 172, 190], [92, 118, 150],
     [214, 196, 196]]
) / 255.0  # fmt: skip


def linear(colour: np.ndarray) -> np.ndarray:
    """Picture values in [0, 1] to linear light; a gamma of 2 is near sRGB's and cheap to undo."""
    return np.square(colour)


def fraction(x: np.ndarray) -> np.ndarray:
    """x modulo 1; several times faster than `np.mod`."""
    return x - np.floor(x)


def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    """Row-wise dot product of (..., 3) arrays; faster than a sum over so short an axis."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3)."""
    return vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), 1e-9)[..., None]


def _mix(table: np.ndarray, at: float) -> np.ndarray:
    low = int(min(at, len(table) - 1.001))
    return table[low] + (at - low) * (table[low + 1] - table[low])


def skin_colour(rng: np.random.Generator) -> np.ndarray:
    tone = _mix(_SKIN, float(rng.uniform(0, len(_SKIN) - 1)))
    return np.clip(tone * rng.uniform(0.94, 1.06, 3), 0, 1)


def hair_colour(rng: np.random.Generator) -> np.ndarray:
    if rng.uniform() < 0.04:
        return np.array(colorsys.hsv_to_rgb(rng.uniform(), 0.7, 0.7))
    return np.clip(_HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2, 3), 0, 1)


def any_colour(rng: np.random.Generator, saturation: float = 0.9) -> np.ndarray:
    return np.array(
        colorsys.hsv_to_rgb(
            rng.uniform(), rng.uniform(0.05, saturation), float(rng.uniform(0.2, 0.97))
        )
    )


def cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """Half of the clothes are black, white, grey, denim or earth; the others have any colour."""
    if rng.uniform() < 0.55:
        return np.clip(_CLOTH[rng.integers(len(_CLOTH))] + rng.normal(0, 0.02, 3), 0.01, 1)
    return any_colour(rng)


def ground_colour(rng: np.random.Generator) -> np.ndarray:
    """Mostly the colours of building materials and nature; one in seven is painted."""
    if rng.uniform() < 0.14:
        return any_colour(rng, 0.7)
    base = _GROUND[rng.integers(len(_GROUND))] * np.exp(rng.normal(0, 0.12))
    return np.clip(base + rng.normal(0, 0.025, 3), 0.01, 1)


@dataclass(frozen=True)
class Waves:
    """Smooth noise of points in space: a sum of plane waves in random directions."""

    vectors: np.ndarray  # (3, K)
    phases: np.ndarray  # (K,)

    @staticmethod
    def draw(rng: np.random.Generator, frequency: float, count: int = 5) -> "Waves":
        """`frequency` in radians for each metre."""
        direction = rng.standard_normal((3, count))
        direction /= np.linalg.norm(direction, axis=0)
        speed = frequency * rng.uniform(0.5, 1.5, count)
        return Waves(
            (direction * speed).astype(np.float32),
            rng.uniform(0, 2 * np.pi, count).astype(np.float32),
        )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """About normal with unit variance, (N,)."""
        return np.sin(points @ self.vectors + self.phases) @ self._share()

    def with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The noise (N,) and the direction in which it grows (N, 3), for unit wave speed."""
        angle = points @ self.vectors + self.phases
        speed = np.sqrt(np.square(self.vectors).sum(0)).mean()
        toward = (self.vectors * (self._share() / speed)).T
        return np.sin(angle) @ self._share(), np.cos(angle) @ toward

    def _share(self) -> np.ndarray:
        count = len(self.phases)
        return np.full(count, np.sqrt(2.0 / count), np.float32)


PATTERNS = ("plain", "bands", "pinstripes", "checks", "blotches", "dots", "halves", "fade")
_PATTERN_SHARES = np.array([0.46, 0.12, 0.08, 0.09, 0.08, 0.04, 0.07, 0.06])


@dataclass(frozen=True)
class Fabric:
    """A cloth: two linear colours and a pattern over (along, across) and the point itself."""

    pattern: str
    colours: np.ndarray  # (3, 3) linear: ground, figure, third
    scale: float
    waves: Waves
    grain: float

    @staticmethod
    def draw(rng: np.random.Generator, plain: float = 0.0) -> "Fabric":
        """`plain` is the share of fabrics that get no pattern whatever was drawn."""
        pattern = str(rng.choice(PATTERNS, p=_PATTERN_SHARES))
        if rng.uniform() < plain:
            pattern = "plain"
        colours = np.stack([cloth_colour(rng), cloth_colour(rng), cloth_colour(rng)])
        return Fabric(
            pattern=pattern,
            colours=linear(colours).astype(np.float32),
            scale=float(rng.uniform(0.6, 1.6)),
            waves=Waves.draw(rng, float(rng.uniform(12, 60))),
            grain=float(rng.uniform(0.0, 0.1)),
        )

    def __call__(self, along: np.ndarray, across: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Linear colour (N, 3); `along` and `across` the limb or trunk in metres."""
        return self.shade(self._figure(along, across, points))

    def _figure(self, along: np.ndarray, across: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Where the second colour shows, (N,) in [0, 1]."""
        size = 0.06 * self.scale
        if self.pattern == "bands":
            return (fraction(along / size) < 0.45).astype(np.float32)
        if self.pattern == "pinstripes":
            return (fraction(across / (0.5 * size)) < 0.25).astype(np.float32)
        if self.pattern == "checks":
            warp = (fraction(along / size) < 0.5).astype(np.float32)
            weft = (fraction(across / size) < 0.5).astype(np.float32)
            return np.float32(0.5) * (warp + weft)
        if self.pattern == "blotches":
            return (self.waves(points) > 0.4).astype(np.float32)
        if self.pattern == "dots":
            a, b = fraction(along / size) - 0.5, fraction(across / size) - 0.5
            return (a * a + b * b < 0.06).astype(np.float32)
        if self.pattern == "halves":
            return (along > 0.12 * self.scale).astype(np.float32)
        if self.pattern == "fade":
            return np.clip(along / (0.5 * self.scale), 0.0, 1.0).astype(np.float32)
        return np.zeros(len(points), np.float32)

    def shade(self, figure: np.ndarray) -> np.ndarray:
        return self.colours[0] + figure[:, None] * (self.colours[1] - self.colours[0])


def value_noise(
    rng: np.random.Generator, size: tuple[int, int], cells: float, octaves: int = 3
) -> np.ndarray:
    """Cloudy noise (h, w) float32 in about [-1, 1]; `cells` across the longer side at first."""
    height, width = size
    total = np.zeros(size, np.float32)
    amplitude, norm = 1.0, 0.0
    for _ in range(octaves):
        longer = max(height, width)
        rows = max(2, round(cells * height / longer) + 1)
        columns = max(2, round(cells * width / longer) + 1)
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        norm += amplitude
        amplitude, cells = amplitude * 0.55, cells * 2.3
    return total / np.float32(norm)
