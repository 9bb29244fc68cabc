"""The nearest rotation and its derivatives, hard cases first."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.geometry.procrustes import (
    orthogonal_procrustes_rotation,
    similarity_align,
    similarity_transform,
)
from tests.conftest import needs_shared

METHODS = ["svd", "fast"]


@functools.cache
def compiled(method):
    return jax.jit(functools.partial(orthogonal_procrustes_rotation, method=method))


def reference(m):
    """(R, sigma) in float64, sigma_3 with the sign of det(m)."""
    u, s, vt = np.linalg.svd(np.asarray(m, np.float64))
    sign = np.sign(np.linalg.det(u @ vt))
    s[..., 2] *= sign
    u[..., :, 2] *= sign[..., None]
    return u @ vt, s


def random_rotation(rng, n):
    q, r = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None]
    return q * np.linalg.det(q)[:, None, None]


def with_values(values, n=200, seed=0):
    """Random matrices of given singular values; a negative product makes reflections."""
    rng = np.random.default_rng(seed)
    return random_rotation(rng, n) @ np.diag(values) @ random_rotation(rng, n)


# Name -> singular values (the sign of the last is that of the determinant).
SPECTRA = {
    "ordinary": (3.0, 2.0, 1.0),
    "reflection": (3.0, 2.0, -1.0),
    "rotation": (1.0, 1.0, 1.0),
    "two_equal": (2.0, 1.0, 1.0),
    "nearly_two_equal": (2.0, 1.0, 1.0 - 1e-6),
    "rank_two": (2.0, 1.0, 0.0),
    "nearly_rank_two": (1.0, 0.9, 1e-7),
    "nearly_rank_one": (1.0, 1e-3, -1e-5),
    "wide_range": (1.0, 1e-2, 1e-4),
}
# The optimum is not unique; only the attained maximum is.
AMBIGUOUS = {
    "reflected_pair": (2.0, 1.0, -1.0),
    "point_reflection": (1.0, 1.0, -1.0),
    "nearly_reflected_pair": (2.0, 1.0, -1.0 + 1e-6),
    "rank_one": (2.0, 0.0, 0.0),
    "almost_nothing_but_one": (1.0, 1e-8, 1e-9),
    "zero": (0.0, 0.0, 0.0),
}


def _is_rotation(r):
    np.testing.assert_allclose(r @ np.swapaxes(r, -1, -2), np.eye(3) + 0 * r, atol=3e-6)
    np.testing.assert_allclose(np.linalg.det(r), 1, atol=3e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*SPECTRA, *AMBIGUOUS])
def test_attains_the_maximum_with_a_rotation(method, name):
    m = with_values((SPECTRA | AMBIGUOUS)[name]).astype(np.float32)
    r = np.asarray(compiled(method)(m), np.float64)
    _is_rotation(r)
    _, values = reference(m)
    np.testing.assert_allclose((r * m).sum((-2, -1)), values.sum(-1), atol=4e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPECTRA)
def test_is_the_rotation_of_the_float64_reference(method, name):
    m = with_values(SPECTRA[name]).astype(np.float32)
    want, values = reference(m)
    separation = (values[:, 1] + values[:, 2]) / values[:, 0]
    tolerance = np.maximum(5e-6, 2e-6 / separation)
    assert (np.abs(compiled(method)(m) - want).max((1, 2)) < tolerance).all()


def test_fast_on_a_large_random_batch_is_as_exact_as_lapack():
    m = jax.random.normal(jax.random.key(0), (20_000, 3, 3))
    want, _ = reference(m)
    error = {k: np.abs(compiled(k)(m) - want).max((1, 2)) for k in METHODS}
    assert np.quantile(error["fast"], 0.999) < 1e-5
    assert error["fast"].max() < 2 * error["svd"].max() + 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_any_scale(scale):
    m = (with_values(SPECTRA["reflection"], 50) * scale).astype(np.float32)
    np.testing.assert_allclose(compiled("fast")(m[:200]), reference(m)[0], atol=1e-5)


def test_axis_aligned_reflections_and_permutations():
    signs = np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T
    swaps = np.eye(3)[[[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]]]
    m = (swaps[:, None] * (signs * [3.0, 2.0, 1.0])[:, None]).reshape(-1, 3, 3)
    np.testing.assert_allclose(compiled("fast")(m.astype(np.float32)), reference(m)[0], atol=1e-6)


def test_zero_gives_identity_and_auto_chooses_by_type():
    zero = jnp.zeros((2, 0, 3, 3)), jnp.zeros((3, 3))
    assert orthogonal_procrustes_rotation(zero[0]).shape == (2, 0, 3, 3)
    for method in METHODS:
        np.testing.assert_array_equal(compiled(method)(zero[1]), np.eye(3))
    assert "svd" not in str(jax.make_jaxpr(orthogonal_procrustes_rotation)(zero[1]))
    with jax.enable_x64(True):
        wide = jnp.zeros((3, 3), jnp.float64)
        assert "svd" in str(jax.make_jaxpr(orthogonal_procrustes_rotation)(wide))


def projection(r):
    """A scalar that looks at every entry of a batch of rotations."""
    return jnp.sum(jnp.sin(jnp.arange(9.0).reshape(3, 3) + 1) * r)


@functools.cache
def gradient(method):
    return jax.jit(jax.grad(lambda m: projection(orthogonal_procrustes_rotation(m, method))))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["ordinary", "reflection", "rotation", "two_equal", "rank_two"])
def test_gradient_is_that_of_finite_differences(method, name):
    with jax.enable_x64(True):
        m = jnp.asarray(with_values(SPECTRA[name], 8))
        step = 1e-5 * np.eye(9).reshape(9, 1, 3, 3)

        def value(m):
            r = reference(m)[0]
            return (np.sin(np.arange(9.0).reshape(3, 3) + 1) * r).sum((-2, -1))

        want = (value(m + step) - value(m - step)) / 2e-5
        got = gradient(method)(m).reshape(8, 9).T
        np.testing.assert_allclose(got, want, atol=1e-8)


def test_gradient_is_that_of_the_decomposition():
    def by_svd(m):
        u, _, vt = jnp.linalg.svd(m)
        sign = jnp.linalg.det(u @ vt)
        return projection((u * jnp.ones(3).at[2].set(sign)) @ vt)

    with jax.enable_x64(True):
        for name in ("ordinary", "reflection"):
            m = jnp.asarray(with_values(SPECTRA[name], 1)[0])
            for method in METHODS:
                np.testing.assert_allclose(
                    gradient(method)(m), jax.grad(by_svd)(m), rtol=1e-12, atol=1e-13
                )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*AMBIGUOUS, "nearly_rank_one", "nearly_two_equal"])
def test_gradient_is_finite_where_the_rotation_is_not_unique(method, name):
    m = with_values((SPECTRA | AMBIGUOUS)[name]).astype(np.float32)
    for matrices in (m, np.diag((SPECTRA | AMBIGUOUS)[name]).astype(np.float32)[None]):
        assert np.isfinite(gradient(method)(matrices)).all()


def test_float32_gradient_is_near_the_float64_one():
    m = with_values(SPECTRA["reflection"], 100).astype(np.float32)
    got = gradient("fast")(m)
    with jax.enable_x64(True):
        want = gradient("svd")(jnp.asarray(m, jnp.float64))
    np.testing.assert_allclose(got, want, atol=3e-5)


def test_second_derivative_is_that_of_finite_differences():
    with jax.enable_x64(True):
        m = jnp.asarray(with_values(SPECTRA["reflection"], 1)[0])
        for method in METHODS:
            hessian = jax.jit(jax.jacfwd(gradient(method)))(m)
            step = 1e-6 * np.eye(9).reshape(9, 3, 3)
            want = [(gradient(method)(m + d) - gradient(method)(m - d)) / 2e-6 for d in step]
            want = np.stack(want, -1).reshape(3, 3, 3, 3)
            np.testing.assert_allclose(hessian, want, atol=1e-7)
            reverse = jax.jit(jax.jacrev(gradient(method)))(m)
            np.testing.assert_allclose(reverse, hessian, atol=1e-12)


def test_vmap_and_forward_mode():
    m = jnp.asarray(with_values(SPECTRA["ordinary"], 6), jnp.float32)
    dm = jnp.asarray(with_values(SPECTRA["ordinary"], 6, seed=1), jnp.float32)
    rotation = compiled("fast")
    np.testing.assert_allclose(jax.vmap(rotation)(m), rotation(m), atol=1e-6)

    @jax.jit
    def tangent(m, dm):
        return jax.jvp(rotation, (m,), (dm,))[1]

    np.testing.assert_allclose(jax.jit(jax.vmap(tangent))(m, dm), tangent(m, dm), atol=1e-5)


transform = jax.jit(similarity_transform, static_argnames="method")


def moved_points(seed=0, batch=4, n=14):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(batch, n, 3))
    rotation = random_rotation(rng, batch)
    scale = rng.uniform(0.5, 2, batch)
    translation = rng.normal(size=(batch, 3))
    target = scale[:, None, None] * source @ rotation.transpose(0, 2, 1) + translation[:, None]
    return [jnp.asarray(a, jnp.float32) for a in (source, target, scale, rotation, translation)]


def test_similarity_transform_finds_what_moved_the_points():
    source, target, *want = moved_points()
    for got, expected in zip(transform(source, target), want):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_points_of_weight_zero_do_not_count():
    source, target, *want = moved_points()
    weights = jnp.ones(source.shape[:-1]).at[:, 3].set(0).at[:, 5].set(0.25)
    spoilt = target.at[:, 3].add(100.0)
    for got, expected in zip(transform(source, spoilt, weights), want):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_weights_minimise_the_weighted_error():
    rng = np.random.default_rng(3)
    source, target = (jnp.asarray(rng.normal(size=(14, 3)), jnp.float32) for _ in range(2))
    weights = jnp.asarray(rng.uniform(0.1, 2, 14), jnp.float32)

    @jax.jit
    def error(scale, turn, translation):
        rotation = jax.scipy.linalg.expm(
            jnp.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
        )
        scale0, rotation0, translation0 = similarity_transform(source, target, weights)
        moved = (scale0 + scale) * source @ (rotation0 @ rotation).T + translation0 + translation
        return jnp.sum(weights * jnp.square(moved - target).sum(-1))

    at_rest = jax.jit(jax.grad(error, argnums=(0, 1, 2)))(jnp.zeros(()), jnp.zeros(3), jnp.zeros(3))
    np.testing.assert_allclose(np.concatenate([np.ravel(g) for g in at_rest]), 0, atol=1e-4)


def test_coinciding_points_and_no_weight_stay_finite():
    points = jnp.ones((2, 5, 3))
    scale, rotation, translation = transform(points, points + 1)
    np.testing.assert_allclose(scale, 1)
    np.testing.assert_allclose(rotation, np.eye(3) + jnp.zeros((2, 3, 3)))
    np.testing.assert_allclose(translation, 1)

    @jax.jit
    @jax.grad
    def gradient(source, weights):
        return jnp.sum(jnp.square(similarity_align(source, 2 * points, weights)))

    for weights in (jnp.zeros((2, 5)), jnp.ones((2, 5))):
        assert np.isfinite(gradient(points, weights)).all()


@needs_shared
def test_golden_alignment(shared_dir):
    golden = np.load(shared_dir / "golden/meta_hmr/geom_alignment.npz")
    for method in METHODS:
        align = jax.jit(functools.partial(similarity_align, method=method))
        got = align(golden["in_pred"], golden["in_gt"])
        np.testing.assert_allclose(got, golden["out_aligned"], atol=1e-5)
