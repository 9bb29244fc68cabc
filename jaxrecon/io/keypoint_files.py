"""2D keypoints and boxes from files: OpenPose, COCO, and plain arrays."""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file

_OPENPOSE_SETS = {25: "openpose25", 18: "coco18"}
ARRAY_KEYS = ("keypoints", "keypoints2d", "keypoints_2d", "joints2d")


@dataclass(frozen=True)
class Keypoints:
    """What a file says about the people in one picture.

    Attributes:
      joint_set: the name of their joint set (see `jaxrecon.bodies.joints`).
      array: (people, joints, 3) float32: x, y in pixels and confidence, 0 for a missing joint.
      left_hand, right_hand: (people, 21, 3) the same for the hands, where the file has them.
    """

    joint_set: str
    array: np.ndarray
    left_hand: np.ndarray | None = None
    right_hand: np.ndarray | None = None


def read_keypoints(
    path: str | os.PathLike[str], joint_set: str | None = None, image: str | int | None = None
) -> Keypoints:
    """The 2D keypoints of the people in one picture.

    Reads
      * OpenPose JSON (`people` with `pose_keypoints_2d`): BODY_25 as "openpose25", COCO as
        "coco18"; hands are kept;
      * COCO keypoint annotations (`annotations`, 17 points, visibility made confidence 0 or 1) and
        COCO results (a list, third value taken as confidence) as "coco17";
      * arrays (people, joints, 3 or 2) or (joints, 3 or 2) in .npz or .json under `keypoints` (with
        their set's name under `joint_set`), and bare ones in .npy or .json.

    Args:
      path: the file.
      joint_set: the set of an array that does not name its own; overrides the set of the others.
      image: file name or id of the picture, where a COCO file has several.

    Raises:
      UserError: the file is missing, a folder, empty, damaged or of another format; nobody is in
        it; a person has the wrong number of joints or a value that is not finite.
    """
    file = existing_file(path, "keypoint file")
    if file.suffix.lower() in (".npz", ".npy"):
        found = _plain(file, *read_arrays(file, joint_set))
    else:
        found = parse_json(file, read_json(file, "keypoint file"), joint_set, image)
    if joint_set is not None and joint_set != found.joint_set:
        found = Keypoints(joint_set, found.array, found.left_hand, found.right_hand)
    if len(found.array) == 0:
        raise UserError(f"{file} holds no person: nobody was detected in this picture")
    _check_values(file, found.array)
    return found


def select_person(
    keypoints: Float32[np.ndarray, "people joints 3"],
    bbox: Float[np.ndarray, "4"] | None = None,
    near: Float[np.ndarray, "joints 3"] | None = None,
) -> int:
    """Which of several people is meant.

    Args:
      keypoints: (people, joints, 3) pixels and confidence.
      bbox: (x, y, width, height); chooses the person whose extent overlaps it most (by
        intersection over union).
      near: (joints, 3) an annotation of the same joints; chooses the person whose joints are
        nearest to it on average, over those that both have.
      With neither, the person of the highest mean confidence.

    Returns:
      the index of the person.

    Raises:
      UserError: there is nobody, nobody overlaps the box or shares a joint with the annotation.
    """
    seen = keypoints[..., 2] > 0
    if not seen.any():
        raise UserError("no keypoint has any confidence: nobody was detected in this picture")
    if near is not None:
        both = seen & (near[:, 2] > 0)
        if not both.any():
            raise UserError("no detected person shares a joint with the annotation")
        distance = np.linalg.norm(keypoints[..., :2] - near[:, :2], axis=-1)
        total = np.where(both, distance, 0).sum(1)
        return int(np.argmin(np.where(both.any(1), total / np.maximum(both.sum(1), 1), np.inf)))
    if bbox is not None:
        overlap = _overlap(keypoints[..., :2], seen, np.asarray(bbox, np.float64))
        if overlap.max() <= 0:
            raise UserError(
                f"no detected person overlaps the box {np.round(bbox, 1).tolist()} (x, y, w, h)"
            )
        return int(np.argmax(overlap))
    return int(np.argmax(keypoints[..., 2].mean(1)))


