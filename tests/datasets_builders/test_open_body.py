"""The embedded photographs: records agree with what they show, whoever makes them."""

import subprocess

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jaxrecon.datasets_builders.open_body import workers
from jaxrecon.datasets_builders.open_body.open_body_dataset_builder import (
    Builder,
    OpenBodyConfig,
    sized,
)

from jaxrecon.bodies import body_forward, joints49, load_body
from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError
from jaxrecon.geometry.cameras import project
from jaxrecon.geometry.rotations import axis_angle_to_matrix

FIELDS = {
    "keypoints2d": (49, 3), "pose": (72,), "betas": (10,), "joints3d": (24, 4), "center": (2,),
    "transl": (3,),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    builder = Builder(
        config="tiny",
        data_dir=tmp_path_factory.mktemp("data"),
        processes=1,
        show_progress=False,
    )
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def records(tiny):
    return [r for split in ("train", "test") for r in tiny.as_data_source(split=split)]


def test_sizes_fields_and_types(tiny, records):
    assert {name: s.num_examples for name, s in tiny.info.splits.items()} == {
        "train": 4,
        "test": 2,
    }
    names = [r["imgname"] for r in records]
    assert names[0] == b"train/000000.jpg" and names[-1] == b"test/000001.jpg"
    assert len(set(names)) == 6
    for record in records:
        height, width, channels = record["image"].shape
        assert record["image"].dtype == np.uint8 and channels == 3
        assert max(height, width) == 128 and min(height, width) >= 72
        for name, shape in FIELDS.items():
            assert record[name].shape == shape and record[name].dtype == np.float32, name
            assert np.isfinite(record[name]).all(), name
        assert (record["has_smpl"], record["has_joints3d"], record["gender"]) == (1, 1, 2)
        assert record["dataset"] == b"open_body"
        assert record["image"].std() > 10
    assert len({r["image"].tobytes() for r in records}) == 6


def test_images_are_stored_as_jpeg(tiny):
    source = tiny.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    raw = source[0]["image"]
    assert raw[:2] == b"\xff\xd8"
    assert cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR).shape[2] == 3


def test_records_reproject_onto_their_own_annotation(records):
    body = load_body()
    pose = np.stack([r["pose"] for r in records]).reshape(-1, 24, 3)
    betas = np.stack([r["betas"] for r in records])
    posed = jax.jit(lambda b, p: joints49(body, body_forward(body, b, axis_angle_to_matrix(p))))
    joints = posed(betas, pose)
    transl = np.stack([r["transl"] for r in records])
    focal = np.array([r["focal_length"] for r in records], np.float32)
    sizes = np.array([r["image"].shape[1::-1] for r in records], np.float32)
    pixels = np.asarray(project(joints + transl[:, None], focal, sizes / 2))
    annotated = np.stack([r["keypoints2d"] for r in records])

    gt24 = np.asarray(joints)[:, 25:]
    np.testing.assert_allclose(annotated[:, 25:, :2], pixels[:, 25:], atol=0.02)
    inside = ((pixels[:, 25:] >= 0) & (pixels[:, 25:] < sizes[:, None])).all(-1)
    np.testing.assert_array_equal(annotated[:, 25:, 2], inside)
    assert inside.sum(1).min() >= 10
    pelvis = gt24[:, [JOINT_SETS["gt24"].index("pelvis")]]
    joints3d = np.stack([r["joints3d"] for r in records])
    np.testing.assert_allclose(joints3d[..., :3], gt24 - pelvis, atol=1e-5)
    assert (joints3d[..., 3] == 1).all()

    # The box of the published rule, written out once more.
    for record, points, seen in zip(records, pixels[:, 25:], inside):
        x, y = points[seen].T
        size = 1.2 * max(4 / 3 * (x.max() - x.min()), y.max() - y.min())
        middle = [(x.max() + x.min()) / 2, (y.max() + y.min()) / 2]
        np.testing.assert_allclose(record["center"], middle, atol=0.02)
        np.testing.assert_allclose(record["scale"], size / 200, rtol=1e-3)

    # "Detected" joints: near the truth where found, (0, 0, 0) where not.
    found = annotated[:, :25, 2] > 0
    assert 0.4 < found.mean() < 1.0
    box = np.array([200 * r["scale"] for r in records])
    error = np.linalg.norm(annotated[:, :25, :2] - pixels[:, :25], axis=-1) / box[:, None]
    assert 0.002 < error[found].mean() < 0.05 and error[found].max() < 0.25
    assert (annotated[:, :25][~found] == 0).all()
    assert annotated[:, :25, 2].max() <= 1.0


