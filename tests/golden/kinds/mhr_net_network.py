"""Golden kinds of MHR-Net: blocks, forward passes, steps, a whole run, checkpoints."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from jaxrecon.data.h36m_archives import TEST_SUBJECTS, TRAIN_SUBJECTS, load_h36m
from jaxrecon.io.torch_files import read_checkpoint
from jaxrecon.systems.mhr_net import MHRNet, Noise, hparams, published
from jaxrecon.systems.mhr_net.network import Block
from jaxrecon.training.parallel import step_function
from jaxrecon.training.state import TrainState
from tests.golden.kinds.mhr_net_parts import archive_folder
from tests.golden.runner import Case, Check, kind
from tests.golden.support.fill import fill


def scales(case: Case) -> dict[str, float]:
    """Name prefix -> factor of the weights of a case; empty for plain fill."""
    places = [case.directory / "scales.json"]
    places += [case.support("scales.json")] if not places[0].is_file() else []
    for place in places:
        table = json.loads(place.read_text())
        for name in (case.name, case.name.removeprefix("h_")):
            if name in table:
                return table[name]
    return {}


def filled(case: Case) -> dict[str, np.ndarray]:
    """The state dict of a case."""
    assert case.manifest is not None, f"{case.name} has no manifest"
    factors, state = scales(case), {}
    for name, shape in case.manifest.items():
        value = fill(name, shape)
        for prefix, factor in factors.items():
            if name.startswith(prefix) and value.dtype == np.float32:
                value = value * np.float32(factor)
        state[name] = value
    return state


def system_of(case: Case, **fields: Any) -> MHRNet:
    """The system that the case's hyper-parameter file describes."""
    text = case.support(f"{case.name}.hparams.json").read_text()
    return MHRNet(**{**hparams.settings_of(json.loads(text)), **fields})


