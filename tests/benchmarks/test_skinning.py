"""Skinned bodies, against a straightforward PyTorch layer on the same body."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.bodies import body_forward, load_body
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from tests.benchmarks.pairs import race

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BODIES = 64


@pytest.fixture(scope="module")
def layers():
    """(ours, PyTorch's), each from the same betas and rotations to vertices, and the inputs."""
    from tests.benchmarks.torch_skinning import SkinnedBody

    body = load_body()
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(BODIES, 10)).astype(np.float32)
    turns = rng.normal(0, 0.3, (BODIES, len(body.parents), 3)).astype(np.float32)
    rotmats = np.array(axis_angle_to_matrix(turns))

    # Any regressor with the body's joints at rest does the same work: least squares over vertices.
    template = np.asarray(body.v_template, np.float64)
    basis = np.concatenate([template.T, np.ones((1, len(template)))])
    target = np.concatenate([np.asarray(body.J_template).T, np.ones((1, len(body.parents)))])
    regressor = (np.linalg.pinv(basis) @ target).T
    theirs = SkinnedBody(
        body.v_template, body.shapedirs, body.posedirs, regressor, body.weights, body.parents
    )

    skin = jax.jit(lambda body, betas, rotmats: body_forward(body, betas, rotmats).vertices)

    def ours(betas, rotmats):
        return skin(body, betas, rotmats)

    return ours, theirs, betas, rotmats


def test_layers_agree(benchmark, layers):
    """Both bodies are the same where the regressors agree: at rest shape, in any pose."""
    ours, theirs, betas, rotmats = layers
    flat = np.zeros_like(betas)
    got = benchmark.pedantic(ours, (flat, rotmats), rounds=1)
    want = theirs(torch.from_numpy(flat), torch.from_numpy(rotmats))
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_forward(benchmark, layers):
    ours, theirs, betas, rotmats = layers
    inputs = torch.from_numpy(betas), torch.from_numpy(rotmats)

    def torch_forward():
        with torch.no_grad():
            theirs(*inputs)

    race(
        benchmark,
        functools.partial(ours, jnp.asarray(betas), jnp.asarray(rotmats)),
        torch_forward,
        what=f"skinning {BODIES} bodies",
        against=f"straightforward layer in PyTorch {torch.__version__}",
        rounds=9,
        at_least_faster=2,
    )


def test_gradient(benchmark, layers):
    ours, theirs, betas, rotmats = layers

    def loss(betas, rotmats):
        return jnp.sum(jnp.square(ours(betas, rotmats)))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    inputs = torch.from_numpy(betas), torch.from_numpy(rotmats)

    def torch_gradient():
        leaves = [x.clone().requires_grad_() for x in inputs]
        torch.autograd.grad(theirs(*leaves).square().sum(), leaves)

    race(
        benchmark,
        functools.partial(gradient, jnp.asarray(betas), jnp.asarray(rotmats)),
        torch_gradient,
        what=f"skinning {BODIES} bodies, with gradients in shape and pose",
        against=f"straightforward layer in PyTorch {torch.__version__}",
        rounds=9,
    )
