"""The annotation files of MPI-INF-3DHP as they are downloaded.

Joints are millimetres in the camera's frame, subjects and sequences are folders. Source: spec of
Meta-HMR, section 7, and of Multi-SPIN, section 7.2.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxrecon.datasets_builders.people.annotations import Annotations, checked
from jaxrecon.datasets_builders.people.joints import STUDIO17, to_slots, with_confidence

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.images import read_image

TRAINING_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
TRAINING_SIDE = 2048  # pixels
EVERY = 10
# The joints `STUDIO17` among the 28 of the training set, and among the 17 of the test set.
_OF_28 = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
_OF_17 = (14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)


def read_training_set(root: Path, files: tuple[Path, ...]) -> Annotations:
    """All `S*/Seq*/annot.mat`: of the frames with all joints in the image, every tenth.

    One count runs over all subjects, sequences, cameras and frames, in this order.
    """
    names: list[str] = []
    pixels: list[np.ndarray] = []
    metres: list[np.ndarray] = []
    count = 0
    for file in sorted(root.glob("S*/Seq*/annot.mat"), key=_numbers):
        folder = file.parent.relative_to(root).as_posix()
        annot2, annot3 = _cells(file)
        for camera in TRAINING_CAMERAS:
            points = _frames(file, annot2, camera, 2)[:, _OF_28]
            inside = ((points >= 0) & (points < TRAINING_SIDE)).all((1, 2))
            chosen = np.flatnonzero(inside)
            skip = -count % EVERY
            count += len(chosen)
            chosen = chosen[skip::EVERY]
            names += [f"{folder}/imageFrames/video_{camera}/frame_{i + 1:06d}.jpg" for i in chosen]
            pixels.append(points[chosen])
            metres.append(_frames(file, annot3, camera, 3)[chosen][:, _OF_28])
    return _annotations(str(root / "S*/Seq*/annot.mat"), names, pixels, metres)


def read_test_set(root: Path, files: tuple[Path, ...]) -> Annotations:
    """All `mpi_inf_3dhp_test_set/TS*/annot_data.mat`: valid frames with all joints in the image.

    Raises:
      UserError: also where h5py, which reads these files, is not installed.
    """
    names: list[str] = []
    pixels: list[np.ndarray] = []
    metres: list[np.ndarray] = []
    for file in sorted(root.glob("mpi_inf_3dhp_test_set/TS*/annot_data.mat"), key=_numbers):
        points, joints, valid = _test_arrays(file)
        frames = np.flatnonzero(valid)
        if not len(frames):
            continue
        folder = file.parent.relative_to(root).as_posix()
        found = [f"{folder}/imageSequence/img_{i + 1:06d}.jpg" for i in frames]
        height, width = read_image(root / found[0]).shape[:2]
        points = points[frames][:, _OF_17]
        inside = ((points >= 0) & (points < (width, height))).all((1, 2))
        names += [name for name, seen in zip(found, inside.tolist()) if seen]
        pixels.append(points[inside])
        metres.append(joints[frames[inside]][:, _OF_17])
    source = str(root / "mpi_inf_3dhp_test_set/TS*/annot_data.mat")
    return _annotations(source, names, pixels, metres)


def _annotations(
    source: str, names: list[str], pixels: list[np.ndarray], millimetres: list[np.ndarray]
) -> Annotations:
    if not names:
        raise UserError(f"{source} has no frame in which all joints are inside the image")
    joints = np.concatenate(millimetres) / 1000
    joints = joints - joints[:, :1]  # the first of STUDIO17 is the pelvis
    return checked(
        {
            "imgname": np.array(names),
            "part": to_slots(with_confidence(np.concatenate(pixels)), STUDIO17),
            "S": to_slots(with_confidence(joints), STUDIO17),
        },
        source,
    )


def _numbers(file: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", "/".join(file.parts[-3:]))]


def _cells(file: Path) -> tuple[Any, Any]:
    existing_file(file, "annotation file")
    try:
        content = scipy.io.loadmat(file)
        return content["annot2"].ravel(), content["annot3"].ravel()
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError, AttributeError) as error:
        raise UserError(
            f"{file} is not an annot.mat of MPI-INF-3DHP, or is damaged "
            f"({type(error).__name__}: {error}); get it again"
        ) from error


def _frames(file: Path, cells: Any, camera: int, size: int) -> np.ndarray:
    """(frames, 28, size) of one camera."""
    try:
        return np.asarray(cells[camera], np.float32).reshape(-1, 28, size)
    except (IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{file}: annot{size} has no 28 joints of camera {camera} ({error}); get it again"
        ) from error


def _test_arrays(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{file} is an HDF5 file: install h5py (pip install h5py) to read it, or put "
            "mpi_inf_3dhp_valid_openpose.npz beside the test set"
        ) from error
    existing_file(file, "annotation file")
    try:
        with h5py.File(file, "r") as content:
            points = np.asarray(content["annot2"], np.float32).reshape(-1, 17, 2)
            joints = np.asarray(content["univ_annot3"], np.float32).reshape(-1, 17, 3)
            valid = np.asarray(content["valid_frame"]).ravel() > 0
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} is not an annot_data.mat of MPI-INF-3DHP, or is damaged "
            f"({type(error).__name__}: {error}); get it again"
        ) from error
    if not len(points) == len(joints) == len(valid):
        raise UserError(
            f"{file}: annot2, univ_annot3 and valid_frame have {len(points)}, {len(joints)} and "
            f"{len(valid)} frames; get it again"
        )
    return points, joints, valid
