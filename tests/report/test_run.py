"""A page from what a run folder holds, written by the rooms that write it."""

import json
import re

import cv2
import numpy as np
import pytest
import trimesh

from jaxrecon.errors import UserError
from jaxrecon.evaluation.protocol import Evaluation
from jaxrecon.io.images import read_image
from jaxrecon.reconstruction import Camera, Instance, Reconstruction
from jaxrecon.report.run import (
    adaptation_charts,
    metrics_of,
    training_charts,
    write_run_report,
)
from jaxrecon.training.logging import MetricWriter, read_metrics


def _evaluation(curve, baseline=None):
    return Evaluation(
        curve=curve,
        baseline=baseline or {},
        examples=12,
        labelled={},
        protocol={"root": "pelvis", "adaptation_steps": len(curve) - 1},
    )


CURVE = [
    {"pve": 90.0, "pa_mpjpe": 60.0, "mpjpe": 80.0, "own": 1.0},
    {"pve": 85.0, "pa_mpjpe": 55.0, "mpjpe": float("nan"), "own": 2.0},
]


def test_tiles_in_the_usual_order_with_all_three_numbers():
    tiles = metrics_of(_evaluation(CURVE, {"pa_mpjpe": 130.0}).to_dict())
    assert [t.label for t in tiles] == ["MPJPE", "PA-MPJPE", "PVE", "own"]
    assert (tiles[1].after, tiles[1].before, tiles[1].baseline) == (55.0, 60.0, 130.0)
    assert tiles[0].after is None and tiles[2].baseline is None
    assert tiles[1].unit == "mm" and tiles[3].unit == ""


def test_without_adaptation_there_is_one_number_and_no_curve():
    found = _evaluation(CURVE[:1], {"pa_mpjpe": 130.0}).to_dict()
    assert [t.before for t in metrics_of(found)] == [None] * 4
    assert adaptation_charts(found) == []


def test_curves_per_step():
    charts = adaptation_charts(_evaluation(CURVE).to_dict())
    assert [c.title for c in charts] == ["MPJPE", "PA-MPJPE", "PVE", "own"]
    assert list(charts[1].series[0].x) == [0, 1]
    assert list(charts[1].series[0].y) == [60.0, 55.0]


def test_curves_of_the_training():
    rows = [
        {"step": s, "split": "train", "loss": 5.0 - s, "loss_pose": 1.0, "inner0/loss": 2.0}
        for s in (1, 2, 3)
    ]
    rows += [
        {"step": s, "split": "evaluation", "pa_mpjpe": 90.0 - s, "adapted_pa_mpjpe": 80.0 - s}
        for s in (2, 3)
    ]
    charts = {c.title: c for c in training_charts(rows)}
    assert list(charts) == [
        "Training loss", "Terms of the loss", "Loss of the inner steps", "PA-MPJPE while training",
    ]  # fmt: skip
    assert list(charts["Training loss"].series[0].y) == [4.0, 3.0, 2.0]
    names = [s.name for s in charts["PA-MPJPE while training"].series]
    assert names == ["before adaptation", "after adaptation"]
    assert training_charts([]) == []


def _reconstruction(offset=0.0, seed=0):
    """A pyramid before a camera, with its corners as 2D evidence of 14 joints."""
    base = np.array([[-1, -1, 4], [1, -1, 4], [1, 1, 4], [-1, 1, 4], [0, 0, 3]], np.float32)
    faces = np.array([[0, 4, 1], [1, 4, 2], [2, 4, 3], [3, 4, 0], [0, 1, 2], [0, 2, 3]])
    camera = Camera(60.0, (40.0, 30.0), (60, 80))
    joints = np.random.default_rng(seed).uniform(-1, 1, (14, 3)) + [0, 0, 4]
    keypoints = np.concatenate([camera.project(joints), np.ones((14, 1))], 1)
    moved = Instance(
        vertices=base + np.float32(offset),
        faces=faces,
        joints=joints + offset,
        joint_set="lsp14",
        keypoints2d=keypoints,
        keypoint_set="lsp14",
        history={"vertices": np.stack([base + 0.1, base])},
    )
    image = np.full((60, 80, 3), 90, np.uint8)
    return Reconstruction([moved], camera, image, system="test")


def test_the_report_of_a_run(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2):
        writer.write("train", step, {"loss": 3.0 / step})
    writer.close()
    evaluation = _evaluation(CURVE, {"pa_mpjpe": 50.0})
    evaluation.save(tmp_path)
    worse, better = _reconstruction(0.3), _reconstruction(0.05)
    samples = [
        {"image": worse.image, "before": worse, "after": worse},
        {"image": worse.image, "before": worse, "after": better, "name": "the good one"},
    ]
    path = write_run_report(
        tmp_path,
        "meta_hmr",
        samples,
        json.loads((tmp_path / "evaluation.json").read_text()),
        read_metrics(tmp_path),
        {"training": {"steps": 2}},
        "python -m jaxrecon.main",
        title="A small run",
    )
    text = path.read_text()
    assert path == tmp_path / "index.html"
    for words in ("A small run", "the good one", "Training loss", "PA-MPJPE", "Resolved config"):
        assert words in text
    # The reader is told what the tiles alone do not say.
    assert "PA-MPJPE is higher than that of the mean pose" in text
    pictures = sorted(p.name for p in (tmp_path / "overlays").iterdir())
    assert pictures == [
        f"{i:02d}_{what}.jpg" for i in (1, 2) for what in ("after", "before", "input", "side")
    ]
    assert read_image(tmp_path / "overlays" / "02_after.jpg").shape == (60, 80, 3)
    mesh = trimesh.load(tmp_path / "best.glb", force="mesh")
    assert len(mesh.faces) == 6
    done, animation = cv2.imreadanimation(str(tmp_path / "turntable.webp"))
    assert done and len(animation.frames) > 10
    scene = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])
    assert len(scene["layers"][0]["frames"]) == 2
    assert not list(tmp_path.rglob("*.part*")), "nothing half-written stays"


def test_a_report_with_nothing_yet(tmp_path):
    path = write_run_report(tmp_path / "run", "meta_hmr")
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    assert "meta_hmr" in path.read_text()


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(UserError, match="run"):
        write_run_report(tmp_path / "run", "meta_hmr")
