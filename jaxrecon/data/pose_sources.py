"""Which set of 2D poses a config asks for."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxrecon.data.h36m_archives import load_h36m
from jaxrecon.data.lifting import PoseSet, hide_keypoints, pathlike
from jaxrecon.data.nrsfm import read_sequence
from jaxrecon.data.open_body_poses import open_body_poses
from jaxrecon.data.pose_files import read_pose_file
from jaxrecon.errors import UserError

SOURCES = ("open_body", "h36m", "file", "sequence")


def open_pose_sets(config: Any) -> tuple[PoseSet, PoseSet]:
    """(training set, test set) of `config.data`.

    open_body   `poses` made ones to train with, `test_poses` others to measure with
    h36m        the archives of VideoPose3D in the folder `path`
    file        the keypoint file `path`, and `test_path` (the same one if empty)
    sequence    one sequence, a .mat of the non-rigid structure-from-motion literature

    `missing` hides a share of the keypoints of both at random.

    Raises:
      UserError: an unknown source, files that are missing or not of that kind.
    """
    data = config.data
    if data.source not in SOURCES:
        raise UserError(f"config.data.source={data.source!r} is not one of {', '.join(SOURCES)}")
    if data.source != "open_body" and not data.path:
        raise UserError(f"config.data.source={data.source} needs config.data.path")
    path = Path(pathlike(data.path))
    if data.source == "open_body":
        seed = config.training.seed
        train = open_body_poses(data.poses, "train", seed)
        factor = train.factor if data.train_factor else None
        test = open_body_poses(data.test_poses, "test", seed, factor=factor)
    elif data.source == "h36m":
        options = {
            "keypoints": data.keypoints,
            "actions": data.actions,
            "downsample": data.downsample,
            "subset": data.subset,
        }
        train = load_h36m(path, subjects=data.train_subjects, **options)
        factor = train.factor if data.train_factor else None
        test = load_h36m(path, subjects=data.test_subjects, factor=factor, **options)
    elif data.source == "file":
        train = read_pose_file(path, data.focal_length)
        test = train
        if data.test_path:
            test = read_pose_file(pathlike(data.test_path), data.focal_length, train.factor)
    else:
        train = test = read_sequence(path)
    if data.missing:
        shown = test is train
        train = hide_keypoints(train, data.missing, config.training.seed)
        test = train if shown else hide_keypoints(test, data.missing, config.training.seed + 1)
    return train, dataclasses.replace(test)
