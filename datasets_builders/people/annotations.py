"""Annotations of people, one row each: the fields of SPIN-style `.npz` archives, checked.

    imgname (N,)         path of the image, relative to the folder of the data set
    part (N, 24, 3)      gt24 joints: x, y in pixels of the whole image, and confidence
    openpose (N, 25, 3)  the same of OpenPose's BODY_25
    pose (N, 72)         axis-angle, root in the camera frame; shape (N, 10 or more)
    has_smpl (N,)        which rows have these; all, where the field is absent
    S (N, 24, 4)         gt24 joints in metres, minus the pelvis, and confidence
    gender (N,)          'm' or 'f'
    focal_length (N,)    pixels;  transl (N, 3) metres
    center (N, 2)        the middle of the box;  scale (N,) its side / 200

All but `imgname` may be absent, `part` only where there is a box. The archives of CLIFF's pseudo
labels call two of them `focal_l` and `global_t`. Readers of other formats give the same fields.
Source: spec of Meta-HMR, section 7.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file

_TEXT = ("imgname", "gender")
# What follows the rows; None where the length is free, but at least what is stored.
_SHAPES: dict[str, tuple[int, ...]] = {
    "imgname": (),
    "part": (24, 3),
    "openpose": (25, 3),
    "pose": (72,),
    "shape": (10,),
    "has_smpl": (),
    "S": (24, 4),
    "gender": (),
    "focal_length": (),
    "transl": (3,),
    "center": (2,),
    "scale": (),
}
# Fields that other archives call otherwise, ours first.
_OTHER_NAMES = {"focal_length": "focal_l", "transl": "global_t"}


@dataclass(frozen=True)
class Annotations:
    """Rows of annotation.

    Attributes:
      fields: name -> array of N rows, float32 or text, as in the module's docstring.
      source: where they come from, for messages.
    """

    fields: Mapping[str, np.ndarray]
    source: str

    def __len__(self) -> int:
        return len(self.fields["imgname"])

    def chosen(self, rows: np.ndarray) -> "Annotations":
        """Only some rows: (N,) bool, or their numbers."""
        return Annotations({name: a[rows] for name, a in self.fields.items()}, self.source)


def read_archive(path: str | Path, needs: Sequence[str] = ()) -> Annotations:
    """The annotations of a SPIN-style `.npz`.

    Args:
      path: the archive.
      needs: fields that must be there, beside `imgname`, and `part` or a box.

    Raises:
      UserError: no such file; truncated or no archive; a field is missing, has another shape or
        length, or values that are no finite numbers. The message names file and field.
    """
    return checked(read_fields(path), str(path), needs)


def read_fields(path: str | Path) -> dict[str, Any]:
    """The known fields of a `.npz` as they are stored, unchecked, under the names used here.

    Raises:
      UserError: no such file; truncated or no archive.
    """
    file = existing_file(path, "annotation archive", "check the README of the data set")
    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{file} is a single array, not an .npz archive of fields")
            return _stored(file, archive)
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{file} is not a readable .npz archive: it is truncated, damaged or of another "
            f"format ({error}); get it again"
        ) from error


def _stored(file: Path, archive: Any) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    for name in _SHAPES:
        key = name if name in archive.files else _OTHER_NAMES.get(name, name)
        if key not in archive.files:
            continue
        try:
            stored[name] = archive[key]
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise UserError(
                f"{file}: field {key!r} holds Python objects, which are not read; save it as an "
                "array of numbers or text"
            ) from error
    return stored


def checked(fields: Mapping[str, Any], source: str, needs: Sequence[str] = ()) -> Annotations:
    """`Annotations` from raw fields, with shapes, lengths and values checked.

    Raises:
      UserError: see `read_archive`.
    """
    boxed = "center" in fields and "scale" in fields
    required = ("imgname", *(() if boxed else ("part",)), *needs)
    missing = [name for name in required if name not in fields]
    if missing:
        raise UserError(
            f"{source} has no field {', '.join(repr(n) for n in missing)}; it has "
            f"{', '.join(fields) or 'none that is known'}: is it the right file?"
        )
    found = {name: _field(source, name, fields[name]) for name in _SHAPES if name in fields}
    count = len(found["imgname"])
    if not count:
        raise UserError(f"{source} is empty: it has no row; get or make it again")
    for name, array in found.items():
        if len(array) != count:
            raise UserError(
                f"{source}: field {name!r} has {len(array)} rows, but 'imgname' has {count}; "
                "the file is damaged or was put together wrongly"
            )
    if ("pose" in found) != ("shape" in found):
        alone, other = ("pose", "shape") if "pose" in found else ("shape", "pose")
        raise UserError(f"{source} has {alone!r} but no {other!r}; both make a SMPL label")
    _quiet(found)
    _check_finite(source, found)
    return Annotations(found, source)


def _field(source: str, name: str, values: Any) -> np.ndarray:
    array, shape = np.asarray(values), _SHAPES[name]
    if name in _TEXT:
        if array.dtype.kind not in "US" or array.ndim != 1:
            raise UserError(
                f"{source}: field {name!r} is {array.dtype} {array.shape}; text (N,) is needed"
            )
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    if array.ndim == len(shape) + 2 and array.shape[1] == 1:
        array = array[:, 0]
    if name == "pose" and array.shape[1:] == (24, 3):
        array = array.reshape(-1, 72)
    if name == "shape" and array.ndim == 2 and array.shape[1] > shape[0]:
        array = array[:, : shape[0]]
    if array.dtype.kind not in "fiub" or array.ndim < 1 or array.shape[1:] != shape:
        wanted = ", ".join(("N", *map(str, shape))) + ("" if shape else ",")
        raise UserError(
            f"{source}: field {name!r} is {array.dtype} {array.shape}; numbers ({wanted}) are "
            "needed"
        )
    return array.astype(np.float32)


def _quiet(found: dict[str, np.ndarray]) -> None:
    """Zeros in place of whatever stands where nothing is known."""
    for name in ("part", "openpose", "S"):
        if name in found:
            unknown = found[name][..., -1] <= 0
            found[name] = np.where(unknown[..., None], np.float32(0), found[name])
    if "pose" in found and "has_smpl" in found:
        unlabelled = found["has_smpl"] <= 0
        for name in ("pose", "shape"):
            found[name] = np.where(unlabelled[:, None], np.float32(0), found[name])


def _check_finite(source: str, found: Mapping[str, np.ndarray]) -> None:
    for name, array in found.items():
        if name in _TEXT or np.isfinite(array).all():
            continue
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise UserError(
            f"{source}: field {name!r}, row {row} ({found['imgname'][row]}) has a value that is "
            "not a finite number; repair the row, or set its confidence to 0"
        )


def person_record(annotations: Annotations, row: int, dataset: str, image: Any) -> dict[str, Any]:
    """One row as a person record (see `features.person_features`).

    `image` is what the record holds as its image. A gender other than 'm' is taken as female, as
    published; without the field it is unknown (-1).
    """
    fields = annotations.fields

    def value(name: str) -> Any:
        if name in fields:
            return fields[name][row]
        return np.zeros(_SHAPES[name], np.float32)

    has_pose = "pose" in fields
    gender = -1
    if "gender" in fields:
        gender = 0 if value("gender") == "m" else 1
    return {
        "image": image,
        "imgname": str(value("imgname")),
        "dataset": dataset,
        "keypoints2d": np.concatenate([value("openpose"), value("part")]),
        "pose": value("pose"),
        "betas": value("shape"),
        "joints3d": value("S"),
        "has_smpl": int(has_pose and ("has_smpl" not in fields or value("has_smpl") > 0)),
        "has_joints3d": int("S" in fields),
        "gender": gender,
        "center": value("center"),
        "scale": np.float32(value("scale")),
        "focal_length": np.float32(value("focal_length")),
        "transl": value("transl"),
    }