def read_bbox(path: str | os.PathLike[str]) -> Float32[np.ndarray, "4"]:
    """A box (x, y, width, height) in pixels from JSON: `[x, y, w, h]` or `{"bbox": [...]}`.

    Raises:
      UserError: no such file, no JSON, not four finite numbers, or no area.
    """
    file = existing_file(path, "box file")
    content = read_json(file, "box file")
    return parse_bbox(content.get("bbox") if isinstance(content, dict) else content, str(file))


def parse_bbox(values: Any, name: str = "the box") -> Float32[np.ndarray, "4"]:
    """Four numbers (x, y, width, height) as an array, checked; `name` is for the message."""
    try:
        box = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        box = np.zeros(0, np.float32)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise UserError(f'{name} is not a box: [x, y, width, height] or {{"bbox": [...]}} expected')
    if box[2] <= 0 or box[3] <= 0:
        raise UserError(f"{name} has no area: width {box[2]:g}, height {box[3]:g}")
    return box


def keypoints_bbox(keypoints: Float[np.ndarray, "joints 3"]) -> Float32[np.ndarray, "4"]:
    """The extent (x, y, width, height) of one person's joints that have a confidence.

    Raises:
      UserError: fewer than two joints have one.
    """
    points = keypoints[keypoints[:, 2] > 0, :2]
    if len(points) < 2:
        raise UserError("fewer than two keypoints have any confidence: give a box as well")
    low, high = points.min(0), points.max(0)
    return np.concatenate([low, high - low]).astype(np.float32)


def read_json(file: Path, what: str) -> Any:
    """The content of a JSON file, with one line for what is not JSON."""
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} {file} is not valid JSON ({error}); write it again") from error


def parse_json(file: Path, content: Any, joint_set: str | None, image: Any) -> Keypoints:
    """Keypoints from the content of a JSON file; `read_keypoints` without its last checks."""
    if isinstance(content, dict) and "people" in content:
        return _openpose(file, content["people"])
    if isinstance(content, dict) and "annotations" in content:
        return _coco(file, content, image)
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if "keypoints" in content[0]:
            return _coco(file, {"annotations": content}, image)
    elif isinstance(content, list):
        return _plain(file, content, joint_set)
    if isinstance(content, dict):
        for key in ARRAY_KEYS:
            if key in content:
                return _plain(file, content[key], content.get("joint_set", joint_set))
    if content in ({}, [], None):
        raise UserError(f"the keypoint file {file} is empty: it has no people and no keypoints")
    raise UserError(
        f"{file} holds no keypoints of a known layout: OpenPose ('people'), COCO ('annotations') "
        "or an array under 'keypoints' expected"
    )


def _openpose(file: Path, people: Any) -> Keypoints:
    if not isinstance(people, list):
        raise UserError(f"{file}: 'people' is not a list")
    poses: list[np.ndarray] = []
    hands: dict[str, list[np.ndarray]] = {"left": [], "right": []}
    for index, person in enumerate(people):
        where = f"{file}: person {index}"
        if not isinstance(person, dict):
            raise UserError(f"{where} is not an object with 'pose_keypoints_2d'")
        values = person.get("pose_keypoints_2d", person.get("pose_keypoints"))
        if values is None:
            raise UserError(f"{where} has no 'pose_keypoints_2d'")
        poses.append(_triples(where, values, _OPENPOSE_SETS))
        for side, found in hands.items():
            values = person.get(f"hand_{side}_keypoints_2d")
            if values:
                found.append(_triples(f"{where}, {side} hand", values, {21: "hand"}))
            else:
                found.append(np.zeros((21, 3), np.float32))
    if len({len(pose) for pose in poses}) > 1:
        raise UserError(f"{file}: its people have different numbers of joints")
    array = np.stack(poses) if poses else np.zeros((0, 25, 3), np.float32)
    left, right = (np.stack(h) if np.any(h) else None for h in hands.values())
    return Keypoints(_OPENPOSE_SETS[array.shape[1]], array, left, right)


def _triples(where: str, values: Any, sets: dict[int, str]) -> np.ndarray:
    expected = " or ".join(f"{3 * n} ({name})" for n, name in sets.items())
    array = numbers(where, values).ravel()
    if array.size not in [3 * n for n in sets]:
        raise UserError(f"{where} has {array.size} keypoint numbers; {expected} expected")
    return array.reshape(-1, 3)


