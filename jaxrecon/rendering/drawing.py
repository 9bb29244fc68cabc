"""Keypoints on a photograph, coloured by the side of the body."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.typing import AnyArray, Float

# RGB; the person's own left and right.
LEFT = (64, 156, 255)
RIGHT = (255, 138, 61)
MIDDLE = (88, 200, 120)

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel


def draw_keypoints(
    image: UInt8[np.ndarray, "h w 3"],
    keypoints2d: Float[AnyArray, "*n j c"],
    names: Sequence[str],
    bones: np.ndarray | Sequence[tuple[int, int]],
    threshold: float | int = 0.2,
    opacity: float | int = 0.95,
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with skeletons over it.

    Args:
      keypoints2d: (..., J, 2 or 3) pixels and, if there, confidence; leading axes are people.
      names: of the J joints; `l_` and `r_` give the colours.
      bones: pairs of joint indices to join.
      threshold: joints with less confidence, or that are not finite, are left out.

    Raises:
      UserError: the number of names or channels does not fit.
    """
    points = np.asarray(keypoints2d, np.float32)
    if points.shape[-2] != len(names) or points.shape[-1] not in (2, 3):
        raise UserError(
            f"keypoints2d of shape {points.shape} do not fit {len(names)} joint names; "
            "they are (..., joints, 2 or 3)"
        )
    layer = image.copy()
    for person in points.reshape(-1, *points.shape[-2:]):
        _draw_person(layer, person, names, np.asarray(bones, int).reshape(-1, 2), threshold)
    return cv2.addWeighted(layer, opacity, image, 1.0 - opacity, 0.0)


def side_colour(*names: str) -> tuple[int, int, int]:
    """Colour of a joint, or of a bone by its two ends; a bone from the middle takes its end's."""
    sides = {name[0] for name in names if name[:2] in ("l_", "r_")}
    if sides == {"l"}:
        return LEFT
    if sides == {"r"}:
        return RIGHT
    return MIDDLE


def _draw_person(image, person, names, bones, threshold):
    seen = np.isfinite(person[:, :2]).all(-1)
    # Far outside, OpenCV's fixed point would overflow.
    seen &= (np.abs(np.nan_to_num(person[:, :2])) < 1e5).all(-1)
    if person.shape[-1] == 3:
        seen &= np.nan_to_num(person[:, 2]) >= max(threshold, 1e-6)
    if not seen.any():
        return
    xy = person[:, :2]
    extent = np.ptp(xy[seen], axis=0).max()
    thickness = int(np.clip(round(extent / 80), 1, 16))
    fixed = np.round((np.nan_to_num(xy) - 0.5) * (1 << _SHIFT)).astype(np.int64)

    def line(a, b, colour, width):
        start, end = (tuple(int(x) for x in fixed[i]) for i in (a, b))
        cv2.line(image, start, end, colour, width, cv2.LINE_AA, _SHIFT)

    def dot(joint, colour, radius):
        middle = tuple(int(x) for x in fixed[joint])
        cv2.circle(image, middle, int(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)

    drawn = [(a, b) for a, b in bones if seen[a] and seen[b]]
    for a, b in drawn:
        line(a, b, (24, 26, 30), thickness + 2)
    for a, b in drawn:
        line(a, b, side_colour(names[a], names[b]), thickness)
    for joint in np.flatnonzero(seen):
        dot(joint, (24, 26, 30), 0.9 * thickness + 1.5)
        dot(joint, (255, 255, 255), 0.9 * thickness + 0.7)
        dot(joint, side_colour(names[joint]), 0.9 * thickness)
