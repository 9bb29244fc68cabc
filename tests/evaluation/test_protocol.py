"""The evaluation: right means, missing labels, padded batches, and several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.evaluation.protocol import Evaluator
from jaxrecon.systems.base import Adaptation, Batch, Variables
from jaxrecon.training.parallel import Placement
from jaxrecon.typing import Array
from tests.training.toy import ToySystem, toy_batch

ROOT = Path(__file__).resolve().parents[2]


class Adapting(ToySystem):
    """Each step halves the distance of `b` to the mean label of the batch (the unit)."""

    def adapt(self, variables: Variables, batch: Batch, steps: int) -> Adaptation:
        goal = batch["y"].mean()
        trail = [variables["params"]["b"]]
        for _ in range(steps):
            trail.append(0.5 * (trail[-1] + goal))
        bases = jnp.stack(trail)
        history = jax.vmap(lambda b: self.predict(_with(variables, b), batch))(bases)
        return Adaptation(_with(variables, trail[-1]), history, jnp.zeros(steps + 1))

    def baseline(self, variables: Variables, batch: Batch) -> Any:
        return jnp.zeros_like(batch["y"][:, 0])

    def evaluate(self, variables: Variables, prediction: Any, batch: Batch) -> dict[str, Array]:
        error = jnp.abs(prediction - batch["y"][:, 0])
        return {"error": error, "half_labelled": jnp.where(batch["seen"] > 0, error, jnp.nan)}

    def protocol(self) -> dict[str, Any]:
        return {"units": "apples"}


def _with(variables: Variables, b: Any) -> dict[str, Any]:
    return {**variables, "params": {**variables["params"], "b": b}}


def batches(count: int = 3, size: int = 4) -> list[dict[str, np.ndarray]]:
    made = [toy_batch(i + 1, size) | {"valid": np.ones(size, bool)} for i in range(count)]
    made[-1]["valid"][1:] = False  # the last is filled up with copies
    return made


def fresh(system: ToySystem) -> dict[str, Any]:
    return system.init(jax.random.PRNGKey(0), toy_batch(1, 4))


def by_hand(system: Adapting, steps: int, metric: str) -> list[float]:
    variables = fresh(system)
    rows: list[list[float]] = [[] for _ in range(steps + 1)]
    for batch in batches():
        history = system.adapt(variables, batch, steps).history
        for step in range(steps + 1):
            values = np.asarray(system.evaluate(variables, history[step], batch)[metric])
            rows[step] += [v for v in values[batch["valid"]] if not np.isnan(v)]
    return [float(np.mean(row)) for row in rows]


def test_means_before_and_after_each_step(tmp_path: Path) -> None:
    system = Adapting()
    seen: list[int] = []
    evaluation = Evaluator(system, steps=3)(
        fresh(system), batches(), {"dataset": "toy"}, say=seen.append, keep_first=True
    )
    assert evaluation.first.history.shape == (4, 4) and evaluation.first.variables is None
    assert evaluation.examples == 9 and seen == [4, 8, 9]
    for metric in ("error", "half_labelled"):
        expected = by_hand(system, 3, metric)
        np.testing.assert_allclose([row[metric] for row in evaluation.curve], expected, rtol=1e-5)
    assert evaluation.labelled["error"] == 9 and 0 < evaluation.labelled["half_labelled"] < 9
    labels = np.concatenate([b["y"][b["valid"], 0] for b in batches()])
    assert evaluation.baseline["error"] == pytest.approx(float(np.abs(labels).mean()), rel=1e-5)

    saved = json.loads(evaluation.save(tmp_path).read_text())
    assert saved["protocol"] == {"units": "apples", "adaptation_steps": 3, "dataset": "toy"}
    assert [row["step"] for row in saved["curve"]] == [0, 1, 2, 3]
    assert saved["before"]["error"] == evaluation.before["error"]
    assert saved["after"]["error"] == evaluation.after["error"] == saved["curve"][3]["error"]
    table = evaluation.table()
    assert "mean pose" in table and "before" in table and "after 3" in table
    assert f"{evaluation.after['error']:.2f}" in table


class Choosing(Adapting):
    """Keeps the first state of every other example, the last of the others."""

    def adapt(self, variables: Variables, batch: Batch, steps: int) -> Adaptation:
        result = super().adapt(variables, batch, steps)
        odd = jnp.arange(len(batch["y"])) % 2
        return result.replace(chosen=jnp.where(odd, steps, 0))


def test_the_kept_states_and_the_shares_that_got_worse() -> None:
    system, last = Choosing(), 3
    found = Evaluator(system, steps=last)(fresh(system), batches())
    variables, kept, worse = fresh(system), [], []
    for batch in batches():
        history = system.adapt(variables, batch, last).history
        rows = np.stack([system.evaluate(variables, h, batch)["error"] for h in history])
        chosen = np.where(np.arange(rows.shape[1]) % 2, rows[-1], rows[0])
        kept += list(chosen[batch["valid"]])
        worse += list((rows[-1] > rows[0])[batch["valid"]])
    assert found.kept["error"] == pytest.approx(np.mean(kept), rel=1e-5)
    assert found.worse["after"]["error"] == pytest.approx(np.mean(worse))
    assert found.worse["after"]["error"] > 0  # this rule is not always a good one
    assert found.worse["kept"]["error"] <= found.worse["after"]["error"]
    assert "kept" in found.table() and "worse, after" in found.table()
    assert found.to_dict()["worse_than_before"]["kept"]["error"] == found.worse["kept"]["error"]
    assert Evaluator(Adapting(), steps=1)(fresh(system), batches()).kept == {}


@pytest.mark.parametrize("keeps", [False, True])
def test_results_are_those_that_are_measured(keeps: bool) -> None:
    system, seen = Choosing(), []
    evaluator = Evaluator(system, steps=2, keeps=keeps)
    found = evaluator(fresh(system), batches(), each=lambda *pair: seen.append(pair))
    assert len(seen) == 3
    errors = []
    for batch, result in seen:
        wanted = np.where(np.arange(4) % 2, 2, 0) if keeps else np.full(4, 2)
        np.testing.assert_array_equal(result.steps, wanted)
        history = system.adapt(fresh(system), batch, 2).history
        np.testing.assert_allclose(result.prediction, history[wanted, np.arange(4)], rtol=1e-5)
        error = np.abs(result.prediction - batch["y"][:, 0])
        np.testing.assert_allclose(result.metrics["error"], error, rtol=1e-5)
        errors += list(error[batch["valid"]])
    mean = (found.kept if keeps else found.after)["error"]
    assert mean == pytest.approx(np.mean(errors), rel=1e-5)


def test_without_adaptation_there_is_one_row() -> None:
    system = ToySystem()  # has no `adapt` and no baseline
    evaluation = Evaluator(system)(fresh(system), batches())
    assert len(evaluation.curve) == 1 and evaluation.baseline == {}
    assert "mean pose" not in evaluation.table()


def test_metrics_without_any_label_are_null(tmp_path: Path) -> None:
    system = Adapting()
    unlabelled = [b | {"seen": np.zeros_like(b["seen"])} for b in batches()]
    evaluation = Evaluator(system)(fresh(system), unlabelled)
    assert np.isnan(evaluation.before["half_labelled"])
    saved = json.loads(evaluation.save(tmp_path / "mine.json").read_text())
    assert saved["before"]["half_labelled"] is None and saved["labelled"]["half_labelled"] == 0


def test_nothing_to_evaluate() -> None:
    system = ToySystem()
    with pytest.raises(UserError, match="not one example"):
        Evaluator(system)(fresh(system), [])
    with pytest.raises(UserError, match="must be 0 or more"):
        Evaluator(system, steps=-1)


def test_more_devices_change_nothing() -> None:
    """Two devices, three batches: the second device of the last group has none of its own."""
    program = (
        "from tests.evaluation.test_protocol import *\n"
        "import json; system = Adapting(); place = Placement()\n"
        "assert len(place.devices) == 2\n"
        "seen = []; each = lambda batch, result: seen.append(result.prediction.tolist())\n"
        "found = Evaluator(system, 2, place)(fresh(system), batches(), each=each)\n"
        "print(json.dumps(found.to_dict() | {'seen': seen}))"
    )
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    output = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert output.returncode == 0, output.stderr
    two = json.loads(output.stdout)
    system = Adapting()
    seen: list[Any] = []
    one = Evaluator(system, 2, Placement())(
        fresh(system), batches(), each=lambda batch, result: seen.append(result.prediction)
    ).to_dict()
    np.testing.assert_allclose(two["seen"], seen, rtol=1e-5)
    assert two["examples"] == one["examples"] and two["labelled"] == one["labelled"]
    for a, b in zip(one["curve"] + [one["mean_pose"]], two["curve"] + [two["mean_pose"]]):
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)
