"""Exact second-order meta-gradients, against first-order ones and against grad-of-grad."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxrecon.networks.resnet import Bottleneck
from jaxrecon.optimization.meta import sgd_step
from jaxrecon.systems.meta_hmr import MetaHMR
from tests.benchmarks.pairs import race
from tests.systems.test_meta_hmr import make_batch

BATCH = 8


@pytest.fixture(scope="module")
def training():
    """Function from changed settings of Meta-HMR with ResNet-50 to its outer gradient."""
    system = MetaHMR(inner_steps=1, order="second")
    batch = jax.tree.map(jnp.asarray, make_batch(BATCH, size=system.image_size))
    variables = jax.jit(system.init)(jax.random.key(0), batch)

    @functools.cache
    def gradient(**changes):
        changed = dataclasses.replace(system, **changes)

        def loss(params):
            return changed.loss(
                {**variables, "params": params}, batch, jax.random.key(1), train=True
            )

        compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(variables["params"])
        return functools.partial(compiled.compile(), variables["params"])

    return gradient


def test_second_order_step_against_plain_gradient(benchmark, training):
    race(
        benchmark,
        training(order="second"),
        training(inner_steps=0),
        what=f"Meta-HMR second-order training gradient, two ResNet-50, batch {BATCH}, 256x192",
        against="ordinary gradient of its main network (ResNet-50)",
        rounds=3,
        at_most=4.0,
    )


def test_second_order_step_against_first_order_step(benchmark, training):
    race(
        benchmark,
        training(order="second"),
        training(order="first"),
        what=f"Meta-HMR second-order training gradient, two ResNet-50, batch {BATCH}, 256x192",
        against="its first-order training gradient",
        rounds=3,
        at_most=3.5,
    )


class _Block(nn.Module):
    """A bottleneck of ResNet-50's second layer with a linear head."""

    @nn.compact
    def __call__(self, x):
        y = Bottleneck(norm={"use_running_average": False}, features=128, stride=1)(x)
        return nn.Dense(10)(y.mean((1, 2)))


@pytest.fixture(scope="module")
def block():
    """Function from an order (or None: no inner step) to the outer gradient of a block."""
    keys = jax.random.split(jax.random.key(0), 4)
    network = _Block()
    support, query = (jax.random.normal(k, (BATCH, 28, 28, 512)) for k in keys[:2])
    labels = jnp.arange(BATCH) % 10
    variables = network.init(keys[2], support)

    def loss(params, x):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, _ = network.apply(given, x, mutable=["batch_stats"])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -picked.mean()

    @functools.cache
    def gradient(order):
        def outer(params):
            if order is not None:
                params, _ = sgd_step(loss, params, support, lr=0.1, order=order)
            return loss(params, query)

        return functools.partial(jax.jit(jax.grad(outer)), variables["params"])

    return gradient


def test_all_weights_of_a_block_second_order_against_first(benchmark, block):
    race(
        benchmark,
        block("second_fast"),
        block("first"),
        what=f"second-order gradient, all weights of a ResNet block adapted, batch {BATCH}",
        against="first-order one",
        rounds=5,
    )


def test_all_weights_of_a_block_against_grad_of_grad(benchmark, block):
    fast, plain = block("second_fast")(), block("second")()
    gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), fast, plain)
    benchmark.extra_info["largest relative difference"] = float(max(jax.tree.leaves(gaps)))
    race(
        benchmark,
        block("second_fast"),
        block("second"),
        what=f"second-order gradient, all weights of a ResNet block adapted, batch {BATCH}",
        against="jax.grad of jax.grad",
        rounds=5,
    )
    assert benchmark.extra_info["largest relative difference"] < 1e-4
