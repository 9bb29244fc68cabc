"""Who stands where, and which camera sees it. Pure NumPy; every draw is seeded by its index."""

from dataclasses import dataclass

import numpy as np

from jaxrecon.bodies.joints import SMPL24
from jaxrecon.bodies.poses import sample_body, sample_views

CHUNK = 16  # images that share one call of the body model and one draw of poses
ASPECTS = ((1.0, 0.34), (4 / 3, 0.26), (3 / 4, 0.28), (16 / 9, 0.12))  # width / height, share
SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Variety:
    """How far the photographs differ from the plainest ones.

    Attributes:
        frontal: share taken from the front, give or take 35 degrees; the others from all sides.
        cut: share of people cut by the border of the image.
    """

    frontal: float = 0.6
    cut: float = 0.2


USUAL = Variety()


@dataclass(frozen=True)
class Subjects:
    """A chunk of people: what the body model needs."""

    rotmats: np.ndarray  # (CHUNK, 24, 3, 3) float32, row 0 in the camera frame
    views: np.ndarray  # (CHUNK, 3, 3), world (y up) to camera
    betas: np.ndarray  # (CHUNK, 10) float32


@dataclass(frozen=True)
class Camera:
    """A pinhole in the middle of the image; pixels."""

    width: int
    height: int
    focal: float

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.width / 2, self.height / 2])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points (..., 3) to pixels (..., 2)."""
        return self.focal * points[..., :2] / points[..., 2:] + self.centre


def image_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one image: the same whatever the process and whatever was drawn before."""
    return np.random.default_rng([seed, SPLITS[split], 1, index])


def draw_subjects(seed: int, split: str, chunk: int, variety: Variety = USUAL) -> Subjects:
    """Poses, viewpoints and shapes of chunk number `chunk`."""
    rng = np.random.default_rng([seed, SPLITS[split], 0, chunk])
    rotmats = sample_body(rng, CHUNK)
    views = sample_views(rng, CHUNK, variety.frontal)
    rotmats[:, 0] = views @ rotmats[:, 0]
    betas = np.clip(rng.standard_normal((CHUNK, 10)), -2.5, 2.5)
    return Subjects(rotmats.astype(np.float32), views, betas.astype(np.float32))


def draw_camera(rng: np.random.Generator, longer_side: int) -> Camera:
    """Image shape and focal length; diagonal field of view from 25 to 80 degrees."""
    aspect = float(rng.choice([a for a, _ in ASPECTS], p=[share for _, share in ASPECTS]))
    width, height = longer_side, longer_side
    if aspect > 1:
        height = 4 * round(longer_side / aspect / 4)
    elif aspect < 1:
        width = 4 * round(longer_side * aspect / 4)
    view = np.deg2rad(np.clip(rng.normal(54.0, 12.0), 25.0, 80.0))
    focal = 0.5 * np.hypot(width, height) / np.tan(0.5 * view)
    return Camera(width, height, float(focal))


def place(
    rng: np.random.Generator,
    camera: Camera,
    vertices: np.ndarray,
    variety: Variety = USUAL,
) -> np.ndarray:
    """Translation (3,) that puts a body (V, 3) into the picture, metres.

    Most people are whole and fill half to all of the image; some are cut by its border.
    """
    low, high = vertices.min(0), vertices.max(0)
    size = high - low
    middle = 0.5 * (low + high)
    fill = float(np.clip(rng.normal(0.85, 0.13), 0.52, 1.04))
    cut = rng.uniform() < variety.cut
    if cut:
        fill *= float(rng.uniform(1.0, 1.5))
    per_metre = fill * min(camera.height / size[1], camera.width / size[0])
    # The depth of the body's middle; its front is closer and looks larger.
    depth = max(camera.focal / per_metre, 0.5 * size[2] + 0.8)
    extent = 0.5 * per_metre * size[:2] * 1.06
    frame = np.array([camera.width, camera.height])
    room = np.maximum(frame / 2 - extent, 0.0)
    if cut:
        room = room + 0.27 * np.minimum(2 * extent, frame) * (rng.uniform(size=2) < 0.7)
    pixel = frame / 2 + rng.uniform(-1, 1, 2) * room
    centre = np.append((pixel - frame / 2) * depth / camera.focal, depth)
    return (centre - middle).astype(np.float32)


@dataclass(frozen=True)
class Stance:
    """Where the ground is and how the body meets it, camera frame and metres."""

    up: np.ndarray  # (3,) unit
    ground: float  # p . up of the floor
    forward: np.ndarray  # (3,) unit, horizontal, where the pelvis faces
    pelvis: np.ndarray  # (3,)
    seat: float | None  # height above the floor of what the person sits on, if sitting


def read_stance(
    view: np.ndarray, root: np.ndarray, vertices: np.ndarray, joints: np.ndarray
) -> Stance:
    """Ground level and seat from the posed body (translated to its place).

    Args:
        view: world to camera (3, 3).  root: pelvis rotation (3, 3), camera frame.
        vertices: (V, 3).  joints: the 24 joints (24, 3).
    """
    up = view[:, 1]
    heights = vertices @ up
    ground = float(heights.min())
    forward = root[:, 2] - (root[:, 2] @ up) * up
    length = np.linalg.norm(forward)
    forward = view[:, 2] if length < 1e-3 else forward / length
    height = joints @ up - ground
    at = {name: float(height[i]) for i, name in enumerate(SMPL24)}
    hips, knees = 0.5 * (at["l_hip"] + at["r_hip"]), 0.5 * (at["l_knee"] + at["r_knee"])
    upright = (joints[SMPL24.index("neck")] - joints[0]) @ up > 0.25
    sitting = upright and abs(hips - knees) < 0.16 and min(hips, knees) > 0.3
    seat = hips - 0.12 if sitting else None
    return Stance(up, ground, forward, joints[0], seat)