def test_the_person_is_drawn_where_the_joints_are():
    from jaxrecon.datasets_builders.open_body import photograph as studio
    from jaxrecon.datasets_builders.open_body.figure import load_figure
    from jaxrecon.datasets_builders.open_body.scenes import Camera, draw_subjects
    from jaxrecon.datasets_builders.open_body.surroundings import draw_light

    subjects = draw_subjects(3, "train", 0)
    vertices, _, spin = map(
        np.asarray, studio._pose(*studio._bodies(), subjects.betas, subjects.rotmats)
    )
    camera = Camera(96, 128, 150.0)
    for i in range(4):
        rng = np.random.default_rng(i)
        transl = np.array([0.1, 0.0, 3.2], np.float32) - vertices[i].mean(0)
        light = draw_light(rng, subjects.views[i][:, 1])
        layer, depth = studio._person(rng, load_figure(), camera, vertices[i], transl, light, 128)
        assert layer.shape == (128, 96, 4) and np.isfinite(layer).all()
        joints = spin[i, 25:] + transl
        column, row = np.floor(camera.project(joints)).astype(int).T
        alpha, behind = layer[row, column, 3], joints[:, 2] - depth[row, column]
        assert (alpha > 0.4).mean() > 0.95  # joints lie inside of the silhouette
        # And under the surface, unless an ear at the edge of the head has a shoulder behind it.
        assert (behind[alpha > 0.9] > -0.05).mean() > 0.95
        assert np.median(behind[alpha > 0.9]) < 0.25
        assert 0.02 < layer[..., 3].mean() < 0.5


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tiny):
    made = list(workers.generate(0, {"train": 20, "test": 2}, 128, processes=2))
    assert [m[:2] for m in made[18:]] == [
        ("train", 18), ("train", 19), ("test", 0), ("test", 1)
    ]  # fmt: skip
    skip = {"image": tfds.decode.SkipDecoding()}
    for split, start in (("train", 0), ("test", 20)):
        source = tiny.as_data_source(split=split, decoders=skip)
        for i in range(len(source)):
            stored, record = source[i], made[start + i][2]
            assert stored["image"] == record["image"]
            for name in FIELDS:
                np.testing.assert_array_equal(stored[name], record[name])


def test_a_worker_that_fails_says_why_and_none_is_left(monkeypatch):
    started: list[subprocess.Popen] = []
    popen = subprocess.Popen

    def remember(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", remember)
    with pytest.raises(RuntimeError, match=r"(?s)ended with status 1.*nowhere"):
        list(workers.generate(0, {"nowhere": 40}, 128, processes=2))
    assert len(started) == 2 and all(p.poll() is not None for p in started)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 0, "test": 1}, "at least 1"),
        ({"train": 4, "test": 1, "image_size": 100}, "multiple of 8"),
        ({"train": 4, "test": 1, "image_size": 4096}, "from 64 to 1024"),
    ],
)
def test_wrong_sizes_are_named(sizes, message):
    with pytest.raises(UserError, match=message):
        OpenBodyConfig(name="wrong", **sizes)


def test_each_size_has_a_name_of_its_own():
    names = {sized(8, 4).name, sized(9, 4).name, sized(8, 4, 128).name, sized(8, 4, seed=1).name}
    assert len(names) == 4
