"""Motions of bodies in AMASS's layout: an .npz with poses, betas, trans, gender and a frame rate.

    poses (T, 3 J) axis-angle    trans (T, 3) metres    betas (B,)    gender    mocap_framerate

Files of AMASS itself have z up. What this project writes is in the camera frame (x right, y
down, z forward), as the array `coordinates` says.
"""

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.files import existing_file

_NEEDED = ("poses", "betas", "trans")
_RATES = ("mocap_framerate", "mocap_frame_rate")  # AMASS's name for SMPL-H, and for SMPL-X


@dataclass(frozen=True)
class Motion:
    """One body over time.

    Attributes:
      poses: (T, 3 J) axis-angle of the root and of each joint relative to its parent, radians.
      trans: (T, 3) metres.
      betas: (B,) shape.
      gender: "neutral", "male" or "female".
      frame_rate: frames a second.
      extra: further arrays of the file, by name.
    """

    poses: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    gender: str = "neutral"
    frame_rate: float = 30.0
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.poses)


def write_motion(path: str | os.PathLike[str], motion: Motion) -> None:
    """Writes a motion as .npz, whole or not at all.

    Raises:
      UserError: the path cannot be written, arrays that do not fit each other or are not finite.
    """
    _check("the motion", motion)
    arrays: dict[str, Any] = {
        "poses": np.asarray(motion.poses, np.float32),
        "trans": np.asarray(motion.trans, np.float32),
        "betas": np.asarray(motion.betas, np.float32),
        "gender": motion.gender,
        **dict.fromkeys(_RATES, motion.frame_rate),
    }
    for name, array in motion.extra.items():
        arrays.setdefault(name, array)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_bytes(path, stream.getvalue())


def read_motion(path: str | os.PathLike[str]) -> Motion:
    """A motion from an .npz of AMASS or of `write_motion`.

    Raises:
      UserError: the file is missing, damaged or no motion.
    """
    file = existing_file(path, "motion")
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not an .npz, or it is damaged; get it again") from error
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise UserError(f"{file} is no motion: it lacks {', '.join(missing)}")
    rates = [float(arrays[name]) for name in _RATES if name in arrays]
    gender = arrays.get("gender", np.array("neutral"))
    word = gender.item() if gender.ndim == 0 else "neutral"
    motion = Motion(
        poses=arrays["poses"],
        trans=arrays["trans"],
        betas=arrays["betas"],
        gender=word.decode() if isinstance(word, bytes) else str(word),
        frame_rate=rates[0] if rates else 30.0,
        extra={k: v for k, v in arrays.items() if k not in (*_NEEDED, *_RATES, "gender")},
    )
    _check(str(file), motion)
    return motion


def _check(where: Path | str, motion: Motion) -> None:
    poses, trans, betas = motion.poses, motion.trans, motion.betas
    fits = poses.ndim == 2 and poses.shape[1] % 3 == 0 and trans.shape == (len(poses), 3)
    if not fits or betas.ndim != 1 or len(poses) == 0:
        raise UserError(
            f"{where}: poses {poses.shape}, trans {trans.shape}, betas {betas.shape}; (T, 3 J), "
            "(T, 3) and (B,) expected"
        )
    if not all(np.isfinite(x).all() for x in (poses, trans, betas)):
        raise UserError(f"{where}: there are values that are not finite")
    if not (np.isfinite(motion.frame_rate) and motion.frame_rate > 0):
        raise UserError(f"{where}: a frame rate of {motion.frame_rate} is impossible")
