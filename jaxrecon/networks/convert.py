"""Between PyTorch state dicts and our variables, both ways, with a report of every layer.

Each of our leaves knows its state-dict name: `layer1_0/conv1/kernel` is `layer1.0.conv1.weight`.
What repeats in a loop (`networks.hrnet`) is one leaf with leading axes and many tensors there:
`stage3/branches_1/bn1/scale` at [2, 0] is `stage3.2.branches.1.0.bn1.weight`. Convolution kernels
go [O, I, kh, kw] -> [kh, kw, I, O], linear weights [O, I] -> [I, O].
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jaxrecon.errors import UserError

Path = tuple[str, ...]
Shape = tuple[int, ...]
COLLECTIONS = ("params", "batch_stats")
NOTHING = "(?!)"  # the pattern that matches no name
_LEAVES = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}
_MODULE = re.compile(r"^(downsample_stage_\d|[a-z_]+?\d*)((?:_\d+)*)$")
_STACKED = re.compile(r"^(stage\d|branches_\d)$")
_UNUSED = re.compile(r"num_batches_tracked$")
_LISTED = 20  # names that an error lists of each kind


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a tensor of a state dict is in our variables: a leaf, and an index into it."""

    collection: str
    path: Path
    index: Shape = ()

    def __str__(self) -> str:
        where = "/".join((self.collection, *self.path))
        return where + (str(list(self.index)) if self.index else "")


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion did with every tensor.

    Attributes:
        loaded: Name of each loaded tensor, its shape there and its place here.
        dropped: Names without use here, by the layout of the file.
        kept: Names that this layout never has: they keep the values they had.
        missing: Names that the file lacks.
        unexpected: Names that the network does not have.
    """

    loaded: Mapping[str, tuple[Shape, Address]]
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def text(self, most: int | None = None) -> str:
        """A line of counts, and the names that were not loaded (at most so many of each kind)."""
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.dropped)} dropped on purpose, "
            f"{len(self.kept)} kept as they were, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected"
        ]
        rest = [name for name in self.dropped if not _UNUSED.search(name)]
        for what, names in (
            ("dropped", rest),
            ("kept", self.kept),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
        ):
            lines += [f"  {what} {name}" for name in names[:most]]
            if most is not None and len(names) > most:
                lines.append(f"  ... and {len(names) - most} more {what}")
        return "\n".join(lines)

    def layers(self) -> str:
        """A line for each layer: its name there, what was loaded, how much, and where to."""
        layers: dict[str, list[str]] = {}
        for name in self.loaded:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
        lines = []
        for layer, names in layers.items():
            numbers = sum(math.prod(self.loaded[name][0]) for name in names)
            what = " ".join(
                f"{name.rpartition('.')[2]}{list(self.loaded[name][0])}" for name in names
            )
            address = self.loaded[names[0]][1]
            parent = "/".join(address.path[:-1] or address.path)
            index = str(list(address.index)) if address.index else ""
            lines.append(f"{layer}: {what}, {numbers} numbers -> {parent}{index}")
        return "\n".join(lines)


def _torch_names(collection: str, path: Path, shape: Shape) -> Iterator[tuple[str, Address]]:
    """The state-dict names of one of our leaves, and which part of it each is."""
    modules, leaf = path[1:-1], _LEAVES.get(path[-1], path[-1])
    stacked = sum(bool(_STACKED.match(module)) for module in modules)
    for index in np.ndindex(*shape[:stacked]):
        left = iter(index)
        parts = []
        for module in modules:
            match = _MODULE.match(module)
            assert match is not None, module
            parts += [match[1], *match[2].split("_")[1:]]
            if _STACKED.match(module):
                parts.append(str(next(left)))
        yield ".".join([*parts, leaf]), Address(collection, path, tuple(index))


def addresses(variables: Mapping[str, Any]) -> dict[str, Address]:
    """Every state-dict name of a network's variables (arrays or shapes), without any prefix."""
    return {
        name: address
        for collection in COLLECTIONS
        for path, leaf in traverse_util.flatten_dict(dict(variables.get(collection, {}))).items()
        for name, address in _torch_names(collection, path, np.shape(leaf))
    }


