"""Data sets by name: found, built at first use, opened for random access; no TensorFlow."""

import contextlib
import difflib
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from jaxrecon.errors import UserError

# Beside the package in a checkout, inside it in a wheel; see `jaxrecon/__init__.py`.
BUILDERS = "jaxrecon.datasets_builders"


def builder_names() -> list[str]:
    """Names of all data sets that have a builder."""
    folders = importlib.import_module(BUILDERS).__path__
    return sorted(module.name for module in pkgutil.iter_modules(folders) if module.ispkg)


def find_builder(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """The builder class of `jaxrecon.datasets_builders.<name>.<name>_dataset_builder`.

    Raises UserError for an unknown name, with the nearest known one.
    """
    if name not in builder_names():
        near = difflib.get_close_matches(name, builder_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(builder_names())}"
        raise UserError(f"data set {name!r} is unknown; {hint}")
    module = importlib.import_module(f"{BUILDERS}.{name}.{name}_dataset_builder")
    for value in vars(module).values():
        is_builder = isinstance(value, type) and issubclass(value, tfds.core.GeneratorBasedBuilder)
        if is_builder and value.__module__ == module.__name__:
            # TFDS guesses this folder from the module's name, which is wrong in a checkout.
            value.pkg_dir_path = epath.Path(str(module.__file__)).parent
            return value
    raise TypeError(f"{module.__name__} holds no subclass of tfds.core.GeneratorBasedBuilder")


def default_data_dir() -> Path:
    """Where data sets are kept: $JAXRECON_DATA, or ~/.cache/jaxrecon/datasets."""
    chosen = os.environ.get("JAXRECON_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache/jaxrecon/datasets"


def open_builder(
    name: str, data_dir: str | os.PathLike[str] | None = None, **builder_kwargs: Any
) -> tfds.core.GeneratorBasedBuilder:
    """The builder of a data set with its files in place, built now if this is the first use.

    TFDS writes into a folder beside and renames it when whole, so an interrupted build leaves
    nothing that could be taken for a data set. What the builder itself raises (missing licensed
    files, for instance) passes through.
    """
    directory = Path(data_dir).expanduser() if data_dir else default_data_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data_dir: cannot make the folder {directory} ({error.strerror}); "
            "set JAXRECON_DATA or data_dir to a folder that can be written"
        ) from error
    builder = find_builder(name)(
        data_dir=os.fspath(directory), file_format="array_record", **builder_kwargs
    )
    if _prepared(builder):
        return builder
    print(f"Preparing data set {builder.info.full_name} in {builder.data_path} "
          "(first use; it is kept there)", file=sys.stderr, flush=True)  # fmt: skip
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS reports its progress by printing
            builder.download_and_prepare()
    except OSError:
        # Another process may have finished the same build meanwhile: its files are as good.
        builder = find_builder(name)(
            data_dir=os.fspath(directory), file_format="array_record", **builder_kwargs
        )
        if not _prepared(builder):
            raise
    return builder


def _prepared(builder: tfds.core.GeneratorBasedBuilder) -> bool:
    # What TFDS writes last; its own test logs a warning where there is nothing yet.
    return (builder.data_path / "dataset_info.json").exists()


class RecordSource:
    """Records of one split by index, images still encoded; opened lazily, also after pickling.

    A worker process receives the few words below and opens the files itself.
    """

    def __init__(
        self,
        name: str,
        split: str,
        data_dir: str | os.PathLike[str] | None = None,
        **builder_kwargs: Any,
    ):
        self.name, self.split = name, split
        self.data_dir, self.builder_kwargs = data_dir, builder_kwargs
        self._opened: Any = None
        self._length = len(self._open())

    def _open(self) -> Any:
        if self._opened is None:
            builder = open_builder(self.name, self.data_dir, **self.builder_kwargs)
            splits = list(builder.info.splits)
            if self.split.split("[")[0] not in splits:
                raise UserError(
                    f"data set {self.name!r} has no split {self.split!r}; "
                    f"it has {', '.join(splits)}"
                )
            keep = {
                key: tfds.decode.SkipDecoding()
                for key, feature in builder.info.features.items()
                if isinstance(feature, tfds.features.Image)
            }
            try:
                self._opened = builder.as_data_source(self.split, decoders=keep)
            except ValueError as error:
                raise UserError(f"data set {self.name!r}, split {self.split!r}: {error}") from error
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._open()[index]

    def __repr__(self) -> str:
        return f"RecordSource({self.name!r}, {self.split!r}, {len(self)} records)"


def open_source(
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    **builder_kwargs: Any,
) -> RecordSource:
    """Random access to the records of a data set, which is built now if need be.

    `split` is a TFDS split ("train", "test[:100]"); `data_dir` defaults to `default_data_dir()`;
    `builder_kwargs` go to the builder (`config=...`).
    Raises UserError for an unknown data set or split.
    """
    return RecordSource(name, split, data_dir, **builder_kwargs)
