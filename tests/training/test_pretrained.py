"""Models that ship with the package: packed, read back, and refused when broken."""

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.training import pretrained
from jaxrecon.training.checkpoints import RunRecord, load_variables, save_variables


@pytest.fixture
def run(tmp_path):
    """A saved run without an auxiliary network of its own."""
    rng = np.random.default_rng(0)

    def network():
        return {"head": {"kernel": rng.normal(size=(4, 3)).astype(np.float32)}}

    variables = {
        "params": {"main": network(), "aux": network()},
        "batch_stats": {"main": {"mean": rng.normal(size=5).astype(np.float32)}},
    }
    config = {
        "system": {
            "backbone": "resnet_small",
            "aux_backbone": "resnet_mini",
            "main_iterations": 3,
            "aux_iterations": 2,
            "inner_steps": 0,
        }
    }
    save_variables(tmp_path / "run", variables, RunRecord(7, config, None, []))
    return tmp_path / "run", variables


def test_packed_run_gives_both_networks_its_weights(run, tmp_path, monkeypatch):
    folder, variables = run
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    pretrained.pack(folder, tmp_path / "toy.npz")
    assert pretrained.pretrained_names() == ["toy"]
    got, record = load_variables("toy")
    want = variables["params"]["main"]["head"]["kernel"]
    for name in ("main", "aux"):
        kernel = got["params"][name]["head"]["kernel"]
        assert kernel.dtype == np.float32
        np.testing.assert_allclose(kernel, want, rtol=1e-3)
    np.testing.assert_array_equal(
        got["batch_stats"]["aux"]["mean"], variables["batch_stats"]["main"]["mean"]
    )
    assert record.step == 7
    assert record.config["system"]["aux_backbone"] == "resnet_small"
    assert record.config["system"]["inner_steps"] == 1


def test_unknown_name_lists_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(UserError, match="other"):
        load_variables(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a packed model"):
        load_variables("other")


def test_a_packed_model_can_carry_another_config(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    pretrained.pack(folder, tmp_path / "toy.npz", "metahmr:tiny")
    _, record = load_variables("toy")
    assert record.config["data"]["datasets"] == ["open_body/tiny"]
    assert record.step == 7
