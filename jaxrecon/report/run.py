"""What a run folder shows a person: overlays, a turntable, a mesh, and the page with it all.

RUN/overlays/01_input.jpg  01_before.jpg  01_after.jpg  01_side.jpg  02_...
RUN/turntable.webp   one turn of the best sample
RUN/best.glb         its body, with its skeleton where the model is known
RUN/index.html       the page; it needs none of the others
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.images import write_image
from jaxrecon.rendering.shading import PALETTE
from jaxrecon.rendering.views import turntable
from jaxrecon.report.animation import encode_animation
from jaxrecon.report.curves import COLOURS, Chart, Series
from jaxrecon.report.page import Metric, RunPage, Sample, write_run_page
from jaxrecon.report.viewer import Layer, Scene

if TYPE_CHECKING:
    from jaxrecon.reconstruction import Reconstruction

PAGE_FILE = "index.html"
_GALLERY = 8  # samples on the page
_LONGEST = 480  # pixels of a picture on the page; the files beside it are whole
_SIDE = (512, 512)  # pixels of a side view without a photograph
_TURN = (480, 288)  # height and width of the turntable
_FRAMES = 24

# name -> (label, unit, what it says); other metrics go by their own name.
_KNOWN: dict[str, tuple[str, str, str]] = {
    "mpjpe": ("MPJPE", "mm", "mean distance of the joints, pelvis on pelvis"),
    "pa_mpjpe": ("PA-MPJPE", "mm", "the same after rotation, scale and shift have been aligned"),
    "pve": ("PVE", "mm", "mean distance of all vertices"),
    "keypoint_error": ("2D error", "px", "mean distance of the projected joints in the image"),
}
# Files that training leaves in a run folder -> what the page calls them.
_FILES = {
    "evaluation.json": "evaluation.json",
    "metrics.jsonl": "metrics.jsonl",
    "train.csv": "train.csv",
    "evaluation.csv": "evaluation.csv",
    "config.json": "config.json",
}


def write_run_report(
    workdir: str | os.PathLike[str],
    system_name: str,
    samples: Sequence[Mapping[str, Any]] = (),
    evaluation_dict: Mapping[str, Any] | None = None,
    metrics_rows: Sequence[Mapping[str, Any]] = (),
    config: Any = None,
    command: str = "",
    *,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes pictures, turntable, mesh and page of a run; each file whole or not at all.

    Every part may be missing; the page leaves out what there is not.

    Args:
      workdir: the run folder; made if missing.
      system_name: "meta_hmr".
      samples: mappings with `image` (RGB, (h, w, 3) uint8, or None), `before` and `after`
        (`Reconstruction`; `before` may be missing) and, if wanted, `name` and `facts` (label ->
        text). An `after` whose instance has `vertices` (steps + 1, V, 3) in its history gives the
        3D view a slider.
      evaluation_dict: `Evaluation.to_dict()`.
      metrics_rows: the rows of `metrics.jsonl`.
      config: resolved: a ConfigDict, a mapping, or text.
      command: the one that made the run.
      title: of the page; the system's name by default.
      facts: more short facts for below the title.
      notes: remarks to show below it, a line each.

    Returns:
      the path of the page.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = Path(workdir)
    evaluation = dict(evaluation_dict or {})
    gallery = [_sample(folder, i, sample) for i, sample in enumerate(samples)]
    best = _best(samples)
    scene, frames, files = None, [], {}
    if best is not None:
        best["after"].save(folder / "best.glb")
        frames = _turn(best["after"])
        write_bytes(folder / "turntable.webp", encode_animation(frames))
        scene = _scene(best)
        files = {"best.glb": "best.glb", "turntable.webp": "turntable.webp"}
    files |= {label: name for name, label in _FILES.items() if (folder / name).is_file()}
    if gallery:
        files["overlays"] = "overlays/"
    page = RunPage(
        title=title or system_name,
        subtitle=_subtitle(system_name, title, evaluation),
        facts={**_facts(evaluation, metrics_rows), **(facts or {})},
        notes=[*notes, *_warnings(evaluation)],
        metrics=metrics_of(evaluation),
        adaptation_charts=adaptation_charts(evaluation),
        training_charts=training_charts(metrics_rows),
        samples=gallery[:_GALLERY],
        scene=scene,
        turntable=frames,
        command=command,
        protocol=evaluation.get("protocol") or {},
        config=_plain(config),
        files=files,
    )
    path = folder / PAGE_FILE
    write_run_page(path, page)
    return path


def _sample(folder: Path, index: int, sample: Mapping[str, Any]) -> Sample:
    """Writes the pictures of one sample, and gives them in the page's size."""
    before, after = sample.get("before"), sample["after"]
    pictures: dict[str, np.ndarray] = {}
    if sample.get("image") is not None:
        pictures["input"] = after.draw_evidence(np.asarray(sample["image"]))
    if before is not None:
        pictures["before"] = before.overlay(colour=PALETTE["before"])
    pictures["after"] = after.overlay()
    for name, picture in pictures.items():
        write_image(folder / "overlays" / f"{index + 1:02d}_{name}.jpg", picture)
    # The files show the whole photograph, the page its people.
    pictures = {name: after.closeup(picture) for name, picture in pictures.items()}
    if len(after):
        size = _SIDE if after.image is None else pictures["after"].shape[:2]
        pictures["side"] = after.side_view(image_size=size)
        write_image(folder / "overlays" / f"{index + 1:02d}_side.jpg", pictures["side"])
    captions = {
        "input": "input",
        "before": "before adaptation",
        "after": "after adaptation" if before is not None else "result",
        "side": "from the side",
    }
    return Sample(
        name=str(sample.get("name") or f"Sample {index + 1}"),
        pictures={captions[name]: _shrunk(picture) for name, picture in pictures.items()},
        facts=sample.get("facts") or _errors(before, after),
    )


