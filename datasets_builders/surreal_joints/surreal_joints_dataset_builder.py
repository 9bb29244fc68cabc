"""TFDS builder of the joints of SURREAL's synthetic people, 2D and 3D."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.pose_chunks import (
    PoseBuilder,
    chunk_features,
    chunks_of_clip,
    stamp,
)

from jaxrecon.errors import UserError
from jaxrecon.io.pose_files import read_mat

SPLITS = ("train", "val", "test")
JOINTS = 24  # of SMPL
WIDTH, HEIGHT = 320, 240
FOCAL = 600.0  # pixels: a lens of 60 mm before a sensor of 32 mm
_FITS = 5.0  # pixels between projected 3D and the 2D of the file, at most
_REMEDY = (
    "SURREAL needs registration at www.di.ens.fr/willow/research/surreal; the folder holds "
    "train/run0/<sequence>/<sequence>_c0001_info.mat and so on"
)


@dataclasses.dataclass(eq=False)
class SurrealConfig(tfds.core.BuilderConfig):
    """Where `train`, `val` and `test` are."""

    folder: str = ""


def sequences(folder: str | Path) -> SurrealConfig:
    """The configuration of an unpacked archive, named by what is in it.

    Raises:
        UserError: no such folder, or no annotation in it.
    """
    files = [file for files in _annotations(Path(folder)).values() for file in files]
    return SurrealConfig(name=f"joints_{stamp(files)}", folder=str(folder))


class Builder(PoseBuilder):
    """Chunks of joints, one clip for each file (features: `pose_chunks` and the README)."""

    name = "surreal_joints"
    BUILDER_CONFIGS = [SurrealConfig(name="joints", description="Give `config=sequences(folder)`.")]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.pose_info(
            "The 24 joints of rendered people, in the image and in space.",
            "SURREAL: research only, after registration",
            chunk_features(
                JOINTS, subject=tfds.features.Text(), gender=tfds.features.Scalar(dtype=np.int32)
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        if not self.builder_config.folder:
            raise UserError("surreal_joints needs its files: config=sequences(folder)")
        found = _annotations(Path(self.builder_config.folder))
        return {
            split: self._generate_examples(self._records(files)) for split, files in found.items()
        }

    def _records(self, files: list[Path]) -> Iterator[dict[str, Any]]:
        for file in files:
            joints2d, joints3d, gender = read_info(file)
            yield from chunks_of_clip(
                self.name,
                "/".join(file.parts[-3:]),
                joints2d,
                visible=_inside(joints2d),
                joints3d=joints3d,
                focal_length=(FOCAL, FOCAL),
                subject=file.parent.name,
                gender=gender,
            )


def read_info(path: str | Path) -> tuple[np.ndarray, np.ndarray, int]:
    """(pixels (T, 24, 2), metres in the camera frame (T, 24, 3), gender as in the person record).

    Raises:
        UserError: arrays that are missing, of another shape or not finite, or 3D that does not
            project onto the 2D.
    """
    found = read_mat(path)
    missing = [name for name in ("joints2D", "joints3D", "camLoc") if name not in found]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; it is no _info.mat of SURREAL")
    seen, solid = (_frames(found[n], c, path, n) for n, c in (("joints2D", 2), ("joints3D", 3)))
    if len(seen) != len(solid):
        raise UserError(f"{path}: joints2D has {len(seen)} frames, joints3D {len(solid)}")
    location = np.asarray(found["camLoc"], np.float32).ravel()
    if location.shape != (3,):
        raise UserError(f"{path}: camLoc has shape {np.shape(found['camLoc'])}; 3 numbers expected")
    gender = np.asarray(found.get("gender", -1)).ravel()
    # SURREAL: 0 female, 1 male; here 0 male, 1 female.
    known = int(gender[0]) if gender.size else -1
    return seen, _in_camera(solid - location, seen, path), {0: 1, 1: 0}.get(known, -1)


def _frames(array: Any, coordinates: int, path: Any, name: str) -> np.ndarray:
    """(T, 24, c) from MATLAB's (c, 24, T), which drops T where it is 1."""
    array = np.asarray(array, np.float32)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[:2] != (coordinates, JOINTS) or not array.shape[2]:
        raise UserError(
            f"{path}: {name} has shape {array.shape}; ({coordinates}, {JOINTS}, frames) expected"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {name} has values that are not finite; get the file again")
    return array.transpose(2, 1, 0)


def _in_camera(solid: np.ndarray, seen: np.ndarray, path: Any) -> np.ndarray:
    """Points relative to the camera's place, in its axes.

    All of SURREAL is rendered along one axis of the world, but its releases differ in the names
    of axes: the signed permutation that projects the 3D onto the 2D is found, not assumed.
    """
    best: tuple[float, np.ndarray] = (np.inf, solid)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            points = solid[..., order] * np.array(signs, np.float32)
            if (points[..., 2] <= 0).any():
                continue
            pixels = FOCAL * points[..., :2] / points[..., 2:] + (WIDTH / 2, HEIGHT / 2)
            error = float(np.median(np.linalg.norm(pixels - seen, axis=-1)))
            if error < best[0]:
                best = (error, points)
    if best[0] > _FITS:
        raise UserError(
            f"{path}: joints3D does not project onto joints2D (median {best[0]:.1f} pixels off); "
            "get the file again"
        )
    return best[1]


def _inside(pixels: np.ndarray) -> np.ndarray:
    return ((pixels >= 0) & (pixels < (WIDTH, HEIGHT))).all(-1)


def _annotations(folder: Path) -> dict[str, list[Path]]:
    """Split -> its files in order."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; {_REMEDY}")
    found = {split: sorted((folder / split).glob("run*/*/*_info.mat")) for split in SPLITS}
    found = {split: files for split, files in found.items() if files}
    if "train" not in found:
        raise UserError(f"{folder} holds no train/run*/*/*_info.mat; {_REMEDY}")
    return found
