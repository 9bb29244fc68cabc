"""One person in the frames of a video or a folder: who is meant, where, and in which frames."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.bodies.joints import convert_keypoints
from jaxrecon.data.crops import Number
from jaxrecon.data.photos import Photo, read_photo
from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.frames import FrameSource, open_frames
from jaxrecon.io.keypoint_files import Keypoints, parse_bbox, read_bbox, read_json, select_person
from jaxrecon.io.keypoint_sequences import FrameKeypoints, nobody, read_keypoint_frames

_OPENPOSE = 25  # the first 25 of the 49 slots


@dataclass(frozen=True)
class Footage:
    """Frames with what is known about the person in them.

    Attributes:
      source: the pictures.
      keypoints2d: (N, 49, 3) pixels and confidence of the person ("spin49"), zeros where there is
        nobody; None where boxes alone say where the person is.
      boxes: (N, 4) x, y, width, height in pixels, NaN where the keypoints give the box.
      missing: frame number -> why it has nobody.
      focal_length: pixels, or None if unknown.
    """

    source: FrameSource
    keypoints2d: np.ndarray | None
    boxes: np.ndarray
    missing: dict[int, str]
    focal_length: Number | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def evidence(self) -> tuple[slice, str]:
        """Which of the 49 slots a fit follows, and their joint set (see `results.evidence_of`)."""
        if self.keypoints2d is not None:
            seen = (self.keypoints2d[..., 2] > 0).sum(0)
            if seen[:_OPENPOSE].sum() > seen[_OPENPOSE:].sum():
                return slice(None, _OPENPOSE), "openpose25"
        return slice(_OPENPOSE, None), "gt24"

    def photos(self) -> Iterator[tuple[tuple[int, int], Photo | str]]:
        """Of each frame (height, width), zeros if it cannot be read, and its person or the reason
        why it cannot be used."""
        for number, (pixels, name) in enumerate(zip(self.source, self.source.names)):
            if isinstance(pixels, UserError):
                yield (0, 0), str(pixels)
                continue
            size = (pixels.shape[0], pixels.shape[1])
            if number in self.missing:
                yield size, self.missing[number]
                continue
            points = None
            if self.keypoints2d is not None:
                points = Keypoints("spin49", self.keypoints2d[number, None])
            box = self.boxes[number]
            try:
                yield (
                    size,
                    read_photo(
                        pixels,
                        points,
                        box if np.isfinite(box).all() else None,
                        focal_length=self.focal_length,
                        name=name,
                    ),
                )
            except UserError as error:
                yield size, str(error).removeprefix(f"{name}: ")


def read_footage(
    source: Any,
    keypoints: Any = None,
    bbox: Any = None,
    *,
    joint_set: str | None = None,
    focal_length: Number | None = None,
    fps: float | int | None = None,
    follow: bool | None = None,
) -> Footage:
    """The frames of a video, folder, list or array with the person that is meant in each.

    Where several people are in a frame, the one of the highest mean confidence is taken, or the one
    that the box overlaps most, as in a single photograph. When a person is followed, that holds
    for the first frame; afterwards it is the person nearest to the one before.

    Args:
      source: see `io.frames.open_frames`.
      keypoints: see `io.keypoint_sequences.read_keypoint_frames`.
      bbox: (x, y, width, height), one for all frames or one for each (N, 4), as numbers or in a
        JSON file. One box for all says who is meant where a person is followed, and is also the
        place of the crop elsewhere. A folder of images may have `a_bbox.json` beside the keypoints
        of `a.jpg`.
      joint_set: of arrays; overrides what files say.
      focal_length: pixels; estimated as the diagonal of each frame if unknown.
      fps: frames a second; by default the video's, or 30.
      follow: by default a video and an array are followed, the images of a folder are not.

    Raises:
      UserError: see the readers; neither keypoints nor a box; no frame with anybody; a focal
        length that is not positive.
    """
    frames = open_frames(source, fps)
    if keypoints is None and bbox is None:
        raise UserError(
            f"{frames.title}: there is nothing that says where the person is; give 2D keypoints "
            "of each frame (a folder of OpenPose JSON, for instance) or a box"
        )
    if focal_length is not None and not (np.isfinite(focal_length) and focal_length > 0):
        raise UserError(f"focal length {focal_length} is not a positive number of pixels")
    boxes, each = _read_boxes(bbox, frames)
    if keypoints is None:
        return Footage(frames, None, boxes, {}, focal_length)
    if follow is None:
        follow = frames.kind != "folder"
    if isinstance(keypoints, str | os.PathLike) and Path(keypoints).is_dir():
        each = _boxes_beside(Path(keypoints), frames, boxes) or each
    found = read_keypoint_frames(keypoints, frames, joint_set)
    reason = nobody(found)
    if reason:
        raise UserError(
            f"{frames.title}: none of its {len(frames)} frames has keypoints ({reason}); run the "
            "detector again"
        )
    points, missing = _choose(found, boxes, follow)
    if len(missing) == len(found):
        raise UserError(
            f"{frames.title}: none of its {len(frames)} frames can be used "
            f"({next(iter(missing.values()))})"
        )
    if follow and not each:
        boxes = np.full_like(boxes, np.nan)  # it said who; the crops follow the keypoints
    return Footage(frames, points, boxes, missing, focal_length)


def _choose(
    found: Sequence[FrameKeypoints], boxes: np.ndarray, follow: bool
) -> tuple[np.ndarray, dict[int, str]]:
    """The person of each frame (N, 49, 3), and why others have none."""
    points = np.zeros((len(found), 49, 3), np.float32)
    missing: dict[int, str] = {}
    last: Keypoints | None = None
    for number, entry in enumerate(found):
        if isinstance(entry, str):
            missing[number] = entry
            continue
        box = boxes[number] if np.isfinite(boxes[number]).all() else None
        try:
            if last is not None and last.joint_set == entry.joint_set:
                index = _nearest(entry.array, last.array[0])
            else:
                index = select_person(entry.array, box)
            person = entry.array[index]
            points[number] = convert_keypoints(person, entry.joint_set, "spin49")
        except UserError as error:
            missing[number] = str(error)
            continue
        if follow:
            last = Keypoints(entry.joint_set, person[None])
    return points, missing


def _nearest(people: np.ndarray, person: np.ndarray) -> int:
    """Who of the people is nearest to a person of an earlier frame."""
    shared = (people[..., 2] > 0) & (person[:, 2] > 0)
    return select_person(people, near=person if shared.any() else None)


def _read_boxes(bbox: Any, frames: FrameSource) -> tuple[np.ndarray, bool]:
    """(N, 4), NaN without a box; and whether every frame has one of its own."""
    count = len(frames)
    if bbox is None:
        return np.full((count, 4), np.nan, np.float32), False
    name = "the box"
    if isinstance(bbox, str | os.PathLike):
        name = str(existing_file(bbox, "box file"))
        bbox = read_json(Path(bbox), "box file")
        bbox = bbox.get("bbox") if isinstance(bbox, dict) else bbox
    if isinstance(bbox, list | tuple | np.ndarray) and len(bbox) and np.ndim(bbox[0]) == 1:
        if len(bbox) != count:
            raise UserError(
                f"{name}: {len(bbox)} boxes, but {frames.title} has {count} frames; give as many, "
                "or one for all"
            )
        rows = [parse_bbox(row, f"{name} of frame {i}") for i, row in enumerate(bbox)]
        return np.stack(rows), True
    return np.tile(parse_bbox(bbox, name), (count, 1)), False


def _boxes_beside(folder: Path, frames: FrameSource, boxes: np.ndarray) -> bool:
    """Fills in the box of each image with a file `a_bbox.json` here; whether there was one."""
    found = False
    for number, path in enumerate(frames.content if frames.kind == "folder" else ()):
        file = folder / f"{Path(path).stem}_bbox.json"
        if file.is_file():
            boxes[number], found = read_bbox(file), True
    return found
