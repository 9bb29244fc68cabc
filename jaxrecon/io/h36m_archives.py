"""Human3.6M in the archives of VideoPose3D: skeleton, cameras, clips (spec mhr_net, 7.1 to 7.3).

`data_3d_h36m.npz` holds world positions (metres, 32 joints, 50 Hz), `data_2d_h36m_<source>.npz`
pixels of the 17 joints in four cameras; both are dictionaries by subject and action.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.npz_objects import read_npz

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
# The 32 joints of the motion capture, and the 17 of them that are used.
PARENTS32 = (
    -1, 0, 1, 2, 3, 3, 0, 6, 7, 8, 8, 0, 0, 12, 13, 14, 12, 12, 17, 18, 19, 19, 19, 19, 12, 12,
    25, 26, 27, 27, 27, 27,
)  # fmt: skip
KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
LEFT32 = (6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23)
RIGHT32 = (1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29, 30, 31)
SHOULDERS, THORAX = (11, 14), 8
# Bones that are as long on both sides: (ends of the left, ends of the right).
BONE_PAIRS = (
    (8, 11, 8, 14), (11, 12, 14, 15), (12, 13, 15, 16), (0, 4, 0, 1), (4, 5, 1, 2), (5, 6, 2, 3),
)  # fmt: skip
REMEDY = (
    "Human3.6M needs registration at vision.imar.ro/human3.6m; make the archives from its "
    "D3_Positions files, and name their folder in config.data.path"
)


@dataclasses.dataclass(frozen=True)
class Clip:
    """One take of one subject in one camera.

    Attributes:
      subject, action, camera: "S9", "Walking 1", 0 to 3.
      keypoints2d: (T, 17, 2) float32 pixels.
      joints3d: (T, 17, 3) float32 metres in the frame of the camera, absolute.
      intrinsics: (9,) float32, see `intrinsics9`.
    """

    subject: str
    action: str
    camera: int
    keypoints2d: np.ndarray
    joints3d: np.ndarray
    intrinsics: np.ndarray


def parents17(rewired: bool = True) -> np.ndarray:
    """Parents of the 17 kept joints; the shoulders hang on the thorax unless not `rewired`."""
    place = {joint: i for i, joint in enumerate(KEPT)}
    parents = []
    for joint in KEPT:
        above = PARENTS32[joint]
        while above >= 0 and above not in place:
            above = PARENTS32[above]
        parents.append(place.get(above, -1))
    if rewired:
        for joint in SHOULDERS:
            parents[joint] = THORAX
    return np.array(parents)


def sides17() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the (left, right) joints among the 17, each in order."""
    left = [i for i, joint in enumerate(KEPT) if joint in LEFT32]
    right = [i for i, joint in enumerate(KEPT) if joint in RIGHT32]
    return np.array(left), np.array(right)


def adjacency(parents: np.ndarray) -> np.ndarray:
    """(J, J) neighbours and self, rows summing to 1."""
    matrix = np.eye(len(parents), dtype=np.float32)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            matrix[joint, parent] = matrix[parent, joint] = 1
    return matrix / matrix.sum(1, keepdims=True)


@functools.lru_cache(maxsize=1)
def cameras() -> Mapping[str, Any]:
    """Constants of the four cameras: intrinsics, and extrinsics by subject."""
    text = resources.files("jaxrecon.io").joinpath("h36m_cameras.json").read_text()
    return json.loads(text)


def intrinsics9(camera: int) -> np.ndarray:
    """fx, fy (pixels), cx, cy (normalised to the screen), k1, k2, k3, p1, p2 (7.3)."""
    c = cameras()["intrinsics"][camera]
    width, height = c["res_w"], c["res_h"]
    center = np.array(c["center"], np.float32) / width * 2 - np.array([1, height / width])
    parts = [c["focal_length"], center, c["radial_distortion"], c["tangential_distortion"]]
    return np.concatenate([np.asarray(p, np.float32) for p in parts]).astype(np.float32)


