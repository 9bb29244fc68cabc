"""TFDS builder of any SPIN-style archives with their images. See the README beside this file.

spin_npz/street            a data set of one's own, in the folder `street` of the downloads
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.people.builder import Guide, Origin, PeopleBuilder, archive
from jaxrecon.datasets_builders.people.images import ImageFolder

from jaxrecon.errors import UserError


class Builder(PeopleBuilder):
    """A folder of archives: each `<split>.npz` is a split, images are beside them.

    Args (beside those of `PeopleBuilder`):
      config: the name of the data set, which is that of its folder.
      images: where the images are, if not in the folder of the archives.
    """

    name = "spin_npz"
    GUIDE = Guide(
        fetch="any archive in the format of SPIN, with its images (datasets_builders/spin_npz/"
        "README.md says which fields)",
        licence="that of the data",
        homepage="",
        citation="",
        description="People from an archive of one's own in the format of SPIN.",
        image_folders=("images",),
    )
    SPLITS: Mapping[str, tuple[Origin, ...]] = {}

    def __init__(
        self,
        *,
        config: str | tfds.core.BuilderConfig = "",
        images: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(config, str):
            if not config:
                raise UserError(
                    'spin_npz needs the name of a data set: "spin_npz/street", for instance, is '
                    "in the folder spin_npz/street of the manual downloads"
                )
            config = tfds.core.BuilderConfig(name=config)
        self._images = images
        super().__init__(config=config, **kwargs)

    @property
    def root(self) -> Path:
        """The folder that holds the archives."""
        return super().root / self.builder_config.name

    def origins(self) -> Mapping[str, tuple[Origin, ...]]:
        """One split for each archive, by its name."""
        found = {path.stem: archive(path.name) for path in sorted(self.root.glob("*.npz"))}
        return found or {split: archive(f"{split}.npz") for split in ("train", "test")}

    def images(self) -> ImageFolder:
        """Where the images are."""
        if self._images is None:
            return super().images()
        return ImageFolder(Path(self._images).expanduser(), self.GUIDE.image_folders)
