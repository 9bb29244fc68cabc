"""Parts of the photographs: figure, clothes, scenes, labels, surroundings."""

import numpy as np
import pytest
from jaxrecon.datasets_builders.open_body import labels, scenes, surroundings
from jaxrecon.datasets_builders.open_body.figure import BODY, HAIR, SKIRT, load_figure
from jaxrecon.datasets_builders.open_body.outfit import draw_outfit, offsets, paint
from jaxrecon.datasets_builders.open_body.textures import Waves, fraction, normalise, value_noise

UP = np.array([0.0, -1.0, 0.0])


def test_figure_extends_the_body():
    figure = load_figure()
    count = len(figure.canonical)
    assert (figure.part[: figure.body_vertices] == BODY).all()
    assert {SKIRT, HAIR} == set(figure.part[figure.body_vertices :].tolist())
    assert figure.faces.max() < count
    np.testing.assert_allclose(np.asarray(figure.body.weights).sum(1), 1.0, atol=1e-5)
    # A plain person has no triangle of skirt or hair; the shape stays the same.
    plain, dressed = figure.faces_of(0, 0), figure.faces_of(14, 8)
    assert plain.shape == dressed.shape == figure.faces.shape
    assert plain.max() < figure.body_vertices and (dressed == figure.faces).all()


def test_normals_are_unit_and_point_outwards():
    figure = load_figure()
    normals = figure.canonical_normals
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-4)
    crown = figure.canonical[:, 1].argmax()
    assert normals[crown, 1] > 0.8
    for part, axis in ((SKIRT, [0.0, 0.05]), (HAIR, [0.0, figure.landmarks.head[2]])):
        chosen = figure.part == part
        outwards = figure.canonical[chosen][:, [0, 2]] - axis
        assert ((normals[chosen][:, [0, 2]] * outwards).sum(1) > 0).mean() > 0.95


def test_outfits_are_finite_bounded_and_differ():
    figure = load_figure()
    colours = []
    for seed in range(12):
        outfit = draw_outfit(np.random.default_rng(seed), figure.landmarks)
        move = offsets(figure, outfit)
        assert np.isfinite(move).all() and move.min() > -0.03 and move.max() < 0.3
        hands = np.abs(figure.canonical[:, 0]) > figure.landmarks.wrist_x + 0.05
        assert np.abs(move[hands]).max() < 1e-6  # joints of hands stay under the skin
        surface = paint(outfit, figure.landmarks, figure.canonical, figure.part)
        assert surface.albedo.shape == figure.canonical.shape
        assert surface.albedo.min() > 0 and surface.albedo.max() < 1
        assert np.isfinite(surface.relief).all()
        colours.append(surface.albedo.mean(0))
    assert np.std(colours, axis=0).min() > 0.02


def test_people_stand_in_the_picture():
    vertices = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * (0.4, 0.85, 0.2)
    seen = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        camera = scenes.draw_camera(rng, 256)
        assert max(camera.width, camera.height) == 256
        view = 2 * np.arctan(np.hypot(camera.width, camera.height) / 2 / camera.focal)
        assert np.deg2rad(24.9) < view < np.deg2rad(80.1)
        transl = scenes.place(rng, camera, vertices)
        placed = vertices + transl
        assert placed[:, 2].min() > 0.5
        seen.append(labels.inside(camera.project(placed), camera).mean())
    assert np.mean(np.array(seen) > 0.97) > 0.6 and min(seen) > 0.2


def test_a_sitter_gets_a_seat_and_others_none():
    rotmats = np.tile(np.eye(3), (24, 1, 1))
    view = np.diag([1.0, -1.0, -1.0])
    rest = np.zeros((24, 3))
    rest[[1, 2], 1], rest[[4, 5], 1], rest[[7, 8], 1], rest[12, 1] = -0.1, -0.5, -0.9, 0.5
    standing = rest * (1, -1, -1)
    sitting = standing.copy()
    sitting[[4, 5]] = sitting[[1, 2]] + (0, 0, -0.4)
    sitting[[7, 8]] = sitting[[4, 5]] + (0, 0.4, 0)
    none = scenes.read_stance(view, rotmats[0], standing, standing)
    seat = scenes.read_stance(view, view, sitting, sitting)
    assert none.seat is None and none.ground == pytest.approx(-0.9)
    assert seat.seat == pytest.approx(0.4 - 0.12)
    np.testing.assert_allclose(seat.forward, [0, 0, -1])


