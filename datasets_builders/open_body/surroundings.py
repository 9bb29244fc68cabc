"""Rooms, streets, furniture and light around a person: ray-cast planes and boxes, in NumPy."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxrecon.datasets_builders.open_body.scenes import Camera, Stance
from jaxrecon.datasets_builders.open_body.textures import (
    any_colour,
    fraction,
    ground_colour,
    linear,
    value_noise,
)

TILE = 256  # side of the noise tile that materials look up; a power of two


@dataclass(frozen=True)
class Light:
    """A sun or lamp and what comes from everywhere else; linear colours."""

    direction: np.ndarray  # (3,) unit, towards the light, camera frame
    colour: np.ndarray  # (3,)
    ambient: np.ndarray  # (4, 3): constant and the three first-order harmonics
    specular: float

    def shade(self, normals: np.ndarray, lit: np.ndarray | float = 1.0) -> np.ndarray:
        """Light (N, 3) that arrives at surfaces with unit normals (N, 3)."""
        facing = np.maximum(normals @ self.direction, 0.0) * lit
        around = self.ambient[0] + normals @ self.ambient[1:]
        return np.maximum(around, 0.02) + facing[:, None] * self.colour


def draw_light(rng: np.random.Generator, up: np.ndarray) -> Light:
    """From overcast to hard sun, from white to warm; brighter from above than from below."""
    side = np.cross(up, rng.standard_normal(3))
    side /= np.linalg.norm(side)
    height = np.deg2rad(rng.uniform(20, 75))
    direction = np.cos(height) * side + np.sin(height) * up
    if direction[2] > 0.3:  # rarely straight against the light
        direction = direction - 1.2 * direction[2] * np.array([0.0, 0.0, 1.0])
        direction /= np.linalg.norm(direction)
    strength = rng.uniform(0.15, 1.3)
    warmth = rng.normal(0, 0.08)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    level = rng.uniform(0.35, 0.75)
    slope = 0.3 * level * up + 0.12 * level * rng.standard_normal(3)
    ambient = np.zeros((4, 3))
    ambient[0] = level * np.array([1 - 0.5 * warmth, 1.0, 1 + 0.5 * warmth])
    ambient[1:] = slope[:, None] * (1 + 0.1 * rng.standard_normal(3))
    return Light(
        direction.astype(np.float32),
        (strength * tint).astype(np.float32),
        ambient.astype(np.float32),
        float(rng.uniform(0.02, 0.3)),
    )


@dataclass(frozen=True)
class Material:
    """Linear colour as a function of two surface coordinates in metres."""

    colours: np.ndarray  # (3, 3)
    kind: str
    size: tuple[float, float]
    grain: float
    grain_scale: float
    cells: np.ndarray  # (64,) random lightness of tiles, planks, bricks
    shift: np.ndarray  # (2,) where the grain starts

    def __call__(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        colour = np.broadcast_to(self.colours[0], (s.size, 3)).copy()
        a, b = s / self.size[0], t / self.size[1]
        if self.kind in ("bricks", "planks"):
            row = np.floor(b)
            a = a + 0.37 * row
            cell = (np.floor(a).astype(np.int32) * 7 + row.astype(np.int32) * 13) & 63
            colour *= self.cells[cell][:, None]
            seam = (fraction(a) < 0.04) | (fraction(b) < 0.07)
            colour[seam] = self.colours[1]
        elif self.kind == "panels":
            cell = (np.floor(a).astype(np.int32) * 7 + np.floor(b).astype(np.int32) * 13) & 63
            mix = self.cells[cell][:, None] - 0.5
            colour += np.clip(mix, 0, 1) * (self.colours[1] - self.colours[0])
            colour += np.clip(self.cells[cell ^ 11] - 0.9, 0, 1)[:, None] * self.colours[2]
        elif self.kind == "checks":
            odd = fraction(0.5 * (np.floor(a) + np.floor(b))) > 0.25
            colour[odd] = self.colours[1]
        elif self.kind == "stripes":
            colour[fraction(a) < 0.4] = self.colours[1]
        look = np.float32(TILE / self.grain_scale)
        row = (t * look + self.shift[0]).astype(np.int32) & (TILE - 1)
        column = (s * look + self.shift[1]).astype(np.int32) & (TILE - 1)
        noise = noise_tile()[row, column][:, None]
        return np.clip(colour * (1.0 + self.grain * noise), 0.003, 1.0)


def draw_material(rng: np.random.Generator, kinds: tuple[str, ...]) -> Material:
    """A random material of one of these kinds."""
    base = ground_colour(rng)
    second = np.clip(base * rng.uniform(0.45, 1.3), 0, 1)
    if rng.uniform() < 0.25:
        second = ground_colour(rng)
    width = float(rng.uniform(0.15, 0.7))
    return Material(
        colours=linear(np.stack([base, second, any_colour(rng)])).astype(np.float32),
        kind=str(rng.choice(kinds)),
        size=(width, width * float(rng.uniform(0.25, 1.0))),
        grain=float(0.02 + 0.3 * rng.uniform() ** 2),
        grain_scale=float(rng.choice([1.0, 2.5, 6.0])),
        cells=rng.uniform(0.6, 1.2, 64).astype(np.float32),
        shift=rng.uniform(0, TILE, 2).astype(np.float32),
    )


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """Noise (TILE, TILE) of several scales that repeats without a seam."""
    fine = np.random.default_rng(0).standard_normal((TILE, TILE)).astype(np.float32)
    border = TILE // 2
    around = np.pad(fine, border, mode="wrap")
    tile = np.zeros_like(fine)
    for sigma, weight in ((1.0, 1.0), (4.0, 1.0), (16.0, 0.8)):
        blurred = cv2.GaussianBlur(around, (0, 0), sigma)[border:-border, border:-border]
        tile += weight * blurred / blurred.std()
    return np.clip(tile / tile.std(), -2.5, 2.5)


_FLOORS = ("plain", "plain", "bricks", "planks", "checks", "panels")
_WALLS = ("plain", "plain", "plain", "bricks", "stripes", "panels")
_BOXES = ("plain", "plain", "stripes", "panels", "planks")


@dataclass
class Picture:
    """Linear colour (h, w, 3) and depth (h, w) of what surrounds the person."""

    colour: np.ndarray
    depth: np.ndarray
    floor: np.ndarray  # (h, w) bool


def _rays(camera: Camera) -> np.ndarray:
    """Directions (h * w, 3) with z = 1 through the pixel centres."""
    u = (np.arange(camera.width, dtype=np.float32) + 0.5 - camera.width / 2) / camera.focal
    v = (np.arange(camera.height, dtype=np.float32) + 0.5 - camera.height / 2) / camera.focal
    rays = np.ones((camera.height, camera.width, 3), np.float32)
    rays[..., 0] = u
    rays[..., 1] = v[:, None]
    return rays.reshape(-1, 3)


def _horizontal(rng: np.random.Generator, up: np.ndarray, spread: float) -> np.ndarray:
    """A horizontal unit vector away from the camera, turned by up to `spread` radians."""
    away = np.array([0.0, 0.0, 1.0]) - up[2] * up
    away /= np.linalg.norm(away)
    turn = rng.uniform(-spread, spread)
    return np.cos(turn) * away + np.sin(turn) * np.cross(up, away)


def surround(rng: np.random.Generator, camera: Camera, stance: Stance, light: Light) -> Picture:
    """Floor and walls, or ground and sky, behind the person.

    Most backgrounds are out of focus: those are made at half the resolution and enlarged.
    """
    if rng.uniform() < 0.4:
        return _surround(rng, camera, stance, light)
    half = Camera(camera.width // 2, camera.height // 2, camera.focal / 2)
    small = _surround(rng, half, stance, light)
    size = (camera.width, camera.height)
    return Picture(
        cv2.resize(small.colour, size, interpolation=cv2.INTER_LINEAR),
        cv2.resize(small.depth, size, interpolation=cv2.INTER_NEAREST),
        cv2.resize(small.floor.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0,
    )


def _surround(rng: np.random.Generator, camera: Camera, stance: Stance, light: Light) -> Picture:
    rays = _rays(camera)
    size = (camera.height, camera.width)
    count = len(rays)
    up = stance.up.astype(np.float32)
    climb = rays @ up
    indoors = rng.uniform() < 0.6

    with np.errstate(divide="ignore"):
        distance = np.where(climb * stance.ground > 0, stance.ground / climb, np.inf)
    floor = np.isfinite(distance) & (distance < 200)
    depth = np.where(floor, distance, np.inf).astype(np.float32)
    colour = np.zeros((count, 3), np.float32)

    if indoors:
        behind = _horizontal(rng, up, 0.6).astype(np.float32)
        walls: list[tuple[np.ndarray, float]] = [(behind, float(rng.uniform(0.8, 5.0)))]
        if rng.uniform() < 0.5:
            turn = 1.0 if rng.uniform() < 0.5 else -1.0
            walls.append((turn * np.cross(up, behind), float(rng.uniform(1.0, 3.5))))
        for normal, gap in walls:
            offset = float(stance.pelvis @ normal) + gap
            slope = rays @ normal
            with np.errstate(divide="ignore"):
                reach = np.where(slope > 1e-4, offset / slope, np.inf)
            nearer = np.flatnonzero(reach < depth)
            if nearer.size == 0:
                continue
            depth[nearer] = reach[nearer]
            floor[nearer] = False
            colour[nearer] = _wall(rng, rays[nearer], reach[nearer], normal, stance, light)
    open_air = ~np.isfinite(depth)
    if open_air.any():
        sky = _sky(rng, size, climb.reshape(size)).reshape(-1, 3)
        colour[open_air] = sky[open_air]
    if floor.any():
        material = draw_material(rng, _FLOORS)
        across = _horizontal(rng, up, np.pi)
        along = np.cross(up, across)
        chosen = np.flatnonzero(floor)
        points = rays[chosen] * depth[chosen, None]
        albedo = material(points @ across.astype(np.float32), points @ along.astype(np.float32))
        # Far patterns are finer than pixels; the eye sees their mean.
        haze = np.clip((depth[chosen] - 6.0) / 20.0, 0.0, 1.0)[:, None]
        albedo = albedo + haze * (albedo.mean(0) - albedo)
        colour[chosen] = albedo * light.shade(up[None])
    return Picture(colour.reshape(*size, 3), depth.reshape(size), floor.reshape(size))


def _wall(rng, rays, reach, normal, stance, light) -> np.ndarray:
    up = stance.up.astype(np.float32)
    side = np.cross(up, normal).astype(np.float32)
    points = rays * reach[:, None]
    s = points @ side - float(stance.pelvis @ side)
    height = points @ up - np.float32(stance.ground)
    albedo = draw_material(rng, _WALLS)(s, height)
    for _ in range(int(rng.integers(0, 5))):  # pictures, windows, doors, shelves
        width, tall = rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.1)
        middle = rng.uniform(0.0, 2.2)
        a, b = np.abs(s - rng.uniform(-2.5, 2.5)) / width, np.abs(height - middle) / tall
        pane = np.maximum(a, b)
        fill = draw_material(rng, _WALLS + ("panels",))
        inner = np.flatnonzero(pane < 0.92)
        albedo[(pane >= 0.92) & (pane < 1.0)] = fill.colours[1]
        if rng.uniform() < 0.25:
            albedo[inner] = 0.9 + 0.3 * (height[inner, None] - middle)
        else:
            albedo[inner] = fill(s[inner], height[inner])
    skirting = rng.uniform(0.0, 0.14)
    albedo[height < skirting] *= 0.5
    gradient = np.clip(1.0 + rng.normal(0, 0.12) * s + rng.normal(0, 0.1) * height, 0.4, 1.6)
    return albedo * light.shade(-normal[None].astype(np.float32)) * gradient[:, None]


def _sky(rng: np.random.Generator, size: tuple[int, int], climb: np.ndarray) -> np.ndarray:
    """Sky with clouds, and trees, hills or houses on the horizon, (h, w, 3) linear."""
    zenith = linear(np.array([0.35, 0.55, 0.85]) * rng.uniform(0.7, 1.1))
    haze = linear(np.full(3, rng.uniform(0.7, 0.95)))
    rise = np.clip(climb * 2.0, 0, 1)[..., None]
    sky = haze + rise * (zenith - haze)
    cloud = np.clip(value_noise(rng, size, 4.0) + rng.uniform(-0.4, 0.6), 0, 1)[..., None]
    colour = sky + cloud * (haze - sky)
    for _ in range(int(rng.integers(1, 4))):
        base, rough = rng.uniform(0.0, 0.5), rng.uniform(0.02, 0.25)
        if rng.uniform() < 0.5:  # trees
            profile = base * 0.5 + rough * value_noise(rng, (1, size[1]), 8.0, 4)
            tone = linear(np.array([0.2, 0.36, 0.15]) * rng.uniform(0.6, 1.4))
            texture = 1 + 0.5 * value_noise(rng, size, 30.0, 2)[..., None]
        else:  # houses
            steps = rng.uniform(0, 1, int(rng.integers(3, 10)))
            columns = np.sort(rng.integers(0, size[1], len(steps)))
            profile = base * steps[np.searchsorted(columns, np.arange(size[1])) % len(steps)][None]
            tone = linear(any_colour(rng, 0.35))
            rows, cells = np.arange(size[0])[:, None], rng.integers(6, 18, 2)
            window = (np.mod(rows, cells[0]) < 0.5 * cells[0]) & (
                np.mod(np.arange(size[1])[None], cells[1]) < 0.5 * cells[1]
            )
            texture = np.where(window, rng.uniform(0.3, 0.8), 1.0)[..., None]
        below = climb < profile
        colour = np.where(below[..., None], tone * texture, colour)
    return colour.astype(np.float32)


@dataclass(frozen=True)
class Box:
    """A cuboid: centre (3,), axes as columns (3, 3), half sizes (3,), camera frame."""

    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    material: Material


def furniture(rng: np.random.Generator, stance: Stance) -> list[Box]:
    """A seat for a sitter, things that stand about, and now and then one before the person."""
    up, forward = stance.up, stance.forward
    boxes: list[Box] = []

    def add(ground_point: np.ndarray, heading: np.ndarray, half: np.ndarray, lift=0.0) -> None:
        level = stance.ground + lift + half[1]
        centre = ground_point + (level - ground_point @ up) * up
        axes = np.stack([np.cross(up, heading), up, heading], -1)
        boxes.append(Box(centre, axes, half, draw_material(rng, _BOXES)))

    if stance.seat is not None:
        depth, width = rng.uniform(0.18, 0.26), rng.uniform(0.2, 0.6)
        legs = 0.0 if rng.uniform() < 0.4 else stance.seat - rng.uniform(0.05, 0.14)
        half = np.array([width, 0.5 * (stance.seat - legs), depth])
        back = -rng.uniform(0.0, 0.06) * forward
        add(stance.pelvis + back, forward, half, legs)
        if rng.uniform() < 0.6:
            high = rng.uniform(0.2, 0.4)
            behind = stance.pelvis - (0.2 + depth * 0.5) * forward
            add(behind, forward, np.array([width, high, 0.03]), stance.seat)
    away = np.array([0.0, 0.0, 1.0]) - up[2] * up
    away /= np.linalg.norm(away)
    side = np.cross(up, away)
    for _ in range(int(rng.integers(0, 4))):  # behind and beside
        where = rng.uniform(0.3, 3.0) * away + rng.uniform(-2.5, 2.5) * side
        half = np.array([rng.uniform(0.1, 0.7), rng.uniform(0.2, 1.0), rng.uniform(0.1, 0.5)])
        if np.linalg.norm(where) < 0.75 + np.hypot(half[0], half[2]):
            continue
        add(stance.pelvis + where, _horizontal(rng, up, np.pi), half)
    if rng.uniform() < 0.22:  # before the person
        distance = float(stance.pelvis[2])
        near = rng.uniform(0.9, max(0.55 * distance, 1.0))
        where = -near * away + rng.uniform(-0.5, 0.5) * side
        half = [
            np.array([rng.uniform(0.03, 0.08), rng.uniform(0.8, 1.5), rng.uniform(0.03, 0.08)]),
            np.array([rng.uniform(0.3, 0.9), rng.uniform(0.15, 0.45), rng.uniform(0.1, 0.4)]),
            np.array([rng.uniform(0.1, 0.35), rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.3)]),
        ][int(rng.integers(3))]
        if distance - near > 0.8:
            add(stance.pelvis + where, _horizontal(rng, up, 0.8), half)
    return boxes


@dataclass(frozen=True)
class DrawnBox:
    """A box in the picture: its window, and inside of it the pixels it covers."""

    window: tuple[slice, slice]
    hit: np.ndarray  # (h, w) bool
    depth: np.ndarray  # (h, w), inf where not hit
    colour: np.ndarray  # (hits, 3) linear


def draw_box(camera: Camera, box: Box, light: Light) -> DrawnBox | None:
    """Ray-cast a box; None where it is not in the picture or comes too close to the lens."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = box.centre + (signs * box.half) @ box.axes.T
    if corners[:, 2].min() < 0.15:
        return None
    pixels = camera.project(corners)
    low = np.floor(np.clip(pixels.min(0), 0, [camera.width, camera.height])).astype(int)
    high = np.ceil(np.clip(pixels.max(0), 0, [camera.width, camera.height])).astype(int)
    if (high - low < 2).any():
        return None
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    u = (np.arange(low[0], high[0], dtype=np.float32) + 0.5 - camera.width / 2) / camera.focal
    v = (np.arange(low[1], high[1], dtype=np.float32) + 0.5 - camera.height / 2) / camera.focal
    axes, half = box.axes.astype(np.float32), box.half.astype(np.float32)
    start = -(box.centre.astype(np.float32) @ axes)
    directions = u[None, :, None] * axes[0] + v[:, None, None] * axes[1] + axes[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (-half - start) / directions
        second = (half - start) / directions
    entry, leave = np.minimum(first, second), np.maximum(first, second)
    enter = np.maximum(np.maximum(entry[..., 0], entry[..., 1]), entry[..., 2])
    side = np.where(entry[..., 0] == enter, 0, np.where(entry[..., 1] == enter, 1, 2))
    hit = enter < np.minimum(np.minimum(leave[..., 0], leave[..., 1]), leave[..., 2])
    hit &= enter > 0.1
    if not hit.any():
        return None
    at = start + directions[hit] * enter[hit][:, None]
    face = side[hit]
    s = np.where(face == 0, at[:, 2], at[:, 0])
    t = np.where(face == 1, at[:, 2], at[:, 1])
    outward = -np.sign(directions[hit][np.arange(len(face)), face])[:, None] * axes.T[face]
    colour = box.material(s, t) * light.shade(outward)
    depth = np.where(hit, enter, np.inf)
    return DrawnBox(window, hit, depth, colour)
