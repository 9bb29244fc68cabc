"""Sets of 2D poses: checks, normalisation, files of several kinds."""

import numpy as np
import pytest
import scipy.io

from jaxrecon.data import h36m_archives
from jaxrecon.data.lifting import (
    PoseSet,
    from_keypoints,
    hide_keypoints,
    length_factor,
)
from jaxrecon.data.nrsfm import read_sequence
from jaxrecon.data.open_body_poses import open_body_poses
from jaxrecon.data.pose_files import read_pose_file
from jaxrecon.errors import UserError
from jaxrecon.io.pose_files import check_keypoints
from tests.conftest import needs_shared


def pixels(frames: int = 6, joints: int = 17) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1000, (frames, joints, 2)).astype(np.float32)


def broken(change) -> np.ndarray:
    points = pixels()
    change(points)
    return points


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], "ragged"),
        (np.zeros((4, 17)), r"\(frames, joints, 2\)"),
        (np.zeros((0, 17, 2)), "nothing"),
        (broken(lambda p: p.__setitem__((2, slice(None)), np.nan)), "frame 2 has 0 visible"),
        (broken(lambda p: p.__setitem__((1, 3, 0), np.inf)), "infinite"),
    ],
)
def test_wrong_keypoints_are_one_line(points, message):
    with pytest.raises(UserError, match=message) as error:
        check_keypoints(points, where="my.npz")
    assert "my.npz" in str(error.value) and "\n" not in str(error.value)


def test_nan_and_confidence_are_visibility():
    points = pixels()
    assert check_keypoints(points)[1] is None
    points[1, 2, 0] = np.nan
    known, visible = check_keypoints(points)
    assert visible.sum() == visible.size - 1 and not known[1, 2].any()
    with_confidence = np.concatenate([pixels(), np.ones((6, 17, 1))], 2)
    with_confidence[3, 4, 2] = 0
    assert check_keypoints(with_confidence)[1][3, 4] == 0
    with pytest.raises(UserError, match="must agree"):
        check_keypoints(pixels(), np.ones((6, 16)))


