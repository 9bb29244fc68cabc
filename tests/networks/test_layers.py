"""Layers against PyTorch's own, and against themselves in every order of derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks import layers
from jaxrecon.networks.convolution import conv2d

# (height, width, in, out, kernel side, stride, padding): each kind that ResNet and HRNet have;
# with 16 channels and more the weight gradient unfolds rows instead of whole windows.
CONVOLUTIONS = [
    (9, 7, 3, 4, 7, 2, 3),
    (8, 6, 4, 5, 1, 1, 0),
    (8, 7, 4, 5, 1, 2, 0),
    (8, 6, 16, 5, 3, 1, 1),
    (8, 7, 16, 5, 3, 2, 1),
    (9, 6, 16, 5, 3, 2, 1),
    (6, 6, 2, 3, 2, 1, 0),
]


def operands(case, batch=2, seed=0):
    height, width, cin, cout, side, stride, padding = case
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (batch, height, width, cin))
    kernel = jax.random.normal(keys[1], (side, side, cin, cout))
    out = jax.eval_shape(lambda a, k: conv2d(a, k, stride, padding, "lax"), x, kernel)
    return x, kernel, jax.random.normal(keys[2], out.shape), stride, padding


def _close(got, want, tolerance=2e-5):
    scale = float(jnp.abs(want).max()) + 1e-6
    np.testing.assert_allclose(np.asarray(got) / scale, np.asarray(want) / scale, atol=tolerance)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_both_gradients_agree_with_lax(case):
    x, kernel, cotangent, stride, padding = operands(case)

    @jax.jit
    def run(x, kernel):
        outcomes = []
        for implementation in ("lax", "auto", "matmul"):

            def value(x, kernel, implementation=implementation):
                return conv2d(x, kernel, stride, padding, implementation)

            y, back = jax.vjp(value, x, kernel)
            outcomes.append((y, *back(cotangent)))
        return outcomes

    wanted, *others = run(x, kernel)
    for other in others:
        for got, want in zip(other, wanted):
            _close(got, want)


@pytest.mark.parametrize("case", CONVOLUTIONS[1:5], ids=str)
def test_second_derivatives_agree_with_lax(case):
    x, kernel, cotangent, stride, padding = operands(case)

    def outer(x, kernel, implementation):
        def inner(x, kernel):
            y = conv2d(x, kernel, stride, padding, implementation)
            return jnp.sum(jnp.sin(y) * cotangent)

        gx, gk = jax.grad(inner, argnums=(0, 1))(x, kernel)
        return jnp.sum(jnp.cos(gx)) + jnp.sum(gk * jnp.sin(gk))

    @jax.jit
    def gradients(x, kernel):
        return [jax.grad(outer, argnums=(0, 1))(x, kernel, name) for name in ("auto", "lax")]

    for got, want in zip(*gradients(x, kernel)):
        _close(got, want, 1e-4)


def test_forward_mode_agrees_with_lax():
    x, kernel, _, stride, padding = operands(CONVOLUTIONS[4])
    dx, dk, *_ = operands(CONVOLUTIONS[4], seed=1)

    @functools.partial(jax.jit, static_argnums=0)
    def tangent(implementation):
        def value(a, k):
            return conv2d(a, k, stride, padding, implementation)

        return jax.jvp(value, (x, kernel), (dx, dk))[1]

    _close(tangent("auto"), tangent("lax"))


@pytest.mark.parametrize("case", CONVOLUTIONS[2:5], ids=str)
def test_every_operator_has_a_batched_and_an_unbatched_form(case):
    """`vmap` over images, over kernels and over both, of all three operators."""
    x, kernel, cotangent, stride, padding = operands(case)
    xs, kernels, cotangents = (jnp.stack([a, 2 - a]) for a in (x, kernel, cotangent))

    def all_three(x, kernel, cotangent):
        y, back = jax.vjp(lambda a, k: conv2d(a, k, stride, padding), x, kernel)
        return y, *back(cotangent)

    @jax.jit
    def both_ways():
        outcomes = []
        for axes in ((0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)):
            batched = jax.vmap(all_three, axes)
            chosen = [
                many if axis == 0 else many[0]
                for many, axis in zip((xs, kernels, cotangents), axes)
            ]
            single = [
                all_three(*(a[i] if axis == 0 else a for a, axis in zip(chosen, axes)))
                for i in range(2)
            ]
            outcomes.append((batched(*chosen), jax.tree.map(lambda *a: jnp.stack(a), *single)))
        return outcomes

    for got, want in both_ways():
        jax.tree.map(_close, got, want)


def test_accelerators_get_plain_convolutions_and_cpus_the_quick_products():
    x, kernel, cotangent, stride, padding = operands(CONVOLUTIONS[3])

    def gradients(x, kernel):
        return jax.vjp(lambda a, k: conv2d(a, k, stride, padding), x, kernel)[1](cotangent)

    traced = jax.jit(gradients).trace(x, kernel)
    programs = {
        name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu")
    }
    assert programs["cuda"].count("stablehlo.convolution") == 2
    assert "stablehlo.dot_general" not in programs["cuda"]
    assert programs["cpu"].count("stablehlo.convolution") == 1
    assert programs["cpu"].count("stablehlo.dot_general") == 1


def test_convolution_inside_pmap_and_shard_map():
    x, kernel, cotangent, stride, padding = operands(CONVOLUTIONS[4])

    def gradients(x, kernel):
        def loss(x, kernel):
            return jnp.sum(conv2d(x, kernel, stride, padding) * cotangent)

        return jax.grad(loss, argnums=(0, 1))(x, kernel)

    want = gradients(x, kernel)
    got = jax.pmap(gradients, axis_name="devices", in_axes=(0, None))(x[None], kernel)
    jax.tree.map(lambda a, b: _close(a[0], b), got, want)
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("devices")
    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(spec, spec), out_specs=(spec, spec))
    jax.tree.map(_close, jax.jit(mapped)(x, kernel), want)


def test_half_precision_meets_single_precision():
    x, kernel, _, stride, padding = operands(CONVOLUTIONS[3])
    mixed = conv2d(x.astype(jnp.bfloat16), kernel, stride, padding)
    assert mixed.dtype == jnp.float32
    half = conv2d(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stride, padding)
    assert half.dtype == jnp.bfloat16
    _close(half.astype(jnp.float32), conv2d(x, kernel, stride, padding), 0.03)


@pytest.mark.parametrize("case", CONVOLUTIONS[2:4], ids=str)
def test_a_kernel_for_each_sample(case):
    x, _, _, stride, padding = operands(case, batch=3)
    kernels = jnp.stack([operands(case, seed=s)[1] for s in range(3)])

    def one(image, kernel):
        return conv2d(image[None], kernel, stride, padding)[0]

    def loss(kernels):
        return jnp.sum(jnp.sin(jax.vmap(one)(x, kernels)))

    def loop(kernels):
        return sum(jnp.sum(jnp.sin(one(a, k))) for a, k in zip(x, kernels))

    _close(jax.jit(jax.grad(loss))(kernels), jax.jit(jax.grad(loop))(kernels))
    assert "feature_group_count=3" not in str(jax.make_jaxpr(jax.grad(loss))(kernels))


def test_convolution_module_has_the_named_parameters():
    module = layers.Conv(5, 3, strides=2, padding=1, use_bias=True)
    x = jnp.ones((1, 8, 8, 4))
    params = module.init(jax.random.key(0), x)["params"]
    assert params["kernel"].shape == (3, 3, 4, 5)
    assert params["bias"].shape == (5,)
    shifted = {**params, "bias": jnp.full(5, 2.0)}
    _close(module.apply({"params": shifted}, x) - module.apply({"params": params}, x), 2.0)


def test_default_initialisation_has_the_spread_of_fan_out():
    kernel = layers.Conv(64, 3).init(jax.random.key(0), jnp.ones((1, 4, 4, 128)))["params"]
    np.testing.assert_allclose(kernel["kernel"].std(), np.sqrt(2 / (9 * 64)), rtol=0.02)


def batch_norm(updates=1, axis_name=None):
    return layers.BatchNorm(False, axis_name=axis_name, updates=updates)


def normalised(x, updates=1, steps=1, axis_name=None):
    """(output, gradient of a test loss in x, running statistics) after `steps` calls."""
    module = batch_norm(updates, axis_name)
    params = {"scale": jnp.linspace(0.5, 2.0, x.shape[-1]), "bias": jnp.arange(x.shape[-1]) * 0.1}
    stats = {"mean": jnp.full(x.shape[-1], 0.3), "var": jnp.full(x.shape[-1], 1.7)}

    @jax.jit
    def run(x, params, stats):
        y, new = module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return y, new["batch_stats"]

    for _ in range(steps):
        y, stats = run(x, params, stats)
    grads = jax.grad(lambda x, p: jnp.sum(jnp.sin(run(x, p, stats)[0])), argnums=(0, 1))
    return y, jax.jit(grads)(x, params), stats


def test_batch_norm_is_pytorchs():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 6)) * 3 + 1
    y, (gx, gparams), stats = normalised(x)

    module = torch.nn.BatchNorm2d(6)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 2.0, 6))
        module.bias.copy_(torch.arange(6) * 0.1)
        module.running_mean.fill_(0.3)
        module.running_var.fill_(1.7)
    tx = torch.tensor(np.array(x).transpose(0, 3, 1, 2), requires_grad=True)
    ty = module(tx)
    ty.sin().sum().backward()
    _close(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    _close(gx, tx.grad.numpy().transpose(0, 2, 3, 1))
    _close(gparams["scale"], module.weight.grad.numpy())
    _close(gparams["bias"], module.bias.grad.numpy())
    _close(stats["mean"], module.running_mean.numpy(), 1e-6)
    _close(stats["var"], module.running_var.numpy(), 1e-6)


def test_batch_norm_survives_a_mean_far_from_zero():
    x = 1e3 + jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    y, _, stats = normalised(x)
    want = np.asarray(x, np.float64)
    want = (want - want.mean((0, 1, 2))) / np.sqrt(want.var((0, 1, 2)) + 1e-5)
    want = want * np.linspace(0.5, 2.0, 3) + np.arange(3) * 0.1
    np.testing.assert_allclose(y, want, atol=2e-3)
    assert (stats["var"] > 0).all()


def test_running_statistics_updated_twice_at_once():
    x = jax.random.normal(jax.random.key(1), (3, 4, 5, 6)) + 2
    _, _, once = normalised(x, updates=2)
    _, _, twice = normalised(x, steps=2)
    jax.tree.map(functools.partial(_close, tolerance=1e-6), once, twice)


def test_batch_norm_over_a_mapped_axis_is_that_of_the_whole_batch():
    x = jax.random.normal(jax.random.key(2), (4, 3, 5, 6)) * 2 - 1
    y, (gx, _), stats = normalised(x)
    shards = x.reshape(2, 2, 3, 5, 6)
    each = functools.partial(normalised, axis_name="devices")
    got = jax.jit(jax.vmap(each, axis_name="devices"))(shards)
    _close(got[0].reshape(x.shape), y)
    _close(got[1][0].reshape(x.shape), gx)
    for name in stats:
        _close(got[2][name][0], stats[name], 1e-6)
        _close(got[2][name][1], stats[name], 1e-6)


def test_batch_norm_second_derivative_agrees_with_the_textbook():
    x = jax.random.normal(jax.random.key(3), (3, 2, 2, 4))
    module = batch_norm()
    variables = module.init(jax.random.key(0), x)

    def ours(x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    def textbook(x):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 1e-5)

    def outer(f):
        inner = jax.grad(lambda x: jnp.sum(jnp.sin(2 * f(x)) * x))
        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(inner(x)))))(x)

    _close(outer(ours), outer(textbook), 1e-4)


def test_running_average_leaves_the_buffers_alone():
    module = layers.BatchNorm()
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    variables = module.init(jax.random.key(0), x, use_running_average=True)
    y, state = module.apply(variables, x, use_running_average=True, mutable=["batch_stats"])
    _close(y, x / np.sqrt(1 + 1e-5))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize("size", [(7, 6), (8, 9)])
def test_max_pool_is_pytorchs_ties_included(size):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    x = jax.random.randint(jax.random.key(0), (2, *size, 3), -3, 1).astype(jnp.float32)
    cotangent = jax.random.normal(jax.random.key(1), (2, 4, (size[1] + 1) // 2, 3))

    @jax.jit
    def pool(x, cotangent):
        y, back = jax.vjp(layers.max_pool_3x3_s2, x)
        return y, back(cotangent)[0]

    y, gx = pool(x, cotangent)
    tx = torch.tensor(np.array(x).transpose(0, 3, 1, 2), requires_grad=True)
    ty = torch.nn.functional.max_pool2d(tx, 3, 2, 1)
    ty.backward(torch.tensor(np.array(cotangent).transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    _close(gx, tx.grad.numpy().transpose(0, 2, 3, 1), 1e-6)


def test_max_pool_shows_nan():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 2, 3, 0].set(jnp.nan)
    assert jnp.isnan(layers.max_pool_3x3_s2(x)[0, 1, 1:3, 0]).all()
