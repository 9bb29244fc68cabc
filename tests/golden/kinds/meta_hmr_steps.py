"""Golden kinds of Meta-HMR: losses, training steps and test-time optimisation."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrecon.bodies.model import lsp14_centred
from jaxrecon.geometry.metrics import mpjpe, pa_mpjpe, pve
from jaxrecon.geometry.rotations import axis_angle_to_quaternion, quaternion_to_matrix
from jaxrecon.systems.meta_hmr import losses
from jaxrecon.systems.meta_hmr.adaptation import test_time_optimise
from jaxrecon.systems.meta_hmr.losses import LossWeights
from jaxrecon.systems.meta_hmr.system import AdaptSettings, MetaHMR
from tests.golden.kinds.meta_hmr_geometry import VARIANTS, import_file, synthetic_body
from tests.golden.kinds.meta_hmr_networks import (
    check_sum,
    filled_state,
    is_hrnet,
    load,
    torch_leaf,
)
from tests.golden.runner import Case, Check, NotYet, kind


def official_batch(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The official loader's keys as ours; numbers that it keeps in float64 become float32."""
    batch = {
        "keypoints2d": raw["keypoints"],
        "keypoints2d_full": raw["keypoints"],
        "joints3d": raw["pose_3d"],
        "has_joints3d": raw["has_pose_3d"],
        "image_size": np.stack([raw["img_h"], raw["img_w"]], axis=1),
        **{
            k: raw[k]
            for k in ("center", "scale", "focal_length", "crop_trans", "pose", "betas", "has_smpl")
        },
    }
    if "img" in raw:
        batch |= {"image": raw["img"].transpose(0, 2, 3, 1), "bbox_info": raw["bbox_info"]}
        batch["gender"] = raw["gender"]
    return {
        k: np.asarray(v, np.int32 if k in ("has_smpl", "has_joints3d", "gender") else np.float32)
        for k, v in batch.items()
    }


def value_grad(function: Any, *arguments: Any) -> tuple[Any, tuple]:
    arguments = tuple(jnp.asarray(x) for x in arguments)
    return jax.value_and_grad(function, tuple(range(len(arguments))))(*arguments)


