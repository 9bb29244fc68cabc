"""Which set of 2D poses a config asks for."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.data import pose_records as records
from jaxrecon.data.lifting import PoseSet, hide_keypoints
from jaxrecon.data.nrsfm import read_sequence
from jaxrecon.data.open_body_poses import open_body_poses
from jaxrecon.errors import UserError
from jaxrecon.optimization.nonrigid import reconstruct_sequence

SOURCES = ("open_body", "h36m", "vw300", "surreal", "file", "sequence")


def open_pose_sets(config: Any) -> tuple[PoseSet, PoseSet]:
    """(training set, test set) of `config.data`.

    open_body   `poses` made ones to train with, `test_poses` others to measure with
    h36m        the archives of VideoPose3D in the folder `path`
    vw300       the videos' folders in `path`; orthographic, without 3D
    surreal     `train`, `val` and `test` in the folder `path`
    file        the keypoint file (or folder of them) `path`, and `test_path` (the same if empty)
    sequence    one sequence, a .mat of the non-rigid structure-from-motion literature

    All but the first and the last are prepared by their TFDS builder at first use, and kept in
    `data_dir`. `missing` hides a share of the keypoints of both at random.
    `fit` takes the training set as one sequence and adds the depth of a classical fit.

    Raises:
      UserError: an unknown source, files that are missing or not of that kind.
    """
    data = config.data
    if data.source not in SOURCES:
        raise UserError(f"config.data.source={data.source!r} is not one of {', '.join(SOURCES)}")
    if data.source != "open_body" and not data.path:
        raise UserError(f"config.data.source={data.source} needs config.data.path")
    train, test = _SETS[data.source](config, Path(data.path).expanduser())
    if data.missing:
        shown = test is train
        train = hide_keypoints(train, data.missing, config.training.seed)
        test = train if shown else hide_keypoints(test, data.missing, config.training.seed + 1)
    if data.fit:
        shown = test is train
        train = with_depth(train, config.system.projection)
        test = train if shown else test
    return train, dataclasses.replace(test)


def with_depth(poses: PoseSet, projection: str) -> PoseSet:
    """The set with the depth that a classical fit finds for it as one sequence.

    Raises:
      UserError: for a perspective camera, or too few frames or points.
    """
    if projection != "orthographic":
        raise UserError("config.data.fit needs config.system.projection=orthographic")
    print(f"fitting a sequence of {len(poses)} frames", file=sys.stderr, flush=True)
    found = reconstruct_sequence(poses.keypoints2d, poses.visible)
    return dataclasses.replace(
        poses, depth=found.points[..., 2].astype(np.float32), depth_method=found.method
    )


def _open_body(config: Any, _: Path) -> tuple[PoseSet, PoseSet]:
    data, seed = config.data, config.training.seed
    train = open_body_poses(data.poses, "train", seed, factor=data.factor or None)
    factor = train.factor if data.train_factor else None
    return train, open_body_poses(data.test_poses, "test", seed, factor=factor)


def _h36m(config: Any, path: Path) -> tuple[PoseSet, PoseSet]:
    data = config.data
    options = {
        "data_dir": data.data_dir,
        "actions": data.actions,
        "downsample": data.downsample,
        "subset": data.subset,
    }
    known = data.factor or None
    train = records.h36m_poses(path, data.keypoints, data.train_subjects, factor=known, **options)
    factor = train.factor if data.train_factor else None
    return train, records.h36m_poses(
        path, data.keypoints, data.test_subjects, factor=factor, **options
    )


def _vw300(config: Any, path: Path) -> tuple[PoseSet, PoseSet]:
    if config.system.projection != "orthographic":
        raise UserError(
            "300-VW has no focal lengths; set config.system.projection=orthographic for it"
        )
    train, test = (records.face_poses(path, s, config.data.data_dir) for s in ("train", "test"))
    return train, test


def _surreal(config: Any, path: Path) -> tuple[PoseSet, PoseSet]:
    data, projection = config.data, config.system.projection
    train = records.surreal_poses(path, "train", projection, data.data_dir, data.factor or None)
    factor = train.factor if data.train_factor else None
    return train, records.surreal_poses(path, "test", projection, data.data_dir, factor)


def _file(config: Any, path: Path) -> tuple[PoseSet, PoseSet]:
    data = config.data
    train = records.file_poses(path, data.focal_length, data.data_dir, data.factor or None)
    if not data.test_path:
        return train, train
    other = Path(data.test_path).expanduser()
    return train, records.file_poses(other, data.focal_length, data.data_dir, train.factor)


def _sequence(config: Any, path: Path) -> tuple[PoseSet, PoseSet]:
    found = read_sequence(path)
    return found, found


_SETS = {
    "open_body": _open_body,
    "h36m": _h36m,
    "vw300": _vw300,
    "surreal": _surreal,
    "file": _file,
    "sequence": _sequence,
}
