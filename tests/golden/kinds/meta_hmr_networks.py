"""Golden kinds of Meta-HMR: single networks, forward and with batch statistics."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxrecon.networks.convert import addresses, state_dict_to_variables, torch_tensor
from jaxrecon.networks.hmr import HMRNetwork
from jaxrecon.systems.meta_hmr.published import kind_of, plain_names
from tests.golden.kinds.meta_hmr_geometry import import_file
from tests.golden.runner import Case, Check, kind


def apply_overrides(name: str, array: np.ndarray, rules: list) -> np.ndarray:
    """The rules of overrides.json for one filled array."""
    plain = re.sub(r"^(model_aux|model)\.", "", name)
    for pattern, action, value in rules:
        if not re.search(pattern, plain):
            continue
        if action == "scale":
            array = (array * np.float32(value)).astype(array.dtype)
        elif action == "set":
            array = np.broadcast_to(np.asarray(value, array.dtype), array.shape).copy()
        elif action == "tile":
            array = np.resize(np.asarray(value, array.dtype), array.shape)
        else:
            raise ValueError(f"overrides.json: unknown action {action!r}")
    return array


def filled_state(case: Case, rules: str, prefix: str = "") -> dict[str, np.ndarray]:
    """The state dict that the case's manifest asks for, names with `prefix` only (removed)."""
    fill = import_file(str(case.support("fill.py"))).fill
    overrides = json.loads(case.support("overrides.json").read_text())[rules]
    manifest = case.manifest
    assert manifest is not None, f"{case.name} has no manifest"
    return {
        name[len(prefix) :]: apply_overrides(name, fill(name, shape), overrides)
        for name, shape in manifest.items()
        if name.startswith(prefix)
    }


def is_hrnet(names: Any) -> bool:
    return any(".stage2." in f".{name}" for name in names)


_BACKBONES = {
    "resnet": "resnet50",
    "strided": "hrnet_w48",
    "classification": "hrnet_w48_classification",
}


def backbone_of(state: Mapping[str, np.ndarray]) -> str:
    """The name of the backbone whose tensors a state dict has."""
    return _BACKBONES[kind_of(plain_names(state))]


def has_box(state: Mapping[str, np.ndarray]) -> bool:
    """Whether the head takes CLIFF's box information beside the features and the estimate."""
    features = 720 if backbone_of(state) == "hrnet_w48" else 2048
    return state["fc1.weight"].shape[1] == features + 160


def network_for(state: Mapping[str, np.ndarray], iterations: int) -> HMRNetwork:
    """The network whose sizes the state dict shows."""
    return HMRNetwork(
        backbone_name=backbone_of(state),
        iterations=iterations,
        box_input=has_box(state),
        hidden=state["fc1.weight"].shape[0],
        dropout=0.0,
    )


def load(network: HMRNetwork, state: Mapping[str, np.ndarray], height: int, width: int) -> dict:
    """Variables of the network from a state dict, through the public converter."""
    template = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, height, width, 3), np.float32),
        jax.ShapeDtypeStruct((1, 3), np.float32) if network.box_input else None,
    )
    variables, _ = state_dict_to_variables(plain_names(state), template)
    return variables


def check_sum(array: Any) -> np.ndarray:
    """Mean, deviation, largest magnitude and the first eight numbers, in PyTorch's layout."""
    flat = np.asarray(array, np.float64).ravel()
    first = np.zeros(8)
    first[: min(8, flat.size)] = flat[:8]
    return np.concatenate([[flat.mean(), flat.std(), np.abs(flat).max()], first])


def torch_tensors(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All tensors by their plain state-dict names, in PyTorch's layout."""
    return {name: torch_tensor(variables, where) for name, where in addresses(variables).items()}


def torch_leaf(variables: Mapping[str, Any], name: str) -> np.ndarray:
    """One of our tensors by its state-dict name, in PyTorch's layout."""
    (plain,) = plain_names({name: np.zeros(())})
    return torch_tensor(variables, addresses(variables)[plain])


def subsampled(array: Any, channels: int) -> np.ndarray:
    """NHWC activation in the subsampled NCHW form of the files."""
    return np.asarray(array).transpose(0, 3, 1, 2)[:, ::channels, ::4, ::4]


@kind("meta_hmr", "net")
def net(case: Case) -> list[Check]:
    a = case.arrays
    state = filled_state(case, "rules")
    count, _, height, width = (int(n) for n in a["in_image_shape"])
    iterations = int(a["in_n_iter"]) if "in_n_iter" in a else (3 if "aux" in case.words else 10)
    network = network_for(state, iterations)
    variables = load(network, state, height, width)

    inputs = import_file(str(case.support("golden_inputs.py")))
    rng = np.random.default_rng(int(a["in_seed"]))
    images = inputs.make_images(rng, count, height, width)
    box = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    checks = [Check("images", images.ravel()[:8], a["in_images_first8"], 1e-6)]
    if "in_bbox_info" in a:
        checks.append(Check("box", box, a["in_bbox_info"], 1e-6))
    train = bool(a["in_train"])
    initial = None
    if "in_init_pose" in a:
        initial = (a["in_init_pose"], a["in_init_shape"], a["in_init_cam"])

    @jax.jit
    def run(variables, image, box):
        out, updated = network.apply(
            variables, image, train, method="encode", mutable=["batch_stats"]
        )
        regression = network.apply(
            variables, out["features"], box, train, None, initial, method="regress"
        )
        return out, regression, updated

    out, got, updated = run(variables, images.transpose(0, 2, 3, 1), box)
    checks += [
        Check("pose6d", got.pose6d, a["out_pose6d"], 1e-4),
        Check("rotmat", got.rotmats, a["out_rotmat"], 1e-4),
        Check("shape", got.betas, a["out_shape"], 1e-4),
        Check("cam", got.cam, a["out_cam"], 1e-4),
        Check("features", out["features"], a["out_features"], 1e-4),
    ]
    for key in (k for k in a if re.fullmatch(r"out_(layer\d|stage\d_\d|backbone)", k)):
        every = 8 if key.startswith("out_stage") else 16
        checks.append(Check(key, subsampled(out[key[4:]], every), a[key], 1e-4))
    for key in (k for k in a if k.startswith("out_new__")):
        name = key.removeprefix("out_new__")
        checks.append(Check(key, check_sum(torch_leaf(updated, name)), a[key], 1e-4))
    return checks
