"""TFDS builder of synthetic photographs: the open body, dressed, in rooms and streets.

Nothing is downloaded; the photographs are made at first use by the project's own body model and
rasteriser and written as array_record. TensorFlow is not needed.
"""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.open_body.scenes import Variety
from jaxrecon.datasets_builders.open_body.workers import generate
from jaxrecon.datasets_builders.people.features import person_features
from tensorflow_datasets.core.utils import tqdm_utils
from tqdm import tqdm

from jaxrecon.errors import UserError

_SMALLEST_SIDE, _LARGEST_SIDE = 64, 1024


@dataclasses.dataclass(eq=False)
class OpenBodyConfig(tfds.core.BuilderConfig):
    """Sizes of the collection, and how much its photographs differ.

    Attributes:
        train, test: number of images.
        image_size: longer side in pixels, a multiple of 8; shapes vary from 9:16 to 4:3.
        seed: another seed gives other people.
        frontal: share taken from the front, give or take 35 degrees; the others from all sides.
        cut: share of people cut by the border of the image.
    """

    train: int = 3000
    test: int = 300
    image_size: int = 256
    seed: int = 0
    frontal: float = 0.6
    cut: float = 0.2

    def __post_init__(self) -> None:
        if self.train < 1 or self.test < 1:
            raise UserError(
                f"open_body: train={self.train} and test={self.test} must both be at least 1"
            )
        if self.image_size % 8 or not _SMALLEST_SIDE <= self.image_size <= _LARGEST_SIDE:
            raise UserError(
                f"open_body: image_size={self.image_size} must be a multiple of 8 "
                f"from {_SMALLEST_SIDE} to {_LARGEST_SIDE}"
            )
        for name in ("frontal", "cut"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"open_body: {name}={getattr(self, name)} must be from 0 to 1")


def sized(
    train: int,
    test: int,
    image_size: int = 256,
    seed: int = 0,
    frontal: float = 0.6,
    cut: float = 0.2,
) -> OpenBodyConfig:
    """A configuration of any size, named by what it holds, so that each has its own folder."""
    name = f"train{train}_test{test}_size{image_size}_seed{seed}_frontal{frontal:g}_cut{cut:g}"
    return OpenBodyConfig(
        name=name,
        train=train,
        test=test,
        image_size=image_size,
        seed=seed,
        frontal=frontal,
        cut=cut,
    )


class Builder(tfds.core.GeneratorBasedBuilder):
    """Synthetic photographs of the open body with full annotation (the project's Person record).

    Args (beside those of TFDS):
        processes: worker processes; None for one a core. Does not change the data.
        show_progress: draw a progress bar with images/s and time left.
    """

    name = "open_body"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "More photographs from the front.", "1.0.0": "First release."}
    BUILDER_CONFIGS = [
        OpenBodyConfig(
            name="default",
            frontal=1.0,
            cut=0.1,
            description="Trains and tests on a laptop: people who face the camera.",
        ),
        OpenBodyConfig(name="small", train=640, test=96, description="A quick look."),
        OpenBodyConfig(
            name="tiny", train=4, test=2, image_size=128, description="For tests: six images."
        ),
        OpenBodyConfig(
            name="medium",
            train=10000,
            image_size=192,
            frontal=1.0,
            cut=0.1,
            description="More of the default: trains the small model that ships with the package.",
        ),
        OpenBodyConfig(
            name="others",
            train=10000,
            test=1,
            image_size=192,
            seed=1,
            frontal=1.0,
            cut=0.1,
            description="As many others like those of `medium`, for the same purpose.",
        ),
        OpenBodyConfig(name="large", train=40000, test=2000, description="Trains overnight."),
    ]

    def __init__(
        self, *, processes: int | None = None, show_progress: bool = True, **kwargs: Any
    ) -> None:
        self._processes, self._show_progress = processes, show_progress
        kwargs.setdefault("file_format", tfds.core.FileFormat.ARRAY_RECORD)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Rendered photographs of people (the CC0 open body, varied in shape, pose, "
                "clothes, light, camera and surroundings) with SMPL-style pose, betas, 2D and 3D "
                "joints, box and camera."
            ),
            features=person_features(),
            license="CC0-1.0",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        config = self.builder_config
        sizes = {"train": config.train, "test": config.test}
        variety = Variety(config.frontal, config.cut)
        # One crew makes all splits, since starting it takes longer than a small split.
        records = generate(config.seed, sizes, config.image_size, self._processes, variety)
        return {split: self._generate_examples(split, n, records) for split, n in sizes.items()}

    def _generate_examples(
        self, split: str, count: int, records: Iterator[tuple[str, int, dict]]
    ) -> Iterator[tuple[int, dict]]:
        with tqdm(
            desc=f"making {split} photographs",
            total=count,
            unit=" images",
            disable=not self._show_progress,
        ) as bar:
            for of_split, index, record in records:
                if of_split != split:
                    continue
                bar.update()
                yield index, {**record, "image": io.BytesIO(record["image"])}
                if index == count - 1:
                    break

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As TFDS does it, but with one progress bar rather than three nested ones."""
        shown = getattr(tqdm_utils, "_active", True)
        tfds.display_progress_bar(False)
        try:
            super().download_and_prepare(**kwargs)
        finally:
            tfds.display_progress_bar(shown)