def test_normalisation():
    poses = from_keypoints(pixels(), (1100.0, 1200.0))
    np.testing.assert_allclose(poses.keypoints2d[:, 0], 0)
    length = np.linalg.norm(poses.keypoints2d[:, 10], axis=-1).mean()
    assert length == pytest.approx(0.2, rel=1e-5)
    visible = np.ones((6, 17))
    visible[0, 0] = 0  # without its root a frame is centred on what is seen
    masked = from_keypoints(pixels(), 1000.0, visible)
    np.testing.assert_allclose(masked.keypoints2d[0, 1:].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(masked.keypoints2d[1:, 0], 0)
    with pytest.raises(UserError, match="positive"):
        from_keypoints(pixels(), 0.0)
    with pytest.raises(UserError, match="set the scale"):
        length_factor(np.zeros((3, 17, 2)))
    with pytest.raises(UserError, match="joints3d"):
        from_keypoints(pixels(), 1.0, joints3d=np.zeros((6, 16, 3)))


def test_hiding_keypoints():
    poses = PoseSet(pixels(400) / 1000)
    hidden = hide_keypoints(poses, 0.2)
    assert hidden.visible.mean() == pytest.approx(0.8, abs=0.02)
    assert hide_keypoints(poses, 0.99).visible.sum(1).min() == 3
    assert not hidden.keypoints2d[hidden.visible == 0].any()
    assert hide_keypoints(poses, 0.0) is poses
    with pytest.raises(UserError, match="share"):
        hide_keypoints(poses, 1.5)


def test_pose_sets_must_fit():
    with pytest.raises(UserError, match="empty"):
        PoseSet(np.zeros((0, 17, 2), np.float32))
    with pytest.raises(UserError, match="must agree"):
        PoseSet(pixels(), joints3d=np.zeros((5, 17, 3), np.float32))


def test_the_made_set():
    train, test = open_body_poses(40), open_body_poses(40, "test")
    again = open_body_poses(40)
    np.testing.assert_array_equal(train.keypoints2d, again.keypoints2d)
    assert np.abs(train.keypoints2d - test.keypoints2d).max() > 0.01
    height = np.linalg.norm(train.joints3d[:, 10], axis=-1)
    assert height.min() > 0.4 and height.max() < 1.1
    # Left and right are where they should be: the joints of a side belong together.
    knee = np.linalg.norm(train.joints3d[:, 2] - train.joints3d[:, 1], axis=-1)
    assert knee.min() > 0.3 and knee.max() < 0.6


def test_files_of_the_user(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, keypoints2d=pixels(), joints3d=np.ones((6, 17, 3)), image_size=[1000, 800])
    poses = read_pose_file(path)
    assert len(poses) == 6 and poses.joints3d is not None
    scipy.io.savemat(tmp_path / "mine.mat", {"keypoints2d": pixels(), "focal_length": 1000.0})
    assert read_pose_file(tmp_path / "mine.mat").joints == 17
    videos = {"a": {"custom": [pixels()]}, "b": {"custom": [pixels()]}}
    size = {"video_metadata": {"a": {"w": 640, "h": 480}, "b": {"w": 640, "h": 480}}}
    np.savez(tmp_path / "custom.npz", positions_2d=np.array(videos, object), metadata=size)
    assert len(read_pose_file(tmp_path / "custom.npz")) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"", "empty"),
        ("a.npz", b"PK nonsense", "not a readable"),
        ("a.mat", b"nonsense", "not a readable MATLAB"),
        ("a.csv", b"1,2", "neither .npz nor .mat"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_pose_file(path)


def test_a_file_without_keypoints(tmp_path):
    np.savez(tmp_path / "other.npz", points=pixels())
    with pytest.raises(UserError, match=r"no 'keypoints2d'.*points"):
        read_pose_file(tmp_path / "other.npz")


def test_sequences(tmp_path):
    cloud = np.random.default_rng(0).normal(size=(3, 7, 5))
    scipy.io.savemat(tmp_path / "x.mat", {"X": cloud})
    poses = read_sequence(tmp_path / "x.mat")
    assert poses.keypoints2d.shape == (5, 7, 2) and poses.joints3d.shape == (5, 7, 3)
    np.testing.assert_allclose(
        poses.keypoints2d / poses.factor, poses.joints3d[..., :2], rtol=1e-4, atol=1e-5
    )
    flat = {"W": cloud.transpose(2, 0, 1)[:, :2].reshape(10, 7)}
    flat["S"] = cloud.transpose(2, 0, 1).reshape(15, 7)
    scipy.io.savemat(tmp_path / "w.mat", flat)
    same = read_sequence(tmp_path / "w.mat")
    np.testing.assert_allclose(same.joints3d, poses.joints3d, atol=1e-6)
    scipy.io.savemat(tmp_path / "y.mat", {"Y": cloud})
    with pytest.raises(UserError, match="it has Y"):
        read_sequence(tmp_path / "y.mat")


@needs_shared
def test_h36m_archives(shared_dir):
    folder = shared_dir / "golden" / "mhr_net" / "tiny_h36m_a"
    every = h36m_archives.load_h36m(folder, subjects=["S1"])
    walking = h36m_archives.load_h36m(folder, subjects=["S1"], actions=["Walking"])
    assert list(walking.groups) == ["Walking"] and len(walking) < len(every)
    # Ranges of actions count the frames that are left.
    halved = h36m_archives.load_h36m(folder, subjects=["S1"], downsample=2)
    assert max(end for ranges in halved.groups.values() for _, end in ranges) == len(halved)
    part = h36m_archives.load_h36m(folder, subjects=["S1"], subset=0.5)
    assert 0 < len(part) < len(every)
    with pytest.raises(UserError, match="no subject 'S77'"):
        h36m_archives.load_h36m(folder, subjects=["S77"])
    with pytest.raises(UserError, match="registration"):
        h36m_archives.load_h36m(folder / "missing", subjects=["S1"])