def extrinsics(subject: str, camera: int) -> tuple[np.ndarray, np.ndarray]:
    """(orientation quaternion, position in metres).

    Raises:
      UserError: a subject whose cameras are not known.
    """
    known = cameras()["extrinsics"]
    if subject not in known or len(known[subject]) <= camera:
        raise UserError(
            f"there is no camera {camera} of subject {subject!r}; the subjects with four cameras "
            "are " + ", ".join(known)
        )
    c = known[subject][camera]
    position = np.asarray(c["translation"], np.float32) / 1000
    return np.asarray(c["orientation"], np.float32), position


def read_clips(
    folder: str | Path,
    keypoints: str = "gt",
    subjects: Sequence[str] = TRAIN_SUBJECTS,
    actions: Sequence[str] = (),
) -> Iterator[Clip]:
    """Clips in the published order: subjects as given, actions as in the 2D archive, cameras.

    Args:
      folder: of `data_3d_h36m.npz` and `data_2d_h36m_<keypoints>.npz`.
      keypoints: "gt", "cpn_ft_h36m_dbb", ...
      actions: names that a clip's action must begin with; all by default.

    Raises:
      UserError: archives that are missing, damaged or do not fit each other.
    """
    world = read_archive(Path(folder) / "data_3d_h36m.npz", "positions_3d")
    pixels = read_archive(Path(folder) / f"data_2d_h36m_{keypoints}.npz", "positions_2d")
    for subject in subjects:
        if subject not in pixels:
            raise UserError(
                f"{folder}: there is no subject {subject!r} in the 2D archive; it has "
                + ", ".join(sorted(pixels))
            )
        for action, views in pixels[subject].items():
            if actions and not any(plain_action(action).startswith(a) for a in actions):
                continue
            if action not in world.get(subject, {}):
                continue  # clips without motion capture (S11 Directions) are left out
            joints = _joints17(world[subject][action], f"{folder}: {subject}/{action}")
            for camera, view in enumerate(views):
                where = f"{folder}: {subject}/{action}/{camera}"
                target = _in_camera(joints, subject, camera)
                seen = _pixels17(view, len(target), where)
                yield Clip(subject, action, camera, seen, target, intrinsics9(camera))


def read_archive(path: Path, key: str) -> dict[str, Any]:
    """The dictionary in one archive.

    Raises:
      UserError: missing, damaged, or an archive of something else.
    """
    entries = read_npz(path, "VideoPose3D archive", REMEDY)
    if not isinstance(entries.get(key), dict):
        raise UserError(f"{path} has no {key}; it is not an archive of VideoPose3D")
    return entries[key]


def plain_action(action: str) -> str:
    """The action without its take: "Walking 1" is "Walking"."""
    name, _, take = action.rpartition(" ")
    return name if name and take.isdigit() else action


def _joints17(world: Any, where: str) -> np.ndarray:
    joints = np.asarray(world, np.float32)
    if (
        joints.ndim != 3
        or joints.shape[1] not in (len(PARENTS32), len(KEPT))
        or joints.shape[2] != 3
    ):
        raise UserError(f"{where} has 3D of shape {joints.shape}; (frames, 32, 3) is expected")
    if not np.isfinite(joints).all():
        raise UserError(f"{where} has 3D positions that are not finite; make the archive again")
    return joints[:, KEPT] if joints.shape[1] == len(PARENTS32) else joints


def _pixels17(view: Any, frames: int, where: str) -> np.ndarray:
    """Cut to the length of the 3D, as published: detections may have more frames."""
    seen = np.asarray(view, np.float32)[..., :2]
    if seen.ndim != 3 or seen.shape[1:] != (len(KEPT), 2):
        raise UserError(f"{where} has 2D of shape {seen.shape}; (frames, 17, 2) is expected")
    if len(seen) < frames:
        raise UserError(f"{where} has {len(seen)} frames of 2D and {frames} of 3D")
    if not np.isfinite(seen).all():
        raise UserError(f"{where} has pixels that are not finite; get the 2D archive again")
    return seen[:frames]


def _in_camera(joints: np.ndarray, subject: str, camera: int) -> np.ndarray:
    orientation, position = extrinsics(subject, camera)
    moved = joints - position
    # v turned by the conjugate quaternion.
    w, u = orientation[0], -orientation[1:]
    first = np.cross(u, moved)
    return (moved + 2 * (w * first + np.cross(u, first))).astype(np.float32)
