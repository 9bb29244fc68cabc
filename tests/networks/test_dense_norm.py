"""The hand-written derivative against autodiff's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks.dense_norm import dense_norm_relu

EPSILON = 1e-5


def plain(x, kernel, offset, scale, bias, skip):
    y = x @ kernel + offset
    mean, var = y.mean(0), jnp.square(y - y.mean(0)).mean(0)
    out = (y - mean) / jnp.sqrt(var + EPSILON) * scale + bias
    return jax.nn.relu(out if skip is None else out + skip), mean, var


@pytest.mark.parametrize("skipped", [False, True])
def test_values_and_gradients_are_those_of_the_plain_layer(skipped):
    keys = jax.random.split(jax.random.key(0), 7)
    x, kernel = jax.random.normal(keys[0], (9, 5)) + 2, jax.random.normal(keys[1], (5, 4))
    scale, bias = jax.random.uniform(keys[2], (4,)), jax.random.normal(keys[3], (4,))
    skip = jax.random.normal(keys[4], (9, 4)) if skipped else None
    offset = jax.random.normal(keys[6], (4,))
    cotangent = jax.random.normal(keys[5], (9, 4))

    def run(layer):
        def value(*inputs):
            out, *statistics = layer(*inputs)
            return out, statistics

        out, back, statistics = jax.vjp(value, x, kernel, offset, scale, bias, skip, has_aux=True)
        return out, statistics, back(cotangent)

    got = run(lambda *inputs: dense_norm_relu(*inputs, EPSILON))
    want = run(plain)
    assert 0 < np.mean(np.asarray(got[0]) == 0) < 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want)
