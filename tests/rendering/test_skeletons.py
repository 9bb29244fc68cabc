"""Pictures of skeletons: what is where."""

import numpy as np
import trimesh

from jaxrecon.rendering.skeletons import (
    draw_points2d,
    draw_points3d,
    skeleton_mesh,
    turned,
    turntable_of_points,
)

NAMES = ("pelvis", "l_hand", "r_hand")
BONES = ((0, 1), (0, 2))
POINTS = np.array([[0, 0, 0], [1, 0, 0.5], [-1, 0, -0.5]], np.float32)


def inked(picture: np.ndarray) -> np.ndarray:
    return (picture != picture[0, 0]).any(-1)


def test_points_land_where_they_are():
    picture = draw_points2d(POINTS[:, :2], NAMES, BONES, 100, reach=2.0)
    columns = np.flatnonzero(inked(picture).any(0))
    assert abs(columns.min() - 25) < 6 and abs(columns.max() - 75) < 6
    hidden = draw_points2d(POINTS[:, :2], NAMES, BONES, 100, 2.0, np.array([1.0, 1.0, 0.0]))
    assert np.flatnonzero(inked(hidden).any(0)).min() > 40


def test_a_quarter_turn_shows_depth():
    side = turned(POINTS, 90.0)
    np.testing.assert_allclose(side[:, 0], -POINTS[:, 2], atol=1e-6)
    narrow = inked(draw_points3d(POINTS, NAMES, BONES, 90.0, 100, 2.0)).any(0).sum()
    wide = inked(draw_points3d(POINTS, NAMES, BONES, 0.0, 100, 2.0)).any(0).sum()
    assert narrow < wide


def test_turntable():
    frames = turntable_of_points(np.stack([POINTS, 2 * POINTS]), NAMES, BONES, 4, 50)
    assert len(frames) == 4 and frames[0].shape == (50, 100, 3)
    assert (frames[0] != frames[1]).any()


def test_a_skeleton_as_mesh_is_closed_and_looks_outwards():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 4, 3)).astype(np.float32)
    vertices, faces = skeleton_mesh(points, ((0, 1), (1, 2), (2, 3)), radius=0.05)
    assert vertices.shape == (3, 6 * 7, 3) and faces.shape == (8 * 7, 3)
    mesh = trimesh.Trimesh(vertices[1], faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    parts = mesh.split(only_watertight=True)
    assert len(parts) == 7 and all(part.volume > 0 for part in parts)
    balls = vertices[1, : 6 * 4].reshape(4, 6, 3).mean(1)
    np.testing.assert_allclose(balls, points[1], atol=1e-6)
