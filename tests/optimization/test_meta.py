"""Meta-gradients: known answers on a quadratic, agreement of the two exact ways elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks.layers import BatchNorm, Conv
from jaxrecon.optimization.meta import adapt, sgd_step

EXACT = ["second", "second_fast"]
LR = 0.1


def _close(got, want, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = float(jnp.abs(b).max()) + 1e-6
        np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, atol=tolerance)


# L(theta, phi) = theta^T A theta / 2 - phi^T theta: theta' = theta - lr (A theta - phi), so after
# k steps theta_k = P^k theta + lr (P^(k-1) + ... + 1) phi with P = 1 - lr A.
A = jnp.array([[2.0, 0.5], [0.5, 1.0]])
THETA, PHI = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.7])
WEIGHT = jnp.array([1.0, 3.0])


def quadratic(theta, phi):
    return 0.5 * theta @ A @ theta - phi @ theta


def outer_of_quadratic(order, steps):
    def outer(theta, phi):
        new, _ = adapt(quadratic, theta, (phi,), steps=steps, lr=LR, order=order)
        return WEIGHT @ new

    return jax.jit(jax.value_and_grad(outer, argnums=(0, 1)))(THETA, PHI)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("order", ["first", *EXACT])
def test_quadratic_has_the_known_answer(order, steps):
    p = np.eye(2) - LR * np.asarray(A)
    powers = [np.linalg.matrix_power(p, k) for k in range(steps + 1)]
    to_phi = LR * sum(powers[:steps])
    value, (to_theta, cross) = outer_of_quadratic(order, steps)
    np.testing.assert_allclose(value, WEIGHT @ (powers[steps] @ THETA + to_phi @ PHI), rtol=1e-6)
    first = order == "first"
    np.testing.assert_allclose(to_theta, WEIGHT if first else powers[steps].T @ WEIGHT, rtol=1e-6)
    np.testing.assert_allclose(cross, np.zeros(2) if first else to_phi.T @ WEIGHT, rtol=1e-6)


@pytest.mark.parametrize("order", ["first", *EXACT])
def test_step_size_may_be_learned(order):
    def outer(lr):
        return WEIGHT @ sgd_step(quadratic, THETA, PHI, lr=lr, order=order)[0]

    np.testing.assert_allclose(jax.grad(outer)(LR), -WEIGHT @ (A @ THETA - PHI), rtol=1e-6)


def conv_loss(params, features, batch):
    """A small network with all kinds of inputs: images, labels, a mask and a random key."""
    noise = jax.random.normal(batch["key"], batch["image"].shape, jnp.float32)
    x = batch["image"] + 0.1 * noise * batch["mask"][:, None, None, None]
    x = Conv(4, 3, 2, 1).apply({"params": {"kernel": params["kernel"]}}, x)
    norm = BatchNorm(use_running_average=False)
    x = norm.apply(
        {
            "params": {"scale": params["scale"], "bias": params["bias"]},
            "batch_stats": {"mean": jnp.zeros(4), "var": jnp.ones(4)},
        },
        x,
        mutable=["batch_stats"],
    )[0]
    x = jnp.tanh(x).mean((1, 2)) + features
    logits = x @ params["head"]
    loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], 1).mean()
    return loss, {"right": (logits.argmax(-1) == batch["label"]).sum(), "spread": logits.var()}


def conv_problem(batch=3):
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "kernel": jax.random.normal(keys[0], (3, 3, 3, 4)),
        "scale": jnp.ones(4),
        "bias": jnp.zeros(4),
        "head": jax.random.normal(keys[1], (4, 5)),
    }
    features = jax.random.normal(keys[2], (batch, 4))
    data = {
        "image": jax.random.normal(keys[3], (batch, 6, 6, 3)),
        "label": jnp.arange(batch) % 5,
        "mask": jnp.arange(batch) > 0,
        "key": keys[4],
    }
    return params, features, data


@functools.cache
def conv_meta_gradient(order, steps, closed_over=False):
    params, features, data = conv_problem()

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def outer(params, features):
        def inner(p, *rest):
            return conv_loss(p, features if closed_over else rest[0], data)

        args = () if closed_over else (features,)
        new, aux = adapt(inner, params, args, steps=steps, lr=LR, order=order, has_aux=True)
        loss, _ = conv_loss(new, features, data)
        return loss + 0.1 * aux.loss[0] + 0.2 * aux.metrics["spread"].sum(), aux

    return outer(params, features)


@pytest.mark.parametrize("closed_over", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_both_exact_orders_agree_on_a_conv_net(steps, closed_over):
    (value, aux), grads = conv_meta_gradient("second_fast", steps, closed_over)
    (want, want_aux), want_grads = conv_meta_gradient("second", steps)
    _close((value, grads), (want, want_grads))
    _close(aux, want_aux, 1e-6)
    assert aux.metrics["right"].shape == aux.loss.shape == (steps,)
    assert jnp.issubdtype(aux.metrics["right"].dtype, jnp.integer)


def test_exact_order_differs_from_first_and_agrees_with_finite_differences():
    params, features, data = conv_problem()
    _, grads = conv_meta_gradient("second", 1)
    (_, _), first = conv_meta_gradient("first", 1)
    gap = jnp.abs(grads[0]["head"] - first[0]["head"]).max()
    assert gap > 1e-2 * jnp.abs(grads[0]["head"]).max()

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        fixed = {**data, "image": jnp.asarray(data["image"], jnp.float64)}
        fixed["key"] = data["key"]

        @jax.jit
        def outer(head):
            new, aux = sgd_step(
                lambda p: conv_loss(p, features, fixed),
                {**wide, "head": head},
                lr=LR,
                order="first",
                has_aux=True,
            )
            loss, _ = conv_loss(new, features, fixed)
            return loss + 0.1 * aux.loss + 0.2 * aux.metrics["spread"]

        along = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)))
        step = 1e-5
        slope = (outer(wide["head"] + step * along) - outer(wide["head"] - step * along)) / (
            2 * step
        )
    np.testing.assert_allclose(np.vdot(grads[0]["head"], along), slope, rtol=1e-4)


def test_each_sample_adapts_by_itself_under_vmap():
    params, features, data = conv_problem(batch=4)

    def one(order, params, features, image, label):
        batch = {**data, "image": image[None], "label": label[None], "mask": jnp.ones(1)}

        def outer(params, features):
            inner = functools.partial(conv_loss, batch=batch)
            new, _ = adapt(
                inner, params, (features[None],), steps=2, lr=LR, order=order, has_aux=True
            )
            return conv_loss(new, features[None], batch)[0]

        return jax.grad(outer, argnums=(0, 1))(params, features)

    def many(order):
        each = functools.partial(one, order)
        batched = jax.jit(jax.vmap(each, (None, 0, 0, 0)))
        return batched(params, features, data["image"], data["label"])

    fast, exact = many("second_fast"), many("second")
    _close(fast, exact)
    alone = jax.jit(functools.partial(one, "second"))(
        params, features[2], data["image"][2], data["label"][2]
    )
    _close(jax.tree.map(lambda x: x[2], fast), alone)


@pytest.mark.parametrize("steps", [2, 3])
def test_each_step_has_its_own_key(steps):
    keys = jax.random.split(jax.random.key(7), steps)

    def noisy(theta, key):
        return jnp.sum(jnp.square(theta - jax.random.normal(key, theta.shape)))

    theta = jnp.zeros(3)
    got, aux = adapt(noisy, theta, steps=steps, lr=LR, order="second_fast", step_args=(keys,))
    for i, key in enumerate(keys):
        np.testing.assert_allclose(aux.loss[i], noisy(theta, key), rtol=1e-5)
        theta = theta - LR * jax.grad(noisy)(theta, key)
    np.testing.assert_allclose(got, theta, rtol=1e-5)


def test_fast_order_can_itself_be_differentiated_again():
    def outer(theta, order):
        new, _ = sgd_step(lambda t: jnp.sum(jnp.sin(t) ** 3), theta, lr=LR, order=order)
        return jnp.sum(jnp.cos(new))

    theta = jnp.array([0.3, 1.1])
    fast, exact = (jax.jacrev(jax.grad(outer))(theta, order) for order in ("second_fast", "second"))
    _close(fast, exact)


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        adapt(quadratic, THETA, (PHI,), steps=0, lr=LR)
