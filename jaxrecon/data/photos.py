"""A user's own photographs with their 2D keypoints, as batches that a body system takes."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.bodies.joints import convert_keypoints
from jaxrecon.data import crops
from jaxrecon.data.crops import Number
from jaxrecon.data.items import Person, collate, make_item
from jaxrecon.errors import UserError
from jaxrecon.io.images import IMAGE_SUFFIXES, read_image
from jaxrecon.io.keypoint_files import (
    Keypoints,
    parse_bbox,
    read_bbox,
    read_keypoints,
    select_person,
)

PathLike = str | os.PathLike[str]

# Behind a photograph's stem: OpenPose's own names, and the plain one.
_KEYPOINT_ENDINGS = ("_keypoints", "_openpose", "")
_KEYPOINT_SUFFIXES = (".json", ".npz", ".npy")


@dataclass(frozen=True)
class Photo:
    """One person in one photograph.

    Attributes:
      image: (H, W, 3) uint8 RGB.
      keypoints2d: (49, 3) float32 pixels and confidence ("spin49"); zeros where there is none.
      center, scale: the box, (2,) pixels and side / 200.
      focal_length: pixels.
      name: for messages and output files, usually the file's name.
    """

    image: np.ndarray
    keypoints2d: np.ndarray
    center: np.ndarray
    scale: float
    focal_length: float
    name: str


def read_photo(
    image: PathLike | np.ndarray,
    keypoints: PathLike | Keypoints | np.ndarray | None = None,
    bbox: PathLike | Sequence[Number] | np.ndarray | None = None,
    *,
    joint_set: str | None = None,
    focal_length: Number | None = None,
    name: str = "",
) -> Photo:
    """A photograph with what is known about the person in it, from files or arrays.

    Args:
      image: file, or RGB pixels (H, W, 3) uint8.
      keypoints: file (see `io.read_keypoints`), `Keypoints`, or an array (joints, 3) or
        (people, joints, 3) of `joint_set`. Of several people the one that `bbox` overlaps most is
        taken, without it the one of the highest mean confidence.
      bbox: file or numbers (x, y, width, height); without it the box is drawn around the
        confident keypoints as the spec says (1.2 times the larger side at the crop's aspect).
      joint_set: of an array; replaces what a file says of itself.
      focal_length: pixels; estimated as the diagonal if unknown.

    Raises:
      UserError: a file is missing or damaged; neither keypoints nor a box; a value that is not
        finite; no confident keypoint; a box without area or outside the photograph.
    """
    pixels, name = _pixels(image, name)
    if keypoints is None and bbox is None:
        raise UserError(
            f"{name}: there is nothing that says where the person is; give 2D keypoints "
            "(OpenPose JSON, for instance) or a box (x, y, width, height)"
        )
    box = None
    if bbox is not None:
        if isinstance(bbox, str | os.PathLike):
            box = read_bbox(bbox)
        else:
            box = parse_bbox(bbox, f"the box of {name}")
    points = np.zeros((49, 3), np.float32)
    if keypoints is not None:
        points = _spin49(keypoints, joint_set, box, name)
    if box is not None:
        x, y, width, height = (float(value) for value in box)
        center, scale = crops.box_from_corners(np.array([x, y, x + width, y + height]))
    else:
        center, scale = crops.box_from_keypoints(points)
        if scale <= 0:
            raise UserError(f"{name}: all confident keypoints are in one place; give a box as well")
    rows, cols = pixels.shape[:2]
    _check_box(center, scale, (rows, cols), "box" if box is not None else "keypoints", name)
    if focal_length is not None and not (np.isfinite(focal_length) and focal_length > 0):
        raise UserError(f"{name}: focal length {focal_length} is not a positive number of pixels")
    focal = float(focal_length or crops.estimate_focal_length(rows, cols))
    return Photo(pixels, points, center, scale, focal, name)


def _pixels(image: Any, name: str) -> tuple[np.ndarray, str]:
    if not isinstance(image, np.ndarray):
        return read_image(image), name or Path(image).name
    name = name or "the photograph"
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(
            f"{name}: an array {image.dtype} {image.shape} is no picture; RGB bytes (height, "
            "width, 3), uint8 from 0 to 255, are expected"
        )
    return image, name


def _spin49(keypoints: Any, joint_set: str | None, box: np.ndarray | None, name: str) -> np.ndarray:
    """One person's keypoints in the 49 slots, checked."""
    if isinstance(keypoints, str | os.PathLike):
        keypoints = read_keypoints(keypoints, joint_set)
    if isinstance(keypoints, Keypoints):
        people, joint_set = keypoints.array, keypoints.joint_set
    else:
        if joint_set is None:
            raise UserError(f'{name}: name the joint set of its keypoints, such as "coco17"')
        people = np.asarray(keypoints, np.float32)
        people = people[None] if people.ndim == 2 else people
        if people.ndim != 3 or people.shape[-1] != 3:
            raise UserError(
                f"{name}: keypoints of shape {np.shape(keypoints)}; (joints, 3) expected: x, y and "
                "confidence"
            )
    if not np.isfinite(people).all():
        _, joint, _ = np.argwhere(~np.isfinite(people))[0]
        raise UserError(
            f"{name}: keypoint {joint} is not finite; set its confidence and place to 0"
        )
    if not (people[..., 2] > 0).any():
        raise UserError(
            f"{name}: no keypoint has a confidence above 0, so nobody was found in it; run the "
            "detector again or leave the photograph out"
        )
    person = people[select_person(people, box)]
    if joint_set == "spin49" and len(person) == 49:
        return person
    return convert_keypoints(person, joint_set, "spin49").astype(np.float32)


def _check_box(
    center: np.ndarray, scale: float, image_size: tuple[int, int], what: str, name: str
) -> None:
    rows, cols = image_size
    half = crops.SCALE_UNIT * scale / 2
    # The crop is narrower than high; its height decides what is surely outside.
    outside = (center + half <= 0) | (center - half >= np.array([cols, rows]))
    if outside.any():
        raise UserError(
            f"{name}: the {what} around ({center[0]:.0f}, {center[1]:.0f}) lies outside the "
            f"photograph of {cols} x {rows} pixels; does it belong to this one?"
        )


def photo_batch(photos: Sequence[Photo], height: int, width: int) -> dict[str, np.ndarray]:
    """Photographs as a batch of crops (see `data.items.BATCH_TYPES`).

    `has_smpl` and `has_joints3d` are 1, so that the dual step of test-time optimisation takes its
    pseudo labels, as the spec says for a demonstration; `pose`, `betas` and `joints3d` are zeros
    and no ground truth.
    """
    return collate([make_item(_person(photo), height, width) for photo in photos])


def _person(photo: Photo) -> Person:
    rows, cols = photo.image.shape[:2]
    return Person(
        image=photo.image,
        offset=(0, 0),
        image_size=(rows, cols),
        keypoints2d=photo.keypoints2d,
        center=photo.center,
        scale=photo.scale,
        focal_length=photo.focal_length,
        pose=np.zeros(72, np.float32),
        betas=np.zeros(10, np.float32),
        joints3d=np.zeros((24, 4), np.float32),
        has_smpl=1,
        has_joints3d=1,
        gender=-1,
        dataset="photos",
        imgname=photo.name,
    )


def list_photos(folder: PathLike) -> list[Path]:
    """The photographs of a folder by name. Raises UserError if there is no folder or none in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder of photographs: {folder}; check the path")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no photograph ({', '.join(IMAGE_SUFFIXES)})")
    return found


def find_keypoints(photo: Path, folder: PathLike) -> Path:
    """The keypoint file of a photograph: its stem with `_keypoints`, `_openpose` or nothing."""
    for ending in _KEYPOINT_ENDINGS:
        for suffix in _KEYPOINT_SUFFIXES:
            path = Path(folder) / f"{photo.stem}{ending}{suffix}"
            if path.is_file():
                return path
    raise UserError(
        f"{photo.name} has no keypoints: {photo.stem}_keypoints.json is not in {folder}"
    )


def photo_folder_batches(
    images: PathLike,
    keypoints: PathLike,
    height: int,
    width: int,
    batch_size: int,
    *,
    joint_set: str | None = None,
    focal_length: Number | None = None,
    on_fault: Callable[[Path, UserError], None] | None = None,
) -> Iterator[tuple[list[Photo], dict[str, np.ndarray]]]:
    """A folder of photographs and one of keypoint files, as (photographs, batch), in name order.

    A photograph `a.jpg` goes with `a_keypoints.json`, `a_openpose.json` or `a.json` (also .npz,
    .npy), and with the box `a_bbox.json` where the keypoint folder has one. All batches have the
    same size: the last is filled up with copies of its last photograph, which `valid` (B,) marks.

    Args:
      on_fault: called for a photograph that cannot be used (unreadable, nobody detected, ...),
        which is then left out; without it the first such photograph raises.

    Raises:
      UserError: a folder is missing or has no photograph; see `on_fault`; nothing is left.
    """
    paths = list_photos(images)
    if not Path(keypoints).is_dir():
        raise UserError(f"no such folder of keypoints: {keypoints}; check the path")
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size} must be at least 1")
    return _folder_batches(
        paths, Path(keypoints), (height, width), batch_size, joint_set, focal_length, on_fault
    )


def _folder_batches(
    paths: list[Path],
    folder: Path,
    size: tuple[int, int],
    batch_size: int,
    joint_set: str | None,
    focal_length: Number | None,
    on_fault: Callable[[Path, UserError], None] | None,
) -> Iterator[tuple[list[Photo], dict[str, np.ndarray]]]:
    waiting: list[Photo] = []
    given = 0
    for path in paths:
        try:
            box = folder / f"{path.stem}_bbox.json"
            photo = read_photo(
                path,
                find_keypoints(path, folder),
                box if box.is_file() else None,
                joint_set=joint_set,
                focal_length=focal_length,
            )
        except UserError as error:
            if on_fault is None:
                raise
            on_fault(path, error)
            continue
        waiting.append(photo)
        if len(waiting) == batch_size:
            yield waiting, filled_batch(waiting, size, batch_size)
            given += len(waiting)
            waiting = []
    if waiting:
        yield waiting, filled_batch(waiting, size, batch_size)
    elif not given:
        raise UserError(f"none of the {len(paths)} photographs in {paths[0].parent} can be used")


def filled_batch(
    photos: Sequence[Photo], size: tuple[int, int], batch_size: int
) -> dict[str, np.ndarray]:
    """A `photo_batch` of `batch_size`: the last photograph repeats, which `valid` (B,) marks."""
    copies = [photos[-1]] * (batch_size - len(photos))
    batch = photo_batch([*photos, *copies], *size)
    batch["valid"] = np.arange(batch_size) < len(photos)
    return batch
