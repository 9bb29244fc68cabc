"""A sequence's fit, on sequences whose shapes are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxrecon.errors import UserError
from jaxrecon.optimization.nonrigid import reconstruct_sequence, steadiness


def sequence(frames: int, points: int, degrees: float, bend: float, seed: int = 0) -> np.ndarray:
    """Camera-frame shapes (F, P, 3) that turn about the vertical and bend slowly in two ways."""
    rng = np.random.default_rng(seed)
    mean, *modes = rng.normal(size=(3, points, 3))
    at = np.linspace(0, 2 * np.pi, frames)
    shapes = mean + bend * (
        np.sin(at)[:, None, None] * modes[0] + np.cos(2 * at)[:, None, None] * modes[1]
    )
    spin = Rotation.from_euler("y", degrees * np.arange(frames)[:, None], degrees=True).as_matrix()
    turned = shapes @ spin
    return turned - turned.mean(1, keepdims=True)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Normalised 3D error after one reflection in depth of the whole."""
    size = np.linalg.norm(truth, axis=(1, 2))
    return min(
        float(np.mean(np.linalg.norm(found * [1, 1, s] - truth, axis=(1, 2)) / size))
        for s in (1, -1)
    )


def test_a_turning_camera():
    truth = sequence(240, 20, 5.0, 0.15)
    found = reconstruct_sequence(truth[..., :2])
    assert found.method == "trajectories, gaussian" and found.window == 24
    assert error(found.points, truth) < 0.02
    np.testing.assert_allclose(found.points[..., :2], truth[..., :2], atol=1e-9)
    unit = found.rotations @ found.rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(3), unit.shape), atol=1e-9)


def test_a_camera_that_hardly_turns_still_beats_a_rigid_shape():
    rng = np.random.default_rng(1)
    truth = sequence(120, 30, 0.0, 0.05)
    heading = 0.4 * np.sin(np.linspace(0, 9, 120)) + 0.1 * rng.normal(size=120)
    truth = truth @ Rotation.from_euler("y", heading[:, None]).as_matrix()
    found = reconstruct_sequence(truth[..., :2])
    assert found.method == "gaussian"
    assert error(found.points, truth) < 0.04


def test_unit_and_missing_points():
    truth = 300 * sequence(120, 20, 6.0, 0.1)
    visible = (np.random.default_rng(2).uniform(size=(120, 20)) > 0.2).astype(np.float32)
    seen = np.where(visible[..., None] > 0, truth[..., :2] + [500, 300], 0.0)
    found = reconstruct_sequence(seen, visible)
    centred = found.points - found.points.mean(1, keepdims=True)
    assert error(centred, truth) < 0.08


def test_steadiness_of_a_rigid_shape_is_endless():
    truth = sequence(60, 12, 5.0, 0.0)
    assert steadiness(truth[..., :2], 24) > 1e4
    assert steadiness(sequence(60, 12, 5.0, 0.3)[..., :2], 24) < 100


def test_too_little():
    with pytest.raises(UserError, match="3 frames and 9 points"):
        reconstruct_sequence(np.zeros((3, 9, 2)))
