"""Test-time optimisation with ResNet-50: against a PyTorch loop, and image by image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks.convert import variables_to_state_dict
from jaxrecon.systems.meta_hmr import AdaptSettings, MetaHMR
from tests.benchmarks.pairs import race
from tests.systems.test_meta_hmr import make_batch

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

IMAGES, STEPS = 20, 14


@pytest.fixture(scope="module")
def setting():
    """(system, variables, batch): the published networks with random weights."""
    system = MetaHMR(test_time=AdaptSettings(), mean_pose=False)
    batch = make_batch(IMAGES, size=system.image_size)
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    return system, variables, jax.tree.map(jnp.asarray, batch)


@functools.cache
def compiled(system, steps):
    """Variables and batch to the final (rotmats, betas, cam)."""

    @jax.jit
    def run(variables, batch):
        last = jax.tree.map(lambda x: x[-1], system.adapt(variables, batch, steps).history)
        return last.rotmats, last.betas, last.cam

    return run


def joint_regressor(body):
    """A (24, V) matrix that gives the body's joints for every shape: least squares."""
    shapes = np.concatenate([np.asarray(body.v_template)[..., None], body.shapedirs], -1)
    joints = np.concatenate([np.asarray(body.J_template)[..., None], body.J_shapedirs], -1)
    basis = shapes.reshape(len(shapes), -1).astype(np.float64)
    return joints.reshape(len(joints), -1) @ np.linalg.pinv(basis)


@pytest.fixture(scope="module")
def in_torch(setting):
    """A number of steps to the same result by PyTorch."""
    from tests.benchmarks.torch_hmr import Body, Regressor, test_time_optimise

    system, variables, batch = setting
    networks = []
    for name, iterations in (("main", system.main_iterations), ("aux", system.aux_iterations)):
        ours = {c: variables[c][name] for c in ("params", "batch_stats")}
        network = Regressor(iterations)
        state = {k: torch.tensor(v) for k, v in variables_to_state_dict(ours).items()}
        network.load_state_dict(state)
        networks.append(network)
    neutral = variables["constants"]["neutral"]
    body = Body(neutral, joint_regressor(neutral))
    on_cpu = {k: torch.tensor(np.asarray(v)) for k, v in batch.items() if k != "image"}
    pixels = torch.tensor(np.asarray(batch["image"])).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(x)[:, None, None] for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    on_cpu["image"] = (pixels - mean) / std

    def run(count, steps):
        part = {k: v[:count] for k, v in on_cpu.items()}
        return test_time_optimise(*networks, body, part, system.test_time, system.weights, steps)

    return run


def test_results_agree(benchmark, setting, in_torch):
    """Two images, a dual step and two steps of Adam: the same body."""
    system, variables, batch = setting
    part = {k: v[:2] for k, v in batch.items()}
    got = benchmark.pedantic(compiled(system, 2), (variables, part), rounds=1)
    for ours, theirs in zip(got, in_torch(2, 2), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-3)


def test_batch_against_torch(benchmark, setting, in_torch):
    system, variables, batch = setting
    race(
        benchmark,
        lambda: compiled(system, STEPS)(variables, batch),
        lambda: in_torch(IMAGES, STEPS),
        what=f"{STEPS} steps of test-time optimisation, {IMAGES} images, ResNet-50, 256x192",
        against=f"straightforward loop in PyTorch {torch.__version__}",
        rounds=1,
        at_most=1.0,
    )


def test_images_alone_against_one_batch(benchmark, setting):
    """Every image adapts 25 million weights of its own, all at once."""
    system, variables, batch = setting
    alone = dataclasses.replace(
        system, test_time=dataclasses.replace(system.test_time, per_image=True)
    )
    race(
        benchmark,
        lambda: compiled(alone, STEPS)(variables, batch),
        lambda: compiled(system, STEPS)(variables, batch),
        what=f"{STEPS} steps of test-time optimisation, {IMAGES} images, each with its own weights",
        against="one set of weights for all",
        rounds=1,
        at_most=1.5,
    )
