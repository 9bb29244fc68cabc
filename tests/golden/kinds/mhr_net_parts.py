"""Golden kinds of MHR-Net: rotations, cameras, losses, metrics, skeleton, data, text files."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.data.h36m_archives import load_h36m
from jaxrecon.geometry.procrustes import similarity_align
from jaxrecon.io import h36m_archives
from jaxrecon.systems.mhr_net import cameras, hparams, losses, metrics, rotations
from jaxrecon.systems.mhr_net.skeletons import BONES
from tests.golden.runner import Case, Check, NotYet, kind


@kind("mhr_net", "so3")
def so3(case: Case) -> list[Check]:
    a = case.arrays
    axis, angle = a["in_axis_normal"], a["in_angle"]
    only_z = axis * np.array([0, 0, 1], np.float32)
    made = rotations.exponential(a["in_log_rot"])
    grad = jax.grad(lambda w: jnp.sum(rotations.exponential(w) * a["in_grad_weight"]))(
        jnp.asarray(a["in_log_rot"])
    )
    there, back = rotations.opposite_rotations(axis, angle)
    vectors = rotations.rotation_vectors(axis, angle)
    turned_z = rotations.exponential(rotations.rotation_vectors(only_z, a["in_angle_zaxis"]))
    return [
        Check("R", made, a["out_R"], atol=2e-6),
        Check("grad", grad, a["out_grad"], atol=2e-4),
        Check("hat", rotations.skew(a["in_log_rot"]), a["out_hat"]),
        Check("det", jnp.linalg.det(made), a["out_det"], atol=2e-6),
        Check("random", rotations.exponential(vectors), a["out_rand_R"], atol=2e-6),
        Check("random log", vectors, a["out_rand_log"], atol=2e-6),
        Check("about z", turned_z, a["out_rand_R_zaxis"], atol=2e-6),
        Check("there", there, a["out_rand_inv_R"], atol=2e-6),
        Check("back", back, a["out_rand_inv_Rinv"], atol=2e-6),
    ]


# Constants of the case that its file does not hold; the README of the folder states them.
_CASE_SCREEN = (1000, 1002)
_CASE_CLAMP = 0.1
_CASE_RESCALE = 2.0
_CASE_RADIAL = {
    "position": (0.1, 0.2, -5.0),
    "focal": (1145.0, 1145.0),
    "center": (512.0, 515.0),
    "radial": (-0.2, 0.24, -0.003),
    "tangential": (-0.001, -0.0014),
}


@kind("mhr_net", "camera")
def camera(case: Case) -> list[Check]:
    a = case.arrays
    quaternion, position, lens = a["in_quat"], a["in_trans"], a["in_intrinsics9"]
    seen = a["out_world_to_camera"]
    near = seen * np.array([1, 1, _CASE_CLAMP], np.float32)
    screen = cameras.normalise_screen(a["in_pixels"], *_CASE_SCREEN)
    found = {
        "qrot": cameras.rotate_by_quaternion(a["in_quats"], a["in_vecs"]),
        "qinverse": cameras.inverse_quaternion(a["in_quats"]),
        "world_to_camera": cameras.world_to_camera(a["in_points_world"], quaternion, position),
        "camera_to_world": cameras.camera_to_world(seen, quaternion, position),
        "normalize_screen": screen,
        "normalize_coordinates": screen,
        "euler": cameras.euler_degrees(a["in_rotmats"]),
    }
    points = np.concatenate([a["in_kp"], a["in_depth"]], -1)
    for name in cameras.PROJECTIONS:
        xy, depth = cameras.split_depth(points, name)
        found |= {f"proj_{name}_xy": xy, f"proj_{name}_depth": depth}
        found[f"unproj_{name}"] = cameras.join_depth(a["in_kp"], a["in_depth"], name, _CASE_RESCALE)
    checks = [Check(name, got, a[f"out_{name}"], 1e-6, 1e-5) for name, got in found.items()]
    pixels = {
        "project": cameras.project_distorted(seen, lens),
        "project_linear": cameras.project_linear(seen, lens),
        "project_clamped": cameras.project_distorted(near, lens),
        "image_coordinates": cameras.screen_to_pixels(screen, *_CASE_SCREEN),
    }
    radial = cameras.project_radial(
        a["in_points_world"][0],
        a["out_ppr_R"],
        **{name: np.array(value, np.float32) for name, value in _CASE_RADIAL.items()},
    )
    pixels["ppr_proj"] = radial.pixels
    checks += [Check(name, got, a[f"out_{name}"], atol=2e-3) for name, got in pixels.items()]
    rest = {"D": radial.depth, "radial": radial.radial, "tan": radial.tangential, "r2": radial.r2}
    return checks + [Check(n, got, a[f"out_ppr_{n}"], atol=1e-5) for n, got in rest.items()]


@kind("mhr_net", "losses")
def loss_functions(case: Case) -> list[Check]:
    a = case.arrays
    three, two = (a["in_pred"], a["in_target"]), (a["in_pred2d"], a["in_target2d"])
    calls = {
        "mpjpe3": (losses.mean_point_distance, *three),
        "mpjpe2": (losses.mean_point_distance, *two),
        "reprojection": (losses.normalised_reprojection, *two),
        "consistency": (losses.shape_consistency, a["in_shapes_k"], a["in_target"]),
        "l1": (losses.mean_l1, *three),
    }
    checks = []
    for name, (function, pred, target) in calls.items():
        value, grad = jax.value_and_grad(function)(jnp.asarray(pred), target)
        checks += [
            Check(name, value, a[f"out_{name}"], atol=1e-6),
            Check(f"{name} grad", grad, a[f"out_{name}_grad"], atol=1e-6),
        ]
    return checks


@kind("mhr_net", "procrustean")
def procrustean(case: Case) -> list[Check]:
    a = case.arrays
    count = int(a["in_procrust_samples"])

    def run(shapes):
        return losses.procrustean_residual(shapes, a["in_perm"], count, a["in_align_margin"])

    (value, pairs), grad = jax.value_and_grad(run, has_aux=True)(jnp.asarray(a["in_shapes"]))
    none = not int(a["out_n_selected"])
    checks = [
        Check("loss", value, a["out_loss"], atol=0.0 if none else 1e-5),
        Check("grad", grad, a["out_grad_shapes"], atol=0.0 if none else 1e-5),
    ]
    if pairs is None:
        return checks + [Check("selected", 0, a["out_n_selected"])]
    found = {
        "rot": pairs.rotation,
        "sing": pairs.values,
        "ori_diff": pairs.before,
        "aligned_diff": pairs.after,
        "ratio": pairs.ratio,
        "det": jnp.linalg.det(pairs.rotation),
    }
    checks += [Check(name, got, a[f"out_{name}"], atol=2e-5) for name, got in found.items()]
    return checks + [
        Check("mask", pairs.selected, a["out_pos"]),
        Check("selected", pairs.selected.sum(), a["out_n_selected"]),
    ]


@kind("mhr_net", "metrics")
def metric_functions(case: Case) -> list[Check]:
    a = case.arrays
    pred, target, flip = a["in_pred"], a["in_target"], a["in_pred_flip"]
    aligned = similarity_align(pred, target)
    shares = metrics.correct_shares(pred, flip, target)
    aligned_shares = metrics.correct_shares(aligned, similarity_align(flip, target), target)
    with_camera = len(a["in_camera"])
    points, turned = metrics.match_shape_and_camera(
        pred[:with_camera], target[:with_camera], a["in_camera"]
    )
    matched = len(a["out_calibrate_by_procrustes"])
    best = jnp.minimum(
        metrics.aligned_distance(pred, target), metrics.aligned_distance(flip, target)
    )
    found = {
        "calc_dist": metrics.joint_distance(pred, target),
        "calc_dist4": metrics.joint_distance(a["in_pred4"], a["in_target4"]),
        "p_mpjpe": metrics.aligned_distance(pred, target),
        "p_mpjpe_mask": metrics.aligned_distance(pred, target, a["in_mask"]),
        "n_mpjpe": metrics.scaled_distance(a["in_pred4"], a["in_target4"]).mean(),
        "normalized_error": metrics.normalised_error(pred, target).mean(),
        "normalized_error_procrustes": metrics.normalised_error(aligned, target).mean(),
        "align_pose": aligned,
        "calibrate_by_scale": metrics.calibrated(pred, target),
        "pck150": shares[0],
        "pck_auc": shares[1],
        "p_pck150": aligned_shares[0],
        "p_pck_auc": aligned_shares[1],
        "calibrate_by_procrustes": metrics.match_shape(pred[:matched], target[:matched]),
        "calibrate_by_procrustes_cam_points": points,
        "calibrate_by_procrustes_cam": turned,
        "align_flip_best": best,
    }
    return [Check(name, got, a[f"out_{name}"], 2e-6, 5e-6) for name, got in found.items()]


@kind("mhr_net", "metrics_c3dpo")
def metrics_c3dpo(case: Case) -> list[Check]:
    a = case.arrays
    pred, target = (np.swapaxes(a[name], 1, 2) for name in ("in_pred", "in_gt"))
    plain = metrics.c3dpo_errors(pred, target, a["in_scale"])
    masked = metrics.c3dpo_errors(
        pred, target, np.ones_like(a["in_scale"]), a["in_mask"], centre_depth=True
    )
    checks = []
    for prefix, found in (("plain", plain), ("masked_meandepth", masked)):
        values = {
            "MPJPE_orig": found.mpjpe,
            "MPJPE_flip": found.mpjpe_flipped,
            "MPJPE_best": found.mpjpe_best,
            "stress": found.stress,
        }
        checks += [
            Check(f"{prefix} {name}", got, a[f"out_{prefix}_EVAL_{name}"], atol=5e-6)
            for name, got in values.items()
        ]
    return checks


@kind("mhr_net", "eval_protocol")
def eval_protocol(case: Case) -> list[Check]:
    a = case.arrays
    depth, seen = a["in_shape_camera_coord"][..., 2], a["in_inputs_2d"]
    found = metrics.lifting_protocol(depth, seen, a["in_inputs_3d"])
    lifted = cameras.lift(seen, depth)
    values = {
        "lifted": lifted,
        "dist": found.mpjpe,
        "dist_flip": found.mpjpe_flipped,
        "p_dist": found.pa_mpjpe,
        "p_dist_flip": found.pa_mpjpe_flipped,
        "dist_best": found.best_mpjpe,
        "p_dist_best": found.best_pa_mpjpe,
    }
    flipped = lifted * np.array([1, 1, -1], np.float32)
    for name, points in (("calibrated", lifted), ("calibrated_flip", flipped)):
        values[name] = metrics.rooted(metrics.calibrated(points, a["in_inputs_3d"]))
    checks = [Check(name, got, a[f"out_{name}"], atol=5e-6) for name, got in values.items()]
    return checks + [
        Check("points", found.points, metrics.rooted(a["out_calibrated"]), atol=5e-6),
        Check("mm", found.best_mpjpe.mean() * 1000, a["out_mean_mpjpe_mm"], atol=1e-2),
        Check("aligned mm", found.best_pa_mpjpe.mean() * 1000, a["out_mean_p_mpjpe_mm"], atol=1e-2),
    ]


@kind("mhr_net", "skeleton")
def skeleton(case: Case) -> list[Check]:
    a = case.arrays
    parents = h36m_archives.parents17()
    left, right = h36m_archives.sides17()
    # The published children lists are those from before the shoulders moved.
    raw = h36m_archives.parents17(rewired=False)
    found = {
        "parents32": h36m_archives.PARENTS32,
        "left32": h36m_archives.LEFT32,
        "right32": h36m_archives.RIGHT32,
        "kept": h36m_archives.KEPT,
        "parents17_raw": raw,
        "parents17": parents,
        "left17": left,
        "right17": right,
        "has_children_stale": np.isin(np.arange(len(raw)), raw),
        "bones": BONES["h36m17"],
        "bone_pairs": h36m_archives.BONE_PAIRS,
    }
    checks = [Check(name, got, a[f"out_{name}"]) for name, got in found.items()]
    return [*checks, Check("adj", h36m_archives.adjacency(parents), a["out_adj"], atol=1e-6)]


def archive_folder(case: Case):
    """The folder of small archives that a case was made from: `tiny_h36m_<last word>`."""
    if not case.words:
        raise NotYet(f"{case.name} does not say which tiny_h36m_ folder it was made from")
    name = f"tiny_h36m_{case.words[-1]}"
    return case.support(f"{name}/data_3d_h36m.npz").parent


@kind("mhr_net", "h36m_loader")
def h36m_loader(case: Case) -> list[Check]:
    a, folder = case.arrays, archive_folder(case)
    checks = []
    for split in ("train", "valid"):
        names = a[f"out_{split}_clip_names"]
        subjects = list(dict.fromkeys(str(name).split("/")[0] for name in names))
        poses = load_h36m(folder, subjects=subjects)
        lengths = [length for _, length in poses.clips]
        same = [one == str(two) for (one, _), two in zip(poses.clips, names)]
        checks += [
            Check(f"{split} 2D", poses.keypoints2d, a[f"out_{split}_poses_2d"], atol=1e-6),
            Check(f"{split} 3D", poses.joints3d, a[f"out_{split}_poses_3d"], atol=1e-5),
            Check(f"{split} names", same, np.ones(len(names))),
            Check(f"{split} lengths", lengths, a[f"out_{split}_clip_lengths"]),
        ]
        if split == "valid":
            rows = [
                (h36m_archives.ACTIONS.index(action), *rows)
                for action, ranges in poses.groups.items()
                for rows in ranges
            ]
            checks += [
                Check("intrinsics", poses.intrinsics, a["out_valid_intrinsics"], rtol=1e-6),
                Check("actions", rows, a["out_action_frames"]),
                Check("scale", poses.factor, a["out_valid_scale"], rtol=1e-6),
            ]
    return checks


def _json(case: Case):
    return json.loads((case.directory / f"{case.name}.json").read_text())


@kind("mhr_net", "parse_param")
def parse_param(case: Case) -> list[Check]:
    checks = []
    for row in _json(case):
        try:
            got = hparams.parse_hparams(row["input"])
        except ValueError:
            checks.append(Check(row["input"], True, row.get("error") == "ValueError"))
            continue
        same = got == row.get("output")
        types = {name: type(value).__name__ for name, value in got.items()}
        checks.append(Check(row["input"], same and types == row["types"], True))
    return checks


@kind("mhr_net", "schedule")
def schedule(case: Case) -> list[Check]:
    rows = _json(case)
    checks = []
    for row in rows:
        epoch = row["epoch"]
        procrust, align = hparams.stage_of(epoch)
        got = (procrust, align, hparams.saves(epoch, len(rows)))
        want = (row["use_procrust"], row["align_to_root"], row["saves_periodic"])
        checks += [
            Check(f"epoch {epoch}", got, want),
            Check(f"rate {epoch}", hparams.learning_rate(epoch), row["lr"], rtol=1e-12),
        ]
    return checks


@kind("mhr_net", "deterministic_random")
def deterministic_random(case: Case) -> list[Check]:
    return [
        Check(row["data"], hparams.hashed_choice(row["min"], row["max"], row["data"]), row["out"])
        for row in _json(case)
    ]


@kind("mhr_net", "h36m_cameras")
def h36m_cameras(case: Case) -> list[Check]:
    want, got = _json(case), h36m_archives.cameras()
    checks = [Check(name, got[name] == want[name], True) for name in want]
    for number, lens in enumerate(want["intrinsics"]):
        made = h36m_archives.intrinsics9(number)
        checks.append(Check("focal", made[:2], lens["focal_length"], rtol=1e-6))
    return checks
