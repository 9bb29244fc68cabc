"""TFDS builder of the facial landmarks of 300-VW (300 Videos in the Wild)."""

import dataclasses
import re
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

POINTS = 68
# The official test videos by category (A: good light, B: hard light, C: unconstrained).
TEST = {
    "A": (
        114, 124, 125, 126, 150, 158, 401, 402, 505, 506, 507, 508, 509, 510, 511, 514, 515, 518,
        519, 520, 521, 522, 524, 525, 537, 538, 540, 541, 546, 547, 548,
    ),
    "B": (
        203, 208, 211, 212, 213, 214, 218, 224, 403, 404, 405, 406, 407, 408, 409, 412, 550, 551,
        553,
    ),
    "C": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}  # fmt: skip
_CATEGORY = {video: category for category, videos in TEST.items() for video in videos}
_REMEDY = (
    "300-VW is asked for at ibug.doc.ic.ac.uk/resources/300-VW; unpack it so that the folder "
    "holds 001/annot/000001.pts and so on"
)


@dataclasses.dataclass(eq=False)
class VW300Config(tfds.core.BuilderConfig):
    """Where the videos' folders are."""

    folder: str = ""


def videos(folder: str | Path) -> VW300Config:
    """The configuration of an unpacked archive, named by what is in it.

    Raises:
        UserError: no such folder, or no video's annotation in it.
    """
    found = _annotations(Path(folder))
    return VW300Config(name=f"landmarks_{stamp(found.values())}", folder=str(folder))


class Builder(PoseBuilder):
    """Chunks of landmarks, one clip for each video (features: `pose_chunks` and the README)."""

    name = "vw300"
    BUILDER_CONFIGS = [VW300Config(name="landmarks", description="Give `config=videos(folder)`.")]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.pose_info(
            "68 facial landmarks in the frames of 114 videos.",
            "300-VW: research only, no redistribution (iBUG)",
            chunk_features(POINTS, category=tfds.features.Text()),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        if not self.builder_config.folder:
            raise UserError("vw300 needs its videos: config=videos(folder)")
        found = _annotations(Path(self.builder_config.folder))
        splits = {
            "train": {v: path for v, path in found.items() if v not in _CATEGORY},
            "test": {v: path for v, path in found.items() if v in _CATEGORY},
        }
        for split, chosen in splits.items():
            if not chosen:
                raise UserError(
                    f"{self.builder_config.folder} has no {split} video, only "
                    f"{', '.join(f'{v:03d}' for v in sorted(found))}; {_REMEDY}"
                )
        return {
            split: self._generate_examples(self._records(chosen))
            for split, chosen in splits.items()
        }

    def _records(self, chosen: dict[int, Path]) -> Iterator[dict[str, Any]]:
        for video, annotation in chosen.items():
            files = sorted(annotation.glob("*.pts"))
            yield from chunks_of_clip(
                self.name,
                f"{video:03d}",
                np.stack([read_points(file) for file in files]),
                category=_CATEGORY.get(video, ""),
            )


def read_points(path: str | Path) -> np.ndarray:
    """(68, 2) float32 pixels from a .pts file.

    Raises:
        UserError: another number of points, or lines that are no points; the message has the file.
    """
    file = existing_file(path, "landmark file")
    inside = re.search(r"n_points:\s*(\d+)\s*\{(.*)\}", file.read_text("utf-8", "replace"), re.S)
    if inside is None:
        raise UserError(f"{file} is not a landmark file (n_points: {POINTS} and points in braces)")
    try:
        numbers = np.array(inside[2].split(), np.float32)
    except ValueError as error:
        raise UserError(f"{file} has a line that is no point ({error})") from error
    if int(inside[1]) != POINTS or numbers.size != 2 * POINTS or not np.isfinite(numbers).all():
        raise UserError(
            f"{file} has n_points: {inside[1]} and {numbers.size} numbers; {POINTS} points (x, y) "
            "are expected, get it again"
        )
    return numbers.reshape(POINTS, 2)


def _annotations(folder: Path) -> dict[int, Path]:
    """Video number -> its folder of .pts files."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; {_REMEDY}")
    found = {}
    for video in sorted(folder.iterdir()):
        if not re.fullmatch(r"\d{3}", video.name):
            continue
        annotation = video / "annot"
        if not any(annotation.glob("*.pts")):
            raise UserError(f"{video} has no annot/*.pts; unpack the video's folder again")
        found[int(video.name)] = annotation
    if not found:
        raise UserError(f"{folder} holds no video (001/annot/000001.pts, ...); {_REMEDY}")
    return found
