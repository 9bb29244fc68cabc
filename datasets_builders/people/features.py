"""The features of a person record, which every data set of people yields.

See `jaxrecon.data.items` for what each means, and `records.py` for how annotations become one.
"""

import numpy as np
import tensorflow_datasets as tfds


def person_features() -> tfds.features.FeaturesDict:
    """One person in one photograph; the photograph is stored as the bytes of its file."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "imgname": tfds.features.Text(),
            "keypoints2d": tfds.features.Tensor(shape=(49, 3), dtype=np.float32),
            "pose": tfds.features.Tensor(shape=(72,), dtype=np.float32),
            "betas": tfds.features.Tensor(shape=(10,), dtype=np.float32),
            "joints3d": tfds.features.Tensor(shape=(24, 4), dtype=np.float32),
            "has_smpl": tfds.features.Scalar(dtype=np.int32),
            "has_joints3d": tfds.features.Scalar(dtype=np.int32),
            "gender": tfds.features.Scalar(dtype=np.int32),
            "center": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "scale": tfds.features.Scalar(dtype=np.float32),
            "focal_length": tfds.features.Scalar(dtype=np.float32),
            "transl": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "dataset": tfds.features.Text(),
        }
    )
