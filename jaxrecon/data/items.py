"""From a person's record to a training or evaluation example.

A *record* is what every human data set builder yields, one person in one photograph:

    image          encoded JPEG or PNG bytes            imgname, dataset   text
    keypoints2d    (49, 3) pixels of the full image and confidence: OpenPose's 25, then gt24
    pose           (72,) axis-angles, root in the camera frame;  betas (10,)
    joints3d       (24, 4) metres, pelvis-centred, and confidence
    has_smpl, has_joints3d   0 or 1;  gender -1 unknown, 0 male, 1 female, 2 neutral
    center (2,), scale       the file's own box (scale = side / 200), 0 if none
    focal_length   pixels, 0 if unknown;  transl (3,) metres, zeros if unknown

A *person* is the same after decoding, with its box; an *item* is a crop with its labels.
Source: Meta-HMR's published loader (spec of Meta-HMR, sections 3 and 5.4).
"""

import random as python_random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.data import augment, crops
from jaxrecon.data.augment import NO_AUGMENTATION, Augmentation
from jaxrecon.data.occlusion import Occluder, occlude
from jaxrecon.data.photometric import change_image
from jaxrecon.errors import UserError

# First of the 24 annotated joints among the 49.
_GT24 = 25
# Names of the image folders in the published layout; Python packages cannot begin with a digit.
_ALIASES = {"pw3d": "3dpw", "mpii3d": "mpi_inf_3dhp"}
# Photographs that the published loader halves after reading.
_HALVED = ("3dpw",)

# What a batch holds, in this order, and the type of each.
BATCH_TYPES: dict[str, Any] = {
    "image": np.uint8,
    "keypoints2d": np.float32,
    "keypoints2d_full": np.float32,
    "pose": np.float32,
    "betas": np.float32,
    "joints3d": np.float32,
    "has_smpl": np.int32,
    "has_joints3d": np.int32,
    "center": np.float32,
    "scale": np.float32,
    "focal_length": np.float32,
    "image_size": np.float32,
    "bbox_info": np.float32,
    "crop_trans": np.float32,
    "gender": np.int32,
}


@dataclass(frozen=True)
class Person:
    """A record after decoding; pixels are those of the frame the crop is cut from.

    `image` may be a region of the photograph: `offset` (x, y) is where it begins and
    `image_size` (h, w) the size of the whole.
    """

    image: np.ndarray
    offset: tuple[int, int]
    image_size: tuple[int, int]
    keypoints2d: np.ndarray
    center: np.ndarray
    scale: float
    focal_length: float
    pose: np.ndarray
    betas: np.ndarray
    joints3d: np.ndarray
    has_smpl: int
    has_joints3d: int
    gender: int
    dataset: str
    imgname: str


def record_from_annotations(
    arrays: Mapping[str, np.ndarray], row: int, dataset: str, image: Any = b""
) -> dict[str, Any]:
    """One row of a SPIN-style annotation file as a record (optional arrays may be absent).

    `image` is kept as given: encoded bytes, or an RGB array already decoded.
    """
    keypoints = np.zeros((49, 3))
    keypoints[_GT24:] = arrays["part"][row]
    if "openpose" in arrays:
        keypoints[:_GT24] = arrays["openpose"][row]
    has_pose = "pose" in arrays and "shape" in arrays
    has_smpl = float(arrays["has_smpl"][row]) if "has_smpl" in arrays else 1.0
    gender = -1
    if "gender" in arrays:
        gender = 0 if str(arrays["gender"][row]) == "m" else 1
    return {
        "image": image,
        "imgname": str(arrays["imgname"][row]),
        "dataset": dataset,
        "keypoints2d": keypoints,
        "pose": np.asarray(arrays["pose"][row]) if has_pose else np.zeros(72),
        "betas": np.asarray(arrays["shape"][row][:10]) if has_pose else np.zeros(10),
        "joints3d": np.asarray(arrays["S"][row]) if "S" in arrays else np.zeros((24, 4)),
        "has_smpl": int(has_pose and has_smpl > 0),
        "has_joints3d": int("S" in arrays),
        "gender": gender,
        "center": np.asarray(arrays["center"][row]) if "center" in arrays else np.zeros(2),
        "scale": float(arrays["scale"][row]) if "scale" in arrays else 0.0,
        "focal_length": float(arrays["focal_length"][row]) if "focal_length" in arrays else 0.0,
        "transl": np.zeros(3),
    }


