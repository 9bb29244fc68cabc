"""Between PyTorch state dicts and our variables, both ways, with a report per tensor.

A rule turns a state-dict name into a path in our tree; the kind of the tensor follows from the
path. Convolution kernels go [O, I, kh, kw] -> [kh, kw, I, O], linear weights [O, I] -> [I, O].
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jaxrecon.errors import UserError

Path = tuple[str, ...]
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_HEAD = re.compile(r"^(fc1|fc2|decpose|decshape|deccam)\.(weight|bias)$")
_INIT = re.compile(r"^(init_pose|init_shape|init_cam)$")
_DROPPED = re.compile(r"num_batches_tracked$")
_BATCH_NORM = re.compile(r"(^|\.)(bn\d+|downsample\.1)\.(\w+)$")
_CONVOLUTION = re.compile(r"(^|\.)(conv\d+|downsample\.0)\.(weight|bias)$")


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion did: names loaded, dropped on purpose, missing and unexpected."""

    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def text(self) -> str:
        """A line for each kind, and the names that did not fit."""
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.dropped)} dropped on purpose, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected"
        ]
        lines += [f"  missing {name}" for name in self.missing]
        lines += [f"  unexpected {name}" for name in self.unexpected]
        return "\n".join(lines)


def _module_path(dotted: str) -> Path:
    """`layer1.0.downsample.1` -> (layer1_0, downsample_1): numbers join the name before them."""
    return tuple(re.sub(r"\.(\d+)", r"_\1", dotted).split("."))


def resnet_path(name: str) -> tuple[str, Path] | None:
    """(collection, path) of a ResNet state-dict name in `HMRNetwork`; None for what is dropped.

    Raises:
        KeyError: for a name that the network does not have.
    """
    if _DROPPED.search(name):
        return None
    if match := _HEAD.match(name):
        leaf = "kernel" if match[2] == "weight" else "bias"
        return "params", ("head", match[1], leaf)
    if _INIT.match(name):
        return "batch_stats", ("head", name)
    if match := _BATCH_NORM.search(name):
        module, leaf = name.rsplit(".", 1)
        collection = "batch_stats" if leaf.startswith("running") else "params"
        return collection, ("backbone", *_module_path(module), _NORM[leaf])
    if _CONVOLUTION.search(name):
        module, leaf = name.rsplit(".", 1)
        return "params", ("backbone", *_module_path(module), "kernel" if leaf == "weight" else leaf)
    raise KeyError(name)


def to_ours(array: np.ndarray) -> np.ndarray:
    """Memory order of a tensor's axes: PyTorch's to ours."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    return np.asarray(array)


def to_torch(array: np.ndarray) -> np.ndarray:
    """Memory order of a tensor's axes: ours to PyTorch's."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    return np.asarray(array)


def _is_linear(path: Path) -> bool:
    return path[0] == "head" and path[-1] == "kernel"


def state_dict_to_variables(
    state: Mapping[str, np.ndarray], template: Mapping[str, Any], strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Our `params` and `batch_stats` from a published state dict.

    Args:
        state: name -> array, in PyTorch's layout.
        template: variables of the network (arrays or shapes); what the state dict lacks keeps
            the template's values.
        strict: Refuse missing and unexpected names.

    Raises:
        UserError: a shape that does not fit, or (strict) names that do not.
    """
    flat = {
        collection: traverse_util.flatten_dict(dict(template[collection]))
        for collection in ("params", "batch_stats")
    }
    loaded, dropped, unexpected = [], [], []
    seen: set[tuple[str, Path]] = set()
    for name, value in state.items():
        try:
            target = resnet_path(name)
        except KeyError:
            unexpected.append(name)
            continue
        if target is None:
            dropped.append(name)
            continue
        collection, path = target
        if path not in flat[collection]:
            unexpected.append(name)
            continue
        array = np.asarray(value).T if _is_linear(path) else to_ours(np.asarray(value))
        want = np.shape(flat[collection][path])
        if array.shape != want:
            raise UserError(
                f"{name}: the checkpoint has shape {np.shape(value)}, this network "
                f"{'/'.join(path)} has {want}; is it a checkpoint of another model or backbone?"
            )
        flat[collection][path] = np.asarray(array, np.float32)
        seen.add(target)
        loaded.append(name)
    missing = tuple(
        _torch_name(collection, path)
        for collection, leaves in flat.items()
        for path in leaves
        if (collection, path) not in seen
    )
    report = Report(tuple(loaded), tuple(dropped), missing, tuple(unexpected))
    if strict and (missing or unexpected):
        raise UserError(
            f"the checkpoint does not fit this network: {report.text()}; convert with "
            "strict=False to load what fits"
        )
    return {c: traverse_util.unflatten_dict(leaves) for c, leaves in flat.items()}, report


def _torch_name(collection: str, path: Path) -> str:
    """The state-dict name of one of our leaves: the inverse of `resnet_path`."""
    back = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, leaf = path[1:]
    dotted = ".".join(re.sub(r"^(layer\d+|downsample)_(\d+)$", r"\1.\2", m) for m in modules)
    return ".".join(part for part in (dotted, back.get(leaf, leaf)) if part)


def variables_to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state dict of PyTorch's names and layout, `num_batches_tracked` included (as 0)."""
    state: dict[str, np.ndarray] = {}
    for collection in ("params", "batch_stats"):
        leaves = traverse_util.flatten_dict(jax.device_get(dict(variables[collection])))
        for path, value in leaves.items():
            array = np.asarray(value)
            array = np.ascontiguousarray(array.T) if _is_linear(path) else to_torch(array)
            name = _torch_name(collection, path)
            state[name] = array
            if name.endswith("running_var"):
                tracked = name.replace("running_var", "num_batches_tracked")
                state[tracked] = np.zeros((), np.int64)
    return state
