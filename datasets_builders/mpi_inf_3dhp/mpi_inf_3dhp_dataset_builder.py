"""TFDS builder of MPI-INF-3DHP.

Source: spec of Meta-HMR, section 7, and of Multi-SPIN, section 7.2. See the README beside this
file.
"""

import re
from pathlib import Path

from jaxrecon.datasets_builders.mpi_inf_3dhp.official import read_test_set, read_training_set
from jaxrecon.datasets_builders.people.annotations import Annotations, checked, read_fields
from jaxrecon.datasets_builders.people.builder import (
    CONFIGS,
    Guide,
    Origin,
    PeopleBuilder,
    archive,
)

_FITS = ("pose", "shape", "has_smpl")


def read_with_fits(root: Path, files: tuple[Path, ...]) -> Annotations:
    """SPIN's archive and its multi-view fits, which have one row for each of the archive's."""
    rows, fits = map(read_fields, files)
    taken = {name: fits[name] for name in _FITS if name in fits}
    return checked({**rows, **taken}, f"{files[0]} with {files[1].name}", (*_FITS, "S"))


_FRAME = re.compile(r"(S\d+/Seq\d+)/imageFrames/video_(\d+)/frame_(\d+)\.\w+$")
_TEST = "mpi_inf_3dhp_test_set/TS*/annot_data.mat"


class Builder(PeopleBuilder):
    """MPI-INF-3DHP: splits `train` and `test`."""

    name = "mpi_inf_3dhp"
    BUILDER_CONFIGS = CONFIGS
    GUIDE = Guide(
        fetch=(
            "images: register at https://vcai.mpi-inf.mpg.de/3dhp-dataset (non-commercial), run "
            "its scripts, extract the frames; SMPL labels: SPIN's data archives and multi-view "
            "fits, https://github.com/nkolot/SPIN (datasets_builders/mpi_inf_3dhp/README.md)"
        ),
        licence="non-commercial research (MPI-INF-3DHP); SPIN's fits likewise",
        homepage="https://vcai.mpi-inf.mpg.de/3dhp-dataset",
        citation=(
            "Mehta et al.: Monocular 3D Human Pose Estimation In The Wild Using Improved CNN "
            "Supervision. 3DV 2017"
        ),
        description="Actors before a green screen (14 cameras) and outdoors, with 3D joints.",
        image_folders=("images",),
    )
    SPLITS = {
        "train": (
            *archive("mpi_inf_3dhp_train_name_revised.npz", needs=(*_FITS, "S")),
            Origin(
                ("mpi_inf_3dhp_train.npz", "static_fits/mpi-inf-3dhp_mview_fits.npz"),
                read_with_fits,
            ),
        ),
        "test": (
            *archive("mpi_inf_3dhp_valid_openpose.npz", "mpi_inf_3dhp_valid.npz", needs=("S",)),
            Origin((_TEST,), read_test_set),
        ),
    }
    OFFICIAL = {
        "train": (Origin(("S*/Seq*/annot.mat",), read_training_set),),
        "test": (Origin((_TEST,), read_test_set),),
    }

    def video_of(self, name: str) -> tuple[tuple[str, ...], int] | None:
        """S1/Seq1/imageSequence/video_0.avi, frames counted from 1 in the names of images."""
        match = _FRAME.search(name)
        if match is None:
            return None
        folder, camera, frame = match.groups()
        return (f"{folder}/imageSequence/video_{camera}.avi",), int(frame) - 1
