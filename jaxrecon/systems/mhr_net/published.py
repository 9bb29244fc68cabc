"""The authors' checkpoints of MHR-Net, both ways, optimiser included (spec 2.4).

{"epoch": epochs done, "lr": rate of the next epoch, "model_pos": state dict,
 "optimizer": {"state": {i: {"momentum_buffer": ...}}, "param_groups": [...]}}
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from jaxrecon.errors import UserError
from jaxrecon.networks.convert import Address, Report, Shape
from jaxrecon.systems.base import Variables
from jaxrecon.systems.mhr_net.system import MHRNet

_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_UNTRAINED = "trans_layer."
_TRACKED = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Published:
    """A published checkpoint in our trees.

    Attributes:
        params, batch_stats: weights and running statistics.
        momentum: of SGD, like `params`; zeros where the file has none.
        epoch: epochs done.
        rate: learning rate of the next epoch; None if the file does not say.
        report: what was loaded.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    momentum: dict[str, Any]
    epoch: int
    rate: float | None
    report: Report


def our_path(name: str) -> tuple[str, tuple[str, ...]] | None:
    """(collection, path) of a state-dict name; None for the counters of batch norms."""
    *modules, leaf = name.split(".")
    if leaf == _TRACKED:
        return None
    if modules[-1].startswith("bn"):
        collection = "batch_stats" if leaf.startswith("running") else "params"
        return collection, (*modules, _NORM.get(leaf, leaf))
    return "params", (*modules, "kernel" if leaf == "weight" else leaf)


def published_name(path: tuple[str, ...]) -> str:
    """The inverse of `our_path`."""
    back = {ours: theirs for theirs, ours in _NORM.items()} | {"kernel": "weight"}
    return ".".join((*path[:-1], back.get(path[-1], path[-1])))


