"""The regressor: its affine recurrence, its buffers, its dropout."""

import jax
import numpy as np

from jaxrecon.networks.hmr import HMRNetwork, RegressionHead
from jaxrecon.networks.resnet import RESNETS, ResNet, normalise_image


def test_head_is_the_published_loop():
    """Against the loop written out with concatenated inputs, iteration by iteration."""
    head = RegressionHead(iterations=3, box_input=True, hidden=8)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 5)).astype(np.float32)
    box = rng.normal(size=(2, 3)).astype(np.float32)
    variables = head.init(jax.random.key(0), features, box)
    got = head.apply(variables, features, box)
    p = variables["params"]
    pose, shape, cam = (
        np.repeat(np.asarray(variables["batch_stats"][k]), 2, axis=0)
        for k in ("init_pose", "init_shape", "init_cam")
    )
    for _ in range(3):
        x = np.concatenate([features, box, pose, shape, cam], axis=1)
        for name in ("fc1", "fc2"):
            x = x @ p[name]["kernel"] + p[name]["bias"]
        pose, shape, cam = (
            old + x @ p[name]["kernel"] + p[name]["bias"]
            for old, name in ((pose, "decpose"), (shape, "decshape"), (cam, "deccam"))
        )
    np.testing.assert_allclose(got.pose6d, pose, atol=1e-5)
    np.testing.assert_allclose(got.betas, shape, atol=1e-5)
    np.testing.assert_allclose(got.cam, cam, atol=1e-5)


def test_start_may_be_given():
    head = RegressionHead(iterations=1, box_input=False, hidden=8)
    features = np.zeros((2, 5), np.float32)
    variables = head.init(jax.random.key(0), features)
    zero = jax.tree.map(jax.numpy.zeros_like, variables["params"])
    start = (
        np.ones((2, 144), np.float32),
        np.ones((1, 10), np.float32),
        np.ones((2, 3), np.float32),
    )
    got = head.apply({**variables, "params": zero}, features, None, False, None, start)
    np.testing.assert_array_equal(got.betas, np.ones((2, 10)))


def test_dropout_keeps_the_mean():
    head = RegressionHead(iterations=1, box_input=False, hidden=64, dropout=0.5)
    features = np.ones((1, 5), np.float32)
    variables = head.init(jax.random.key(0), features)
    drop = jax.jit(lambda key: head.apply(variables, features, None, True, key).betas)
    many = jax.vmap(drop)(jax.random.split(jax.random.key(1), 2000))
    want = head.apply(variables, features).betas
    assert many.std() > 0
    np.testing.assert_allclose(many.mean(0), want, atol=4 * float(many.std()) / 2000**0.5)


def test_bytes_and_floats_make_the_same_input():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    x = normalise_image(jax.numpy.asarray(image))
    np.testing.assert_array_equal(normalise_image(x), x)
    want = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x, want, atol=1e-5)


def test_resnet50_has_the_published_size():
    network = HMRNetwork("resnet50", 10, True)
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((1, 3), np.float32),
    )
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 26_980_573


def test_stages_of_the_backbone():
    backbone = ResNet(RESNETS["resnet50"])
    out = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x)[0],
        np.zeros((2, 256, 192, 3), np.float32),
    )
    shapes = {k: v.shape for k, v in out.items()}
    assert shapes == {
        "layer1": (2, 64, 48, 256),
        "layer2": (2, 32, 24, 512),
        "layer3": (2, 16, 12, 1024),
        "layer4": (2, 8, 6, 2048),
        "features": (2, 2048),
    }