def test_detector_misses_what_is_outside_and_scores_what_it_finds():
    camera = scenes.Camera(200, 200, 250.0)
    rng = np.random.default_rng(0)
    pixels = np.full((25, 2), 100.0)
    pixels[20:] = 300.0
    hidden = np.arange(25) < 10
    found = np.stack([labels.detect(rng, pixels, hidden, camera, 100.0) for _ in range(300)])
    score = found[..., 2]
    assert (found[:, 20:] == 0).all()
    assert 0.4 < (score[:, :10] == 0).mean() < 0.5 and (score[:, 10:20] == 0).mean() < 0.06
    clear, covered = score[:, 10:20], score[:, :10]
    assert clear[clear > 0].mean() > covered[covered > 0].mean() + 0.15
    error = np.linalg.norm(found[:, 10:20, :2] - 100, axis=-1)[clear > 0]
    assert np.corrcoef(error, clear[clear > 0])[0, 1] < -0.5


def test_box_of_visible_joints_only():
    keypoints = np.array([[10, 20, 1.0], [50, 140, 1.0], [500, 500, 0.0]])
    centre, scale = labels.box_of(keypoints)
    np.testing.assert_allclose(centre, [30, 80])
    assert scale == pytest.approx(1.2 * 120 / 200)
    wide = labels.box_of(np.array([[0, 0, 1.0], [120, 60, 1.0]]))[1]
    assert wide == pytest.approx(1.2 * 160 / 200)


def test_floor_lies_where_the_ground_is():
    camera = scenes.Camera(64, 64, 64.0)
    stance = scenes.Stance(UP, -1.5, np.array([0.0, 0, -1]), np.array([0.0, 0.5, 4.0]), None)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        light = surroundings.draw_light(rng, UP)
        picture = surroundings.surround(rng, camera, stance, light)
        assert np.isfinite(picture.colour).all() and picture.colour.min() >= 0
        assert not picture.floor[:31].any()  # nothing above the horizon
        assert picture.floor[63, 32]
        # Rays of the lowest row: y / z = 31.5 / 64 and y = 1.5 on the floor.
        assert picture.depth[63, 32] == pytest.approx(1.5 * 64 / 31.5, rel=0.05)


def test_box_is_drawn_at_its_place():
    camera = scenes.Camera(64, 64, 64.0)
    material = surroundings.draw_material(np.random.default_rng(0), ("plain",))
    light = surroundings.draw_light(np.random.default_rng(0), UP)
    box = surroundings.Box(
        np.array([0.0, 0.0, 5.0]), np.eye(3), np.array([1.0, 0.5, 1.0]), material
    )
    drawn = surroundings.draw_box(camera, box, light)
    assert drawn is not None
    # The front face is at z = 4: 2 m wide and 1 m high, so 32 by 16 pixels.
    assert drawn.hit.sum() == 32 * 16 == len(drawn.colour)
    np.testing.assert_allclose(drawn.depth[drawn.hit], 4.0, rtol=1e-5)
    behind = surroundings.Box(-box.centre, box.axes, box.half, material)
    assert surroundings.draw_box(camera, behind, light) is None


def test_noise_and_small_helpers():
    x = np.array([-1.25, 0.5, 3.75])
    np.testing.assert_allclose(fraction(x), np.mod(x, 1.0))
    np.testing.assert_allclose(normalise(np.array([[3.0, 0, 4.0]])), [[0.6, 0, 0.8]])
    points = np.random.default_rng(0).uniform(-2, 2, (20000, 3)).astype(np.float32)
    waves = Waves.draw(np.random.default_rng(1), 40.0, 8)
    value, growth = waves.with_gradient(points)
    np.testing.assert_allclose(value, waves(points), atol=1e-5)
    assert abs(value.mean()) < 0.05 and 0.9 < value.std() < 1.1
    step = 1e-3
    along = waves(points + step * growth) - value
    assert (along > -1e-4).mean() > 0.95  # the gradient points uphill
    noise = value_noise(np.random.default_rng(2), (40, 60), 4.0)
    assert noise.shape == (40, 60) and 0.1 < noise.std() < 1.0