def _to_ours(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    value = np.asarray(value, np.float32)
    return np.ascontiguousarray(value.reshape(value.shape[:2]).T) if path[-1] == "kernel" else value


def _to_theirs(path: tuple[str, ...], value: Any) -> np.ndarray:
    value = np.asarray(value, np.float32)
    return np.ascontiguousarray(value.T)[:, :, None, None] if path[-1] == "kernel" else value


def parameter_order(state_dict: Mapping[str, Any]) -> list[str]:
    """Names of the parameters in the order of registration: the index in the optimiser state."""
    heads = ["alpha_layer", "shape_layer", "rot_layer", "trans_layer"]
    order = ["fe_net", *heads, "psi_net", "alpha_layer_psi", "deformation_layer"]
    kinds = ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"]

    def key(name: str) -> tuple[int, int, int, int]:
        first, *rest, leaf = name.split(".")
        number = int(rest[0]) if rest else 0
        kind = kinds.index(rest[1]) if len(rest) > 1 else 0
        return order.index(first), number, kind, 0 if leaf == "weight" else 1

    parameters = [n for n in state_dict if not re.search(r"running_(mean|var)$|" + _TRACKED, n)]
    return sorted(parameters, key=key)


def to_state_dict(variables: Variables, tracked: int = 0) -> dict[str, np.ndarray]:
    """The published state dict, in the order of the published file.

    Args:
        tracked: number of training steps, which the file counts in every batch norm.
    """
    state = {}
    for collection in ("params", "batch_stats"):
        leaves = traverse_util.flatten_dict(jax.device_get(dict(variables[collection])))
        for path, value in leaves.items():
            state[published_name(path)] = _to_theirs(path, value)
    ordered = {}
    for name in parameter_order(state):
        ordered[name] = state[name]
        if name.split(".")[-2].startswith("bn") and name.endswith("bias"):
            stem = name.removesuffix("bias")
            for buffer in ("running_mean", "running_var"):
                ordered[stem + buffer] = state[stem + buffer]
            # The second trunk runs as often as the first.
            ordered[stem + _TRACKED] = np.asarray(tracked, np.int64)
    return ordered


def from_state_dict(
    state: Mapping[str, np.ndarray], template: Variables, strict: bool = True
) -> tuple[dict[str, Any], Report]:
    """Our `params` and `batch_stats`; what the file lacks keeps the template's values.

    Raises:
        UserError: shapes of another network, or (strict) names that do not fit.
    """
    flat = {
        collection: traverse_util.flatten_dict(dict(template[collection]))
        for collection in ("params", "batch_stats")
    }
    loaded: dict[str, tuple[Shape, Address]] = {}
    dropped, unexpected, seen = [], [], set()
    for name, value in state.items():
        target = our_path(name) if "." in name else ("params", (name,))
        if target is None:
            dropped.append(name)
            continue
        collection, path = target
        if path not in flat[collection]:
            unexpected.append(name)
            continue
        array = _to_ours(path, value)
        want = np.shape(flat[collection][path])
        if array.shape != want:
            raise UserError(
                f"{name}: the checkpoint has shape {np.shape(value)}, this network "
                f"{'/'.join(path)} has {want}; set system.joints, width, blocks and bases to "
                "those of the checkpoint"
            )
        flat[collection][path] = array
        seen.add(target)
        loaded[name] = (np.shape(value), Address(collection, path))
    missing = tuple(
        published_name(path)
        for collection, leaves in flat.items()
        for path in leaves
        if (collection, path) not in seen
    )
    report = Report(loaded, tuple(dropped), missing=missing, unexpected=tuple(unexpected))
    if strict and (missing or unexpected):
        raise UserError(
            f"the checkpoint does not fit this network: {report.text()}; check system.blocks, or "
            "convert with strict=False to load what fits"
        )
    return {c: traverse_util.unflatten_dict(leaves) for c, leaves in flat.items()}, report


def network_settings(tree: Any) -> dict[str, Any]:
    """joints, width, blocks, bases and see_visibility of the network in a published checkpoint.

    Raises:
        UserError: it is no checkpoint of MHR-Net.
    """
    state = _model(tree)
    try:
        width, inputs = state["fe_net.0.conv1.weight"].shape[:2]
        outputs, bases = state["shape_layer.weight"].shape[:2]
    except KeyError as error:
        raise UserError(f"the checkpoint has no {error}; is it one of MHR-Net?") from error
    blocks = {int(n.split(".")[1]) for n in state if n.startswith("fe_net.")}
    joints = outputs // 3
    return {
        "joints": joints,
        "width": width,
        "blocks": max(blocks),
        "bases": bases,
        "see_visibility": inputs == 3 * joints,
    }


def read_published(tree: Any, template: Variables, strict: bool = True) -> Published:
    """A whole published checkpoint (what `io.torch_files.read_checkpoint` gives).

    Raises:
        UserError: it is none, or one of another network.
    """
    state = _model(tree)
    found, report = from_state_dict(state, template, strict)
    momentum = jax.tree.map(lambda x: np.zeros(np.shape(x), np.float32), found["params"])
    flat = traverse_util.flatten_dict(momentum)
    names = parameter_order(state)
    for index, entry in ((tree.get("optimizer") or {}).get("state") or {}).items():
        buffer = entry.get("momentum_buffer")
        if buffer is None:
            continue
        if not 0 <= int(index) < len(names):
            raise UserError(
                f"the checkpoint's optimiser has a parameter {index}, its model only {len(names)}"
            )
        _, path = our_path(names[int(index)]) or ("", ())
        if path in flat:
            flat[path] = _to_ours(path, buffer)
    rate = tree.get("lr")
    return Published(
        found["params"],
        found["batch_stats"],
        traverse_util.unflatten_dict(flat),
        int(tree.get("epoch", 0)),
        None if rate is None else float(rate),
        report,
    )


def import_checkpoint(
    tree: Any, variables: Variables, strict: bool = True
) -> tuple[dict[str, Any], str]:
    """Variables with the weights of a published checkpoint, and a report in words."""
    found = read_published(tree, variables, strict)
    weights = {"params": found.params, "batch_stats": found.batch_stats}
    return {**variables, **weights}, f"epoch {found.epoch}: {found.report.text()}"


def optimizer_state(system: MHRNet, found: Published) -> Any:
    """The state of `system.optimizer()` with the file's momentum, after its epochs."""
    state = system.optimizer().init(found.params)
    steps = found.epoch * system.steps_per_epoch

    def fill(part: Any) -> Any:
        if isinstance(part, optax.TraceState):
            return optax.TraceState(jax.tree.map(jnp.asarray, found.momentum))
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(jnp.asarray(steps, jnp.int32))
        return part

    return jax.tree.map(
        fill, state, is_leaf=lambda x: isinstance(x, optax.TraceState | optax.ScaleByScheduleState)
    )


def momentum_of(opt_state: Any) -> Any:
    """The momentum tree inside an optimiser state; None for an optimiser without one."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, optax.TraceState))
    return next((part.trace for part in parts if isinstance(part, optax.TraceState)), None)


def export_checkpoint(
    variables: Variables,
    system: MHRNet | None = None,
    opt_state: Any = None,
    epoch: int = 0,
    steps: int = 0,
) -> dict[str, Any]:
    """The tree of a published checkpoint, for `io.torch_files.write_checkpoint`.

    Args:
        opt_state: of `system.optimizer()`; without it the file has no momentum.
        epoch, steps: epochs and optimiser steps done.
    """
    system = system or MHRNet()
    state = to_state_dict(variables, steps)
    names = parameter_order(state)
    momentum = momentum_of(opt_state)
    buffers = {}
    if momentum is not None and steps:
        flat = traverse_util.flatten_dict(jax.device_get(momentum))
        for index, name in enumerate(names):
            if not name.startswith(_UNTRAINED):
                _, path = our_path(name) or ("", ())
                buffers[index] = {"momentum_buffer": _to_theirs(path, flat[path])}
    rate = float(system.rate_at(jnp.asarray(steps, jnp.int32)))
    group = {
        "lr": rate,
        "momentum": system.momentum,
        "dampening": 0,
        "weight_decay": system.weight_decay,
        "nesterov": False,
        "params": list(range(len(names))),
    }
    return {
        "epoch": epoch,
        "lr": rate,
        "optimizer": {"state": buffers, "param_groups": [group]},
        "model_pos": state,
    }


def _model(tree: Any) -> Mapping[str, np.ndarray]:
    if not isinstance(tree, Mapping):
        raise UserError("the checkpoint is no dictionary of tensors, so there are no weights in it")
    if isinstance(tree.get("model_pos"), Mapping):
        return tree["model_pos"]
    if tree and all(isinstance(value, np.ndarray) for value in tree.values()):
        return tree
    raise UserError(
        "the checkpoint has no 'model_pos'; it has " + ", ".join(str(key) for key in list(tree)[:8])
    )
