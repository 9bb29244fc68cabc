"""The authors' checkpoints of Meta-HMR and of what it starts from, both ways (spec 2.7, 2.8).

| file | holds | fills |
| --- | --- | --- |
| Meta-HMR | {"model": main, "model_aux": aux, "optimizer": ..., "epoch": ...} | main and aux |
| CLIFF | {"model": network}, `module.` before every name | networks of its kind |
| HMR | {"model": network}, without the mean parameters | networks of its kind |
| COCO pose, ResNet | {"state_dict": backbone and more}, `backbone.` before its names | backbones |
| COCO pose, HRNet; ImageNet | backbone and classifier, plain names | backbones of its kind |

A network's kind is ResNet, pose HRNet (main networks) or classification HRNet (auxiliary ones).
The authors name the backbone `backbone.` in a pose HRNet, `encoder.` in a classification HRNet
(and in CLIFF's ResNet), and not at all in their ResNets.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.networks.convert import (
    COLLECTIONS,
    NOTHING,
    Report,
    addresses,
    state_dict_to_variables,
    variables_to_state_dict,
)
from jaxrecon.systems.base import Variables

NETWORKS = ("main", "aux")
_PREFIXES = ("module.", "encoder.", "backbone.")
_MEAN_PARAMETERS = r"^init_(pose|shape|cam)$"
_HEAD = r"^(fc1|fc2|decpose|decshape|deccam)\.|" + _MEAN_PARAMETERS
_CLASSIFIER = r"^(fc|classifier|head|keypoint_head|deconv_layers)\."
# Kind of network: (what it is called, the backbones to name, the prefix of its backbone).
_KINDS = {
    "resnet": ("a ResNet", "a ResNet such as resnet50", ""),
    "strided": ("a pose HRNet", "hrnet_w48", "backbone."),
    "classification": ("a classification HRNet", "hrnet_w48_classification", "encoder."),
}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The report of every network that a file filled; as text, a summary of each."""

    reports: Mapping[str, Report]

    def __str__(self) -> str:
        return "\n".join(f"{network}: {r.text()}" for network, r in self.reports.items())

    def layers(self) -> str:
        """A line for each layer of each network."""
        return "\n".join(
            f"{network}: {r.text()}\n{r.layers()}" for network, r in self.reports.items()
        )


@dataclasses.dataclass(frozen=True)
class _State:
    """A network of a file: plain names, a pattern of what such files lack, names to drop."""

    tensors: Mapping[str, np.ndarray]
    lacks: str = NOTHING
    drops: frozenset[str] = frozenset()


def import_checkpoint(
    tree: Any,
    variables: Variables,
    strict: bool = True,
    networks: Sequence[str] | None = None,
) -> tuple[dict[str, Any], Conversion]:
    """Variables with the weights of a published checkpoint.

    A file with two networks fills both; one with a single network fills main and aux alike
    where both are of its kind, else the one that is.

    Args:
      tree: what `io.torch_files.read_checkpoint` gives.
      variables: of a system of the right shape; what the file lacks keeps their values.
      strict: refuse missing and unexpected names; without it they are listed. What files of a
        layout never have (the head of a pose network's file, the mean parameters of HMR's) is
        not missing, but listed all the same.
      networks: fill only these of "main" and "aux".

    Returns:
      the variables, and the reports.

    Raises:
      UserError: no weights in it, another kind of network, shapes that differ, (strict) names
        that do not fit.
    """
    wanted = NETWORKS if networks is None else tuple(networks)
    if unknown := set(wanted) - set(NETWORKS):
        raise UserError(f"there is no network {sorted(unknown)[0]!r}; there are: main, aux")
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    templates = {n: {"params": params[n], "batch_stats": stats[n]} for n in NETWORKS}
    reports = {}
    for network, state in _states(tree, templates, wanted).items():
        found, reports[network] = state_dict_to_variables(
            state.tensors, templates[network], strict, state.lacks, state.drops
        )
        params[network], stats[network] = found["params"], found["batch_stats"]
    return {**variables, "params": params, "batch_stats": stats}, Conversion(reports)


