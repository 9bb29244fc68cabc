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

from jaxrecon.errors import Missing, MissingFiles, UserError
from jaxrecon.io.places import data_folder

# Beside the package in a checkout, inside it in a wheel; see `jaxrecon/__init__.py`.
BUILDERS = "jaxrecon.datasets_builders"


_BUILDER_KINDS = (tfds.core.GeneratorBasedBuilder, tfds.core.ShardBasedBuilder)
# What the field calls some data sets; a Python package cannot begin with a digit.
_OTHER_NAMES = {"3dpw": "pw3d", "mpii3d": "mpi_inf_3dhp"}
# Names that mean a data set and its test split.
_PROTOCOLS = ("_p1", "_p2")


def builder_names() -> list[str]:
    """Names of all data sets that have a builder."""
    folders = importlib.import_module(BUILDERS).__path__
    return sorted(
        module.name
        for module in pkgutil.iter_modules(folders)
        if module.ispkg
        and any(
            Path(f, module.name, f"{module.name}_dataset_builder.py").is_file() for f in folders
        )
    )


def resolve_name(name: str, split: str) -> tuple[str, str]:
    """The builder's name and split for a data set by any of its names.

    "3dpw" is `pw3d`, "mpi-inf-3dhp" `mpi_inf_3dhp`; "h36m-p2", split "test", is `h36m`, split
    "test_p2". An unknown name comes back as it is.
    """
    known = builder_names()
    plain = name.lower().replace("-", "_")
    protocol = plain[-3:] if plain.endswith(_PROTOCOLS) and plain not in known else ""
    plain = plain.removesuffix(protocol)
    plain = _OTHER_NAMES.get(plain, plain)
    if name in known or plain not in known:
        return name, split
    if protocol and split.split("[")[0] == "test":
        split = f"test{protocol}" + split.removeprefix("test")
    return plain, split


def find_builder(name: str) -> type[tfds.core.DatasetBuilder]:
    """The builder class of `jaxrecon.datasets_builders.<name>.<name>_dataset_builder`.

    Raises UserError for an unknown name, with the nearest known one.
    """
    known = builder_names()
    asked, (name, _) = name, resolve_name(name, "")
    if name not in known:
        near = difflib.get_close_matches(asked, [*known, *_OTHER_NAMES], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"data set {asked!r} is unknown; {hint}")
    module = importlib.import_module(f"{BUILDERS}.{name}.{name}_dataset_builder")
    for value in vars(module).values():
        is_builder = isinstance(value, type) and issubclass(value, _BUILDER_KINDS)
        if is_builder and value.__module__ == module.__name__:
            # TFDS guesses this folder from the module's name, which is wrong in a checkout.
            value.pkg_dir_path = epath.Path(str(module.__file__)).parent
            return value
    raise TypeError(f"{module.__name__} holds no TFDS builder")


def open_builder(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "",
    **builder_kwargs: Any,
) -> tfds.core.DatasetBuilder:
    """The builder of a data set with its files in place, built now if this is the first use.

    `split`, where given, is one that will be read: it is not built without its manual downloads.
    TFDS writes into a folder beside and renames it when whole, so an interrupted build leaves
    nothing that could be taken for a data set. What the builder itself raises (missing licensed
    files, for instance) passes through.
    """
    directory = Path(data_dir).expanduser() if data_dir else data_folder()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data_dir: cannot make the folder {directory} ({error.strerror}); "
            "set JAXRECON_DATA or data_dir to a folder that can be written"
        ) from error
    builder = _make_builder(name, directory, **builder_kwargs)
    if _prepared(builder):
        return builder
    missing = _missing(builder, split)
    if missing is not None:
        raise MissingFiles([missing])
    print(f"Preparing data set {builder.info.full_name} in {builder.data_path} "
          "(first use; it is kept there)", file=sys.stderr, flush=True)  # fmt: skip
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS reports its progress by printing
            builder.download_and_prepare()
    except OSError:
        # Another process may have finished the same build meanwhile: its files are as good.
        builder = _make_builder(name, directory, **builder_kwargs)
        if not _prepared(builder):
            raise
    return builder


def missing_files(
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    **builder_kwargs: Any,
) -> Missing | None:
    """What has to be fetched by hand before a split can be opened; None if nothing has.

    Nothing is built or written. Raises UserError for an unknown data set, config or split.
    """
    directory = Path(data_dir).expanduser() if data_dir else data_folder()
    builder_name, split = resolve_name(name, split)
    builder = _make_builder(builder_name, directory, **builder_kwargs)
    if _prepared(builder) and split.split("[")[0] in builder.info.splits:
        return None
    return _missing(builder, split)


def _make_builder(name: str, directory: Path, **builder_kwargs: Any) -> tfds.core.DatasetBuilder:
    try:
        return find_builder(name)(
            data_dir=os.fspath(directory), file_format="array_record", **builder_kwargs
        )
    except ValueError as error:
        if isinstance(error, UserError) or "BuilderConfig" not in str(error):
            raise
        raise UserError(
            f"data set {name!r} has no builder config {builder_kwargs.get('config')!r}; it has "
            f"{', '.join(find_builder(name).builder_configs) or 'none'}"
        ) from error


def _missing(builder: tfds.core.DatasetBuilder, split: str) -> Missing | None:
    # Builders that make their own data have nothing to say here.
    ask = getattr(builder, "missing", None)
    return ask(split.split("[")[0]) if ask is not None and split else None


def _prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # What TFDS writes last; its own test logs a warning where there is nothing yet.
    return (builder.data_path / "dataset_info.json").exists()


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> None:
    built = list(builder.info.splits)
    if split.split("[")[0] in built:
        return
    missing = _missing(builder, split)
    if missing is not None:
        raise MissingFiles([missing])
    # The files have come after the data set was built without them.
    later = f"; its files are there now: remove {builder.data_path} to build it again"
    raise UserError(
        f"data set {builder.name!r} has no split {split!r}; it has {', '.join(built)}"
        + (later if hasattr(builder, "missing") else "")
    )


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
        self.name, self.split = resolve_name(name, split)
        self.data_dir, self.builder_kwargs = data_dir, builder_kwargs
        self._opened: Any = None
        self._length = len(self._open())

    def _open(self) -> Any:
        if self._opened is None:
            builder = open_builder(self.name, self.data_dir, self.split, **self.builder_kwargs)
            _check_split(builder, self.split)
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

    `split` is a TFDS split ("train", "test[:100]"); `data_dir` defaults to `data_folder()`;
    `builder_kwargs` go to the builder (`config=...`).
    Raises UserError for an unknown data set or split.
    """
    return RecordSource(name, split, data_dir, **builder_kwargs)
