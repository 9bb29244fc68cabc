"""PyTorch checkpoints read and written without torch, and without running what they hold.

Both containers are read: the zip archive (PyTorch 1.6 and later) and the older sequence of
pickles that ends in raw storages. The pickles go through `jaxrecon.io.pickle_machine`.
"""

import math
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.files import existing_file
from jaxrecon.io.pickle_machine import Global, PickleFault, Recipe, parse
from jaxrecon.io.pickle_writer import PersistentId, dump
from jaxrecon.io.pickled_arrays import ARRAY_RECIPES
from jaxrecon.io.pickles import Resolver, explained

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_REMEDY = "download it again, from its official source"
_WHAT = "PyTorch checkpoint"

_STORAGES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
    "UntypedStorage": np.dtype(np.uint8),
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint64": np.dtype(np.uint64),
    "uint32": np.dtype(np.uint32),
    "uint16": np.dtype(np.uint16),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
_STORAGE_OF = {dtype: name for name, dtype in _STORAGES.items() if name != "UntypedStorage"}


def read_checkpoint(path: str | os.PathLike[str], skip_unknown: bool = False) -> Any:
    """The content of a PyTorch checkpoint (.pt, .pth, .bin, .tar, .ckpt) as NumPy arrays.

    Tensors on any device and parameters become arrays of their shape; bfloat16 is that of
    `ml_dtypes`. Tensors that share a storage share memory where they are contiguous.

    Args:
      path: the file, in the zip or in the older format.
      skip_unknown: objects of unknown classes (a trainer's settings, say) become `pickles.Opaque`
        instead of an error. They are never built, so this is safe; it only loses them.

    Returns:
      nested dict, list, tuple, arrays and plain values, as they were saved.

    Raises:
      UserError: missing, a folder, truncated, a web page, a TorchScript program, or it names
        something that is no data (the message has the file and the name).
    """
    file = existing_file(path, _WHAT)
    with file.open("rb") as stream, explained(file, _WHAT):
        head = stream.read(512)
        stream.seek(0)
        _refuse_impostors(file, head)
        if head[:2] == b"PK":
            return _read_zip(file, stream, skip_unknown)
        if tarfile.is_tarfile(file):
            raise UserError(f"{file} is a tar archive; unpack it and give the checkpoint inside")
        return _read_legacy(stream, skip_unknown)


