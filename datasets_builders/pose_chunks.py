"""The record that all sets of 2D poses share: many frames of one clip at once.

A pose is some hundred bytes, so a record of its own for each would cost a hundred times its
reading. A record here is up to `CHUNK` consecutive frames, stored as raw bytes: the 1.56 million
poses of Human3.6M are read in seconds.

    keypoints2d    (T, J, 2) float32   pixels; missing ones at 0
    visible        (T, J) uint8        1 where seen
    joints3d       (T, J, 3) float32   metres, camera frame, absolute; zeros where unknown
    has_joints3d   () int32            whether they are known
    focal_length   (2,) float32        pixels (fx, fy); 0 where unknown
    clip           text                which sequence; its records follow each other
    first_frame    () int64            index in the clip of the first frame of the record
    dataset        text
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

CHUNK = 4096  # frames of a record


def chunk_features(joints: int, **more: Any) -> tfds.features.FeaturesDict:
    """The features above for a skeleton of `joints` points, and what a data set adds."""

    def frames(*shape: int, dtype: Any = np.float32) -> tfds.features.Tensor:
        return tfds.features.Tensor(
            shape=(None, *shape), dtype=dtype, encoding=tfds.features.Encoding.BYTES
        )

    return tfds.features.FeaturesDict(
        {
            "keypoints2d": frames(joints, 2),
            "visible": frames(joints, dtype=np.uint8),
            "joints3d": frames(joints, 3),
            "has_joints3d": tfds.features.Scalar(dtype=np.int32),
            "focal_length": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "clip": tfds.features.Text(),
            "first_frame": tfds.features.Scalar(dtype=np.int64),
            "dataset": tfds.features.Text(),
            **more,
        }
    )


def chunks_of_clip(
    dataset: str,
    clip: str,
    keypoints2d: np.ndarray,
    visible: np.ndarray | None = None,
    joints3d: np.ndarray | None = None,
    focal_length: Any = (0.0, 0.0),
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """The records of one clip; `more` is the same in all of them."""
    seen = np.ones(keypoints2d.shape[:2]) if visible is None else visible
    solid = np.zeros((*keypoints2d.shape[:2], 3)) if joints3d is None else joints3d
    for first in range(0, len(keypoints2d), CHUNK):
        rows = slice(first, first + CHUNK)
        yield {
            "keypoints2d": np.ascontiguousarray(keypoints2d[rows], np.float32),
            "visible": np.ascontiguousarray(seen[rows] > 0, np.uint8),
            "joints3d": np.ascontiguousarray(solid[rows], np.float32),
            "has_joints3d": int(joints3d is not None),
            "focal_length": np.asarray(focal_length, np.float32),
            "clip": clip,
            "first_frame": first,
            "dataset": dataset,
            **more,
        }


def stamp(paths: Iterable[str | Path]) -> str:
    """Twelve letters that change with the files: what a set was made of belongs to its name."""
    digest = hashlib.sha256()
    for path in sorted(Path(p) for p in paths):
        facts = path.stat()
        digest.update(f"{path.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


class PoseBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders of pose sets have in common: array_record, records in order."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("file_format", tfds.core.FileFormat.ARRAY_RECORD)
        super().__init__(**kwargs)

    def pose_info(
        self, description: str, licence: str, features: tfds.features.FeaturesDict
    ) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=features,
            license=licence,
            disable_shuffling=True,
        )

    def _generate_examples(self, records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Any]]:
        """Records with the keys that TFDS asks for, which keep their order."""
        for index, record in enumerate(records):
            yield index, dict(record)
