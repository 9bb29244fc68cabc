"""Pictures of meshes: where they lie, how they are lit, what they hide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.rendering import (
    PALETTE,
    draw_keypoints,
    merge_meshes,
    render_mesh,
    render_overlay,
    shade,
    studio_light,
    turntable,
    vertex_normals,
    view_mesh,
)
from jaxrecon.rendering.drawing import LEFT, MIDDLE, RIGHT

# A box of 1 x 2 x 0.5 metres, 4 metres away, faces counter-clockwise seen from outside.
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-1, 1) for z in (-0.25, 0.25)])
BOX = (_CORNERS + [0, 0, 4]).astype(np.float32)
_QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = np.array([t for a, b, c, d in _QUADS for t in ((a, b, c), (a, c, d))], np.int32)
FOCAL, SIZE = 60.0, (64, 48)
CENTER = (24.0, 32.0)
WHITE = (1.0, 1.0, 1.0)


def _picture(**options):
    return render_mesh(BOX, FACES, FOCAL, CENTER, SIZE, background=WHITE, **options)


def test_normals_point_outwards():
    normals = np.asarray(vertex_normals(BOX, FACES))
    outward = BOX - BOX.mean(0)
    assert ((normals * outward).sum(-1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, rtol=1e-5)


def test_mesh_lies_where_its_corners_project():
    drawn = (_picture() != 255).any(-1)
    near = BOX[BOX[:, 2] < 4]
    pixels = near[:, :2] / near[:, 2:] * FOCAL + CENTER  # 24 +- 8, 32 +- 16
    rows, columns = np.nonzero(drawn)
    np.testing.assert_allclose([columns.min(), rows.min()], pixels.min(0), atol=1)
    np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], pixels.max(0), atol=1)


def test_edges_are_clean_at_half_pixels():
    # The left edge of the front is at x = 16.5: half of that column's coverage.
    picture = render_mesh(BOX, FACES, FOCAL, (24.5, 32.0), SIZE, background=(0.0, 0.0, 0.0))
    row = picture[32].astype(float)
    np.testing.assert_allclose(row[16], row[20] / 2, atol=12)
    assert (row[15] == 0).all()


def test_a_window_of_a_large_picture_is_the_picture():
    # Beyond 512 pixels only the part with the mesh is rendered.
    small = render_mesh(BOX, FACES, FOCAL, CENTER, SIZE)
    large = render_mesh(BOX, FACES, FOCAL, (624.0, 732.0), (800, 900))
    np.testing.assert_array_equal(large[700:764, 600:648], small)
    corner = render_mesh(BOX, FACES, FOCAL, (898.0, 2.0), (800, 900))
    np.testing.assert_array_equal(corner[:20, 880:], small[30:50, 6:26])


def test_overlay_blends_nine_parts_of_mesh():
    image = np.full((*SIZE, 3), 200, np.uint8)
    plain = render_mesh(BOX, FACES, FOCAL, CENTER, SIZE)[32, 24].astype(float)
    blended = render_overlay(image, BOX, FACES, FOCAL, CENTER)
    np.testing.assert_allclose(blended[32, 24], 0.9 * plain + 20, atol=1)
    assert (blended[0, 0] == 200).all() and (image == 200).all()


def test_light_falls_from_above():
    light = studio_light()
    grey, point = np.full(3, 0.5, np.float32), np.array([0, 0, 1], np.float32)
    up, down = (shade(np.array([0, y, -0.5], np.float32), grey, point, light) for y in (-1, 1))
    assert (up > down + 0.1).all()


def test_shade_is_the_same_in_jax_and_has_finite_gradients():
    rng = np.random.default_rng(0)
    normals, points = (rng.normal(size=(50, 3)).astype(np.float32) for _ in range(2))
    colours = rng.uniform(size=(50, 3)).astype(np.float32)
    light = studio_light()
    host = shade(normals, colours, points, light)
    device = shade(*(jnp.asarray(x) for x in (normals, colours, points)), light)
    np.testing.assert_allclose(host, device, atol=1e-5)
    gradients = jax.grad(lambda n, c: shade(n, c, jnp.asarray(points), light).sum(), (0, 1))(
        jnp.zeros((50, 3)), jnp.asarray(colours)
    )
    assert all(np.isfinite(g).all() for g in gradients)


def test_merged_meshes_hide_each_other():
    behind = BOX + np.array([0, 0, 3], np.float32)
    red, green = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    vertices, faces, colours = merge_meshes([(BOX, FACES, red), (behind, FACES, green)])
    assert vertices.shape == (16, 3) and faces.max() == 15
    picture = render_mesh(vertices, faces, FOCAL, CENTER, SIZE, colours)
    r, g, _ = picture[32, 24].astype(int)
    assert r > g + 100


def test_what_cannot_be_seen_leaves_the_background():
    behind = BOX * np.array([1, 1, -1], np.float32)
    beside = BOX + np.array([90, 0, 0], np.float32)
    for vertices in (behind, beside):
        picture = render_mesh(vertices, FACES, FOCAL, CENTER, SIZE, background=WHITE)
        assert (picture == 255).all()
    nothing = render_mesh(BOX, FACES[:0], FOCAL, CENTER, SIZE, background=WHITE)
    assert (nothing == 255).all()


def test_side_view_turns_the_box():
    def extent(yaw):
        drawn = (view_mesh(BOX, FACES, yaw, (80, 80), background=WHITE, height=3.0) != 255).any(-1)
        rows, columns = np.nonzero(drawn)
        return np.ptp(columns) + 1, np.ptp(rows) + 1

    front, side = extent(0), extent(90)
    # 80 pixels show 3 metres in the plane of the middle; perspective adds a little.
    assert 26 <= front[0] <= 30 and 12 <= side[0] <= 17
    assert 52 <= front[1] <= 60


def test_yaw_90_shows_the_side_that_was_at_the_left():
    left = np.where(BOX[:, :1] < 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]])
    picture = view_mesh(BOX, FACES, 90, (80, 80), colours=left)
    assert picture[40, 40, 0] > picture[40, 40, 2] + 100


def test_turntable_is_one_turn_at_one_scale():
    frames = turntable(BOX, FACES, frames=4, image_size=(60, 60), pitch=0)
    assert len(frames) == 4 and all(f.shape == (60, 60, 3) for f in frames)
    shapes = [(f != frames[0][0, 0]).any(-1) for f in frames]
    # The box looks the same from front and back.
    assert (shapes[0] != shapes[2]).mean() < 0.01 and (shapes[0] != shapes[1]).mean() > 0.05


@pytest.mark.parametrize("stretch", [(1, 1, 1), (4, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("image_size", [(90, 50), (50, 90)])
def test_every_frame_holds_the_whole_mesh_and_the_picture_is_used(stretch, image_size):
    frames = turntable(BOX * np.float32(stretch), FACES, 8, image_size, background=WHITE)
    drawn = [(f != 255).any(-1) for f in frames]
    for mask in drawn:
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert mask.any() and not border.any()
    seen = np.logical_or.reduce(drawn)
    assert max(seen.any(0).mean(), seen.any(1).mean()) > 0.8


def test_bad_input_is_named():
    with pytest.raises(UserError, match="vertex 0 is not finite"):
        view_mesh(np.full_like(BOX, np.nan), FACES)
    with pytest.raises(UserError, match="no vertices"):
        view_mesh(BOX[:0], FACES[:0])
    with pytest.raises(UserError, match="no pixels"):
        render_mesh(BOX, FACES, FOCAL, CENTER, (0, 5))
    with pytest.raises(UserError, match="10 x 12"):
        render_mesh(BOX, FACES, FOCAL, CENTER, SIZE, background=np.zeros((10, 12, 3), np.uint8))


def test_keypoints_are_coloured_by_side_and_the_unseen_left_out():
    image = np.zeros((40, 60, 3), np.uint8)
    names, bones = ("l_hip", "r_hip", "pelvis", "nose"), [(0, 2), (1, 2), (2, 3)]
    points = np.array([[10, 10, 1], [50, 10, 1], [30, 10, 1], [np.nan, 30, 1]], np.float32)
    drawn = draw_keypoints(image, points, names, bones, opacity=1.0)
    assert not image.any()
    for (x, y, _), colour in zip(points[:3], (LEFT, RIGHT, MIDDLE)):
        np.testing.assert_array_equal(drawn[int(y), int(x)], colour)
    assert not drawn[25:].any()
    points[1, 2] = 0.1
    assert not draw_keypoints(image, points, names, bones)[:, 45:].any()
    with pytest.raises(UserError, match="4 joint names"):
        draw_keypoints(image, points[:3], names, bones)


def test_palette_is_in_range():
    assert all(0 <= x <= 1 for colour in PALETTE.values() for x in colour)