@kind("meta_hmr", "loss")
def loss(case: Case) -> list[Check]:
    a = case.arrays
    checks: list[Check] = []

    def compare(label: str, value: Any, want: np.ndarray) -> None:
        # A masked gradient is exactly 0; elsewhere the tolerance is relative.
        checks.append(Check(label, value, want, 1e-5, 1e-12))

    batch = official_batch({k[3:]: v for k, v in a.items() if k.startswith("in_")})
    # The reference crop is 256 x 192 or 224 x 224; its matrix shows which (w/2, h/2).
    scale = a["in_crop_trans"][:, 0, 0] * 200.0 * a["in_scale"]
    height = int(round(float(scale[0])))
    offset = a["in_crop_trans"][:, 0, 2] + a["in_crop_trans"][:, 0, 0] * a["in_center"][:, 0]
    width = 2 * int(round(float(offset[0])))

    for name, weights, openpose in (
        ("loss2d", (0.0, 1.0), False),
        ("loss2d_eval", None, False),
        ("loss2d_openpose", None, True),
    ):
        if f"out_{name}" not in a:
            continue
        system = MetaHMR(
            image_size=(height, width),
            test_time=AdaptSettings(openpose=openpose),
            openpose_weight=weights[0] if weights else 0.0,
            gt_weight=weights[1] if weights else 0.0,
        )

        def loss2d(joints, transl, system=system, test_time=weights is None):
            # The files give the full-frame translation, ours is made from the crop's camera.
            return _full_loss(system, joints, transl, batch, test_time)

        value, (joints, transl) = value_grad(loss2d, a["in_pred_joints"], a["in_pred_cam_full"])
        compare(name, value, a[f"out_{name}"])
        if f"out_{name}_grad_joints" in a:
            compare(f"{name} grad joints", joints, a[f"out_{name}_grad_joints"])
        if f"out_{name}_grad_cam" in a:
            compare(f"{name} grad cam", transl, a[f"out_{name}_grad_cam"])
    if "in_kp_pred" in a:
        value, (grad,) = value_grad(
            lambda p: losses.keypoint_loss(p, a["in_kp_gt"], 0.3, 0.7), a["in_kp_pred"]
        )
        compare("keypoints 0.3 0.7", value, a["out_keypoint_loss_03_07"])
        compare("keypoints grad", grad, a["out_keypoint_loss_grad"])

    smpl, has3d = batch["has_smpl"], batch["has_joints3d"]
    value, (grad,) = value_grad(
        lambda j: losses.joint_loss(j, a["in_pose_3d"], has3d), a["in_pred_joints"]
    )
    compare("3d gt", value, a["out_loss3d_gt"])
    compare("3d gt grad", grad, a["out_loss3d_gt_grad"])
    value, (grad, aux) = value_grad(
        lambda j, p: losses.joint_loss(j, p[:, 25:], has3d),
        a["in_pred_joints"],
        a["in_pseudo_joints"],
    )
    compare("3d pseudo", value, a["out_loss3d_pseudo"])
    compare("3d pseudo grad", grad, a["out_loss3d_pseudo_grad"])
    compare("3d pseudo grad aux", aux, a["out_loss3d_pseudo_grad_aux"])
    value, (grad, aux) = value_grad(
        lambda p, g: losses.vertex_loss(p, g, smpl), a["in_pred_vertices"], a["in_gt_vertices"]
    )
    compare("vertices", value, a["out_loss_vertices"])
    step = -(-grad.shape[1] // a["out_loss_vertices_grad"].shape[1])
    compare("vertices grad", grad[:, ::step], a["out_loss_vertices_grad"])
    compare("vertices grad aux", aux[:, ::step], a["out_loss_vertices_grad_aux"])
    truth = quaternion_to_matrix(axis_angle_to_quaternion(batch["pose"].reshape(-1, 24, 3)))
    value, (grad,) = value_grad(lambda r: losses.pose_loss(r, truth, smpl), a["in_pred_rotmat"])
    compare("pose gt", value, a["out_loss_pose_gt"])
    compare("pose gt grad", grad, a["out_loss_pose_gt_grad"])
    value, (grad,) = value_grad(
        lambda b: losses.betas_loss(b, batch["betas"], smpl), a["in_pred_betas"]
    )
    compare("betas gt", value, a["out_loss_betas_gt"])
    compare("betas gt grad", grad, a["out_loss_betas_gt_grad"])
    value, (grad, aux) = value_grad(
        lambda r, p: losses.pose_loss(r, p, smpl), a["in_pred_rotmat"], a["in_pseudo_rotmat"]
    )
    compare("pose pseudo", value, a["out_loss_pose_pseudo"])
    compare("pose pseudo grad", grad, a["out_loss_pose_pseudo_grad"])
    compare("pose pseudo grad aux", aux, a["out_loss_pose_pseudo_grad_aux"])
    value = losses.betas_loss(a["in_pred_betas"], a["in_pseudo_betas"], smpl)
    compare("betas pseudo", value, a["out_loss_betas_pseudo"])
    value, (grad,) = value_grad(losses.camera_loss, a["in_pred_cam_s"])
    compare("camera", value, a["out_loss_cam"])
    compare("camera grad", grad, a["out_loss_cam_grad"])
    return checks


def _full_loss(system: MetaHMR, joints: Any, transl: Any, batch: dict, test_time: bool) -> Any:
    """The system's 2D loss for a given full-frame translation."""
    from jaxrecon.geometry.cameras import full_to_crop_camera

    cam = full_to_crop_camera(
        transl, batch["center"], batch["scale"], batch["image_size"], batch["focal_length"]
    )
    return system.keypoint_loss(joints, cam, batch, test_time)


@kind("meta_hmr", "loss_hmr2d")
def loss_hmr2d(case: Case) -> list[Check]:
    a = case.arrays
    height, width = (int(n) for n in a["in_crop_hw"])
    batch = {"keypoints2d": a["in_keypoints"]}
    checks = []
    for name, openpose in (("gt", False), ("openpose", True)):
        system = MetaHMR(
            model="hmr", image_size=(height, width), test_time=AdaptSettings(openpose=openpose)
        )
        value, (joints, cam) = value_grad(
            lambda j, c, s=system: s.keypoint_loss(j, c, batch, True),
            a["in_pred_joints"],
            a["in_pred_cam"],
        )
        points = system.crop_points(
            jnp.asarray(a["in_pred_joints"]), jnp.asarray(a["in_pred_cam"]), batch
        )
        checks += [
            Check(f"loss {name}", value, a[f"out_loss_{name}"], 1e-5),
            Check(f"points {name}", points, a[f"out_points_{name}"], 1e-5),
            Check(f"grad joints {name}", joints, a[f"out_grad_joints_{name}"], 1e-5),
            Check(f"grad cam {name}", cam, a[f"out_grad_cam_{name}"], 1e-5),
        ]
    return checks


# ------------------------------------------------------------------------ training steps


@dataclasses.dataclass(frozen=True)
class Setting:
    """A system with filled weights and the batch of a case."""

    system: MetaHMR
    variables: dict[str, Any]
    batch: dict[str, np.ndarray]


def make_setting(case: Case, rules: str, count: int, **options: Any) -> Setting:
    a = case.arrays
    assert case.manifest is not None
    if is_hrnet(case.manifest):
        raise NotYet("HRNet-W48 comes with issue 3")
    states = {
        "main": filled_state(case, rules, "model."),
        "aux": filled_state(case, rules, "model_aux."),
    }
    if "in_image_hw" in a:
        height, width = (int(n) for n in a["in_image_hw"])
    else:
        height, width = (224, 224) if "square" in case.words else (256, 192)
    features = states["main"]["layer4.0.conv3.weight"].shape[0]
    box = states["main"]["fc1.weight"].shape[1] == features + 160
    system = MetaHMR(
        model="cliff" if box else "hmr",
        image_size=(height, width),
        hidden=states["main"]["fc1.weight"].shape[0],
        dropout=0.0,
        **options,
    )
    loaded = {
        name: load(getattr(system, name), state, height, width) for name, state in states.items()
    }
    bodies = {gender: synthetic_body(case, 431, gender) for gender in VARIANTS}
    variables = {
        "params": {name: v["params"] for name, v in loaded.items()},
        "batch_stats": {name: v["batch_stats"] for name, v in loaded.items()},
        "constants": system.constants_of(bodies),
    }
    inputs = import_file(str(case.support("golden_inputs.py")))
    raw = inputs.make_batch(
        int(a["in_seed"]), count, height, width, a["in_has_smpl"], a["in_has_pose_3d"]
    )
    conf_scale = float(a.get("in_conf_scale", 1.0))
    if conf_scale != 1.0:
        raw["keypoints"][..., 2] *= np.float32(conf_scale)
    return Setting(system, variables, official_batch(raw))


_TERMS = {
    "pose": "pose",
    "betas": "betas",
    "2d": "keypoints2d",
    "3d": "joints3d",
    "vertices": "vertices",
}


def tree_leaf(tree: dict, name: str) -> np.ndarray:
    """The array of a full name `model.fc1.weight` or `model_aux.bn1.bias` in a params tree."""
    which, rest = name.split(".", 1)
    return torch_leaf({"params": tree["main" if which == "model" else "aux"]}, rest)


@kind("meta_hmr", "meta")
def meta(case: Case) -> list[Check]:
    a = case.arrays
    words = set(case.words)
    inner_lr = float(a["in_inner_lr"]) if "in_inner_lr" in a else 1e-5
    inner_steps = 0 if "noinner" in words else int(a.get("in_inner_step", 1))
    first = bool(a["in_first_order"]) if "in_first_order" in a else "first" in words
    outer_lr = float(a.get("in_outer_lr", 1e-4))
    setting = make_setting(
        case,
        "rules",
        len(a["in_has_smpl"]),
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        order="first" if first else "second",
        outer_lr=outer_lr,
    )
    system, variables, batch = setting.system, setting.variables, setting.batch

    # Everything is an argument: XLA would fold the networks of constants, in minutes.
    def objective(params, variables, batch):
        return system.loss({**variables, "params": params}, batch, jax.random.key(0), True)

    (value, aux), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        variables["params"], variables, batch
    )
    optimizer = system.optimizer()
    change, _ = optimizer.update(grads, optimizer.init(variables["params"]))
    new = optax.apply_updates(variables["params"], change)

    checks = [Check("loss times 60", value, a["out_loss_times60"], 1e-4)]
    stages: dict[str, tuple[str, Any]] = {"outer": ("loss_", None)}
    inner = _inner_trace(setting) if inner_steps else []
    for step, record in enumerate(inner):
        stages[f"inner{step}"] = (f"inner{step}/", record)
    for stage, (prefix, _) in stages.items():
        for short, ours in _TERMS.items():
            key = f"out_{stage}_loss_{short}"
            if key in a:
                checks.append(Check(key, aux.metrics[prefix + ours], a[key], 1e-4))
    for step, record in enumerate(inner):
        key = f"out_inner{step}_loss"
        checks.append(Check(key, record["loss"], a[key], 1e-4))
        for who, found in (("", record["main"]), ("aux_", record["aux"])):
            for short, leaf in (("rotmat", "rotmats"), ("shape", "betas"), ("cam", "cam")):
                key = f"out_inner{step}_{who}{short}"
                if key in a:
                    checks.append(Check(key, getattr(found, leaf), a[key], 1e-4))
        for key in (k for k in a if k.startswith(f"out_inner{step}_grad__")):
            leaf = tree_leaf({"main": {"head": record["grad"]}}, key.split("__", 1)[1])
            checks.append(Check(key, check_sum(leaf), a[key], 1e-4))
        for key in (k for k in a if k.startswith(f"out_inner{step}_adapted__")):
            leaf = tree_leaf({"main": {"head": record["adapted"]}}, key.split("__", 1)[1])
            checks.append(Check(key, check_sum(leaf), a[key], 1e-5))
    if "out_outer_rotmat" in a:
        head = inner[-1]["adapted"] if inner else variables["params"]["main"]["head"]
        found = _train_regression(setting, head)
        for short, leaf in (("rotmat", "rotmats"), ("shape", "betas"), ("cam", "cam")):
            checks.append(
                Check(f"outer {short}", getattr(found, leaf), a[f"out_outer_{short}"], 1e-4)
            )
    for key in (k for k in a if k.startswith("out_grad__")):
        name = key.split("__", 1)[1]
        head = re.search(r"\.(fc\d|dec\w+)\.", name)
        tolerance = 1e-4 if head else 3e-2
        checks.append(Check(key, check_sum(tree_leaf(grads, name)), a[key], tolerance))
    for net, name in (("model", "main"), ("model_aux", "aux")):
        if f"out_{net}_grad_norm" in a:
            norm = optax.global_norm(grads[name])
            checks.append(Check(f"{net} grad norm", norm, a[f"out_{net}_grad_norm"], 1e-4))
        if f"out_{net}_params_without_grad" in a:
            silent = sum(not np.any(np.asarray(g)) for g in jax.tree.leaves(grads[name]))
            checks.append(Check(f"{net} without grad", silent, a[f"out_{net}_params_without_grad"]))
    rates = {"model": outer_lr, "model_aux": system.aux_lr}
    for key in (k for k in a if k.startswith("out_new__")):
        name = key.split("__", 1)[1]
        which, rest = name.split(".", 1)
        if rest.endswith(("running_mean", "running_var")):
            stats = {"batch_stats": aux.state["main" if which == "model" else "aux"]}
            checks.append(Check(key, check_sum(torch_leaf(stats, rest)), a[key], 1e-4))
            continue
        got = check_sum(tree_leaf(new, name))
        checks.append(Check(f"{key} mean, deviation", got[:2], a[key][:2], 0.0, 1e-6))
        # Where a gradient is nearly zero its sign, and so Adam's first step, is arbitrary.
        checks.append(Check(f"{key} entries", got[2:], a[key][2:], 1e-6, 2.5 * rates[which]))
    return checks


