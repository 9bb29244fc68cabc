"""Builders of pose sets: on made-up files of the right layout, and on broken copies of them."""

import numpy as np
import pytest
import scipy.io
from jaxrecon.datasets_builders import pose_chunks
from jaxrecon.datasets_builders.h36m_lifting import h36m_lifting_dataset_builder as h36m
from jaxrecon.datasets_builders.keypoint_file import keypoint_file_dataset_builder as keypoint_file
from jaxrecon.datasets_builders.surreal_joints import surreal_joints_dataset_builder as surreal
from jaxrecon.datasets_builders.vw300 import vw300_dataset_builder as vw300

from jaxrecon.data import pose_records
from jaxrecon.data.h36m_archives import load_h36m
from jaxrecon.data.pose_files import read_pose_file
from jaxrecon.errors import UserError
from jaxrecon.io.h36m_archives import extrinsics, intrinsics9
from tests.datasets_builders import dummy_poses


def build(module, config, folder):
    builder = module.Builder(config=config, data_dir=folder)
    builder.download_and_prepare()
    return builder


def test_h36m_records(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_chunks, "CHUNK", 4)
    source = dummy_poses.h36m(tmp_path)
    builder = build(h36m, h36m.archives(source), tmp_path / "data")
    assert {n: s.num_examples for n, s in builder.info.splits.items()} == {"train": 32, "test": 32}
    records = list(builder.as_data_source(split="train"))
    first, second = records[0], records[1]
    assert first["keypoints2d"].shape == (4, 17, 2) and second["keypoints2d"].shape == (2, 17, 2)
    assert first["keypoints2d"].dtype == np.float32 and first["visible"].dtype == np.uint8
    assert (first["first_frame"], second["first_frame"]) == (0, 4)
    assert first["clip"] == b"S1/Walking/0" and first["take"] == b""
    assert records[-1]["clip"] == b"S5/Walking 1/3" and records[-1]["take"] == b"1"
    assert records[-1]["camera"] == 3 and records[-1]["action"] == b"Walking"
    np.testing.assert_array_equal(first["intrinsics"], intrinsics9(0))
    # Absolute, in the frame of the camera: back in the world it is the archive's.
    world = np.load(source / "data_3d_h36m.npz", allow_pickle=True)["positions_3d"].item()
    (w, *u), position = extrinsics("S1", 0)
    turned = first["joints3d"]
    cross = np.cross(u, turned)
    back = turned + 2 * (w * cross + np.cross(u, cross)) + position
    np.testing.assert_allclose(back[:, 0], world["S1"]["Walking"][:4, 0], atol=1e-5)


def test_h36m_through_the_builder_is_h36m(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_chunks, "CHUNK", 4)
    source, subjects = dummy_poses.h36m(tmp_path), ("S9", "S11")
    options = {"downsample": 2, "actions": ("Walk",)}
    direct = load_h36m(source, "gt", subjects, **options)
    stored = pose_records.h36m_poses(source, "gt", subjects, tmp_path / "data", **options)
    assert stored.clips == direct.clips and stored.groups == direct.groups
    assert stored.factor == direct.factor
    for name in ("keypoints2d", "joints3d", "intrinsics"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(direct, name))
    with pytest.raises(UserError, match="no subject 'S6'"):
        pose_records.h36m_poses(source, "gt", ("S6",), tmp_path / "data")
    # Other archives are another set, though folder and name are the same.
    dummy_poses.h36m(source, frames=8)
    again = pose_records.h36m_poses(source, "gt", subjects, tmp_path / "data")
    assert len(again) == 2 * 2 * 4 * 8


def _shorter(world, pixels):
    pixels["S1"]["Walking"][2] = pixels["S1"]["Walking"][2][:3]


def _joints(world, pixels):
    pixels["S5"]["Walking"][0] = pixels["S5"]["Walking"][0][:, :16]


def _not_finite(world, pixels):
    world["S9"]["Walking"][0, 0, 0] = np.nan


def _no_test(world, pixels):
    for subject in ("S9", "S11"):
        del pixels[subject]


