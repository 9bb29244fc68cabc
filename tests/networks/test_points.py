"""Spatial softmax: places are read where the maps are bright."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.networks.points import PointPooling, grid
from jaxrecon.systems.meta_hmr import losses

NORM = {"use_running_average": True, "axis_name": None, "updates": 1}


def test_grid_holds_the_middles_of_the_cells():
    places = np.asarray(grid(2, 4)).reshape(2, 4, 2)
    np.testing.assert_allclose(places[0, :, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(places[:, 1, 1], [-0.5, 0.5])


@pytest.fixture(scope="module")
def pooled():
    """Pooling of three maps, one of which is bright at one cell of each image."""
    stages = [np.zeros((2, 4, 6, 8), np.float32), np.zeros((2, 2, 3, 8), np.float32)]
    stages[0][0, 1, 2, 0] = stages[0][1, 3, 5, 0] = 10.0
    net = PointPooling(points=3, features=16, norm=NORM)
    variables = net.init(jax.random.PRNGKey(0), stages)
    return net.apply(variables, stages), variables


def test_features_end_with_the_places(pooled):
    out, _ = pooled
    logits = np.asarray(out["point_logits"]).reshape(2, 96, 3)
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.einsum("bpj,pc->bjc", weights, np.asarray(grid(8, 12)))
    assert out["features"].shape == (2, 16 + 6)
    np.testing.assert_allclose(out["features"][:, 16:], expected.reshape(2, 6), atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_a_cell_holds_four_logits_in_order(pooled):
    _, variables = pooled
    params = variables["params"]
    # Nothing is seen, and each of the four logits of a cell says its own number.
    bias = np.repeat(np.arange(4.0), 3).astype(np.float32)
    kernel = np.zeros_like(params["maps"]["kernel"])
    changed = {**params, "maps": {"kernel": kernel, "bias": bias}}
    stages = [np.zeros((2, 4, 6, 8), np.float32), np.zeros((2, 2, 3, 8), np.float32)]
    net = PointPooling(points=3, features=16, norm=NORM)
    out = net.apply({**variables, "params": changed}, stages)
    found = np.asarray(out["point_logits"])
    np.testing.assert_array_equal(found[0, :2, 2:4, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(found, np.tile(found[:1, :2, :2], (2, 4, 6, 1)))


def make_logits(place: tuple[int, int], height: float) -> jax.Array:
    return jnp.zeros((1, 4, 4, 24)).at[0, place[0], place[1]].set(height)


def test_loss_is_least_where_the_joints_are():
    joints = np.tile(np.array([-0.25, 0.75, 1.0], np.float32), (1, 24, 1))  # column 1, row 3
    right, flat, wrong = (
        float(losses.point_loss(make_logits(place, height), joints))
        for place, height in (((3, 1), 2.0), ((3, 1), 0.0), ((0, 3), 2.0))
    )
    assert right < flat < wrong
    # A flat map's mean is the middle, half a cell and one and a half cells off.
    assert flat == pytest.approx(np.log(16) + 2.0, rel=1e-5)


def test_loss_counts_joints_inside_by_their_confidence():
    joints = np.tile(np.array([-0.25, 0.75, 1.0], np.float32), (1, 24, 1))
    logits = make_logits((3, 1), 2.0) * jnp.arange(24.0)
    few = joints.copy()
    few[0, 1:, 2] = 0.0
    outside = joints.copy()
    outside[0, 1:, 0] = 1.5
    alone = losses.point_loss(logits[..., :1].repeat(24, -1), joints)
    for some in (few, outside):
        assert float(losses.point_loss(logits, some)) == pytest.approx(float(alone), rel=1e-5)
    nobody = joints * np.array([1, 1, 0], np.float32)
    assert float(losses.point_loss(logits, nobody)) == 0.0