def _is_linear(path: Path, array: np.ndarray) -> bool:
    return path[-1] == "kernel" and array.ndim == 2


def _to_ours(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if _is_linear(path, array) else array


def _to_torch(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(array.T) if _is_linear(path, array) else array


def state_dict_to_variables(
    state: Mapping[str, np.ndarray],
    template: Mapping[str, Any],
    strict: bool = True,
    lacks: str = NOTHING,
    drops: Collection[str] = (),
) -> tuple[dict[str, Any], Report]:
    """Our `params` and `batch_stats` from a published state dict.

    Args:
        state: name -> array, in PyTorch's layout, names without prefix.
        template: variables of the network (arrays or shapes); what the state dict lacks keeps
            the template's values.
        strict: Refuse missing and unexpected names.
        lacks: Pattern of the names which files of this layout never have.
        drops: Names which files of this layout have for another purpose.

    Raises:
        UserError: a shape that does not fit, or (strict) names that do not.
    """
    flat = {c: traverse_util.flatten_dict(dict(template[c])) for c in COLLECTIONS}
    known = addresses(template)
    loaded: dict[str, tuple[Shape, Address]] = {}
    written: dict[tuple[str, Path], np.ndarray] = {}
    dropped, unexpected = [], []
    for name, value in state.items():
        if _UNUSED.search(name) or name in drops:
            dropped.append(name)
            continue
        if name not in known:
            unexpected.append(name)
            continue
        address = known[name]
        leaf = flat[address.collection][address.path]
        array = _to_ours(np.asarray(value), address.path)
        want = np.shape(leaf)[len(address.index) :]
        if array.shape != want:
            raise UserError(
                f"{name}: the checkpoint has shape {np.shape(value)}, this network's "
                f"{'/'.join(address.path)} has {want}; is it a checkpoint of another model or "
                "backbone?"
            )
        key = (address.collection, address.path)
        if key not in written:
            written[key] = _writable(leaf)
        written[key][address.index] = array
        loaded[name] = (np.shape(value), address)
    absent = [name for name in known if name not in loaded]
    kept = tuple(name for name in absent if re.search(lacks, name))
    report = Report(
        loaded=loaded,
        dropped=tuple(dropped),
        kept=kept,
        missing=tuple(name for name in absent if name not in kept),
        unexpected=tuple(unexpected),
    )
    if strict and (report.missing or report.unexpected):
        raise UserError(
            f"the checkpoint does not fit this network: {report.text(_LISTED)}; convert with "
            "strict=False to load what fits"
        )
    for (collection, path), array in written.items():
        flat[collection][path] = array
    return {c: traverse_util.unflatten_dict(leaves) for c, leaves in flat.items()}, report


def _writable(leaf: Any) -> np.ndarray:
    """A copy of a leaf of a template; zeros where it is but a shape."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return np.zeros(leaf.shape, np.float32)
    return np.array(leaf, np.float32)


def torch_tensor(variables: Mapping[str, Any], address: Address) -> np.ndarray:
    """The tensor at an address, in PyTorch's layout."""
    leaf: Any = variables[address.collection]
    for key in address.path:
        leaf = leaf[key]
    return _to_torch(np.asarray(leaf)[address.index], address.path)


def variables_to_state_dict(
    variables: Mapping[str, Any], backbone_prefix: str = ""
) -> dict[str, np.ndarray]:
    """A state dict of PyTorch's names and layout, `num_batches_tracked` included (as 0).

    Args:
        backbone_prefix: What comes before the names of the backbone's tensors.
    """
    on_host = jax.device_get({c: dict(variables[c]) for c in COLLECTIONS})
    state: dict[str, np.ndarray] = {}
    for plain, address in addresses(on_host).items():
        name = backbone_prefix + plain if address.path[0] == "backbone" else plain
        state[name] = torch_tensor(on_host, address)
        if name.endswith("running_var"):
            tracked = name.replace("running_var", "num_batches_tracked")
            state[tracked] = np.zeros((), np.int64)
    return state
