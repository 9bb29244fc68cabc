"""The rasteriser against a direct reading of its definition, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.rendering.rasterize import (
    count_fragments,
    interpolate,
    rasterize,
    rasterize_host,
)

SIZE = (20, 24)


def _scene(seed=0, triangles=12):
    rng = np.random.default_rng(seed)
    vertices = np.concatenate(
        [rng.uniform(-4, 28, (3 * triangles, 2)), rng.uniform(1, 5, (3 * triangles, 1))], 1
    ).astype(np.float32)
    return vertices, np.arange(3 * triangles, dtype=np.int32).reshape(-1, 3)


def _reference(vertices, faces, size):
    """Every triangle at every pixel centre, in float64."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    depth = np.full(size, np.inf)
    face_id = np.full(size, -1)
    barycentric = np.zeros((*size, 3))
    for index, face in enumerate(faces):
        corners = vertices[face].astype(np.float64)
        system = np.vstack([corners[:, :2].T, np.ones(3)])
        weights = np.linalg.solve(system, np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).T
        weights = weights.reshape(*size, 3)
        inverse = (weights / corners[:, 2]).sum(-1)
        wins = (weights >= 0).all(-1) & (1 / inverse < depth)
        depth[wins] = 1 / inverse[wins]
        face_id[wins] = index
        barycentric[wins] = (weights / corners[:, 2] / inverse[..., None])[wins]
    return face_id, barycentric, depth


def test_matches_the_definition():
    vertices, faces = _scene()
    fragments = rasterize_host(vertices, faces, SIZE)
    face_id, barycentric, depth = _reference(vertices, faces, SIZE)
    assert 0.3 < (face_id >= 0).mean() < 1
    np.testing.assert_array_equal(fragments.face_id, face_id)
    np.testing.assert_allclose(fragments.barycentric, barycentric, atol=2e-5)
    np.testing.assert_allclose(fragments.depth, depth, rtol=2e-5)
    assert fragments.overflow == 0


def test_batches_under_vmap():
    scenes = [_scene(seed)[0] for seed in range(3)]
    faces = jnp.asarray(_scene()[1])
    batched = jax.vmap(lambda v: rasterize(v, faces, SIZE, 1 << 13))(jnp.asarray(scenes))
    for index, vertices in enumerate(scenes):
        np.testing.assert_array_equal(
            batched.face_id[index], rasterize(jnp.asarray(vertices), faces, SIZE, 1 << 13).face_id
        )


