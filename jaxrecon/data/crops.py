"""From a full photograph to the crop a network sees, and back.

A box is a centre (x, y) in pixels and a `scale`: the side of the square box over 200 pixels.
Affine matrices are (2, 3), act on column vectors [x, y, 1] and are float64.
Source of all rules: Meta-HMR's published loader, which follows SPIN and CLIFF (spec of Meta-HMR,
sections 3 and 5.4).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from jaxrecon.errors import UserError

# beartype, which checks the annotations in the tests, does not count an int as a float.
Number = float | int

# One unit of `scale` in pixels (a convention of the MPII data set).
SCALE_UNIT = 200.0
# Height over width of the rectangular crop; the box rule uses it for square crops too.
BOX_ASPECT = 4.0 / 3.0
BOX_MARGIN = 1.2
DETECTOR_MARGIN = 1.1

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize_image(image: Shaped[np.ndarray, "*b h w 3"]) -> Float[np.ndarray, "*b h w 3"]:
    """RGB levels 0..255 as float32 in [0, 1], minus ImageNet's mean, over its deviation."""
    return ((image.astype(np.float32) / np.float32(255.0)) - IMAGE_MEAN) / IMAGE_STD


def box_from_keypoints(
    keypoints: Float[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "2"], float]:
    """Box (centre, scale) around the keypoints with confidence > 0.

    Centre = middle of the extremes; size = 1.2 max(4/3 width, height) pixels.
    Raises UserError if no keypoint is confident.
    """
    seen = keypoints[keypoints[:, 2] > 0, :2].astype(np.float64)
    if not len(seen):
        raise UserError(
            "keypoints: none has a confidence above 0, so there is no box to crop; "
            "give a box or better keypoints"
        )
    low, high = seen.min(axis=0), seen.max(axis=0)
    width, height = high - low
    return (low + high) / 2, float(max(BOX_ASPECT * width, height) * BOX_MARGIN / SCALE_UNIT)


def box_from_corners(
    corners: Float[np.ndarray, "4"], margin: Number = DETECTOR_MARGIN
) -> tuple[Float[np.ndarray, "2"], float]:
    """Box (centre, scale) of a detector's corners (x0, y0, x1, y1) in pixels."""
    x0, y0, x1, y1 = (float(v) for v in corners)
    center = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return center, margin * max(BOX_ASPECT * (x1 - x0), y1 - y0) / SCALE_UNIT


def estimate_focal_length(height: Number, width: Number) -> float:
    """Focal length in pixels when none is known: the diagonal, a field of view of 53 degrees."""
    return math.hypot(height, width)


def box_information(
    center: Float[np.ndarray, "*b 2"],
    scale: Number | Float[np.ndarray, "*b"],
    image_size: Shaped[np.ndarray, "*b 2"],
    focal_length: Number | Float[np.ndarray, "*b"],
) -> Float[np.ndarray, "*b 3"]:
    """CLIFF's description of where the box lies in the frame (float64 inside, float32 out).

    `image_size` is (height, width) in pixels. Source: CLIFF section 3.2, Meta-HMR section 3.
    """
    center = np.asarray(center, np.float64)
    focal = np.asarray(focal_length, np.float64)
    size = SCALE_UNIT * np.asarray(scale, np.float64)
    image_size = np.asarray(image_size, np.float64)
    x = 2.8 * (center[..., 0] - image_size[..., 1] / 2) / focal
    y = 2.8 * (center[..., 1] - image_size[..., 0] / 2) / focal
    return np.stack([x, y, (size - 0.24 * focal) / (0.06 * focal)], axis=-1).astype(np.float32)


def crop_matrix(
    center: Shaped[np.ndarray, "2"],
    scale: Number,
    height: int,
    width: int,
    rotation: Number = 0.0,
) -> Float[np.ndarray, "2 3"]:
    """Affine map from pixels of the full image to pixels of a (height, width) crop.

    The box is turned by +rotation degrees, so its content turns the other way. The matrix is
    solved from three point pairs kept in float32, as published, which matters in the last digits.
    """
    angle = math.radians(rotation)
    half = SCALE_UNIT * scale * width / height / 2
    up = np.array([half * math.sin(angle), -half * math.cos(angle)])
    source = _corner(np.asarray(center, np.float64), up)
    target = _corner(np.array([width / 2, height / 2]), np.array([0.0, -width / 2]))
    return cv2.getAffineTransform(source, target)


