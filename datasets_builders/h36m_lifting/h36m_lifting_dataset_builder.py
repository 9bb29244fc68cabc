"""TFDS builder of Human3.6M for lifting, from the archives of VideoPose3D on this machine."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.pose_chunks import (
    PoseBuilder,
    chunk_features,
    chunks_of_clip,
    stamp,
)

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.h36m_archives import (
    REMEDY,
    TEST_SUBJECTS,
    TRAIN_SUBJECTS,
    plain_action,
    read_archive,
    read_clips,
)

SPLITS = {"train": TRAIN_SUBJECTS, "test": TEST_SUBJECTS}


@dataclasses.dataclass(eq=False)
class H36MConfig(tfds.core.BuilderConfig):
    """Which archives.

    Attributes:
        folder: of `data_3d_h36m.npz` and `data_2d_h36m_<keypoints>.npz`.
        keypoints: "gt", "cpn_ft_h36m_dbb", "detectron_ft_h36m", ...
    """

    folder: str = ""
    keypoints: str = "gt"


def archives(folder: str | Path, keypoints: str = "gt") -> H36MConfig:
    """The configuration of archives in a folder, named by what they are.

    Raises:
        UserError: one of the two is missing.
    """
    names = ("data_3d_h36m.npz", f"data_2d_h36m_{keypoints}.npz")
    files = [existing_file(Path(folder) / name, "VideoPose3D archive", REMEDY) for name in names]
    name = f"{keypoints}_{stamp(files)}"
    return H36MConfig(name=name, folder=str(folder), keypoints=keypoints)


class Builder(PoseBuilder):
    """Chunks of poses in the published order (features: `pose_chunks` and the README)."""

    name = "h36m_lifting"
    BUILDER_CONFIGS = [H36MConfig(name="gt", description="Give `config=archives(folder)`.")]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.pose_info(
            "2D and 3D poses of Human3.6M, 17 joints, four cameras.",
            "Human3.6M: research only, no redistribution",
            chunk_features(
                17,
                intrinsics=tfds.features.Tensor(shape=(9,), dtype=np.float32),
                subject=tfds.features.Text(),
                action=tfds.features.Text(),
                take=tfds.features.Text(),
                camera=tfds.features.Scalar(dtype=np.int32),
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        folder = Path(self.builder_config.folder)
        if not self.builder_config.folder:
            raise UserError("h36m_lifting needs its archives: config=archives(folder)")
        archive = folder / f"data_2d_h36m_{self.builder_config.keypoints}.npz"
        present = read_archive(archive, "positions_2d")
        found = {}
        for split, subjects in SPLITS.items():
            here = [subject for subject in subjects if subject in present]
            if not here:
                raise UserError(
                    f"{archive} has none of the {split} subjects {', '.join(subjects)}; it has "
                    + ", ".join(sorted(present))
                )
            found[split] = self._generate_examples(self._records(here))
        return found

    def _records(self, subjects: list[str]) -> Iterator[dict[str, Any]]:
        config = self.builder_config
        for clip in read_clips(config.folder, config.keypoints, subjects):
            plain = plain_action(clip.action)
            yield from chunks_of_clip(
                self.name,
                f"{clip.subject}/{clip.action}/{clip.camera}",
                clip.keypoints2d,
                joints3d=clip.joints3d,
                focal_length=clip.intrinsics[:2],
                intrinsics=clip.intrinsics,
                subject=clip.subject,
                action=plain,
                take=clip.action.removeprefix(plain).strip(),
                camera=clip.camera,
            )
