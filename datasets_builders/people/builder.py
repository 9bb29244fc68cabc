"""The builder that all data sets of photographed people share.

A data set says which files it is made of (`SPLITS`, `GUIDE`); this class finds them in the folder
of manual downloads, says what is missing, and writes person records. TensorFlow is not needed.

Manual downloads of a data set lie in `<manual>/<name>`, where `<manual>` is, first of all that is
given: the builder's `manual_dir`, the `manual_dir` of a TFDS `DownloadConfig`, $JAXRECON_MANUAL,
`<data_dir>/downloads/manual` (TFDS's own place; see `jaxrecon.io.places`).
"""

import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.people.annotations import (
    Annotations,
    person_record,
    read_archive,
)
from jaxrecon.datasets_builders.people.detections import OPENPOSE_FOLDER, with_openpose
from jaxrecon.datasets_builders.people.features import person_features
from jaxrecon.datasets_builders.people.images import ImageFolder
from tqdm import tqdm

from jaxrecon.errors import Missing, MissingFiles, UserError
from jaxrecon.io.places import manual_folder

# A shard is held in memory while it is written.
_SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Origin:
    """One kind of files that a split can be made of.

    Attributes:
      files: paths relative to the data set's folder, all of which are needed; wildcards allowed.
      read: the annotations of these files (the first match of each) and the data set's folder.
    """

    files: tuple[str, ...]
    read: Callable[[Path, tuple[Path, ...]], Annotations]

    def found(self, root: Path) -> tuple[Path, ...] | None:
        """The first match of each file, or None if one has no match."""
        matches = tuple(next(iter(sorted(root.glob(name))), None) for name in self.files)
        return None if None in matches else matches  # type: ignore[return-value]


def archive(
    *names: str,
    needs: tuple[str, ...] = (),
    choose: Callable[[Annotations], Annotations] | None = None,
) -> tuple[Origin, ...]:
    """SPIN-style archives, each of which will do: the first that is there is read.

    Args:
      names: file names.
      needs: fields that the archive must have.
      choose: takes part of the rows, or checks them.
    """

    def read(root: Path, files: tuple[Path, ...]) -> Annotations:
        annotations = read_archive(files[0], needs)
        return annotations if choose is None else choose(annotations)

    return tuple(Origin((name,), read) for name in names)


@dataclass(frozen=True)
class Guide:
    """What to tell somebody who does not have the data.

    Attributes:
      fetch: where the files come from, and under which licence.
      licence: its name, for TFDS.
      homepage, citation: of the data set.
      description: what is in it.
      image_folders: sub-folders that may hold the images.
    """

    fetch: str
    licence: str
    homepage: str
    citation: str
    description: str
    image_folders: tuple[str, ...] = ()


# For data sets whose official annotation has joints, but no SMPL parameters.
CONFIGS = [
    tfds.core.BuilderConfig(name="smpl", description="With SMPL labels, from archives."),
    tfds.core.BuilderConfig(
        name="official",
        description="The official annotation alone: joints, no SMPL labels (has_smpl is 0).",
    ),
]


class PeopleBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Person records from annotations and images that were downloaded by hand.

    Every split whose files are there is built, and those that are asked for must be. Records
    keep the order of the annotations. They are written shard by shard, since the other builders
    of TFDS keep a whole split in memory, and need TensorFlow where it is above 1 GB.

    Args (beside those of TFDS):
      manual_dir: the folder of manual downloads; the data set is in its sub-folder `<name>`.
      splits: splits that must be built; none needs to be, but then one of all.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    GUIDE: ClassVar[Guide]
    # What each split can be made of, the preferred first.
    SPLITS: ClassVar[Mapping[str, tuple[Origin, ...]]]
    # The same for the builder config "official"; a data set that has it lists `CONFIGS`.
    OFFICIAL: ClassVar[Mapping[str, tuple[Origin, ...]]] = {}
    # `dataset` of the records, where it is not the builder's name.
    DATASET: ClassVar[str] = ""

    def __init__(
        self,
        *,
        manual_dir: str | os.PathLike[str] | None = None,
        splits: tuple[str, ...] = (),
        **kwargs: Any,
    ) -> None:
        self._manual_dir, self._wanted = manual_dir, tuple(splits)
        kwargs.setdefault("file_format", tfds.core.FileFormat.ARRAY_RECORD)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.GUIDE.description,
            features=person_features(),
            homepage=self.GUIDE.homepage,
            citation=self.GUIDE.citation,
            license=self.GUIDE.licence,
            disable_shuffling=True,
        )

    @property
    def root(self) -> Path:
        """The folder that holds what was downloaded by hand."""
        manual = self._manual_dir or manual_folder(self.data_dir_root)
        return Path(manual).expanduser() / self.name

    def origins(self) -> Mapping[str, tuple[Origin, ...]]:
        """What each split can be made of, the preferred first."""
        config = self.builder_config
        return self.OFFICIAL if config is not None and config.name == "official" else self.SPLITS

    def missing(self, split: str) -> Missing | None:
        """What is not there of the files that a split needs, or None if it can be built.

        Raises:
          UserError: there is no such split.
        """
        origins = self.origins()
        if split not in origins:
            raise UserError(
                f"data set {self.name!r} has no split {split!r}; it has {', '.join(origins)}"
            )
        partly = ""
        for origin in origins[split]:
            there = [name for name in origin.files if any(self.root.glob(name))]
            if len(there) == len(origin.files):
                return None
            lacking = [name for name in origin.files if name not in there]
            # SMPL's files or fits alone do not say which way somebody is going.
            if origin.files[0] in there and not partly:
                partly = f"{' and '.join(lacking)} (beside {', '.join(there)})"
        first, *others = [" with ".join(origin.files) for origin in origins[split]]
        return Missing(
            what=f"data set {self.DATASET or self.name!r}, split {split!r}",
            files=partly or first + (f" (or {', '.join(others)})" if others else ""),
            fetch=self.GUIDE.fetch,
            place=str(self.root),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As TFDS does it.

        Raises:
          UserError: a file, field or image is missing or damaged; see the README of the data set.
        """
        chosen = getattr(kwargs.get("download_config"), "manual_dir", None)
        self._manual_dir = self._manual_dir or chosen
        super().download_and_prepare(**kwargs)

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict]]]]]:
        chosen: dict[str, tuple[Origin, tuple[Path, ...]]] = {}
        for split, origins in self.origins().items():
            for origin in origins:
                files = origin.found(self.root)
                if files is not None:
                    chosen[split] = (origin, files)
                    break
        needed = self._wanted or (() if chosen else tuple(self.origins()))
        missing = [one for one in map(self.missing, needed) if one is not None]
        if missing:
            raise MissingFiles(missing)
        images = self.images()
        # All archives and images are looked at before the first record is written.
        read = {split: origin.read(self.root, files) for split, (origin, files) in chosen.items()}
        detected = self.root / OPENPOSE_FOLDER
        if detected.is_dir():
            read = {split: with_openpose(rows, detected) for split, rows in read.items()}
        for annotations in read.values():
            images.check(annotations.fields["imgname"].tolist(), annotations.source)
        return {split: self._shards(split, rows, images) for split, rows in read.items()}

    def images(self) -> ImageFolder:
        """Where the images are."""
        return ImageFolder(self.root, self.GUIDE.image_folders, self.video_of)

    def video_of(self, name: str) -> tuple[Sequence[str], int] | None:
        """The videos that may have an image (paths in the data set's folder), and its frame."""
        return None

    def _shards(
        self, split: str, annotations: Annotations, images: ImageFolder
    ) -> list[Callable[[], Iterator[tuple[int, dict]]]]:
        sizes = [images.size(name) for name in annotations.fields["imgname"].tolist()]
        count = min(len(annotations), 1 + sum(sizes) // _SHARD_BYTES)
        bounds = np.linspace(0, len(annotations), count + 1).astype(int).tolist()
        return [
            functools.partial(self._examples, split, annotations, range(*ends), images)
            for ends in itertools.pairwise(bounds)
        ]

    def _examples(
        self, split: str, annotations: Annotations, rows: range, images: ImageFolder
    ) -> Iterator[tuple[int, dict]]:
        name, data, count = "", b"", len(annotations)
        what = f"writing {self.name} {split}"
        bar = tqdm(rows, what, count, leave=False, unit=" people", initial=rows.start)
        for row in bar:
            wanted = str(annotations.fields["imgname"][row])
            if wanted != name:  # people in one image often follow one another
                name, data = wanted, images.read(wanted)
            image = io.BytesIO(data)
            yield row, person_record(annotations, row, self.DATASET or self.name, image)
