"""The annotation files of Human3.6M as they are downloaded: joints, no SMPL.

    S1/MyPoseFeatures/D3_Positions_mono/Directions 1.54138969.cdf   millimetres, camera's frame
    S1/MyPoseFeatures/D2_Positions/Directions 1.54138969.cdf        pixels

Each holds 32 joints of every frame as the variable `Pose`, (1, frames, 96 or 64), in NASA's CDF.
Source: spec of Meta-HMR, section 7.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxrecon.datasets_builders.people.annotations import Annotations, checked
from jaxrecon.datasets_builders.people.joints import STUDIO17, to_slots, with_confidence

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.h36m_archives import cameras

METRES, PIXELS = "MyPoseFeatures/D3_Positions_mono", "MyPoseFeatures/D2_Positions"
EVERY = 5
# The video of this take is damaged, so everybody leaves it out.
_DAMAGED = (11, "Directions")
# The joints `STUDIO17` among the 32.
_OF_32 = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)
# Between the pixels of the files and those of the ideal camera there is the lens, no more.
_LENS_PIXELS = 40.0


def official_files(subjects: tuple[int, ...]) -> tuple[str, ...]:
    """What has to be there of these subjects, as patterns below the folder of the data set."""
    return tuple(f"S{s}/{folder}/*.cdf" for s in subjects for folder in (METRES, PIXELS))


def read_official(
    subjects: tuple[int, ...], camera: str = ""
) -> Callable[[Path, tuple[Path, ...]], Annotations]:
    """A reader of every fifth frame of these subjects, in one camera or in all four.

    It raises UserError where cdflib is not installed, for files that are damaged or not of
    Human3.6M, and where the two kinds do not belong together.
    """

    def read(root: Path, files: tuple[Path, ...]) -> Annotations:
        names: list[str] = []
        pixels: list[np.ndarray] = []
        metres: list[np.ndarray] = []
        focal: list[float] = []
        for subject in subjects:
            for file in sorted((root / f"S{subject}" / METRES).glob("*.cdf")):
                action, _, seen_by = file.stem.rpartition(".")
                if (subject, action) == _DAMAGED or action.startswith("_"):
                    continue
                if camera and seen_by != camera:
                    continue
                joints, points, lens = _read_pair(file, root / f"S{subject}" / PIXELS / file.name)
                frames = range(0, len(joints), EVERY)
                names += [f"S{subject}_{action}.{seen_by}_{i + 1:06d}.jpg" for i in frames]
                pixels.append(points[::EVERY])
                metres.append(joints[::EVERY] / 1000)
                focal += [lens] * len(frames)
        source = f"{root}/S*/{METRES}"
        if not names:
            raise UserError(f"{source} has no file of camera {camera}; get the archives again")
        placed = np.concatenate(metres)
        placed = placed - placed[:, :1]  # the first of STUDIO17 is the pelvis
        return checked(
            {
                "imgname": np.array(names),
                "part": to_slots(with_confidence(np.concatenate(pixels)), STUDIO17),
                "S": to_slots(with_confidence(placed), STUDIO17),
                "focal_length": np.array(focal),
            },
            source,
        )

    return read


def _read_pair(file3: Path, file2: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """(frames, 17, 3) millimetres, (frames, 17, 2) pixels, and the focal length in pixels."""
    joints, points = read_pose(file3, 3), read_pose(file2, 2)
    if len(joints) != len(points):
        raise UserError(
            f"{file3} has {len(joints)} frames and {file2} has {len(points)}; get both again"
        )
    joints, points = joints[:, _OF_32], points[:, _OF_32]
    known = {camera["id"]: camera for camera in cameras()["intrinsics"]}
    lens = known.get(file3.stem.rpartition(".")[2])
    if lens is None:
        raise UserError(
            f"{file3} is not named like 'Directions 1.54138969.cdf', by one of the cameras "
            + ", ".join(known)
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ideal = joints[..., :2] / joints[..., 2:] * lens["focal_length"] + lens["center"]
    distance = np.median(np.linalg.norm(ideal - points, axis=-1))
    if not distance <= _LENS_PIXELS:
        raise UserError(
            f"{file3} and {file2} do not belong together: seen by the camera, the joints of the "
            f"one are {distance:.0f} pixels from those of the other; get both again"
        )
    return joints, points, float(np.mean(lens["focal_length"]))


def read_pose(file: Path, size: int) -> np.ndarray:
    """(frames, 32, size) float32 of one CDF file.

    Raises:
      UserError: no cdflib, no such file, or one that is damaged or of something else.
    """
    try:
        import cdflib
    except ImportError as error:
        raise UserError(
            f"{file} is a CDF file: install cdflib (pip install 'jaxrecon[h36m]') to read it"
        ) from error
    existing_file(file, "annotation file", "unpack the archives of the subject again")
    try:
        pose: Any = np.asarray(cdflib.CDF(file).varget("Pose"))
        if pose.ndim < 2 or pose.shape[-1] != 32 * size or pose.dtype.kind != "f":
            raise ValueError(f"Pose is {pose.dtype} {pose.shape}, not (1, frames, {32 * size})")
    except (OSError, ValueError, IndexError, KeyError, TypeError, ArithmeticError, EOFError,
            AttributeError, zlib.error) as error:  # fmt: skip
        raise UserError(
            f"{file} is not a pose file of Human3.6M, or is damaged "
            f"({type(error).__name__}: {error}); get it again"
        ) from error
    return pose.reshape(-1, 32, size).astype(np.float32)
