"""TFDS builder of MPII Human Pose with the pseudo ground truth of CLIFF.

Source: spec of Meta-HMR, section 7. See the README beside this file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxrecon.datasets_builders.people.annotations import Annotations, checked
from jaxrecon.datasets_builders.people.builder import (
    CONFIGS,
    Guide,
    Origin,
    PeopleBuilder,
    archive,
)
from jaxrecon.datasets_builders.people.joints import from_set

from jaxrecon.errors import UserError
from jaxrecon.io.keypoint_files import read_json

_JOINTS = 16


def read_json_list(root: Path, files: tuple[Path, ...]) -> Annotations:
    """The `train.json` that circulates: a list of image, center, scale, joints, joints_vis."""
    file = files[0]
    rows = read_json(file, "MPII annotation")
    if not isinstance(rows, list):
        raise UserError(f"{file} is not a list of people")
    names, centers, scales, joints = [], [], [], []
    for number, row in enumerate(rows):
        try:
            points = np.array(row["joints"], np.float32).reshape(_JOINTS, 2)
            seen = np.array(row["joints_vis"], np.float32).reshape(_JOINTS, 1)
            names.append(str(row["image"]))
            centers.append(np.array(row["center"], np.float32).reshape(2))
            scales.append(float(row["scale"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{file}: person {number} is not {{image, center (2), scale, joints (16, 2), "
                f"joints_vis (16)}}: {type(error).__name__} {error}"
            ) from error
        joints.append(np.concatenate([points, seen > 0], axis=1))
    return _annotations(file, names, joints, centers, scales)


def read_release(root: Path, files: tuple[Path, ...]) -> Annotations:
    """The official MATLAB file: everybody with joints in the training images."""
    file = files[0]
    try:
        release = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["RELEASE"]
        images, training = np.atleast_1d(release.annolist), np.atleast_1d(release.img_train)
        people = list(_people(images, training))
    except (KeyError, AttributeError, NotImplementedError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{file} is not MPII's mpii_human_pose_v1_u12_1.mat, or is damaged "
            f"({type(error).__name__}: {error}); get it again"
        ) from error
    names, joints, centers, scales = (
        (list(column) for column in zip(*people)) if people else [[]] * 4
    )
    return _annotations(file, names, joints, centers, scales)


def _people(
    images: np.ndarray, training: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    for image, is_training in zip(images, training):
        if not is_training:
            continue
        for person in np.atleast_1d(image.annorect):
            points = getattr(getattr(person, "annopoints", None), "point", None)
            if points is None:
                continue
            joints = np.zeros((_JOINTS, 3), np.float32)
            for point in np.atleast_1d(points):
                joints[int(point.id)] = point.x, point.y, 1
            place = getattr(person, "objpos", None)
            center = np.array([getattr(place, "x", 0), getattr(place, "y", 0)], np.float32)
            scale = getattr(person, "scale", 0)
            yield str(image.image.name), joints, center, float(scale) if np.size(scale) else 0.0


def _annotations(
    file: Path, names: list[str], joints: list[Any], centers: list[Any], scales: list[float]
) -> Annotations:
    if not names:
        raise UserError(f"{file} has nobody with annotated joints")
    return checked(
        {
            "imgname": np.array(names),
            "part": from_set(np.stack(joints), "mpii16"),
            "center": np.stack(centers),
            "scale": np.array(scales),
        },
        str(file),
    )


class Builder(PeopleBuilder):
    """MPII Human Pose: split `train`."""

    name = "mpii"
    BUILDER_CONFIGS = CONFIGS
    GUIDE = Guide(
        fetch=(
            "images mpii_human_pose_v1.tar.gz: http://human-pose.mpi-inf.mpg.de (non-commercial); "
            "pseudo ground truth mpii_cliffGT.npz: the release of CLIFF, "
            "https://github.com/huawei-noah/noah-research/tree/master/CLIFF (non-commercial) "
            "(datasets_builders/mpii/README.md)"
        ),
        licence="non-commercial research (MPII Human Pose; CLIFF labels)",
        homepage="http://human-pose.mpi-inf.mpg.de",
        citation=(
            "Andriluka, Pishchulin, Gehler, Schiele: 2D Human Pose Estimation: New Benchmark and "
            "State of the Art Analysis. CVPR 2014. "
            "Li et al.: CLIFF: Carrying Location Information in Full Frames. ECCV 2022"
        ),
        description="People at all kinds of activities, from videos of the web.",
        image_folders=("images",),
    )
    SPLITS = {
        "train": archive("mpii_smpl_w3d_train.npz", "mpii_cliffGT.npz", needs=("pose", "shape"))
    }
    OFFICIAL = {
        "train": (
            Origin(("mpii_human_pose_v1_u12_1.mat",), read_release),
            Origin(("annot/train.json",), read_json_list),
        )
    }