def decode_photo(encoded: Any, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of encoded bytes; an array is taken as RGB already."""
    if isinstance(encoded, np.ndarray) and encoded.ndim == 3:
        return encoded
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(
            f"{name}: the image cannot be decoded; the data set is damaged, build it again"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def person_from_record(record: Mapping[str, Any], box: str = "keypoints") -> Person:
    """Decode a record and find its box.

    `box` is "keypoints" (around the annotated ones, as published; the file's own box where none
    is confident) or "file" (a detector's). 3DPW's photographs are halved, with all that is in
    pixels. Raises UserError for an image that cannot be decoded or a person without any box.
    """
    name, dataset = _text(record["imgname"]), canonical_name(_text(record["dataset"]))
    image = decode_photo(record["image"], name)
    keypoints = np.array(record["keypoints2d"])
    center, scale = np.array(record["center"], np.float64), float(record["scale"])
    focal = float(record["focal_length"])
    if dataset in _HALVED:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2))
        keypoints[:, :2] /= 2
        center, scale, focal = center / 2, scale / 2, focal / 2
    center, scale = _find_box(keypoints, center, scale, box, name)
    height, width = image.shape[:2]
    return Person(
        image=image,
        offset=(0, 0),
        image_size=(height, width),
        keypoints2d=keypoints,
        center=center,
        scale=scale,
        focal_length=focal if focal > 0 else crops.estimate_focal_length(height, width),
        pose=np.asarray(record["pose"], np.float32),
        betas=np.asarray(record["betas"], np.float32),
        joints3d=np.asarray(record["joints3d"]),
        has_smpl=int(record["has_smpl"]),
        has_joints3d=int(record["has_joints3d"]),
        gender=int(record["gender"]),
        dataset=dataset,
        imgname=name,
    )


def canonical_name(dataset: str) -> str:
    """A data set's name without case, dashes and protocol: "h36m-p2" is "h36m"."""
    name = dataset.lower().replace("-", "_")
    name = name[:-3] if name.endswith(("_p1", "_p2")) else name
    return _ALIASES.get(name, name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _find_box(
    keypoints: np.ndarray, center: np.ndarray, scale: float, box: str, name: str
) -> tuple[np.ndarray, float]:
    if box not in ("keypoints", "file"):
        raise UserError(f"box: {box!r} is unknown; choose 'keypoints' or 'file'")
    if not np.isfinite(keypoints).all():
        raise UserError(f"{name}: a 2D keypoint is not finite; repair or remove the record")
    has_file_box = np.isfinite(center).all() and np.isfinite(scale) and scale > 0
    annotated = keypoints[_GT24:]
    if box == "keypoints" and (annotated[:, 2] > 0).any():
        return crops.box_from_keypoints(annotated)
    if has_file_box:
        return center, scale
    try:
        return crops.box_from_keypoints(keypoints)
    except UserError as error:
        raise UserError(f"{name}: no box in the record and no confident 2D keypoint") from error


def crop_region(person: Person, height: int, width: int, margin: float) -> Person:
    """The person with only the pixels that any augmentation can reach, for a cache.

    `margin` is the largest factor of the box; any rotation is covered.
    """
    box_height = crops.SCALE_UNIT * person.scale * margin
    # Half the diagonal of the crop, and room for interpolation.
    reach = 0.5 * box_height * np.hypot(1.0, width / height) + 3
    rows, cols = person.image_size
    x0, y0 = (int(max(0, np.floor(v - reach))) for v in person.center)
    x1, y1 = (int(min(limit, np.ceil(v + reach))) for v, limit in zip(person.center, (cols, rows)))
    if x1 <= x0 or y1 <= y0:  # the box lies outside the photograph: one black pixel will do
        x0, y0, x1, y1 = 0, 0, 1, 1
    return replace(person, image=person.image[y0:y1, x0:x1].copy(), offset=(x0, y0))


def make_item(
    person: Person,
    height: int,
    width: int,
    augmentation: Augmentation = NO_AUGMENTATION,
    occluders: Sequence[Occluder] | None = None,
    random: np.random.RandomState | None = None,
    choice: python_random.Random | None = None,
) -> dict[str, Any]:
    """Crop and labels of one person: flip, matrices, labels, warp, changes, occlusion, gains.

    With `occluders`, both generators are needed (see `occlusion.occlude`).
    Returns the entries of a batch (`BATCH_TYPES`) for one example, and `full_trans` (2, 3): full
    image -> crop with the rotation, which the image and `keypoints2d` went through, whereas
    `crop_trans` has none. Geometry is float64; `collate` makes it float32.
    """
    image, (x0, y0) = person.image, person.offset
    rows, cols = person.image_size
    center = person.center
    scale = person.scale * augmentation.scale
    keypoints, pose, joints3d = person.keypoints2d, person.pose, person.joints3d
    if not person.has_smpl:
        pose = np.zeros_like(pose)
    if augmentation.flip:
        center = np.array([cols - 1 - center[0], center[1]])
        image, x0 = cv2.flip(image, 1), cols - x0 - image.shape[1]
        keypoints = augment.flip_keypoints(keypoints, cols)
        joints3d = augment.flip_joints(joints3d)
        pose = augment.flip_pose(pose)
    full_trans = crops.crop_matrix(center, scale, height, width, augmentation.rotation)
    crop_trans = full_trans
    if augmentation.rotation:
        crop_trans = crops.crop_matrix(center, scale, height, width)
        joints3d = augment.rotate_joints(joints3d, augmentation.rotation)
    pose = augment.rotate_pose(pose, augmentation.rotation)

    crop = crops.warp_crop(image, full_trans, height, width, (x0, y0))
    crop = change_image(crop, augmentation.changes)
    if occluders:
        if random is None or choice is None:
            raise ValueError("occlusion needs both random generators")
        crop = occlude(crop, occluders, random, choice)
    if augmentation.gains != (1.0, 1.0, 1.0):
        crop = augment.scale_channels(crop, augmentation.gains)

    cropped = keypoints.astype(np.float64)
    cropped[:, :2] = crops.apply_affine(full_trans, cropped[:, :2])
    size = np.array(person.image_size, np.float64)
    return {
        "image": crop,
        "keypoints2d": cropped,
        "keypoints2d_full": keypoints,
        "pose": pose,
        "betas": person.betas if person.has_smpl else np.zeros_like(person.betas),
        "joints3d": joints3d,
        "has_smpl": person.has_smpl,
        "has_joints3d": person.has_joints3d,
        "center": center,
        "scale": scale,
        "focal_length": person.focal_length,
        "image_size": size,
        "bbox_info": crops.box_information(center, scale, size, person.focal_length),
        "crop_trans": crop_trans,
        "gender": person.gender,
        "full_trans": full_trans,
    }


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Items as a batch: (B, ...) arrays of the types in `BATCH_TYPES`, plus any `valid`, `index`.

    `image` stays uint8 (B, h, w, 3); the network normalises it on the device.
    """
    batch = {}
    for key, dtype in BATCH_TYPES.items():
        batch[key] = np.array([item[key] for item in items], dtype=dtype)
    for key, dtype in (("valid", np.bool_), ("index", np.int32)):
        if key in items[0]:
            batch[key] = np.array([item[key] for item in items], dtype=dtype)
    return batch
