"""Epochs on the device: exact resume, partial batches, what stops a run."""

import io

import jax
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.training.checkpoints import Checkpoints
from jaxrecon.training.epochs import steps_per_epoch, train_epochs
from jaxrecon.training.logging import read_metrics
from tests.training.toy import ToySystem, toy_config


def arrays(count: int = 26, poison: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    bad = np.zeros(count, np.float32)
    bad[count // 2] = poison
    y = x.sum(1, keepdims=True)
    return {"x": x, "y": y, "seen": np.ones(count, np.float32), "poison": bad}


def run(folder, epochs: int, data=None, partial: bool = True, **fields):
    config = toy_config(batch_size=8, seed=0, **fields)
    with config.unlocked():
        config.training.epochs = epochs
        config.training.keep_partial = partial
        config.training.log_every = config.training.checkpoint_every = 1
        config.training.eval_every = 1
        config.training.best_metric = "error"
    stream = io.StringIO()
    flagged = []

    def flags(epoch):
        flagged.append(epoch)
        return {}

    result = train_epochs(
        config,
        ToySystem(noise=0.1),
        data or arrays(),
        folder,
        flags,
        lambda variables: {"error": abs(float(variables["params"]["b"][0]) - 0.01)},
        constants=ToySystem().constants(),
        stream=stream,
    )
    return result, flagged, stream.getvalue()


def test_resumed_is_the_same_run(tmp_path):
    whole, _, _ = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    second, flagged, said = run(tmp_path / "parts", 4)
    assert flagged == [3, 4] and "continuing after epoch 2" in said
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(second.state)):
        np.testing.assert_array_equal(a, b)
    assert whole.best == second.best and whole.step == second.step == 4 * 4
    rows = [read_metrics(tmp_path / name) for name in ("whole", "parts")]
    assert rows[0] == rows[1] and len(rows[0]) == 8
    assert Checkpoints(tmp_path / "parts").latest_step == 16


def test_steps_of_an_epoch():
    assert steps_per_epoch(26, 8, True) == 4
    assert steps_per_epoch(26, 8, False) == 3
    assert steps_per_epoch(25, 8, True) == 3  # one example is no batch
    with pytest.raises(UserError, match="batch_size=8 is above the 5"):
        steps_per_epoch(5, 8, False)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(UserError, match="epoch 1: .* is nan"):
        run(tmp_path, 2, arrays(poison=True))