def export_checkpoint(variables: Variables) -> dict[str, Any]:
    """The tree of a published checkpoint, for `io.torch_files.write_checkpoint`."""
    networks = {}
    for key, network in (("model", "main"), ("model_aux", "aux")):
        of_network = {c: variables[c][network] for c in COLLECTIONS}
        prefix = _KINDS[kind_of(addresses(of_network))][2]
        networks[key] = variables_to_state_dict(of_network, prefix)
    return {**networks, "epoch": 0, "batch_idx": 0, "total_step_count": 0}


def _states(
    tree: Any, templates: Mapping[str, Mapping[str, Any]], wanted: Sequence[str]
) -> dict[str, _State]:
    """What the file has for each network."""
    if not isinstance(tree, Mapping):
        raise UserError("the checkpoint is no dictionary of tensors, so there are no weights in it")
    ours = {network: kind_of(addresses(template)) for network, template in templates.items()}
    if "model" in tree and "model_aux" in tree:
        both = {"main": tree["model"], "aux": tree["model_aux"]}
        states = {network: _State(plain_names(both[network])) for network in wanted}
        for network, state in states.items():
            if kind_of(state.tensors) != ours[network]:
                raise _anotherkind_of(
                    f"the checkpoint's {network} network", state, ours, (network,)
                )
        return states
    state = _single(tree)
    kind = kind_of(state.tensors)
    fitting = [network for network in wanted if ours[network] == kind]
    if not fitting:
        raise _anotherkind_of("the checkpoint's network", state, ours, wanted)
    return {network: state for network in fitting}


def _single(tree: Mapping[str, Any]) -> _State:
    """The only network of a file."""
    found: Any = tree
    for key in ("model", "state_dict"):
        if isinstance(tree.get(key), Mapping):
            found = tree[key]
            break
    if not found or not all(isinstance(value, np.ndarray) for value in found.values()):
        raise UserError(
            "the checkpoint has neither 'model' nor 'state_dict'; it has "
            + ", ".join(str(key) for key in list(tree)[:8])
        )
    plain = plain_names(found)
    if "fc1.weight" in plain:
        without_mean = not any(name.startswith("init_") for name in plain)
        return _State(plain, lacks=_MEAN_PARAMETERS) if without_mean else _State(plain)
    lacks, drops = _HEAD, _CLASSIFIER
    if kind_of(plain) == "strided":
        # Heatmaps of COCO's joints; the way down to stride 32 is Meta-HMR's own.
        lacks, drops = lacks + r"|^downsample_stage_|^final_layer\.", drops + r"|^final_layer\."
    dropped = {name for name in plain if re.search(drops, name)}
    if any(_in_backbone(name) for name in found):
        # What stands beside the backbone is the head of another task.
        dropped |= set(plain_names({n: x for n, x in found.items() if not _in_backbone(n)}))
    return _State(plain, lacks, frozenset(dropped))


def _in_backbone(name: str) -> bool:
    return name.removeprefix("module.").startswith("backbone.")


def kind_of(names: Iterable[str]) -> str:
    """The kind of network with such (plain) names: resnet, strided or classification."""
    tops = {name.partition(".")[0] for name in names}
    if "incre_modules" in tops:
        return "classification"
    return "strided" if "stage2" in tops else "resnet"


def _anotherkind_of(
    what: str, state: _State, ours: Mapping[str, str], networks: Sequence[str]
) -> UserError:
    called, backbones, _ = _KINDS[kind_of(state.tensors)]
    fields = {"main": "system.backbone", "aux": "system.aux_backbone"}
    have = " and ".join(f"{network} is {_KINDS[ours[network]][0]}" for network in networks)
    choose = " or ".join(f"config.{fields[network]}" for network in networks)
    return UserError(f"{what} is {called}, but here {have}; set {choose} to {backbones}")


def plain_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without what the authors put before their names."""
    plain = {}
    for name, value in state.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        plain[name] = value
    return plain
