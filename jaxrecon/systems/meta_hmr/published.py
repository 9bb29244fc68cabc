"""The authors' checkpoints of Meta-HMR and of what it starts from, both ways (spec 2.7, 2.8).

published     {"model": main, "model_aux": aux, "optimizer": ..., "epoch": ...}
CLIFF, HMR    {"model": one network}, with `module.` and `encoder.` before the names
COCO pose     {"state_dict": backbone}, with `backbone.` before the names
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.networks.convert import state_dict_to_variables, variables_to_state_dict
from jaxrecon.systems.base import Variables

_PREFIXES = ("module.", "encoder.", "backbone.")


def import_checkpoint(
    tree: Any, variables: Variables, strict: bool = True
) -> tuple[dict[str, Any], str]:
    """Variables with the weights of a published checkpoint.

    A file with two networks fills both, one with a single network fills main and aux alike.

    Args:
      tree: what `io.torch_files.read_checkpoint` gives.
      variables: of a system of the right shape; what the file lacks keeps their values.
      strict: refuse missing and unexpected names; without it they are listed.

    Returns:
      the variables, and a report in words.

    Raises:
      UserError: no weights in it, shapes of another network, (strict) names that do not fit.
    """
    states = _state_dicts(tree)
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    lines = []
    for network, state in states.items():
        template = {"params": params[network], "batch_stats": stats[network]}
        found, report = state_dict_to_variables(_plain_names(state), template, strict)
        params[network], stats[network] = found["params"], found["batch_stats"]
        lines.append(f"{network}: {report.text()}")
    result = {**variables, "params": params, "batch_stats": stats}
    return result, "\n".join(lines)


def export_checkpoint(variables: Variables) -> dict[str, Any]:
    """The tree of a published checkpoint, for `io.torch_files.write_checkpoint`."""
    names = {"model": "main", "model_aux": "aux"}
    networks = {
        key: variables_to_state_dict({c: variables[c][network] for c in ("params", "batch_stats")})
        for key, network in names.items()
    }
    return {**networks, "epoch": 0, "batch_idx": 0, "total_step_count": 0}


def _state_dicts(tree: Any) -> dict[str, Mapping[str, np.ndarray]]:
    if not isinstance(tree, Mapping):
        raise UserError("the checkpoint is no dictionary of tensors, so there are no weights in it")
    if "model" in tree and "model_aux" in tree:
        return {"main": tree["model"], "aux": tree["model_aux"]}
    for key in ("model", "state_dict"):
        if isinstance(tree.get(key), Mapping):
            return {"main": tree[key], "aux": tree[key]}
    if tree and all(isinstance(value, np.ndarray) for value in tree.values()):
        return {"main": tree, "aux": tree}
    raise UserError(
        "the checkpoint has neither 'model' nor 'state_dict'; it has "
        + ", ".join(str(key) for key in list(tree)[:8])
    )


def _plain_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    plain = {}
    for name, value in state.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        plain[name] = value
    return plain
