"""The nearest orthogonal matrix, reflections allowed, against LAPACK."""

import jax
import numpy as np
import pytest

from jaxrecon.geometry.procrustes import nearest_orthogonal


@pytest.mark.parametrize("dtype", [np.float32])
def test_against_lapack(dtype):
    m = np.random.default_rng(0).normal(size=(64, 3, 3)).astype(dtype)
    u, values, vt = np.linalg.svd(m)
    found, singular = jax.jit(nearest_orthogonal)(m)
    np.testing.assert_allclose(found, u @ vt, atol=2e-5)
    np.testing.assert_allclose(singular, values, atol=2e-5)
    signs = np.linalg.det(np.asarray(found))
    assert (signs > 0.9).any() and (signs < -0.9).any()


def test_it_is_a_constant_also_where_it_is_not_unique():
    m = np.zeros((3, 3), np.float32)
    m[0, 0] = 1
    found, _ = nearest_orthogonal(m)
    np.testing.assert_allclose(np.asarray(found) @ np.asarray(found).T, np.eye(3), atol=1e-6)
    grad = jax.grad(lambda x: nearest_orthogonal(x)[0].sum())(m)
    np.testing.assert_array_equal(grad, 0)
