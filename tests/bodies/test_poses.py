"""Poses: anatomical limits, natural samples, the mean pose."""

import numpy as np
from scipy.spatial.transform import Rotation

from jaxrecon.bodies.joints import SMPL24, mirror_permutation
from jaxrecon.bodies.poses import (
    limbs_clear,
    mean_pose6d,
    pose_limits,
    sample_body,
    sample_poses,
    sample_views,
)
from jaxrecon.geometry.rotations import rot6d_to_matrix
from tests.conftest import needs_shared

ROW = {name: i - 1 for i, name in enumerate(SMPL24)}  # rows of pose_limits


def excess(body_pose: np.ndarray) -> np.ndarray:
    lower, upper = pose_limits()
    return np.maximum(np.maximum(lower - body_pose, body_pose - upper), 0.0)


def test_samples_lie_inside_the_limits():
    poses = sample_poses(np.random.default_rng(0), 2000)
    assert poses.shape == (2000, 24, 3) and np.isfinite(poses).all()
    assert excess(poses[:, 1:]).max() < 1e-9


@needs_shared
def test_real_poses_lie_inside_the_limits(shared_dir):
    file = shared_dir / "data" / "photos" / "mosh" / "smpl_poses.npz"
    with np.load(file, allow_pickle=False) as data:
        real = data["pose"].reshape(-1, 24, 3)
    assert excess(real[:, 1:]).max() < 0.05


def test_limits_are_mirrored_and_exclude_the_impossible():
    lower, upper = pose_limits()
    order = mirror_permutation("smpl24")[1:] - 1
    flip = np.array([1.0, -1.0, -1.0])
    mirrored = np.sort(np.stack([lower[order] * flip, upper[order] * flip]), axis=0)
    np.testing.assert_allclose(mirrored, np.stack([lower, upper]), atol=1e-9)

    impossible = np.zeros((4, 23, 3))
    impossible[0, ROW["l_knee"], 0] = -0.6  # a knee bent to the front
    impossible[1, ROW["r_elbow"], 1] = -0.8  # an elbow bent to the back
    impossible[2, ROW["head"], 1] = 2.0  # a head turned around
    impossible[3, ROW["r_hip"], 0] = 1.5  # a leg far to the back
    assert (excess(impossible).max((1, 2)) > 0.3).all()


def test_same_state_same_poses():
    first = sample_poses(np.random.default_rng(7), 8)
    again = sample_poses(np.random.default_rng(7), 8)
    other = sample_poses(np.random.default_rng(8), 8)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_limbs_stay_out_of_the_body():
    samples = sample_body(np.random.default_rng(1), 500)
    assert limbs_clear(samples).mean() > 0.98
    # A forearm folded into the belly, and crossed shins, must be noticed.
    wrong = np.tile(np.eye(3), (2, 24, 1, 1))
    wrong[0, SMPL24.index("l_shoulder")] = Rotation.from_rotvec([0, 0, -1.5]).as_matrix()
    wrong[0, SMPL24.index("l_elbow")] = Rotation.from_rotvec([0, 0, -1.2]).as_matrix()
    wrong[1, SMPL24.index("l_hip")] = Rotation.from_rotvec([0, 0, -0.2]).as_matrix()
    assert not limbs_clear(wrong).any()


def test_people_stand_upright_and_are_seen_from_all_sides():
    rotation = Rotation.from_rotvec(sample_poses(np.random.default_rng(2), 1000)[:, 0])
    up = rotation.apply([0.0, 1.0, 0.0])  # the body's own up in the camera frame, y down
    assert np.mean(up[:, 1] < -0.7) > 0.85
    facing = rotation.apply([0.0, 0.0, 1.0])
    heading = np.arctan2(facing[:, 0], -facing[:, 2])
    share, _ = np.histogram(heading, bins=8, range=(-np.pi, np.pi))
    assert share.min() > 0.06 * len(heading)
    assert (sample_views(np.random.default_rng(3), 200)[:, 1, 1] < -0.7).all()


def test_views_from_the_front_are_as_many_as_asked_for():
    facing = sample_views(np.random.default_rng(3), 4000, frontal=0.6)[:, :, 2]
    heading = np.arctan2(facing[:, 0], -facing[:, 2])
    # 0.6 within 1.5 deviations of 35 degrees (0.866 of them), and the others by chance.
    expected = 0.6 * 0.866 + 0.4 * 105 / 360
    assert abs(np.mean(np.abs(heading) < np.deg2rad(52.5)) - expected) < 0.03


def test_knees_follow_hips_and_sides_are_alike():
    poses = sample_poses(np.random.default_rng(4), 4000)
    hip, knee = (poses[:, SMPL24.index(name), 0] for name in ("l_hip", "l_knee"))
    assert np.corrcoef(-hip, knee)[0, 1] > 0.5
    left, right = (poses[:, SMPL24.index(name)] for name in ("l_shoulder", "r_shoulder"))
    np.testing.assert_allclose(left.mean(0), right.mean(0) * (1, -1, -1), atol=0.08)


def test_mean_pose_is_a_pose_with_lowered_arms():
    mean = mean_pose6d()
    assert mean.dtype == np.float32 and mean.shape == (144,)
    matrices = np.asarray(rot6d_to_matrix(mean.reshape(24, 6)))
    np.testing.assert_allclose(matrices[:, :, :2].reshape(144), mean, atol=1e-6)
    vectors = Rotation.from_matrix(matrices).as_rotvec()
    assert excess(vectors[None, 1:]).max() == 0.0
    up = matrices[0] @ [0.0, 1.0, 0.0]
    assert up[1] < -0.9  # upright in a camera whose y points down
    assert matrices[0] @ [0.0, 0.0, 1.0] @ [0.0, 0.0, 1.0] < -0.9  # facing it
    left, right = (vectors[SMPL24.index(name)] for name in ("l_shoulder", "r_shoulder"))
    assert left[2] < -0.4
    np.testing.assert_allclose(left, right * (1, -1, -1), atol=1e-6)
