"""2D keypoints of many pictures: a folder of files, one file with a leading frame axis, or arrays.

Each frame gets its `Keypoints`, or the reason why it has none: a sequence with gaps is usual.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.frames import FrameSource, natural_key
from jaxrecon.io.keypoint_files import (
    ARRAY_KEYS,
    Keypoints,
    numbers,
    parse_json,
    read_arrays,
    read_json,
    read_keypoints,
)

PathLike = str | os.PathLike[str]
FrameKeypoints = Keypoints | str  # of one frame, or why there are none

_SUFFIXES = (".json", ".npz", ".npy")
_ENDING = re.compile(r"_(keypoints|openpose)$")
_NUMBERED = re.compile(r"^(?P<prefix>.*?)[_\-. ]?(?P<number>\d+)$")
_NOBODY = "nobody was detected"


def read_keypoint_frames(
    keypoints: Any, frames: FrameSource, joint_set: str | None = None
) -> list[FrameKeypoints]:
    """The keypoints of each frame.

    Args:
      keypoints: one of
        * a folder of files, one a frame. For images `a.jpg` goes with `a_keypoints.json`,
          `a_openpose.json` or `a.json` (also .npz, .npy); where no name fits, as many files as
          images go by order. For a video the number at the end of the name is the frame's, as
          OpenPose counts: `name_000000000000_keypoints.json` (from 0, or from 1);
        * a file: an array (frames, joints, 3) or (frames, people, joints, 3) in .npy, .npz or
          .json, or a COCO file that names the images;
        * such an array; a frame that is all NaN has nobody;
        * a sequence with one file, array, `Keypoints` or None for each frame.
      frames: what they belong to.
      joint_set: of arrays that do not name their own; overrides the set of the others.

    Raises:
      UserError: nothing there, a number of files or frames that does not fit, an unreadable
        file where there is only one, an array without a joint set.
    """
    if isinstance(keypoints, np.ndarray):
        return _from_array("the keypoints", keypoints, joint_set, frames)
    if isinstance(keypoints, list | tuple):
        return _from_list(keypoints, joint_set, frames)
    path = Path(keypoints)
    if path.is_dir():
        return _from_folder(path, joint_set, frames)
    return _from_file(existing_file(path, "keypoint file"), joint_set, frames)


def nobody(found: Sequence[FrameKeypoints]) -> str:
    """The first reason of frames that have no keypoints; empty where one has some."""
    if any(isinstance(entry, Keypoints) for entry in found):
        return ""
    return str(found[0]) if found else _NOBODY


def _from_folder(folder: Path, joint_set: str | None, frames: FrameSource) -> list[FrameKeypoints]:
    files = sorted(
        (p for p in folder.iterdir() if _is_keypoint_file(p)), key=lambda p: natural_key(p.name)
    )
    if not files:
        raise UserError(
            f"the folder {folder} holds no keypoint file ({', '.join(_SUFFIXES)}): one for each "
            f"frame of {frames.title} is needed"
        )
    if frames.kind == "video":
        places = _by_number(folder, files, frames)
    else:
        places = _by_name(folder, files, frames)
    return [
        f"no keypoint file in {folder}" if path is None else _one(path, joint_set)
        for path in places
    ]


def _is_keypoint_file(path: Path) -> bool:
    known = path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    return known and not path.stem.endswith("_bbox")


def _by_name(folder: Path, files: list[Path], frames: FrameSource) -> list[Path | None]:
    """The file of each image, by its stem; by order where no name fits."""
    known: dict[str, Path] = {}
    for path in files:
        for stem in (path.stem, _ENDING.sub("", path.stem)):
            known.setdefault(stem, path)
    stems = frames.names
    if frames.kind == "folder":
        stems = tuple(Path(item).stem for item in frames.content)
    places = [known.get(stem) for stem in stems]
    if any(places):
        return places
    if len(files) == len(frames):
        return list(files)
    raise UserError(
        f"the keypoint folder {folder} has {len(files)} files, {frames.title} has {len(frames)} "
        f"images, and no name fits: {stems[0]}_keypoints.json is expected for {stems[0]}"
    )


def _by_number(folder: Path, files: list[Path], frames: FrameSource) -> list[Path | None]:
    """The file of each frame of a video, by the number at the end of its name."""
    count = len(frames)
    found: list[tuple[str, int, Path]] = []
    for path in files:
        match = _NUMBERED.match(_ENDING.sub("", path.stem))
        if match:
            found.append((match["prefix"], int(match["number"]), path))
    prefixes = Counter(prefix for prefix, _, _ in found)
    if len(prefixes) > 1:
        if frames.stem not in prefixes:
            raise UserError(
                f"the keypoint folder {folder} holds files of several videos "
                f"({', '.join(sorted(prefixes)[:4])}), none named as {frames.stem}; give one "
                "folder for each"
            )
        found = [entry for entry in found if entry[0] == frames.stem]
    fault = (
        f"the keypoint folder {folder} has {len(found) or len(files)} files, but {frames.title} "
        f"has {count} frames; give one file a frame (without people where nobody is seen)"
    )
    if not found:
        if len(files) != count:
            raise UserError(fault)
        return list(files)
    numbered = {number: path for _, number, path in found}
    first = 1 if min(numbered) == 1 and max(numbered) == count else 0
    # A gap may be a frame without people; an end that does not fit is another video.
    if len(numbered) != len(found) or max(numbered) - first != count - 1:
        raise UserError(fault)
    return [numbered.get(i + first) for i in range(count)]


def _one(path: Path, joint_set: str | None) -> FrameKeypoints:
    try:
        return read_keypoints(path, joint_set)
    except UserError as error:
        # The usual case is a file without people, which needs no path in the message.
        return _NOBODY if "holds no person" in str(error) else str(error)


def _from_file(file: Path, joint_set: str | None, frames: FrameSource) -> list[FrameKeypoints]:
    if file.suffix.lower() in (".npy", ".npz"):
        array, joint_set_read = read_arrays(file, joint_set)
        return _from_array(str(file), array, joint_set or joint_set_read, frames)
    content = read_json(file, "keypoint file")
    if isinstance(content, dict):
        for key in ARRAY_KEYS:
            if key in content:
                named = joint_set or content.get("joint_set")
                return _from_array(str(file), numbers(str(file), content[key]), named, frames)
    nested = isinstance(content, list) and content and isinstance(content[0], list)
    if nested:
        return _from_array(str(file), numbers(str(file), content), joint_set, frames)
    if frames.kind == "folder" and not (isinstance(content, dict) and "people" in content):
        return [_coco(file, content, joint_set, Path(item).name) for item in frames.content]
    if len(frames) == 1:
        return [read_keypoints(file, joint_set)]
    raise UserError(
        f"{file} holds the keypoints of one picture, but {frames.title} has {len(frames)} frames; "
        "give a folder with one file a frame, or an array (frames, joints, 3)"
    )


def _coco(file: Path, content: Any, joint_set: str | None, image: str) -> FrameKeypoints:
    try:
        found = parse_json(file, content, joint_set, image)
    except UserError as error:
        if "has no image" in str(error):
            return _NOBODY
        raise
    return found if len(found.array) else _NOBODY


def _from_array(
    where: str, values: np.ndarray, joint_set: str | None, frames: FrameSource
) -> list[FrameKeypoints]:
    array = numbers(where, values)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[3] not in (2, 3):
        raise UserError(
            f"{where}: shape {np.shape(values)}; (frames, joints, 3) or (frames, people, joints, "
            "3) expected: x, y and confidence"
        )
    if len(array) != len(frames):
        raise UserError(
            f"{where}: keypoints of {len(array)} frames, but {frames.title} has {len(frames)}; "
            "give as many"
        )
    if not isinstance(joint_set, str):
        raise UserError(
            f'{where}: name the joint set of its {array.shape[2]} joints, such as "coco17"'
        )
    if array.shape[3] == 2:
        seen = np.isfinite(array).all(-1, keepdims=True)
        array = np.concatenate([array, np.where(seen, 1.0, np.nan)], -1).astype(np.float32)
    return [_checked(where, i, people, joint_set) for i, people in enumerate(array)]


def _checked(where: str, frame: int, people: np.ndarray, joint_set: str) -> FrameKeypoints:
    people = people[~np.isnan(people).all((1, 2))]
    if not np.isfinite(people).all():
        person, joint, _ = np.argwhere(~np.isfinite(people))[0]
        raise UserError(
            f"{where}: frame {frame}, person {person}, joint {joint} is not finite; set its place "
            "and confidence to 0 (all joints of a frame may be NaN: nobody)"
        )
    if (people[..., 2] < 0).any():
        raise UserError(f"{where}: frame {frame} has a negative confidence")
    if not (people[..., 2] > 0).any():
        return _NOBODY
    return Keypoints(joint_set, people)


def _from_list(
    entries: Sequence[Any], joint_set: str | None, frames: FrameSource
) -> list[FrameKeypoints]:
    if len(entries) != len(frames):
        raise UserError(
            f"keypoints of {len(entries)} frames, but {frames.title} has {len(frames)}; give as "
            "many (None where there is nobody)"
        )
    found: list[FrameKeypoints] = []
    for i, entry in enumerate(entries):
        if entry is None:
            found.append(_NOBODY)
        elif isinstance(entry, Keypoints):
            found.append(entry if len(entry.array) else _NOBODY)
        elif isinstance(entry, str | os.PathLike):
            found.append(_one(Path(entry), joint_set))
        else:
            if joint_set is None:
                raise UserError('name the joint set of the keypoints, such as "coco17"')
            people = numbers(f"the keypoints of frame {i}", entry)
            people = people[None] if people.ndim == 2 else people
            if people.ndim != 3 or people.shape[2] != 3:
                raise UserError(
                    f"the keypoints of frame {i} have shape {people.shape}; (joints, 3) expected"
                )
            found.append(_checked("the keypoints", i, people, joint_set))
    return found
