"""Nearest rotations, against singular value decompositions."""

import functools

import jax
import numpy as np
import pytest

from jaxrecon.geometry.procrustes import orthogonal_procrustes_rotation
from tests.benchmarks.pairs import race

COUNT = 65_536
WHAT = f"nearest rotations of {COUNT:,} matrices"


@pytest.fixture(scope="module")
def matrices():
    return jax.random.normal(jax.random.key(0), (COUNT, 3, 3))


@pytest.fixture(scope="module")
def rotations(matrices):
    return functools.partial(jax.jit(orthogonal_procrustes_rotation), matrices)


def test_against_jnp_svd(benchmark, matrices, rotations):
    race(
        benchmark,
        rotations,
        functools.partial(jax.jit(jax.numpy.linalg.svd), matrices),
        what=WHAT,
        against="jnp.linalg.svd of them",
        rounds=7,
        at_least_faster=3,
    )


def test_against_torch_svd(benchmark, matrices, rotations):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    same = torch.from_numpy(np.array(matrices))
    race(
        benchmark,
        rotations,
        lambda: torch.linalg.svd(same) and None,
        what=WHAT,
        against="torch.linalg.svd of them",
        rounds=7,
        at_least_faster=3,
    )


def test_gradient_against_gradient_through_svd(benchmark, matrices):
    def by_svd(m):
        u, _, vt = jax.numpy.linalg.svd(m)
        sign = jax.numpy.linalg.det(u @ vt)
        return u @ (vt * jax.numpy.ones((*m.shape[:-2], 3, 1)).at[..., 2, 0].set(sign))

    def gradient(rotate):
        def loss(m):
            return jax.numpy.sum(jax.numpy.sin(rotate(m)))

        return functools.partial(jax.jit(jax.grad(loss)), matrices)

    race(
        benchmark,
        gradient(orthogonal_procrustes_rotation),
        gradient(by_svd),
        what=f"gradient through {WHAT}",
        against="gradient through jnp.linalg.svd",
        rounds=5,
    )