def _corner(origin: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Three points that span a box: its centre, one along `up`, and one a quarter turn on."""
    points = np.empty((3, 2), np.float32)
    points[0] = origin
    points[1] = origin + up
    turn = points[0] - points[1]
    points[2] = points[1] + np.array([-turn[1], turn[0]], np.float32)
    return points


def invert_affine(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that undoes `matrix`."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def apply_affine(
    matrix: Float[np.ndarray, "*b 2 3"], points: Shaped[np.ndarray, "*b n 2"]
) -> Float[np.ndarray, "*b n 2"]:
    """Map points (x, y); any further columns are the caller's business."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def warp_crop(
    image: UInt8[np.ndarray, "h w 3"],
    matrix: Float[np.ndarray, "2 3"],
    height: int,
    width: int,
    offset: tuple[int, int] = (0, 0),
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Cut a crop out of an image (bilinear, black outside).

    `offset` is the place (x, y) of the image's first pixel in the frame that `matrix` maps from:
    an image may be a region of a larger one.
    """
    if offset != (0, 0):
        matrix = matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ np.array(offset, np.float64)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def legacy_transform(
    center: Shaped[np.ndarray, "2"],
    scale: Number,
    result_size: tuple[int, int],
    rotation: Number = 0.0,
    box_aspect: Number = 1.0,
) -> Float[np.ndarray, "3 3"]:
    """SPIN's crop matrix to a result of (rows, cols), homogeneous, rotation in degrees.

    The box is `200 scale` high and that times `box_aspect` wide; 1 is SPIN's square box, 3/4 the
    single-image crop of CLIFF.
    """
    rows, cols = result_size
    box_height = SCALE_UNIT * scale
    box_width = box_height * box_aspect
    matrix = np.array(
        [
            [cols / box_width, 0.0, cols * (0.5 - center[0] / box_width)],
            [0.0, rows / box_height, rows * (0.5 - center[1] / box_height)],
            [0.0, 0.0, 1.0],
        ]
    )
    if rotation == 0:
        return matrix
    angle = math.radians(-rotation)
    sine, cosine = math.sin(angle), math.cos(angle)
    to_middle = np.array([[1.0, 0.0, -cols / 2], [0.0, 1.0, -rows / 2], [0.0, 0.0, 1.0]])
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    back = np.array([[1.0, 0.0, cols / 2], [0.0, 1.0, rows / 2], [0.0, 0.0, 1.0]])
    return back @ turn @ to_middle @ matrix


def legacy_transform_point(
    point: Shaped[np.ndarray, "2"],
    matrix: Float[np.ndarray, "3 3"],
    inverse: bool = False,
    nearest: bool = False,
) -> Int[np.ndarray, "2"]:
    """Map one point counted from 1, to integers: cut toward zero, or to the nearest."""
    if inverse:
        matrix = np.linalg.inv(matrix)
    moved = (matrix @ np.array([point[0] - 1, point[1] - 1, 1.0]))[:2]
    # np.rint and Python's round both take halves to the even neighbour.
    return (np.rint(moved) if nearest else np.trunc(moved)).astype(np.int64) + 1


@dataclass(frozen=True)
class SingleCrop:
    """A crop of a single photograph.

    `image` is float32 (h, w, 3) in [0, 255], not rounded after the resize; `low` and `high` are
    the integer corners (x, y) of the box in the photograph, `high` exclusive.
    """

    image: np.ndarray
    center: np.ndarray
    scale: float
    low: np.ndarray
    high: np.ndarray


def crop_single_image(
    image: UInt8[np.ndarray, "H W 3"],
    corners: Float[np.ndarray, "4"] | None,
    height: int = 256,
    width: int = 192,
) -> SingleCrop:
    """CLIFF's crop for one photograph and a detector's box (x0, y0, x1, y1).

    Integer corners, zero padding, bilinear resize. Without a usable box the whole image is taken.
    """
    rows, cols = image.shape[:2]
    center, scale = np.array([cols / 2, rows / 2]), max(rows, BOX_ASPECT * cols) / SCALE_UNIT
    if corners is not None and np.isfinite(corners).all():
        box_center, box_scale = box_from_corners(corners)
        if box_scale > 0:
            center, scale = box_center, box_scale
    matrix = legacy_transform(center, scale, (height, width), box_aspect=1 / BOX_ASPECT)
    low = legacy_transform_point(np.array([1, 1]), matrix, inverse=True, nearest=True) - 1
    last = np.array([width + 1, height + 1])
    high = legacy_transform_point(last, matrix, inverse=True, nearest=True) - 1
    patch = np.zeros((high[1] - low[1], high[0] - low[0], 3), np.float32)
    inside_low, inside_high = np.maximum(low, 0), np.minimum(high, [cols, rows])
    if (inside_high > inside_low).all():
        a, b = inside_low - low, inside_high - low
        patch[a[1] : b[1], a[0] : b[0]] = image[
            inside_low[1] : inside_high[1], inside_low[0] : inside_high[0]
        ]
    resized = cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)
    return SingleCrop(resized, center, float(scale), low, high)
