"""Soft silhouettes: the mask against distances to a known outline, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.rendering.rasterize import rasterize
from jaxrecon.rendering.silhouette import edge_topology, soft_silhouette

SIZE = (40, 48)
SQUARE = np.array([[12, 10, 2], [36, 10, 2], [12, 30, 2], [36, 30, 2]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2]], np.int32)


def _ball(levels=9):
    """A sphere of pixels around (24, 20) with radius 11, as a mesh of long and short edges."""
    theta, phi = np.linspace(0, np.pi, levels), np.linspace(0, 2 * np.pi, 2 * levels)[:-1]
    t, p = np.meshgrid(theta, phi, indexing="ij")
    unit = np.stack([np.sin(t) * np.cos(p), np.cos(t), np.sin(t) * np.sin(p)], -1)
    columns = len(phi)
    i = np.arange(levels - 1)[:, None] * columns + np.arange(columns)
    j = np.arange(levels - 1)[:, None] * columns + (np.arange(columns) + 1) % columns
    quads = [(i, j, i + columns), (j, j + columns, i + columns)]
    faces = np.concatenate([np.stack(q, -1).reshape(-1, 3) for q in quads])
    vertices = unit.reshape(-1, 3) * [11, 11, 0.1] + [24, 20, 3]
    return vertices.astype(np.float32), faces.astype(np.int32)


def test_every_edge_once_with_both_sides():
    topology = edge_topology(FACES)
    pairs = {tuple(e): set(o) for e, o in zip(topology.edges.tolist(), topology.opposite.tolist())}
    assert pairs == {(0, 1): {2}, (0, 2): {1}, (1, 2): {0, 3}, (1, 3): {2}, (2, 3): {1}}


def test_mask_is_the_sigmoid_of_the_signed_distance():
    mask, overflow = soft_silhouette(
        jnp.asarray(SQUARE), jnp.asarray(FACES), edge_topology(FACES), SIZE, sigma=1.5, radius=6
    )
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    dx, dy = np.maximum(12 - x, x - 36), np.maximum(10 - y, y - 30)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    signed = np.where(outside > 0, -outside, -np.maximum(dx, dy))
    expected = 1 / (1 + np.exp(-np.clip(signed, -6, 6) / 1.5))
    assert not overflow
    np.testing.assert_allclose(mask, expected, atol=1e-3)


def test_gradients_match_finite_differences():
    topology = edge_topology(FACES)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=SIZE), jnp.float32)

    @jax.jit
    def loss(vertices):
        return (soft_silhouette(vertices, jnp.asarray(FACES), topology, SIZE)[0] * weights).sum()

    start = jnp.asarray(SQUARE) + jnp.asarray([0.2, 0.3, 0.0])  # away from pixel borders
    gradient = jax.grad(loss)(start)
    rng = np.random.default_rng(1)
    for _ in range(3):
        move = jnp.asarray(rng.normal(size=SQUARE.shape) * [1, 1, 0], jnp.float32)
        numeric = (loss(start + 0.01 * move) - loss(start - 0.01 * move)) / 0.02
        np.testing.assert_allclose(numeric, (gradient * move).sum(), rtol=0.05, atol=0.05)


def test_fits_a_moved_and_scaled_ball_by_gradient_descent():
    vertices, faces = _ball()
    topology = edge_topology(faces)
    faces = jnp.asarray(faces)
    middle = jnp.asarray([24.0, 20.0, 3.0])
    target = rasterize(jnp.asarray(vertices), faces, SIZE, 1 << 14).mask.astype(jnp.float32)

    def place(parameters):
        scaled = (jnp.asarray(vertices) - middle) * jnp.asarray([1.0, 1.0, 0.0]) * parameters[2]
        return scaled + middle + jnp.asarray([1.0, 1.0, 0.0]) * (10.0 * parameters[:3]).at[2].set(0)

    @jax.jit
    def step(parameters):
        def loss(p):
            mask, overflow = soft_silhouette(place(p), faces, topology, SIZE, 1.0, 4, 1 << 14, 256)
            return ((mask - target) ** 2).mean(), overflow

        (value, overflow), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        return parameters - 0.2 * gradient, value, overflow

    parameters = jnp.asarray([0.35, -0.3, 0.8])
    for _ in range(60):
        parameters, value, overflow = step(parameters)
        assert not overflow
    np.testing.assert_allclose(parameters, [0.0, 0.0, 1.0], atol=0.03)


def test_full_budgets_are_told():
    arguments = (jnp.asarray(SQUARE), jnp.asarray(FACES), edge_topology(FACES), SIZE)
    assert soft_silhouette(*arguments, max_edges=2)[1]
    assert soft_silhouette(*arguments, max_requests=64)[1]
