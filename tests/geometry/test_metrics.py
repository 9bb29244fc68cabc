"""Errors of joints: what alignment removes, and what it must not."""

import numpy as np

from jaxrecon.geometry import metrics, rotations


def test_similarity_is_removed_by_alignment_only():
    rng = np.random.default_rng(0)
    gt = rng.normal(size=(4, 14, 3)).astype(np.float32)
    turn = rotations.axis_angle_to_matrix(rng.normal(size=(4, 3)).astype(np.float32))
    pred = np.float32(1.3) * gt @ np.swapaxes(turn, 1, 2) + np.float32([1, 2, 3])
    assert (np.asarray(metrics.mpjpe(pred, gt)) > 0.5).all()
    np.testing.assert_allclose(metrics.pa_mpjpe(pred, gt), 0, atol=2e-5)


def test_reflection_is_not_removed():
    gt = np.random.default_rng(1).normal(size=(3, 14, 3)).astype(np.float32)
    assert (np.asarray(metrics.pa_mpjpe(gt * np.float32([1, 1, -1]), gt)) > 0.1).all()


def test_keypoint_error_counts_confident_joints():
    keypoints = np.float32([[[0, 0, 1], [10, 0, 0]], [[5, 5, 0], [6, 6, 0]]])
    pred = np.float32([[[3, 4], [99, 99]], [[0, 0], [0, 0]]])
    error = np.asarray(metrics.keypoint_error(pred, keypoints))
    assert error[0] == 5 and np.isnan(error[1])
