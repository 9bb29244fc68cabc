"""TFDS builder of anyone's own keypoints: a .npz or .mat, or a folder of them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.pose_chunks import (
    PoseBuilder,
    chunk_features,
    chunks_of_clip,
    stamp,
)

from jaxrecon.errors import UserError
from jaxrecon.io.pose_files import read_pose_arrays

SUFFIXES = (".npz", ".mat")


@dataclasses.dataclass(eq=False)
class KeypointFileConfig(tfds.core.BuilderConfig):
    """Which files.

    Attributes:
        files: in this order.
        joints: of their skeleton.
        focal_length: pixels, where a file has none; 0: assumed from the size of the image.
    """

    files: tuple[str, ...] = ()
    joints: int = 1
    focal_length: float = 0.0


def keypoint_files(path: str | Path, focal_length: float = 0.0) -> KeypointFileConfig:
    """The configuration of one file or of all files in a folder, checked and named by content.

    Raises:
        UserError: no such file, none in the folder, one that is damaged, or files of different
            skeletons.
    """
    path = Path(path)
    files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no keypoint file ({' or '.join(SUFFIXES)})")
    joints = [read_pose_arrays(file, focal_length).keypoints2d.shape[1] for file in files]
    for file, count in zip(files, joints, strict=True):
        if count != joints[0]:
            raise UserError(f"{file} has {count} joints, {files[0]} has {joints[0]}")
    safe = "".join(c if c.isalnum() else "_" for c in path.stem)[:40]
    focal = f"_f{focal_length:g}" if focal_length else ""
    return KeypointFileConfig(
        name=f"{safe}_{stamp(files)}{focal}",
        files=tuple(map(str, files)),
        joints=joints[0],
        focal_length=focal_length,
    )


class Builder(PoseBuilder):
    """Chunks of poses, one clip for each file (features: `pose_chunks` and the README)."""

    name = "keypoint_file"
    BUILDER_CONFIGS = [
        KeypointFileConfig(name="none", description="Give `config=keypoint_files(path)`.")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.pose_info(
            "2D keypoints of one's own, with 3D where the files have it.",
            "that of the files",
            chunk_features(self.builder_config.joints),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        if not self.builder_config.files:
            raise UserError("keypoint_file needs a file: config=keypoint_files(path)")
        return {"train": self._generate_examples(self._records())}

    def _records(self) -> Iterator[dict[str, Any]]:
        for file in self.builder_config.files:
            arrays = read_pose_arrays(file, self.builder_config.focal_length)
            yield from chunks_of_clip(
                self.name,
                Path(file).name,
                arrays.keypoints2d,
                arrays.visible,
                arrays.joints3d,
                arrays.focal_length,
            )