def _unknown(world, pixels):
    world["S1"]["Walking"] = world["S1"]["Walking"][:, :, :2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shorter, r"S1/Walking/2 has 3 frames of 2D and 6 of 3D"),
        (_joints, r"S5/Walking/0 has 2D of shape \(6, 16, 2\)"),
        (_not_finite, r"S9/Walking has 3D positions that are not finite"),
        (_no_test, r"data_2d_h36m_gt.npz has none of the test subjects"),
        (_unknown, r"S1/Walking has 3D of shape"),
    ],
)
def test_broken_h36m(change, message, tmp_path):
    source = dummy_poses.h36m(tmp_path)
    world = np.load(source / "data_3d_h36m.npz", allow_pickle=True)["positions_3d"].item()
    pixels = np.load(source / "data_2d_h36m_gt.npz", allow_pickle=True)["positions_2d"].item()
    change(world, pixels)
    dummy_poses.h36m_archives(source, world, pixels)
    with pytest.raises(UserError, match=message):
        pose_records.h36m_poses(source, "gt", ("S1", "S5", "S9"), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_h36m_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"data_3d_h36m.npz; Human3.6M needs registration"):
        h36m.archives(tmp_path)
    dummy_poses.h36m(tmp_path)
    with pytest.raises(UserError, match="data_2d_h36m_cpn.npz"):
        h36m.archives(tmp_path, "cpn")
    whole = (tmp_path / "data_2d_h36m_gt.npz").read_bytes()
    (tmp_path / "data_2d_h36m_gt.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="data_2d_h36m_gt.npz is not a readable"):
        pose_records.h36m_poses(tmp_path, "gt", ("S1",), tmp_path / "data")


def test_vw300(tmp_path):
    source = dummy_poses.vw300(tmp_path / "faces")
    builder = build(vw300, vw300.videos(source), tmp_path / "data")
    assert {n: s.num_examples for n, s in builder.info.splits.items()} == {"train": 2, "test": 2}
    test = list(builder.as_data_source(split="test"))
    assert [(r["clip"], r["category"]) for r in test] == [(b"114", b"A"), (b"410", b"C")]
    assert test[0]["keypoints2d"].shape == (5, 68, 2) and test[0]["has_joints3d"] == 0
    poses = pose_records.face_poses(source, "test", tmp_path / "data")
    assert poses.groups == {"category A": [(0, 5)], "category C": [(5, 10)]}
    centred = poses.keypoints2d - poses.keypoints2d.mean(1, keepdims=True)
    for rows in (slice(0, 5), slice(5, 10)):
        assert np.sqrt((centred[rows] ** 2).sum(-1).mean()) == pytest.approx(0.5, rel=1e-4)
    assert sum(map(len, vw300.TEST.values())) == 64


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: dummy_poses.write_points(f, np.ones((67, 2))), r"000003.pts has n_points: 67"),
        (lambda f: f.write_text("n_points: 68 { 1 2 x y }"), r"000003.pts has a line that is no"),
        (lambda f: f.write_text("hello"), r"000003.pts is not a landmark file"),
        (lambda f: f.write_text(""), r"000003.pts is empty"),
    ],
)
def test_broken_vw300(break_it, message, tmp_path):
    source = dummy_poses.vw300(tmp_path / "faces")
    break_it(source / "002" / "annot" / "000003.pts")
    with pytest.raises(UserError, match=message):
        pose_records.face_poses(source, "train", tmp_path / "data")


def test_vw300_folders(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        vw300.videos(tmp_path / "none")
    with pytest.raises(UserError, match="holds no video"):
        vw300.videos(tmp_path)
    source = dummy_poses.vw300(tmp_path / "faces", (1, 2))
    with pytest.raises(UserError, match="has no test video, only 001, 002"):
        pose_records.face_poses(source, "train", tmp_path / "data")
    (source / "003").mkdir()
    with pytest.raises(UserError, match=r"003 has no annot"):
        vw300.videos(source)


def test_surreal(tmp_path):
    source = dummy_poses.surreal(tmp_path / "surreal")
    builder = build(surreal, surreal.sequences(source), tmp_path / "data")
    assert {n: s.num_examples for n, s in builder.info.splits.items()} == {"train": 2, "test": 1}
    record = next(iter(builder.as_data_source(split="train")))
    assert record["keypoints2d"].shape == (4, 24, 2) and record["gender"] == 0
    assert record["subject"] == b"01_01"
    # The found axes: what projects in the camera's frame.
    projected = 600 * record["joints3d"][..., :2] / record["joints3d"][..., 2:] + (160, 120)
    np.testing.assert_allclose(projected, record["keypoints2d"], atol=1e-2)
    flat = pose_records.surreal_poses(source, "train", "orthographic", tmp_path / "data")
    assert len(flat) == 5 and flat.visible is None
    solid = flat.joints3d[..., :2] * flat.factor
    np.testing.assert_allclose(flat.keypoints2d, solid, rtol=1e-4, atol=1e-6)
    deep = pose_records.surreal_poses(source, "test", "perspective", tmp_path / "data")
    assert len(deep) == 3 and deep.keypoints2d.shape == (3, 24, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints3D": None}, "has no joints3D"),
        ({"joints2D": np.zeros((2, 23, 4))}, r"joints2D has shape \(2, 23, 4\)"),
        ({"joints3D": np.zeros((3, 24, 3))}, "joints2D has 4 frames, joints3D 3"),
        ({"camLoc": np.array([[7.0], [9.0], [3.0]])}, "does not project onto joints2D"),
        ({"joints2D": np.full((2, 24, 4), np.nan)}, "joints2D has values that are not finite"),
    ],
)
def test_broken_surreal(change, message, tmp_path):
    source = dummy_poses.surreal(tmp_path / "surreal")
    info = dummy_poses.surreal_info() | change
    path = source / "train/run0/01_01/01_01_c0001_info.mat"
    scipy.io.savemat(path, {n: a for n, a in info.items() if a is not None})
    with pytest.raises(UserError, match=f"01_01_c0001_info.mat.*{message}"):
        pose_records.surreal_poses(source, "train", "perspective", tmp_path / "data")


