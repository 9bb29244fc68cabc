"""Detected joints beside an annotation: OpenPose's JSON files, one for each image.

Source: spec of Meta-HMR, section 7 (OpenPose joints).
"""

from pathlib import Path, PurePosixPath

import numpy as np
from jaxrecon.datasets_builders.people.annotations import Annotations
from jaxrecon.datasets_builders.people.joints import nearest_detection

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.keypoint_files import read_json, read_keypoints, select_person

OPENPOSE_FOLDER = "openpose"
_ENDING = "_keypoints.json"


def with_openpose(annotations: Annotations, folder: Path) -> Annotations:
    """Annotations with the joints that OpenPose found, unless they have some already.

    The file of `a/b.jpg` is `a/b_keypoints.json` or `b_keypoints.json` in the folder. Of several
    people the one nearest to the annotation is taken, or in its box if it has no joints; zeros
    where nobody was found, or no file is.

    Raises:
      UserError: a file is damaged, of another joint set, or no image has one.
    """
    if "openpose" in annotations.fields:
        return annotations
    names = annotations.fields["imgname"].tolist()
    joints = np.zeros((len(names), 25, 3), np.float32)
    found: dict[str, np.ndarray | None] = {}
    for row, name in enumerate(names):
        if name not in found:
            found[name] = _people(folder, PurePosixPath(name))
        people = found[name]
        if people is None or not len(people):
            continue
        if "part" in annotations.fields:
            joints[row] = nearest_detection(people, annotations.fields["part"][row])
        else:
            joints[row] = _in_box(
                people, *(annotations.fields[k][row] for k in ("center", "scale"))
            )
    if all(people is None for people in found.values()):
        raise UserError(
            f"{folder} has no detected joints for the images of {annotations.source}; "
            f"{PurePosixPath(names[0]).stem}{_ENDING} is expected, or no such folder"
        )
    return Annotations({**annotations.fields, "openpose": joints}, annotations.source)


def _people(folder: Path, name: PurePosixPath) -> np.ndarray | None:
    """(P, 25, 3) of one image, or None without a file."""
    for path in (folder / name.parent / f"{name.stem}{_ENDING}", folder / f"{name.stem}{_ENDING}"):
        if not path.is_file():
            continue
        content = read_json(existing_file(path, "keypoint file"), "keypoint file")
        if isinstance(content, dict) and content.get("people") == []:
            return np.zeros((0, 25, 3), np.float32)
        keypoints = read_keypoints(path)
        if keypoints.joint_set != "openpose25":
            raise UserError(f"{path} has joints of {keypoints.joint_set!r}; BODY_25 is needed")
        return keypoints.array
    return None


def _in_box(people: np.ndarray, center: np.ndarray, scale: np.float32) -> np.ndarray:
    """The person who overlaps a box most, zeros if nobody does."""
    side = np.full(2, 200 * scale)
    try:
        return people[select_person(people, np.concatenate([center - side / 2, side]))]
    except UserError:
        return np.zeros((25, 3), np.float32)