def test_no_cracks_between_neighbours():
    # A jittered grid that covers the image: every pixel must see it.
    rng = np.random.default_rng(1)
    columns = rows = 41
    y, x = np.mgrid[:rows, :columns]
    inner = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1)
    jitter = rng.uniform(-0.3, 0.3, (2, rows, columns)) * inner
    vertices = np.stack([(x + jitter[0]) * 2.0, (y + jitter[1]) * 2.0, np.full(x.shape, 2.0)], -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    fragments = rasterize_host(vertices.reshape(-1, 3).astype(np.float32), faces, (80, 80))
    assert fragments.mask.all()
    np.testing.assert_allclose(fragments.depth, 2.0, rtol=1e-5)


def test_integer_corners_on_pixel_edges_belong_to_one_face():
    # Two triangles make the square [2, 6] x [3, 8]: 4 x 5 pixel centres.
    vertices = np.array([[2, 3, 1], [6, 3, 1], [2, 8, 1], [6, 8, 1]], np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    mask = rasterize_host(vertices, faces, (12, 12)).mask
    expected = np.zeros((12, 12), bool)
    expected[3:8, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_behind_the_camera_and_degenerate_are_left_out():
    vertices = np.array(
        [[2, 2, 1], [18, 2, 1], [2, 18, -1], [5, 5, 1], [9, 9, 1], [7, 7, 1]], np.float32
    )
    fragments = rasterize_host(vertices, np.array([[0, 1, 2], [3, 4, 5]], np.int32), SIZE)
    assert not fragments.mask.any()
    assert np.isinf(fragments.depth).all() and (fragments.barycentric == 0).all()


def test_corners_far_outside_are_clipped():
    vertices = np.array([[-1e9, -1e9, 2], [1e9, -1e9, 2], [0, 1e9, 2]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    assert count_fragments(vertices, faces, SIZE) == SIZE[0] * SIZE[1]
    assert rasterize_host(vertices, faces, SIZE).mask.all()


def test_backface_culling_keeps_what_faces_the_camera():
    # Camera frame y down, z forward: outward normal towards the camera has negative z.
    front = np.array([[2, 2, 1], [2, 18, 1], [18, 2, 1]], np.float32)
    normal = np.cross(front[1] - front[0], front[2] - front[0])
    assert normal[2] < 0
    face = np.array([[0, 1, 2]], np.int32)
    assert rasterize_host(front, face, SIZE, cull_backfaces=True).mask.any()
    assert not rasterize_host(front, face[:, ::-1], SIZE, cull_backfaces=True).mask.any()
    assert rasterize_host(front, face[:, ::-1], SIZE).mask.any()


def test_overflow_is_told():
    vertices, faces = _scene()
    needed = count_fragments(vertices, faces, SIZE)
    got = rasterize(jnp.asarray(vertices), jnp.asarray(faces), SIZE, max_fragments=256)
    assert needed > 256
    assert int(got.overflow) == needed - 256


def test_nearest_surface_wins_by_a_hair():
    vertices = np.array([[0, 0, 2], [60, 0, 2], [0, 60, 2]] * 2, np.float32)
    vertices[3:, 2] -= 1e-5
    fragments = rasterize_host(vertices, np.arange(6, dtype=np.int32).reshape(2, 3), SIZE)
    assert (fragments.face_id == 1).all()


def test_gradients_match_finite_differences():
    vertices, faces = _scene(seed=3, triangles=6)
    faces = jnp.asarray(faces)
    rng = np.random.default_rng(2)
    attributes = jnp.asarray(rng.normal(size=(len(vertices), 2)).astype(np.float32))
    target = jnp.asarray(rng.normal(size=(*SIZE, 2)).astype(np.float32))
    v = jnp.asarray(vertices)
    step = 1e-2
    rng = np.random.default_rng(4)
    moves = [jnp.asarray(rng.normal(size=(len(v), 3)) * 0.1, jnp.float32) for _ in range(4)]

    # Pixels whose face changes under some step are no part of the derivative.
    seen = [
        rasterize(v + s * step * d, faces, SIZE, 1 << 13).face_id for d in moves for s in (1, -1)
    ]
    stable = (jnp.stack(seen) == seen[0]).all(0) & (seen[0] >= 0)
    assert stable.sum() > 100

    @jax.jit
    def loss(v, a):
        fragments = rasterize(v, faces, SIZE, 1 << 13)
        depth = jnp.where(stable, fragments.depth, 0.0)
        image = jnp.where(stable[..., None], interpolate(fragments, faces, a) - target, 0.0)
        return (image**2).mean() + 0.1 * (depth**2).mean()

    by_vertices, by_attributes = jax.grad(loss, argnums=(0, 1))(v, attributes)
    assert np.isfinite(by_vertices).all() and np.abs(by_vertices).max() > 1e-3
    for dv in moves:
        da = jnp.asarray(rng.normal(size=attributes.shape), jnp.float32)
        numeric = (
            loss(v + step * dv, attributes + step * da)
            - loss(v - step * dv, attributes - step * da)
        ) / (2 * step)
        analytic = (by_vertices * dv).sum() + (by_attributes * da).sum()
        np.testing.assert_allclose(numeric, analytic, rtol=2e-2, atol=2e-4)


def test_bad_meshes_say_what_is_wrong():
    vertices, faces = _scene()
    with pytest.raises(UserError, match="vertex 4 is not finite"):
        rasterize_host(np.where(np.arange(36)[:, None] == 4, np.nan, vertices), faces, SIZE)
    with pytest.raises(UserError, match="36 vertices"):
        rasterize_host(vertices, faces + 1, SIZE)
