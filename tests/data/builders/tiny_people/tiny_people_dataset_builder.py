"""A data set of a few made-up records, to test how data sets are found, built and opened."""

import io

import numpy as np
import tensorflow_datasets as tfds

from jaxrecon.errors import UserError
from tests.data.people import make_record

_ARRAYS = {
    "keypoints2d": (49, 3),
    "pose": (72,),
    "betas": (10,),
    "joints3d": (24, 4),
    "center": (2,),
    "transl": (3,),
}


class Builder(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}

    def __init__(self, *, broken=False, **kwargs):
        self.broken = broken
        super().__init__(**kwargs)

    def _info(self):
        arrays = {
            name: tfds.features.Tensor(shape=shape, dtype=np.float32)
            for name, shape in _ARRAYS.items()
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                arrays
                | {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "imgname": tfds.features.Text(),
                    "dataset": tfds.features.Text(),
                    "scale": tfds.features.Scalar(np.float32),
                    "focal_length": tfds.features.Scalar(np.float32),
                    "has_smpl": tfds.features.Scalar(np.int32),
                    "has_joints3d": tfds.features.Scalar(np.int32),
                    "gender": tfds.features.Scalar(np.int32),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(5)}

    def _generate_examples(self, count):
        for number in range(count):
            if self.broken and number == 3:
                raise UserError("tiny_people: photographs/0003.jpg is missing; download it")
            record = make_record(number)
            yield number, record | {"image": io.BytesIO(record["image"])}