def variables_of(system: MHRNet, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    template = jax.eval_shape(lambda: system.init(jax.random.PRNGKey(0), system.example()))
    found, _ = published.from_state_dict(state, template)
    return {**found, "constants": {}}


@kind("mhr_net", "blocks")
def blocks(case: Case) -> list[Check]:
    a, checks = case.arrays, []
    state = filled(case)
    for label, residual in (("conv_bn", False), ("res", True)):
        own = {n.removeprefix(f"{label}."): v for n, v in state.items() if n.startswith(label)}
        trees: dict[str, dict] = {"params": {}, "batch_stats": {}}
        for name, value in own.items():
            target = published.our_path(name)
            if target is not None:
                collection, path = target
                trees[collection][path] = value.squeeze((2, 3)).T if value.ndim == 4 else value
        variables = {c: traverse_util.unflatten_dict(t) for c, t in trees.items()}
        width = own["conv3.weight" if residual else "conv1.weight"].shape[0]
        block = Block(width, own["conv1.weight"].shape[0] if residual else 0)
        x = jnp.asarray(a[f"in_{label}_x"])
        train, changed = block.apply(variables, x, True, mutable=["batch_stats"])
        checks += [
            Check(
                f"{label} eval", block.apply(variables, x, False), a[f"out_{label}_eval"], 0, 2e-5
            ),
            Check(f"{label} train", train, a[f"out_{label}_train"], 0, 2e-5),
        ]
        prefix = f"out_{label}_train_after."
        for name in a:
            target = (
                published.our_path(name.removeprefix(prefix)) if name.startswith(prefix) else None
            )
            if target is not None:
                got = traverse_util.flatten_dict(changed["batch_stats"])[target[1]]
                checks.append(Check(name, got, a[name], 0, 2e-5))
    return checks


@kind("mhr_net", "forward")
def forward(case: Case) -> list[Check]:
    a = case.arrays
    count = len(a["in_keypoints_2d"])
    system = system_of(
        case,
        hypotheses=len(a["in_z"]) // count,
        rotations=len(a["in_rand_angle"]) // count,
    )
    state = filled(case)
    variables = variables_of(system, state)
    procrust = bool(a["in_use_procrust"])
    noise = Noise(
        a["in_z"], a["in_rand_axis"], a["in_rand_angle"], a["in_perm"] if procrust else None
    )
    batch = {"keypoints2d": a["in_keypoints_2d"], "align": bool(a["in_align_to_root"])}
    train = bool(a["in_train"])
    with jax.default_matmul_precision("highest"):
        done = jax.jit(lambda v: system.forward(v, batch, noise, train))(variables)
    lifting = done.lifting
    want_features = a["out_feats"]
    found = {
        "keypoints_2d": lifting.keypoints2d,
        "kp_mean": lifting.centre,
        "shape_coeff": lifting.coefficients,
        "shape_mean": lifting.basis_shape,
        "shape_invariant": lifting.shape,
        "shape_camera_coord": lifting.joints3d,
        "l_reprojection": done.reprojection,
        "l_cycle_consistent": done.cycle,
        "l_procrust": done.procrust,
        "feats": done.feature[:, : want_features.shape[1]],
        "rot_log": done.rotation_vector,
        "R": lifting.rotation,
        "all_shapes": done.canonical_hypotheses,
        "all_reproj_err": lifting.errors.T,
    }
    # Plain fill makes shapes of size 80, where float32 is coarser.
    raw = {} if scales(case) else {"rtol": 1e-4}
    checks = [
        Check(name, got, a[f"out_{name}"], **({"atol": 5e-5} | raw))
        for name, got in found.items()
        if f"out_{name}" in a
    ]
    checks.append(Check("arg_min", lifting.chosen, a["out_arg_min"]))
    after = published.to_state_dict({**variables, "batch_stats": done.batch_stats}, int(train))
    for name in a:
        if name == "out_after.num_batches_tracked":
            checks.append(Check(name, after["fe_net.0.bn1.num_batches_tracked"], a[name]))
        elif name.startswith("out_after."):
            got = after[name.removeprefix("out_after.")].ravel()[: a[name].size]
            checks.append(Check(name, got, a[name], atol=5e-5))
    if done.pairs is not None:
        pairs = {
            "rot": done.pairs.rotation,
            "sing": done.pairs.values,
            "ori_diff": done.pairs.before,
            "aligned_diff": done.pairs.after,
            "ratio": done.pairs.ratio,
            "det": jnp.linalg.det(done.pairs.rotation),
        }
        checks += [
            Check(name, got, a[f"out_proc_{name}"], 1e-5, 5e-5)
            for name, got in pairs.items()
            if f"out_proc_{name}" in a
        ]
        if "out_proc_pos" in a:
            checks.append(Check("mask", done.pairs.selected, a["out_proc_pos"]))
    return checks


def checksum(value: Any, length: int) -> np.ndarray:
    """mean, std (ddof 1), sum |x|, first entries; zero padded to `length`. Counters are plain."""
    if length == 0 or np.ndim(value) == 0:
        return np.asarray(value)
    x = np.asarray(value, np.float64).ravel()
    spread = x.std(ddof=1) if x.size > 1 else 0.0
    made = np.concatenate([[x.mean(), spread, np.abs(x).sum()], x[:8]])
    return np.pad(made, (0, max(length - made.size, 0)))


def gradient_checksum(value: Any, length: int) -> np.ndarray:
    """mean, mean |x|, L2 norm, first entries."""
    x = np.asarray(value, np.float64).ravel()
    made = np.concatenate([[x.mean(), np.abs(x).mean(), np.sqrt((x * x).sum())], x[:8]])
    return np.pad(made, (0, max(length - made.size, 0)))


def train_state(variables: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
        jax.random.PRNGKey(0),
    )


def losses_of(system: MHRNet, metrics: Mapping[str, Any]) -> list[float]:
    return [float(metrics[f"loss_{name}"]) for name in ("reprojection", "cycle", "procrust")]


def _each(prefix: str, a: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(name.removeprefix(prefix), a[name]) for name in a if name.startswith(prefix)]


@kind("mhr_net", "train_step")
def train_step(case: Case) -> list[Check]:
    a = case.arrays
    steps, count = a["in_x"].shape[:2]
    system = system_of(
        case,
        hypotheses=a["in_z"].shape[1] // count,
        rotations=a["in_rand_angle"].shape[1] // count,
        rate=float(a["in_lr"]),
        momentum=float(a["in_momentum"]),
        weight_decay=float(a["in_weight_decay"]),
        w_reprojection=float(a["in_reploss_weight"]),
    )
    state_dict = filled(case)
    variables = variables_of(system, state_dict)
    procrust = bool(a["in_use_procrust"])

    def batch_of(step: int) -> dict[str, Any]:
        permutation = a["in_perm"][step] if procrust else None
        noise = Noise(
            a["in_z"][step], a["in_rand_axis"][step], a["in_rand_angle"][step], permutation
        )
        align = bool(a["in_align_to_root"])
        return {"keypoints2d": a["in_x"][step], "noise": noise, "align": align}

    optimizer = system.optimizer()
    state = train_state(variables, optimizer)
    grads = jax.jit(
        jax.grad(
            lambda p, b: system.loss({**variables, "params": p}, b, jax.random.PRNGKey(0), True)[0]
        )
    )
    step = jax.jit(step_function(system, optimizer, None))
    with jax.default_matmul_precision("highest"):
        first = grads(variables["params"], batch_of(0))
        rows = []
        for number in range(steps):
            state, metrics = step(state, {}, batch_of(number))
            rows.append([*losses_of(system, metrics), float(metrics["loss"])])
    checks = [Check("losses", rows, a["out_losses"], atol=1e-5)]
    as_state = {"params": first, "batch_stats": variables["batch_stats"]}
    gradients = published.to_state_dict(as_state)
    for name, want in _each("out_grad0/", a):
        got = gradient_checksum(gradients[name], want.size)
        checks.append(Check(f"gradient {name}", got, want, rtol=1e-4, atol=1e-9))
    after = published.to_state_dict(
        {"params": state.params, "batch_stats": state.batch_stats}, steps
    )
    for name, want in _each("out_after/", a):
        checks.append(Check(f"after {name}", checksum(after[name], want.size), want, 1e-5, 1e-5))
    momentum = published.to_state_dict(
        {"params": published.momentum_of(state.opt_state), "batch_stats": state.batch_stats}
    )
    for name, want in _each("out_momentum/", a):
        got = gradient_checksum(momentum[name], want.size)
        checks.append(Check(f"momentum {name}", got, want, rtol=1e-4, atol=1e-9))
    for name in a["out_grad_none"]:
        same = np.array_equal(after[str(name)], state_dict[str(name)])
        still = not np.any(momentum[str(name)])
        checks.append(Check(f"untouched {name}", same and still, True))
    order = published.parameter_order(after)
    checks.append(Check("order", order == [str(n) for n in a["out_param_order"]], True))
    return checks


@kind("mhr_net", "train_run")
def train_run(case: Case) -> list[Check]:
    a, folder = case.arrays, archive_folder(case)
    size = int(a["in_batch"])
    start, end = int(a["in_start_epoch"]), int(a["in_end_epoch"])
    train = load_h36m(folder, subjects=[s for s in TRAIN_SUBJECTS if _has(folder, s)])
    test = load_h36m(folder, subjects=TEST_SUBJECTS)
    system = system_of(case, rate=float(a["in_lr"]))
    system = dataclasses.replace(system, steps_per_epoch=-(-len(train) // size))
    state_dict = filled(case)
    variables = variables_of(system, state_dict)
    optimizer = system.optimizer()
    found = published.read_published({"model_pos": state_dict, "epoch": start}, variables)
    state = dataclasses.replace(
        train_state(variables, optimizer), opt_state=published.optimizer_state(system, found)
    )
    step = jax.jit(step_function(system, optimizer, None))
    target = {**test.arrays(ground_truth=True)}

    def evaluate(params: Any, stats: Any, z: Any) -> tuple[Any, Any]:
        given = {"params": params, "batch_stats": stats, "constants": {}}
        prediction = system.predict(given, target, Noise(z))
        return prediction, system.evaluate(given, prediction, target)

    measure = jax.jit(evaluate)
    rows, switches, sizes, epochs, scores, seen, number = [], [], [], [], [], [], 0
    with jax.default_matmul_precision("highest"):
        for epoch in range(start + 1, end + 1):
            procrust, align = hparams.stage_of(epoch, system.procrust_from, system.align_until)
            order = a["in_order"][epoch - start - 1]
            total = np.zeros(3)
            for first in range(0, len(order), size):
                rows_of = order[first : first + size]
                drawn = a.get(f"in_perm_{number:03d}") if procrust else None
                noise = Noise(
                    *(a[f"in_{name}_{number:03d}"] for name in ("z", "axis", "angle")), drawn
                )
                batch = {
                    "keypoints2d": train.keypoints2d[rows_of],
                    "align": jnp.asarray(align),
                    "noise": noise,
                }
                state, metrics = step(state, {}, batch)
                rows.append(losses_of(system, metrics))
                switches.append((align, procrust))
                sizes.append(len(rows_of))
                total += np.array(rows[-1]) * len(rows_of)
                number += 1
            epochs.append(total / len(order))
            z = a[f"in_zeval_{epoch - start - 1:02d}"]
            prediction, errors = measure(state.params, state.batch_stats, z)
            scores.append({name: np.asarray(value) / 1000 for name, value in errors.items()})
            seen.append(prediction.joints3d[: a["out_eval_shape_camera_coord"].shape[1]])
    means = np.array([[s[name].mean() for name in ("mpjpe", "pa_mpjpe")] for s in scores])
    best = int(np.argmin(means[:, 1]))
    with_pairs = np.array([hparams.stage_of(e)[0] for e in range(start + 1, end + 1)])
    checks = [
        Check("steps", rows, a["out_step_losses"], atol=2e-5),
        Check("align", [s[0] for s in switches], a["out_step_align"]),
        Check("procrust", [s[1] for s in switches], a["out_step_procrust"]),
        Check("batches", sizes, a["out_step_batch"]),
        Check("epoch reprojection", [e[0] for e in epochs], a["out_epoch_loss_rep"], atol=2e-5),
        Check("epoch cycle", [e[1] for e in epochs], a["out_epoch_loss_cyc"], atol=2e-5),
        Check(
            "epoch procrust",
            np.array([e[2] for e in epochs])[with_pairs],
            a["out_epoch_loss_proc"],
            atol=2e-5,
        ),
        Check("mpjpe", means[:, 0], a["out_epoch_mpjpe"], atol=1e-5),
        Check("pa_mpjpe", means[:, 1], a["out_epoch_p_mpjpe"], atol=1e-5),
        Check("best mpjpe", means[best, 0], a["out_best_mpjpe"], atol=1e-5),
        Check("best pa_mpjpe", means[best, 1], a["out_best_p_mpjpe"], atol=1e-5),
        Check("shapes", np.stack(seen), a["out_eval_shape_camera_coord"], atol=5e-5),
        Check(
            "rate",
            system.rate_at(jnp.asarray(end * system.steps_per_epoch)),
            a["out_final_lr"],
            rtol=1e-6,
        ),
    ]
    for name, metric in (("mpjpe", "mpjpe"), ("p_mpjpe", "pa_mpjpe")):
        values = scores[best][metric]
        by_action = [
            np.concatenate([values[f:e] for f, e in ranges]).mean()
            for ranges in test.groups.values()
        ]
        checks.append(Check(f"actions {name}", by_action, a[f"out_best_action_{name}"], atol=1e-5))
    after = published.to_state_dict(
        {"params": state.params, "batch_stats": state.batch_stats},
        number if not np.any(state_dict["fe_net.0.bn1.num_batches_tracked"]) else 0,
    )
    for name, want in _each("out_final/", a):
        checks.append(Check(f"final {name}", checksum(after[name], want.size), want, 1e-4, 1e-6))
    return checks


def _has(folder, subject: str) -> bool:
    from jaxrecon.io.npz_objects import read_npz

    return subject in read_npz(folder / "data_2d_h36m_gt.npz")["positions_2d"]


@kind("mhr_net", "checkpoint")
def checkpoint(case: Case) -> list[Check]:
    a, checks = case.arrays, []
    stem = case.name
    for container in ("zip", "legacy"):
        path = case.support(f"{stem}_{container}.bin")
        tree = read_checkpoint(path)
        system = system_of(case, **published.network_settings(tree))
        system = dataclasses.replace(system, hypotheses=len(a["in_z"]) // len(a["in_keypoints_2d"]))
        template = system.init(jax.random.PRNGKey(0), system.example())
        found = published.read_published(tree, template)
        variables = {"params": found.params, "batch_stats": found.batch_stats, "constants": {}}
        steps = int(tree["model_pos"]["fe_net.0.bn1.num_batches_tracked"])
        state = published.to_state_dict(variables, steps)
        checks += [
            Check(f"{container} {name}", state[name], want) for name, want in _each("out_model/", a)
        ]
        opt_state = published.optimizer_state(system, found)
        written = published.export_checkpoint(
            variables, system, opt_state, found.epoch, max(steps, 1)
        )
        names = published.parameter_order(state)
        buffers = {
            names[i]: entry["momentum_buffer"] for i, entry in written["optimizer"]["state"].items()
        }
        checks += [
            Check(f"{container} momentum {name}", buffers[name], want)
            for name, want in _each("out_momentum/", a)
        ]
        held = sorted(tree["optimizer"]["state"])
        checks += [
            Check(f"{container} buffers", sorted(written["optimizer"]["state"]), held),
            Check(f"{container} epoch", written["epoch"], tree["epoch"]),
            Check(f"{container} names", list(state) == list(tree["model_pos"]), True),
            Check(f"{container} rate", found.rate, tree["lr"]),
        ]
        batch = {"keypoints2d": a["in_keypoints_2d"], "align": True}
        with jax.default_matmul_precision("highest"):
            done = system.forward(variables, batch, Noise(a["in_z"]), False, losses=False)
        checks += [
            Check("shape", done.lifting.joints3d, a["out_shape_camera_coord"], atol=5e-5),
            Check("basis", done.lifting.basis_shape, a["out_shape_mean"], atol=5e-5),
            Check("reprojection", done.reprojection, a["out_l_reprojection"], atol=5e-5),
        ]
    return checks


def _json(case: Case):
    return json.loads((case.directory / f"{case.name}.json").read_text())


@kind("mhr_net", "parameter_order")
def parameter_order(case: Case) -> list[Check]:
    names = _json(case)["parameters"]
    joints = 17
    system = MHRNet(joints=joints, blocks=max(int(n.split(".")[1]) for n in names if "net." in n))
    shapes = jax.eval_shape(lambda: system.init(jax.random.PRNGKey(0), system.example()))
    ours = [published.published_name(path) for path in traverse_util.flatten_dict(shapes["params"])]
    return [Check("order", published.parameter_order(dict.fromkeys(ours)) == names, True)]


@kind("mhr_net", "init_stats")
def init_stats(case: Case) -> list[Check]:
    want = _json(case)
    tree = {name: np.zeros(row["shape"]) for name, row in want.items() if "shape" in row}
    system = MHRNet(**published.network_settings({"model_pos": tree}))
    state = published.to_state_dict(system.init(jax.random.PRNGKey(0), system.example()))
    checks = [Check("names", set(tree) <= set(state), True)]
    for name, row in want.items():
        got = np.asarray(state[name], np.float64)
        checks.append(Check(f"shape {name}", got.shape, row["shape"]))
        spread = got.std(ddof=1) if got.size > 1 else 0.0
        # A deviation of n numbers is itself uncertain by 1 / sqrt(2 n); both sides are samples.
        allowed = max(0.05, 4 / np.sqrt(got.size))
        checks.append(Check(f"std {name}", spread, row["std"], rtol=allowed))
        low, high = row["min"], row["max"]
        uniform = row["std"] > 0 and (high - low) < 4 * row["std"]
        if uniform or row["std"] == 0:
            # The extremes of n uniform numbers stay about a range / n short of the limits.
            slack = (high - low) * max(0.05, 8 / got.size)
            inside = got.min() >= low - slack and got.max() <= high + slack
            checks.append(Check(f"range {name}", inside, True))
    return checks