def _train_regression(setting: Setting, head: Any) -> Any:
    """The main network in training mode with the given head."""
    system, variables, batch = setting.system, setting.variables, setting.batch
    seen, _ = system.encode("main", variables, jnp.asarray(batch["image"]), True, 1)
    features = seen["features"]
    buffers = variables["batch_stats"]["main"]["head"]
    return system.regress("main", head, buffers, features, batch)


def _inner_trace(setting: Setting) -> list[dict[str, Any]]:
    """Gradient, adapted head and predictions of each inner step."""
    system = setting.system

    @jax.jit
    def trace(variables, batch):
        params, stats = variables["params"], variables["batch_stats"]
        body, head = variables["constants"]["loss"], params["main"]["head"]
        image = jnp.asarray(batch["image"])
        seen, _ = system.encode("main", variables, image, True, 1)
        aux_seen, _ = system.encode("aux", variables, image, True, 1)
        features, aux_features = seen["features"], aux_seen["features"]
        pseudo = system.embody(
            body,
            system.regress("aux", params["aux"]["head"], stats["aux"]["head"], aux_features, batch),
        )
        records = []
        for _ in range(system.inner_steps):
            (value, (_, found)), grad = jax.value_and_grad(system.inner_loss, has_aux=True)(
                head, features, pseudo, stats["main"]["head"], body, batch, None
            )
            head = jax.tree.map(lambda p, g: p - system.inner_lr * g, head, grad)
            records.append(
                {
                    "loss": value,
                    "main": found.regression,
                    "aux": pseudo.regression,
                    "grad": grad,
                    "adapted": head,
                }
            )
        return records

    return trace(setting.variables, setting.batch)


