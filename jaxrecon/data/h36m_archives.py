"""Human3.6M in the archives of VideoPose3D, prepared for lifting (spec mhr_net, 7.1 to 7.4).

`data_3d_h36m.npz` holds world positions (metres, 32 joints, 50 Hz), `data_2d_h36m_<source>.npz`
pixels of the 17 joints in four cameras; both are dictionaries by subject and action.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.data.lifting import PoseSet, length_factor
from jaxrecon.errors import UserError
from jaxrecon.io.npz_objects import read_npz
from jaxrecon.systems.mhr_net.hparams import hashed_choice

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
_REMEDY = (
    "Human3.6M needs registration at vision.imar.ro/human3.6m; make the archives from its "
    "D3_Positions files, and name their folder in config.data.path"
)


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
    text = resources.files("jaxrecon.data").joinpath("h36m_cameras.json").read_text()
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
        raise UserError(f"there are no cameras of subject {subject!r}: {', '.join(known)}")
    c = known[subject][camera]
    position = np.asarray(c["translation"], np.float32) / 1000
    return np.asarray(c["orientation"], np.float32), position


def load_h36m(
    folder: str | Path,
    keypoints: str = "gt",
    subjects: Sequence[str] = TRAIN_SUBJECTS,
    actions: Sequence[str] = (),
    downsample: int = 1,
    subset: float = 1.0,
    factor: float | None = None,
) -> PoseSet:
    """One split, all cameras, in the published order (7.4).

    Args:
      folder: of `data_3d_h36m.npz` and `data_2d_h36m_<keypoints>.npz`.
      keypoints: "gt", "cpn_ft_h36m_dbb", ...
      actions: names that a clip's action must begin with; all by default.
      downsample: every n-th frame of a clip.
      subset: the share of each clip that is kept, from a hashed start.
      factor: of another split; None: of this one's own lengths, as published.

    Returns:
      groups are the actions; clips are "subject/action take/camera".

    Raises:
      UserError: archives that are missing, damaged or do not fit each other.
    """
    world = _archive(Path(folder) / "data_3d_h36m.npz", "positions_3d")
    pixels = _archive(Path(folder) / f"data_2d_h36m_{keypoints}.npz", "positions_2d")
    points, targets, lenses, clips = [], [], [], []
    for subject in subjects:
        if subject not in pixels:
            raise UserError(
                f"{folder}: there is no subject {subject!r} in the 2D archive; it has "
                + ", ".join(sorted(pixels))
            )
        for action, views in pixels[subject].items():
            if actions and not any(_plain(action).startswith(a) for a in actions):
                continue
            if action not in world.get(subject, {}):
                continue  # clips without motion capture (S11 Directions) are left out
            for camera, view in enumerate(views):
                rows = _rows(len(world[subject][action]), downsample, subset)
                target = _in_camera(world[subject][action], subject, camera)[rows]
                if len(view) < len(world[subject][action]):
                    raise UserError(
                        f"{folder}: {subject}/{action}/{camera} has {len(view)} frames of 2D and "
                        f"{len(world[subject][action])} of 3D"
                    )
                lens = intrinsics9(camera)
                view = np.asarray(view, np.float32)[: len(world[subject][action])][rows]
                points.append((view - view[:, :1]) / lens[:2])
                targets.append(target)
                lenses.append(np.broadcast_to(lens, (len(target), 9)))
                clips.append((f"{subject}/{action}/{camera}", len(target)))
    if not clips:
        raise UserError(f"{folder}: no clip of {', '.join(subjects)} {', '.join(actions)}")
    keypoints2d = np.concatenate(points)
    if factor is None:
        factor = length_factor(keypoints2d)
    return PoseSet(
        (keypoints2d * np.float32(factor)).astype(np.float32),
        None,
        np.concatenate(targets),
        _action_ranges(clips),
        factor,
        np.concatenate(lenses).astype(np.float32),
        tuple(clips),
    )


def _archive(path: Path, key: str) -> dict[str, Any]:
    entries = read_npz(path, "VideoPose3D archive", _REMEDY)
    if not isinstance(entries.get(key), dict):
        raise UserError(f"{path} has no {key}; it is not an archive of VideoPose3D")
    return entries[key]


def _in_camera(world: np.ndarray, subject: str, camera: int) -> np.ndarray:
    """The 17 joints in the frame of a camera, root-relative, metres."""
    orientation, position = extrinsics(subject, camera)
    joints = np.asarray(world, np.float32)
    if joints.shape[1] == len(PARENTS32):
        joints = joints[:, KEPT]
    moved = joints - position
    # v turned by the conjugate quaternion.
    w, u = orientation[0], -orientation[1:]
    first = np.cross(u, moved)
    turned = moved + 2 * (w * first + np.cross(u, first))
    return (turned - turned[:, :1]).astype(np.float32)


def _rows(length: int, downsample: int, subset: float) -> np.ndarray:
    if subset >= 1:
        return np.arange(0, length, downsample)
    count = int(round(length // downsample * subset) * downsample)
    start = hashed_choice(0, length - count + 1, str(length))
    return np.arange(start, start + count, downsample)


def _plain(action: str) -> str:
    """The action without its take: "Walking 1" is "Walking"."""
    name, _, take = action.rpartition(" ")
    return name if name and take.isdigit() else action


def _action_ranges(clips: Sequence[tuple[str, int]]) -> dict[str, list[tuple[int, int]]]:
    """Action -> row ranges; the cameras of one take are one range."""
    takes: dict[tuple[str, str], tuple[int, int]] = {}
    position = 0
    for name, length in clips:
        subject, action, _ = name.split("/")
        first, _ = takes.get((subject, action), (position, position))
        position += length
        takes[subject, action] = (first, position)
    found: dict[str, list[tuple[int, int]]] = {}
    for (_, action), rows in takes.items():
        found.setdefault(_plain(action), []).append(rows)
    ordered = [a for a in ACTIONS if a in found] + [a for a in found if a not in ACTIONS]
    return {action: found[action] for action in ordered}