def test_surreal_folders(tmp_path):
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no train")):
        with pytest.raises(UserError, match=message):
            surreal.sequences(folder)


def test_keypoint_files(tmp_path):
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 900, (7, 5, 2)).astype(np.float32)
    points[2, 1] = np.nan
    solid = rng.normal(size=(7, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", keypoints2d=points, joints3d=solid, focal_length=900.0)
    scipy.io.savemat(
        tmp_path / "b.mat", {"keypoints2d": points[:3], "joints3d": solid[:3], "focal_length": 800}
    )
    builder = build(
        keypoint_file, keypoint_file.keypoint_files(tmp_path / "a.npz"), tmp_path / "data"
    )
    (record,) = builder.as_data_source(split="train")
    assert record["visible"].sum() == 34 and record["has_joints3d"] == 1
    np.testing.assert_array_equal(record["joints3d"], solid)
    assert record["clip"] == b"a.npz" and record["focal_length"].tolist() == [900, 900]
    stored = pose_records.file_poses(tmp_path / "a.npz", data_dir=tmp_path / "data")
    direct = read_pose_file(tmp_path / "a.npz")
    for name in ("keypoints2d", "visible", "joints3d"):
        np.testing.assert_allclose(getattr(stored, name), getattr(direct, name), rtol=1e-6)
    both = pose_records.file_poses(tmp_path, data_dir=tmp_path / "data")
    assert len(both) == 10
    # The same pixels seen with another focal length are other angles.
    ratio = both.keypoints2d[7, 1] / both.keypoints2d[0, 1]
    np.testing.assert_allclose(ratio, 900 / 800, rtol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keypoints2d": np.zeros((0, 5, 2))}, "there is nothing in it"),
        ({"keypoints2d": np.full((3, 5, 2), np.nan)}, "frame 0 has 0 visible keypoints"),
        ({"keypoints2d": np.full((3, 5, 2), np.inf)}, "infinite"),
        ({"points": np.zeros((3, 5, 2))}, "has no 'keypoints2d'.*it has points"),
        ({"keypoints2d": np.ones((3, 5, 2)), "visible": np.ones((3, 4))}, "must agree"),
        ({"keypoints2d": np.ones((3, 5, 2)), "focal_length": -3.0}, "focal_length is"),
        ({"keypoints2d": np.ones((3, 5, 2)), "joints3d": np.ones((3, 4, 3))}, "joints3d"),
        (
            {"keypoints2d": np.array([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], dtype=object)},
            "ragged",
        ),
    ],
)
def test_broken_keypoint_files(arrays, message, tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        pose_records.file_poses(tmp_path / "mine.npz", data_dir=tmp_path / "data")
    assert "\n" not in str(error.value) and "mine.npz" in str(error.value)
    assert not (tmp_path / "data").exists()


def test_keypoint_folders(tmp_path):
    with pytest.raises(UserError, match="holds no keypoint file"):
        keypoint_file.keypoint_files(tmp_path)
    np.savez(tmp_path / "a.npz", keypoints2d=np.random.default_rng(0).normal(size=(3, 5, 2)))
    np.savez(tmp_path / "b.npz", keypoints2d=np.random.default_rng(0).normal(size=(3, 6, 2)))
    with pytest.raises(UserError, match=r"b.npz has 6 joints, .*a.npz has 5"):
        keypoint_file.keypoint_files(tmp_path)
    (tmp_path / "c.txt").write_text("hello")
    with pytest.raises(UserError, match=r"c.txt is neither .npz nor .mat"):
        keypoint_file.keypoint_files(tmp_path / "c.txt")


def test_builders_without_their_files_say_so(tmp_path):
    for module in (h36m, vw300, surreal, keypoint_file):
        with pytest.raises(UserError, match="config="):
            module.Builder(data_dir=tmp_path).download_and_prepare()
