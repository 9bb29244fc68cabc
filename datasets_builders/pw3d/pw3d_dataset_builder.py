"""TFDS builder of 3DPW, which is called "3dpw" everywhere else.

Source: spec of Meta-HMR, sections 6.4 and 7. See the README beside this file.
"""

from jaxrecon.datasets_builders.people.builder import Guide, Origin, PeopleBuilder, archive
from jaxrecon.datasets_builders.pw3d.sequences import read_sequences

_NEEDS = ("pose", "shape", "gender")
# The first man's or woman's file leads to the others; any of the two suffixes will do.
_SMPL = ("../smpl/SMPL_MALE.*", "../smpl/SMPL_FEMALE.*", "../smpl/J_regressor_extra.npy")


def _sequences(split: str) -> Origin:
    return Origin((f"sequenceFiles/{split}/*.pkl", *_SMPL), read_sequences)


class Builder(PeopleBuilder):
    """3DPW: splits `train`, `validation` (from the sequence files alone) and `test`."""

    name = "pw3d"
    DATASET = "3dpw"
    GUIDE = Guide(
        fetch=(
            "imageFiles.zip and sequenceFiles.zip: https://virtualhumans.mpi-inf.mpg.de/3DPW "
            "(non-commercial research licence); they are read with the SMPL files of men and "
            "women, or else with one of the archives (datasets_builders/pw3d/README.md)"
        ),
        licence="non-commercial scientific research (3DPW)",
        homepage="https://virtualhumans.mpi-inf.mpg.de/3DPW",
        citation=(
            "von Marcard, Henschel, Black, Rosenhahn, Pons-Moll: Recovering Accurate 3D Human Pose "
            "in The Wild Using IMUs and a Moving Camera. ECCV 2018"
        ),
        description="People outdoors, filmed by a moving camera, with SMPL bodies from IMUs.",
    )
    SPLITS = {
        "train": (
            *archive("3dpw_train_w2d_smpl3d_gender.npz", needs=_NEEDS),
            _sequences("train"),
        ),
        "validation": (_sequences("validation"),),
        "test": (
            *archive(
                "3dpw_test_w2d_smpl3d_gender_openpose.npz",
                "3dpw_test_w2d_smpl3d_gender.npz",
                needs=_NEEDS,
            ),
            _sequences("test"),
            *archive("3dpw_test.npz", needs=_NEEDS),
        ),
    }
