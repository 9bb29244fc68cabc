"""TFDS builder of Human3.6M: training, and the two test protocols; SMPL labels, or joints alone.

Source: spec of Meta-HMR, sections 6.4 and 7. See the README beside this file.
"""

import re

import numpy as np
from jaxrecon.datasets_builders.h36m.official import official_files, read_official
from jaxrecon.datasets_builders.people.annotations import Annotations
from jaxrecon.datasets_builders.people.builder import (
    CONFIGS,
    Guide,
    Origin,
    PeopleBuilder,
    archive,
)

from jaxrecon.errors import UserError

TRAIN_SUBJECTS, TEST_SUBJECTS = (1, 5, 6, 7, 8), (9, 11)
FRONTAL_CAMERA = "60457274"
_NAME = re.compile(r"S(?P<subject>\d+)_(?P<action>.+)\.(?P<camera>\d{8})_(?P<frame>\d{6})\.\w+$")
_NEEDS = ("pose", "shape")


def _of_subjects(annotations: Annotations, subjects: tuple[int, ...], cameras: str = "") -> None:
    """Raises UserError where a row is not of these subjects, or not of this camera."""
    for name in annotations.fields["imgname"].tolist():
        match = _NAME.search(name)
        if match is None:
            raise UserError(
                f"{annotations.source}: image name {name!r} is not like "
                "S1_Directions_1.54138969_000001.jpg; is it an archive of Human3.6M?"
            )
        if int(match["subject"]) not in subjects or (cameras and match["camera"] != cameras):
            where = f" from camera {cameras}" if cameras else ""
            raise UserError(
                f"{annotations.source}: {name} is not of the subjects "
                f"{', '.join(f'S{s}' for s in subjects)}{where}; is it the file of another split?"
            )


def _training(annotations: Annotations) -> Annotations:
    _of_subjects(annotations, TRAIN_SUBJECTS)
    return annotations


def _protocol1(annotations: Annotations) -> Annotations:
    _of_subjects(annotations, TEST_SUBJECTS)
    return annotations


def _protocol2(annotations: Annotations) -> Annotations:
    _of_subjects(annotations, TEST_SUBJECTS, FRONTAL_CAMERA)
    return annotations


def _frontal(annotations: Annotations) -> Annotations:
    """Protocol 2 out of protocol 1."""
    _of_subjects(annotations, TEST_SUBJECTS)
    names = annotations.fields["imgname"].tolist()
    cameras = [match["camera"] for match in map(_NAME.search, names) if match]
    chosen = np.array([camera == FRONTAL_CAMERA for camera in cameras])
    if not chosen.any():
        raise UserError(f"{annotations.source} has no image of camera {FRONTAL_CAMERA}")
    return annotations.chosen(chosen)


_P1_FILES = ("h36m_mosh_val_p1.npz", "h36m_mosh_val_p1_openpose.npz")


class Builder(PeopleBuilder):
    """Human3.6M: splits `train`, `test_p1` (all cameras) and `test_p2` (the frontal one)."""

    name = "h36m"
    BUILDER_CONFIGS = CONFIGS
    GUIDE = Guide(
        fetch=(
            "images: register at http://vision.imar.ro/human3.6m (academic licence), download the "
            "videos, extract every 5th frame; SMPL labels: MoSh archives, not redistributable, "
            "from their authors; h36m/official takes the joints of the download alone "
            "(datasets_builders/h36m/README.md)"
        ),
        licence="Human3.6M licence: academic use only, no redistribution",
        homepage="http://vision.imar.ro/human3.6m",
        citation=(
            "Ionescu, Papava, Olaru, Sminchisescu: Human3.6M: Large Scale Datasets and Predictive "
            "Methods for 3D Human Sensing in Natural Environments. TPAMI 2014"
        ),
        description="Actors in a studio, four cameras, every 5th frame, with SMPL labels (MoSh).",
        image_folders=("images",),
    )
    SPLITS = {
        "train": archive(
            "h36m_mosh_train_fixname.npz",
            "h36m_mosh_train.npz",
            needs=(*_NEEDS, "S"),
            choose=_training,
        ),
        "test_p1": archive(*_P1_FILES, needs=_NEEDS, choose=_protocol1),
        "test_p2": (
            *archive(
                "h36m_mosh_val_p2_fixname_openpose.npz",
                "h36m_mosh_val_p2_fixname.npz",
                "h36m_mosh_val_p2.npz",
                needs=_NEEDS,
                choose=_protocol2,
            ),
            *archive(*_P1_FILES, needs=_NEEDS, choose=_frontal),
        ),
    }

    OFFICIAL = {
        "train": (Origin(official_files(TRAIN_SUBJECTS), read_official(TRAIN_SUBJECTS)),),
        "test_p1": (Origin(official_files(TEST_SUBJECTS), read_official(TEST_SUBJECTS)),),
        "test_p2": (
            Origin(official_files(TEST_SUBJECTS), read_official(TEST_SUBJECTS, FRONTAL_CAMERA)),
        ),
    }

    def video_of(self, name: str) -> tuple[tuple[str, ...], int] | None:
        """S1/Videos/Directions 1.54138969.mp4; the name may have an underscore for the space."""
        match = _NAME.search(name)
        if match is None:
            return None
        actions = dict.fromkeys((match["action"], match["action"].replace("_", " ")))
        folder, camera = f"S{match['subject']}/Videos", match["camera"]
        paths = tuple(f"{folder}/{action}.{camera}.mp4" for action in actions)
        return paths, int(match["frame"]) - 1
