"""Cameras: the crop and the photograph see the same point."""

import numpy as np
import pytest

from jaxrecon.geometry import cameras as c


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    count = 5
    return {
        "points": rng.normal(0, 0.4, (count, 49, 3)).astype(np.float32),
        "cam": np.stack(
            [rng.uniform(0.6, 1.1, count), *rng.normal(0, 0.1, (2, count))], axis=1
        ).astype(np.float32),
        "center": rng.uniform(200, 500, (count, 2)).astype(np.float32),
        "scale": rng.uniform(1, 2, count).astype(np.float32),
        "image_size": np.tile(np.float32([600, 800]), (count, 1)),
        "focal": rng.uniform(800, 1500, count).astype(np.float32),
    }


def test_full_camera_round_trip(scene):
    box = {k: scene[k] for k in ("center", "scale", "image_size", "focal")}
    transl = c.crop_to_full_camera(scene["cam"], **box)
    np.testing.assert_allclose(c.full_to_crop_camera(transl, **box), scene["cam"], atol=2e-5)


def test_a_point_on_the_axis_lands_at_the_box_centre(scene):
    """A weak camera without offset puts the body's origin in the middle of its box."""
    cam = scene["cam"] * np.float32([1, 0, 0])
    box = {k: scene[k] for k in ("center", "scale", "image_size", "focal")}
    transl = c.crop_to_full_camera(cam, **box)
    origin = np.zeros((5, 1, 3), np.float32)
    pixel = c.project(origin, scene["focal"], scene["image_size"][:, ::-1] / 2, translation=transl)
    np.testing.assert_allclose(pixel[:, 0], scene["center"], rtol=1e-5)


def test_translation_is_recovered_from_its_projection(scene):
    transl = np.random.default_rng(1).normal([0, 0, 4], 0.3, (5, 3)).astype(np.float32)
    center = scene["image_size"][:, ::-1] / 2
    pixels = c.project(scene["points"], scene["focal"], center, translation=transl)
    keypoints = np.concatenate([pixels, np.ones((5, 49, 1))], axis=2).astype(np.float32)
    keypoints[:, :10] = [0, 0, 0]  # joints without confidence must not count
    found = c.estimate_translation(scene["points"], keypoints, scene["focal"], center)
    np.testing.assert_allclose(found, transl, atol=1e-3)


def test_back_projection_inverts_projection(scene):
    points = scene["points"] + np.float32([0, 0, 4])
    center = scene["image_size"][:, ::-1] / 2
    pixels = c.project(points, scene["focal"], center)
    back = c.back_project(pixels, points[..., 2], scene["focal"], center)
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_affine_maps_points():
    matrix = np.float32([[[2, 0, 5], [0, 3, -1]]])
    np.testing.assert_allclose(
        c.apply_affine(matrix, np.float32([[[1, 1], [0, 2]]])), [[[7, 2], [5, 5]]]
    )
