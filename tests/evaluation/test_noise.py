"""Noise on keypoints: of the right size, on the evidence alone, the same in any batches."""

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.evaluation.noise import with_noise


def batch_of(index):
    count = len(index)
    return {
        "image": np.zeros((count, 100, 80, 3), np.uint8),
        "keypoints2d": np.ones((count, 49, 3), np.float32),
        "keypoints2d_full": np.ones((count, 49, 3), np.float32),
        "index": np.asarray(index, np.int32),
    }


def test_noise_has_its_size_and_leaves_the_score_alone():
    (noisy,) = with_noise([batch_of(range(40))], 0.03)
    offset = noisy["keypoints2d"] - 1
    assert np.std(offset[..., :2]) == pytest.approx(3.0, rel=0.05)
    assert not offset[..., 2].any()
    np.testing.assert_array_equal(noisy["keypoints2d_full"], 1)


def test_noise_belongs_to_the_example():
    whole = next(with_noise([batch_of([5, 6, 7])], 0.03, seed=1))["keypoints2d"]
    parts = [b["keypoints2d"] for b in with_noise([batch_of([7]), batch_of([5])], 0.03, seed=1)]
    np.testing.assert_array_equal(whole[2], parts[0][0])
    np.testing.assert_array_equal(whole[0], parts[1][0])
    other = next(with_noise([batch_of([5])], 0.03, seed=2))["keypoints2d"]
    assert np.abs(other - whole[:1]).max() > 0.1


def test_no_noise_and_wrong_noise():
    np.testing.assert_array_equal(next(with_noise([batch_of([0])], 0.0))["keypoints2d"], 1)
    with pytest.raises(UserError, match="keypoint_noise"):
        next(with_noise([batch_of([0])], -1.0))