# ------------------------------------------------------------------------ test time


@kind("meta_hmr", "tto")
def tto(case: Case) -> list[Check]:
    a = case.arrays
    flag = {
        k: bool(a[f"in_{k}"])
        for k in ("no_use_adam", "no_inner_step", "adapt_val_step", "use_openpose2d")
    }
    settings = AdaptSettings(
        inner_lr=float(a["in_inner_lr"]),
        after_lr=float(a["in_after_innerlr"]),
        optimizer="sgd" if flag["no_use_adam"] else "adam",
        dual_step=not flag["no_inner_step"],
        stop_change=2e-5 if flag["adapt_val_step"] else 0.0,
        openpose=flag["use_openpose2d"],
    )
    count, size = int(a["in_count"]), int(a["in_batch_size"])
    rules = "tto_hrnet_rules" if is_hrnet(case.manifest or {}) else "tto_rules"
    setting = make_setting(case, rules, count, test_time=settings, weights=LossWeights())
    system, variables = setting.system, setting.variables
    last_step = int(a["in_test_val_step"])
    run = jax.jit(lambda v, b: test_time_optimise(system, v, b, last_step))

    checks: list[Check] = []
    pred14, gt14, vertex_errors = [], [], []
    for i in range(-(-count // size)):
        batch = {k: v[i * size : (i + 1) * size] for k, v in setting.batch.items()}
        trace = run(variables, batch)
        ran = int(trace.steps_run)
        checks.append(Check(f"b{i} steps run", ran, a["out_steps_run"][i]))
        want = a["out_loss2d_steps"][i]
        want = want[~np.isnan(want)]
        checks.append(Check(f"b{i} 2D losses", trace.loss2d[:ran], want, 1e-3))
        for key in (k for k in a if re.fullmatch(rf"out_b{i}_sgd\d+_loss", k)):
            step = int(re.findall(r"sgd(\d+)", key)[0])
            checks.append(Check(key, trace.objective[step], a[key], 1e-5))
        checks += _plain_step_checks(a, i, setting, batch)
        for prefix, index in (("initial_", 0), ("", -1)):
            for short, leaf in (("rotmat", "rotmats"), ("shape", "betas"), ("cam", "cam")):
                key = f"out_b{i}_{prefix}{short}"
                if key in a:
                    got = getattr(trace.regressions, leaf)[index]
                    checks.append(Check(key, got, a[key], 5e-3))
        checks += _final_checks(a, i, trace.params, settings, ran)
        changed = sum(
            bool(np.any(np.asarray(x) != np.asarray(y)))
            for x, y in zip(
                jax.tree.leaves(trace.params), jax.tree.leaves(variables["params"]["main"])
            )
        )
        checks.append(Check(f"b{i} params changed", changed, a[f"out_b{i}_params_changed"]))
        final = jax.tree.map(lambda x: x[-1], trace.regressions)
        prediction = system.prediction(variables, final, batch)
        truth = system.true_vertices(variables, batch)
        neutral = variables["constants"]["neutral"]
        pred14.append(lsp14_centred(neutral, prediction.vertices))
        gt14.append(lsp14_centred(neutral, truth))
        vertex_errors.append(pve(prediction.vertices, truth))
        metrics = system.evaluate(variables, prediction, {**batch, "has_smpl": np.ones(size)})
        checks.append(
            Check(f"b{i} evaluate", metrics["mpjpe"], 1000 * mpjpe(pred14[-1], gt14[-1]), 1e-5)
        )
    pred, gt = jnp.concatenate(pred14), jnp.concatenate(gt14)
    per_sample = {"pa": pa_mpjpe(pred, gt), "mpjpe": mpjpe(pred, gt)}
    checks += [
        Check("pred14", pred, a["out_pred14"], 5e-3),
        Check("gt14", gt, a["out_gt14"], 1e-5),
        Check("PA per sample", per_sample["pa"], a["out_pa_per_sample"], 0.0, 2e-4),
        Check("MPJPE per sample", per_sample["mpjpe"], a["out_mpjpe_per_sample"], 0.0, 2e-4),
    ]
    means = [per_sample["mpjpe"], per_sample["pa"], jnp.concatenate(vertex_errors)]
    got = 1000.0 * np.array([float(jnp.mean(x)) for x in means])
    checks.append(Check("metrics in mm", got, a["out_metrics_mm"], 0.0, 0.2))
    return checks


def _plain_step_checks(
    a: dict[str, np.ndarray], i: int, setting: Setting, batch: dict
) -> list[Check]:
    """Parameters after each plain step, by running the routine up to that step."""
    steps = sorted({int(m[1]) for k in a if (m := re.match(rf"out_b{i}_sgd(\d+)__", k))})
    checks = []
    for step in steps:
        trace = jax.jit(lambda v, b, s=step: test_time_optimise(setting.system, v, b, s))(
            setting.variables, batch
        )
        for key in (k for k in a if k.startswith(f"out_b{i}_sgd{step}__")):
            leaf = tree_leaf({"main": trace.params}, key.split("__", 1)[1])
            checks.append(Check(key, check_sum(leaf), a[key], 1e-5))
    return checks


def _final_checks(
    a: dict[str, np.ndarray], i: int, params: Any, settings: AdaptSettings, ran: int
) -> list[Check]:
    checks = []
    for key in (k for k in a if k.startswith(f"out_b{i}_final__")):
        got = check_sum(tree_leaf({"main": params}, key.split("__", 1)[1]))
        checks.append(Check(f"{key} mean, deviation", got[:2], a[key][:2], 0.0, 1e-6))
        entries = 2 * settings.after_lr * ran
        checks.append(Check(f"{key} entries", got[2:], a[key][2:], 1e-6, entries))
    return checks