def _errors(before: "Reconstruction | None", after: "Reconstruction") -> dict[str, str]:
    found = [r.keypoint_error() for r in (before, after) if r is not None]
    known = [f"{error.pixels:.1f}" for error in found if error.joints]
    # U+2192 arrow.
    return {"2D error": " \N{RIGHTWARDS ARROW} ".join(known) + " px"} if known else {}


def _shrunk(picture: np.ndarray) -> np.ndarray:
    scale = _LONGEST / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(round(scale * side), 1) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _best(samples: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The sample whose result lies best over its keypoints; the first where none has any."""
    with_mesh = [sample for sample in samples if len(sample["after"])]

    def error(sample: Mapping[str, Any]) -> float:
        fraction = sample["after"].keypoint_error().fraction
        return fraction if math.isfinite(fraction) else math.inf

    return min(with_mesh, key=error, default=None)


def _turn(result: "Reconstruction") -> list[np.ndarray]:
    vertices, faces, colours = result.merged()
    return turntable(vertices, faces, _FRAMES, _TURN, colours=colours)


def _scene(sample: Mapping[str, Any]) -> Scene:
    """The result and, behind its button, what it was before; pelvis on pelvis, or so."""
    after, before = sample["after"], sample.get("before")
    scene = after.scene()
    layers = list(scene.layers)
    if before is None or not len(before) or len(layers) != 1:
        return scene
    moving = np.asarray(layers[0].vertices)
    # Depth hardly shows in the image, and the two would stand apart by it.
    centred = moving - moving.mean(-2, keepdims=True)
    old = before.instances[0]
    layers = [
        Layer("after adaptation", centred, layers[0].faces, layers[0].colour),
        Layer(
            "before adaptation",
            old.vertices - old.vertices.mean(0),
            old.faces,
            PALETTE["before"],
            hidden=True,
        ),
    ]
    if moving.ndim == 3 and len(moving) > 1:
        layers[0] = Layer("test-time optimisation", centred, layers[0].faces, layers[0].colour)
    return Scene(layers, scene.labels, scene.caption)


def _subtitle(system_name: str, title: str, evaluation: Mapping[str, Any]) -> str:
    parts = [system_name] if title and title != system_name else []
    data = (evaluation.get("protocol") or {}).get("dataset")
    if data:
        parts.append(f"evaluated on {data}")
    return ", ".join(parts)


def _facts(evaluation: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    facts = {}
    steps = [row["step"] for row in rows if row.get("split") == "train"]
    if steps:
        facts["training steps"] = f"{max(steps):,}"
    if evaluation.get("examples"):
        facts["evaluated on"] = f"{evaluation['examples']:,} examples"
    if len(evaluation.get("curve") or ()) > 1:
        facts["adaptation"] = f"{len(evaluation['curve']) - 1} steps"
    return facts


def _warnings(evaluation: Mapping[str, Any]) -> list[str]:
    """What a reader of the tiles should not have to find out alone."""
    notes = []
    before, after = evaluation.get("before") or {}, evaluation.get("after") or {}
    baseline = evaluation.get("mean_pose") or {}
    for name, (label, _, _) in _KNOWN.items():
        value, start, plain = after.get(name), before.get(name), baseline.get(name)
        if value is not None and start is not None and value > start * 1.0005:
            notes.append(f"{label} is higher after adaptation than before.")
        if value is not None and plain is not None and value > plain:
            notes.append(f"{label} is higher than that of the mean pose.")
    return notes


def _plain(config: Any) -> Mapping[str, Any] | str:
    if config is None:
        return ""
    return config.to_dict() if hasattr(config, "to_dict") else config


def metrics_of(evaluation: Mapping[str, Any]) -> list[Metric]:
    """Tiles from the content of `evaluation.json`."""
    before = evaluation.get("before") or {}
    after = evaluation.get("after") or before
    baseline = evaluation.get("mean_pose") or {}
    # Without steps, before and after are one measurement, and it is shown once.
    adapted = len(evaluation.get("curve") or ()) != 1
    metrics = []
    for name in sorted(set(after) - {"step"}, key=_order):
        label, unit, about = _KNOWN.get(name, (name, "", ""))
        metrics.append(
            Metric(
                label,
                unit,
                after[name],
                before.get(name) if adapted else None,
                baseline.get(name),
                about,
            )
        )
    return metrics


def adaptation_charts(evaluation: Mapping[str, Any]) -> list[Chart]:
    """Error per step of test-time optimisation, one chart for each metric that was measured."""
    curve = evaluation.get("curve") or []
    if len(curve) < 2:
        return []
    charts = []
    steps = [row["step"] for row in curve]
    for name in sorted({name for row in curve for name in row} - {"step"}, key=_order):
        values = [row.get(name) for row in curve]
        if all(value is None for value in values):
            continue
        label, unit, _ = _KNOWN.get(name, (name, "", ""))
        axis = f"{label} ({unit})" if unit else label
        charts.append(Chart(label, [Series(label, steps, values)], "step", axis))
    return charts


def training_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Loss and its terms, and the scores measured while training, from `metrics.jsonl`."""
    train = [row for row in rows if row.get("split") == "train"]
    scores = [row for row in rows if row.get("split") != "train"]
    charts = []
    if train:
        names = _names(train)
        smooth = max(len(train) / 60, 0.0) if len(train) > 40 else 0.0
        groups = {
            "Training loss": ["loss"] if "loss" in names else [],
            "Terms of the loss": [n for n in names if n.startswith("loss_") or n.endswith("_loss")],
            # Meta-learning: the objective of the steps inside a training step.
            "Loss of the inner steps": [n for n in names if n.endswith("/loss")],
        }
        for title, found in groups.items():
            if found:
                most = len(COLOURS)
                charts.append(_over_steps(title, train, found[:most], "loss", smooth))
    for name in _names(scores):
        if name.startswith("adapted_"):
            continue
        label, unit, _ = _KNOWN.get(name, (name, "", ""))
        series = [_series(label, scores, name)]
        if any(row.get(f"adapted_{name}") is not None for row in scores):
            before, after = (
                _series(f"{when} adaptation", scores, key)
                for when, key in (("before", name), ("after", f"adapted_{name}"))
            )
            # The colours of the tiles.
            series = [dataclasses.replace(before, colour=1), dataclasses.replace(after, colour=0)]
        if sum(value is not None for value in series[0].y) < 2:
            continue  # one point is no curve
        axis = f"{label} ({unit})" if unit else label
        charts.append(Chart(f"{label} while training", series, "training step", axis))
    return charts


def _order(name: str) -> tuple[int, str]:
    known = list(_KNOWN)
    return (known.index(name) if name in known else len(known), name)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return sorted((n for n in names if n not in ("step", "split")), key=_order)


def _series(
    label: str, rows: Sequence[Mapping[str, Any]], name: str, smooth: float = 0.0
) -> Series:
    steps = [row["step"] for row in rows]
    return Series(label, steps, [row.get(name) for row in rows], smooth=smooth)


def _term(name: str) -> str:
    return name.removeprefix("loss_").removesuffix("/loss").replace("_", " ")


def _over_steps(
    title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], axis: str, smooth: float
) -> Chart:
    series = [_series(_term(name), rows, name, smooth) for name in names]
    return Chart(title, series, "training step", axis, log=True)
