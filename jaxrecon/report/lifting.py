"""The page of a run that lifts 2D poses: evidence, hypotheses from several sides, a turntable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.data.lifting import PoseSet
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.images import write_image
from jaxrecon.pose_reconstruction import hypothesis_layers
from jaxrecon.rendering.shading import PALETTE
from jaxrecon.rendering.skeletons import (
    VIEWS,
    draw_points2d,
    draw_points3d,
    skeleton_mesh,
    turntable_of_points,
)
from jaxrecon.report.animation import encode_animation
from jaxrecon.report.page import Metric, RunPage, Sample, write_run_page
from jaxrecon.report.run import PAGE_FILE, training_charts
from jaxrecon.report.viewer import Layer, Scene
from jaxrecon.systems.mhr_net import MHRNet
from jaxrecon.systems.mhr_net.skeletons import BONES

_GALLERY = 6
_FRAMES = 24
_STEPS = 60  # frames of the viewer
_ABOUT = {
    "mpjpe": ("MPJPE", "mm", "observed 2D at the predicted depth; scale and depth sign calibrated"),
    "pa_mpjpe": ("PA-MPJPE", "mm", "the same after rotation, scale and shift have been aligned"),
    "mpjpe_unflipped": ("MPJPE, own depth sign", "mm", "the depth sign as predicted"),
    "oracle_mpjpe": ("MPJPE of the best hypothesis", "mm", "chosen by the truth: no fair score"),
    "normalised_3d_error": ("Normalised 3D error", "", "one depth reflection of the sequence"),
    "after_rotation": ("after rotation", "", "normalised 3D error, each frame turned to fit"),
}


def write_lifting_page(
    folder: Path,
    system: MHRNet,
    variables: Mapping[str, Any],
    poses: PoseSet,
    evaluation: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    config: Any,
    command: str,
) -> Path:
    """Writes `index.html`, `turntable.webp` and `hypotheses/`; each file whole or not at all.

    Raises:
      UserError: the folder cannot be written.
    """
    chosen = np.linspace(0, len(poses) - 1, min(_GALLERY, len(poses))).astype(int)
    some = poses.take(chosen)
    batch = some.arrays()
    found = jax.device_get(system.predict(variables, batch))
    names, bones = skeleton_of(system.joints)
    samples = []
    for i, row in enumerate(chosen):
        pictures = _pictures(found, some, i, names, bones)
        for caption, picture in pictures.items():
            stem = caption.replace(" ", "_").replace(",", "")
            write_image(folder / "hypotheses" / f"{i + 1:02d}_{stem}.png", picture)
        errors = ", ".join(f"{e:.4f}" for e in np.sort(found.errors[i]))
        samples.append(Sample(f"Frame {row}", pictures, {"2D errors of the hypotheses": errors}))
    shown = found.hypotheses[0][np.argsort(found.errors[0])][:3]
    frames = turntable_of_points(shown, names, bones, _FRAMES)
    write_bytes(folder / "turntable.webp", encode_animation(frames))
    files = {
        name: name
        for name in ("evaluation.json", "metrics.jsonl", "config.json", "turntable.webp")
        if (folder / name).is_file()
    }
    best = evaluation.get("best_epoch") or {}
    page = RunPage(
        title="MHR-Net",
        subtitle=f"{evaluation.get('examples', 0):,} frames of {config.data.source}",
        facts={"best epoch": f"{best['epoch']}"} if best else {},
        metrics=_tiles(evaluation),
        training_charts=training_charts(rows),
        samples=samples,
        scene=_scene(system, variables, poses, bones),
        turntable=frames,
        command=command,
        protocol=evaluation.get("protocol") or {},
        config=config.to_dict(),
        files={**files, "hypotheses": "hypotheses/"},
    )
    write_run_page(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def _scene(
    system: MHRNet, variables: Mapping[str, Any], poses: PoseSet, bones: Sequence[tuple[int, int]]
) -> Scene:
    """Hypotheses of frames from all over the set, to step through, with the truth beside them."""
    rows = np.unique(np.linspace(0, len(poses) - 1, min(_STEPS, len(poses))).astype(int))
    some = poses.take(rows)
    found = jax.device_get(system.predict(variables, some.arrays()))
    order = np.argsort(found.errors, axis=1)[..., None, None]
    shapes = np.take_along_axis(found.hypotheses, order, 1)
    layers = hypothesis_layers(shapes, bones)
    if some.joints3d is not None:
        best = shapes[:, 0] - shapes[:, 0].mean(1, keepdims=True)
        truth = some.joints3d - some.joints3d.mean(1, keepdims=True)
        truth = truth * np.sqrt((best**2).sum() / (truth**2).sum())
        beside = 1.2 * np.ptp(best[..., 0]) + np.zeros(3)
        beside[1:] = 0
        truth = truth + shapes[:, :1].mean(2) + beside
        layers.append(Layer("truth", *skeleton_mesh(truth, bones), PALETTE["truth"]))
    return Scene(
        layers, [f"frame {row}" for row in rows], "blue: the best hypothesis, green: truth"
    )


def skeleton_of(joints: int) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names and bones for pictures: of Human3.6M's 17 joints, or plain points."""
    if joints == len(JOINT_SETS["h36m17"]):
        return JOINT_SETS["h36m17"], BONES["h36m17"]
    return tuple(f"point_{i}" for i in range(joints)), ()


def _pictures(
    found: Any, poses: PoseSet, i: int, names: Sequence[str], bones: Sequence[tuple[int, int]]
) -> dict[str, np.ndarray]:
    visible = None if poses.visible is None else poses.visible[i]
    pictures = {"2D": draw_points2d(poses.keypoints2d[i], names, bones, visible=visible)}
    order = np.argsort(found.errors[i])
    for label, degrees in VIEWS.items():
        if degrees:
            points = found.hypotheses[i, order[0]]
            pictures[f"best, {label}"] = draw_points3d(points, names, bones, degrees)
    for rank, k in enumerate(order[1:3], start=2):
        side = draw_points3d(found.hypotheses[i, k], names, bones, VIEWS["side"])
        pictures[f"hypothesis {rank}, side"] = side
    if poses.joints3d is not None:
        pictures["truth, side"] = draw_points3d(poses.joints3d[i], names, bones, VIEWS["side"])
    return pictures


def _tiles(evaluation: Mapping[str, Any]) -> list[Metric]:
    plain = evaluation.get("mean_pose") or {}
    tiles = []
    for name, value in (evaluation.get("after") or {}).items():
        if name in _ABOUT:
            label, unit, about = _ABOUT[name]
            digits = 1 if unit == "mm" else 4
            tiles.append(Metric(label, unit, value, None, plain.get(name), about, digits))
    return tiles