def _coco(file: Path, content: dict[str, Any], image: str | int | None) -> Keypoints:
    entries = content["annotations"]
    images = content.get("images", [])
    for key, rows in (("annotations", entries), ("images", images)):
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{file}: its {key!r} are not a list of objects")
    names = {i.get("id"): str(i.get("file_name", "")) for i in images}
    ids = sorted({e.get("image_id") for e in entries}, key=str)
    if image is not None:
        wanted = [i for i in ids if str(i) == str(image) or Path(names.get(i, "")).name == image]
        if not wanted:
            known = ", ".join(str(names.get(i) or i) for i in ids[:5])
            raise UserError(f"{file} has no image {image!r}; it has {known}")
        entries = [e for e in entries if e.get("image_id") in wanted]
    elif len(ids) > 1:
        known = ", ".join(str(names.get(i) or i) for i in ids[:5])
        raise UserError(f"{file} has {len(ids)} images ({known} ...): say which one is meant")
    is_results = "images" not in content
    people: list[np.ndarray] = []
    for entry in entries:
        if not entry.get("keypoints") or (not is_results and entry.get("num_keypoints") == 0):
            continue  # a box without points
        where = f"{file}: annotation {entry.get('id', len(people))}"
        points = _triples(where, entry["keypoints"], {17: "coco17"})
        if not is_results:  # 1 is labelled but hidden, 2 labelled and visible
            points[:, 2] = points[:, 2] > 0
        people.append(points)
    return Keypoints("coco17", np.stack(people) if people else np.zeros((0, 17, 3), np.float32))


def read_arrays(file: Path, joint_set: str | None) -> tuple[np.ndarray, str | None]:
    """The keypoint array of an .npy or .npz as it is, and the name of its joint set if known."""
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            content = loaded if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file} is not a readable keypoint file: truncated, damaged or of another format "
            f"({error}); write it again"
        ) from error
    if isinstance(content, np.ndarray):
        return content, joint_set
    for key in ARRAY_KEYS:
        if key in content:
            return content[key], str(content["joint_set"]) if "joint_set" in content else joint_set
    raise UserError(
        f"{file} has no array named {' or '.join(ARRAY_KEYS)}; it has {', '.join(content)}"
    )


def _plain(file: Path, values: Any, joint_set: str | None) -> Keypoints:
    array = numbers(str(file), values)
    if array.size == 0:
        raise UserError(f"{file} holds no person: its array of keypoints is empty")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[2] not in (2, 3):
        raise UserError(
            f"{file} has keypoints of shape {array.shape}; (people, joints, 3) expected: x, y and "
            "confidence"
        )
    if not isinstance(joint_set, str):
        raise UserError(
            f"{file} does not name the joint set of its {array.shape[1]} joints: add it as "
            "'joint_set', for example \"coco17\""
        )
    if array.shape[2] == 2:
        array = np.concatenate([array, np.ones_like(array[..., :1])], -1)
    return Keypoints(joint_set, array)


def numbers(where: str, values: Any) -> np.ndarray:
    """A regular list of numbers as a float32 array; `where` is for the message."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu" and array.size:
            raise ValueError
        return array.astype(np.float32)
    except ValueError:
        raise UserError(f"{where}: its keypoints are not a regular list of numbers") from None


def _check_values(file: Path, array: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        person, joint, channel = bad[0]
        raise UserError(
            f"{file}: person {person}, joint {joint} has a {['x', 'y', 'confidence'][channel]} "
            f"that is not a finite number ({len(bad)} such values in the file)"
        )
    if (array[..., 2] < 0).any():
        person, joint = np.argwhere(array[..., 2] < 0)[0]
        raise UserError(f"{file}: person {person}, joint {joint} has a negative confidence")


def _overlap(points: np.ndarray, seen: np.ndarray, bbox: np.ndarray) -> np.ndarray:
    """Intersection over union of each person's extent with the box; 0 for a person unseen."""
    low = np.where(seen[..., None], points, np.inf).min(1)
    high = np.where(seen[..., None], points, -np.inf).max(1)
    nobody = ~np.any(seen, axis=1)
    low[nobody] = high[nobody] = 0
    inner = np.minimum(high, bbox[:2] + bbox[2:]) - np.maximum(low, bbox[:2])
    shared = np.prod(np.maximum(inner, 0), axis=1)
    return shared / (np.prod(high - low, axis=1) + bbox[2] * bbox[3] - shared)
