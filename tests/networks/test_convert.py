"""Conversion of state dicts: both ways, and what does not fit."""

import jax
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.networks.convert import state_dict_to_variables, variables_to_state_dict
from jaxrecon.networks.hmr import HMRNetwork


@pytest.fixture(scope="module")
def network():
    module = HMRNetwork("resnet_tiny", 3, True, hidden=8)
    variables = jax.jit(module.init)(
        jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 3), np.float32)
    )
    return variables


@pytest.fixture(scope="module")
def state(network):
    return variables_to_state_dict(network)


def test_round_trip_is_exact(network, state):
    back, report = state_dict_to_variables(state, jax.tree.map(np.zeros_like, network))
    for collection in ("params", "batch_stats"):
        got, want = back[collection], network[collection]
        assert jax.tree.structure(got) == jax.tree.structure(dict(want))
        jax.tree.map(np.testing.assert_array_equal, got, dict(want))
    assert not report.missing and not report.unexpected
    assert all(name.endswith("num_batches_tracked") for name in report.dropped)


def test_names_and_layout_are_pytorchs(state):
    assert state["layer2.0.conv1.weight"].shape == (16, 8, 3, 3)
    assert state["layer2.0.downsample.0.weight"].shape == (16, 8, 1, 1)
    assert state["layer2.0.downsample.1.running_var"].shape == (16,)
    assert state["bn1.num_batches_tracked"].dtype == np.int64
    assert state["fc1.weight"].shape == (8, 64 + 3 + 157)
    assert state["init_pose"].shape == (1, 144)


def test_missing_and_unexpected_names_are_listed(network, state):
    broken = {k: v for k, v in state.items() if k != "fc2.weight"} | {"extra.weight": np.ones(3)}
    with pytest.raises(UserError, match="missing fc2.weight(.|\n)*unexpected extra.weight"):
        state_dict_to_variables(broken, network)
    variables, report = state_dict_to_variables(broken, network, strict=False)
    assert report.missing == ("fc2.weight",) and report.unexpected == ("extra.weight",)
    np.testing.assert_array_equal(
        variables["params"]["head"]["fc2"]["kernel"], network["params"]["head"]["fc2"]["kernel"]
    )


def test_wrong_shape_names_the_tensor(network, state):
    with pytest.raises(UserError, match="fc1.weight"):
        state_dict_to_variables({**state, "fc1.weight": np.ones((8, 3))}, network)