def write_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write nested containers of arrays as a checkpoint that `torch.load` reads, also weights only.

    Args:
      path: the file; the format is the zip archive whatever its suffix.
      tree: dict, list and tuple of arrays (NumPy or JAX), str, numbers, bool and None.

    Raises:
      UserError: something in the tree that torch has no type for.
    """
    storages: list[np.ndarray] = []

    def describe(value: Any) -> Any:
        if isinstance(value, np.generic) and isinstance(value.item(), bool | int | float):
            return value.item()
        array = np.asarray(value)
        name = _STORAGE_OF.get(array.dtype.newbyteorder("="))
        if name is None:
            kind = f"arrays of {array.dtype}" if array.dtype != object else type(value).__name__
            raise UserError(f"cannot write {path}: a checkpoint cannot hold {kind}; convert first")
        storages.append(array)
        key = str(len(storages) - 1)
        storage = PersistentId(("storage", Global("torch", name), key, "cpu", array.size))
        strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        hooks = Recipe(Global("collections", "OrderedDict"), ())
        return Recipe(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (storage, 0, array.shape, strides, False, hooks),
        )

    try:
        pickled = dump(tree, describe)
    except TypeError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    packed = BytesIO()
    root = Path(path).stem or "archive"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        records = [("data.pkl", pickled), ("byteorder", b"little")]
        records += [
            (f"data/{i}", a.astype(a.dtype.newbyteorder("<")).tobytes())
            for i, a in enumerate(storages)
        ]
        records += [("version", b"3\n")]
        for name, data in records:
            # A fixed date: the same tree gives the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}", (1980, 1, 1, 0, 0, 0)), data)
    write_bytes(path, packed.getvalue())


class _Storage:
    """A run of bytes that tensors are views of; filled once the pickle has been read."""

    def __init__(self, dtype: np.dtype[Any], count: int):
        self.dtype, self.count = dtype, count
        self.data: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def fill(self, stream: Any, byteorder: str) -> None:
        data = np.empty(self.nbytes, np.uint8)
        view, filled = memoryview(data.data), 0
        while filled < len(view):
            got = stream.readinto(view[filled:])
            if not got:
                raise PickleFault(f"a tensor has {filled} of its {self.nbytes} bytes")
            filled += got
        self.take(data, byteorder)

    def take(self, data: np.ndarray, byteorder: str) -> None:
        typed = data.view(self.dtype)
        self.data = typed if byteorder == sys.byteorder else typed.byteswap()


def _read_zip(file: Path, stream: Any, skip_unknown: bool) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise PickleFault("its zip directory is missing") from error
    with archive:
        names = archive.namelist()
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError(f"{file} is a zip archive, but not a {_WHAT}: it has no data.pkl")
        root = pickles[0][: -len("data.pkl")]
        if f"{root}constants.pkl" in names:
            raise UserError(
                f"{file} is a TorchScript program, not plain weights; save its state_dict instead"
            )
        order = (
            archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
        )
        storages: dict[str, _Storage] = {}
        try:
            tree = _parse(BytesIO(archive.read(pickles[0])), storages, skip_unknown)
            for key, storage in storages.items():
                member = f"{root}data/{key}"
                if archive.getinfo(member).file_size < storage.nbytes:
                    raise PickleFault(f"the tensor data {member} are too short")
                with archive.open(member) as data:
                    storage.fill(data, order)
        except zipfile.BadZipFile as error:
            raise PickleFault(str(error)) from error
    return Resolver(_RECIPES)(tree)


def _read_legacy(stream: Any, skip_unknown: bool) -> Any:
    size = os.fstat(stream.fileno()).st_size
    if parse(stream, ()) != _LEGACY_MAGIC:
        raise PickleFault("it does not begin like one")
    parse(stream, ())  # the protocol, 1001 since ever
    system = parse(stream, ())
    order = "little" if system["little_endian"] else "big"
    storages: dict[str, _Storage] = {}
    tree = _parse(stream, storages, skip_unknown)
    for key in parse(stream, ()):
        count = int.from_bytes(stream.read(8), order)  # type: ignore[arg-type]
        if count != storages[key].count:
            raise PickleFault(
                f"a tensor storage has {count} numbers, {storages[key].count} expected"
            )
        if storages[key].nbytes > size - stream.tell():
            raise PickleFault("it ends before its last tensor")
        storages[key].fill(stream, order)
    return Resolver(_RECIPES)(tree)


def _parse(stream: BufferedIOBase, storages: dict[str, _Storage], skip_unknown: bool) -> Any:
    """The main pickle; the storages that it refers to are entered in `storages`."""

    def persistent(pid: Any) -> _Storage | Recipe:
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or not isinstance(kind, Global) or kind.name not in _STORAGES:
            raise PickleFault(f"it refers to {pid[:2]}, which is no tensor storage")
        key = str(key)
        if key not in storages:
            storages[key] = _Storage(_STORAGES[kind.name], count)
        if view and view[0] is not None:  # files before 0.4: a window of another storage
            raise PickleFault("storages that are windows of others are not supported")
        return storages[key]

    return parse(stream, _RECIPES, persistent, skip_unknown)


def _refuse_impostors(file: Path, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{file} is a web page, not a {_WHAT}: the download was answered with a sign-in or "
            "error page; download it in a browser"
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{file} is a Git LFS pointer, not the {_WHAT} itself; run `git lfs pull`")


def _tensor(recipe: Recipe, resolve: Callable[[Any], Any]) -> np.ndarray:
    """_rebuild_tensor (storage, offset, size, stride) and its later forms with more behind."""
    storage, offset, size, strides, *rest = recipe.args
    size, strides = resolve(size), resolve(strides)
    if not isinstance(storage, _Storage) or storage.data is None:
        raise PickleFault("a tensor has no storage")
    numbers = storage.data
    if recipe.made_of.name == "_rebuild_tensor_v3":
        numbers = numbers.view(_DTYPES[str(rest[2]).removeprefix("torch.")])
    whole = all(isinstance(n, int) and n >= 0 for n in (offset, *size, *strides))
    if not whole or len(size) != len(strides):
        raise PickleFault("a tensor has an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, strides, strict=True))
    if math.prod(size) == 0:
        return np.zeros(size, numbers.dtype)
    if last >= len(numbers):
        raise PickleFault("a tensor reaches beyond its storage")
    steps = [s * numbers.itemsize for s in strides]
    start = offset * numbers.itemsize
    raw = numbers.view(np.uint8)
    view: np.ndarray = np.ndarray(size, numbers.dtype, raw.data, start, steps)
    return view if view.flags.c_contiguous else view.copy()


def _parameter(recipe: Recipe, resolve: Callable[[Any], Any]) -> Any:
    """_rebuild_parameter (data, requires_grad, hooks, state)."""
    return resolve(recipe.args[0])


def _from_type(recipe: Recipe, resolve: Callable[[Any], Any]) -> Any:
    """_rebuild_from_type_v2 (function, type, arguments, state): tensors with attributes."""
    function, _, args = recipe.args[:3]
    if not isinstance(function, Global):
        raise PickleFault("a tensor is rebuilt by something that is not a name")
    return resolve(Recipe(function, args))


def _size(recipe: Recipe, resolve: Callable[[Any], Any]) -> tuple[int, ...]:
    return tuple(resolve(recipe.args[0])) if recipe.args else ()


def _device(recipe: Recipe, resolve: Callable[[Any], Any]) -> str:
    return ":".join(str(resolve(a)) for a in recipe.args)


def _path(recipe: Recipe, resolve: Callable[[Any], Any]) -> str:
    return os.path.join("", *(str(resolve(a)) for a in recipe.args))


def _no_value(recipe: Recipe, resolve: Callable[[Any], Any]) -> Any:
    raise PickleFault(f"{recipe.made_of} cannot be called")


def _table() -> dict[tuple[str, str], Callable[[Recipe, Callable[[Any], Any]], Any]]:
    table: dict[tuple[str, str], Any] = dict(ARRAY_RECIPES)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        table["torch._utils", name] = _tensor
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        table["torch._utils", name] = _parameter
    table["torch._tensor", "_rebuild_from_type_v2"] = _from_type
    table["torch", "Size"] = _size
    table["torch", "device"] = _device
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        table["pathlib", name] = _path
    for name in _STORAGES:
        table["torch", name] = table["torch.cuda", name] = table["torch.storage", name] = _no_value
    table["torch.storage", "TypedStorage"] = table["torch.storage", "_TypedStorage"] = _no_value
    for name in _DTYPES:
        table["torch", name] = _no_value
    for name in ("Tensor", "nn.parameter.Parameter"):
        table["torch", name] = _no_value
    table["torch.nn.parameter", "Parameter"] = _no_value
    return table


_RECIPES = _table()
