"""The loop: exact resume, killed or not, one device or four; and how it stops."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxrecon.errors import UserError
from jaxrecon.training.checkpoints import (
    Checkpoints,
    RunRecord,
    load_optimizer,
    load_variables,
    save_variables,
)
from jaxrecon.training.logging import read_metrics
from jaxrecon.training.loop import train
from tests.training.toy import ToyBatches, ToySystem, toy_config, toy_evaluate

ROOT = Path(__file__).resolve().parents[2]


def start(
    workdir: Path, *options: str, devices: int = 1, extra: dict[str, str] | None = None
) -> subprocess.Popen:
    environment = {
        **os.environ,
        **(extra or {}),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.toy", str(workdir), *options],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def files(workdir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in workdir.iterdir() if p.is_file()}


def run(workdir: Path, system: ToySystem | None = None, **fields: object):
    stream = io.StringIO()
    options = {"poison_step": fields.pop("poison_step", -1)}
    config = toy_config(**fields)
    batches = ToyBatches(config.training.batch_size, **options)
    system = system or ToySystem(noise=0.1)
    evaluate = toy_evaluate(system) if config.training.eval_every else None
    return train(config, system, batches, workdir, evaluate, stream=stream), stream.getvalue()


def test_it_learns_and_reports(tmp_path: Path) -> None:
    result, text = run(tmp_path, ToySystem(rate=0.2), steps=60, log_every=20, eval_every=30)
    rows = read_metrics(tmp_path, "train")
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert [row["step"] for row in read_metrics(tmp_path, "evaluation")] == [30, 60]
    assert result.step == 60 and result.stopped is None
    assert "images/s" in text and "left" in text and "step 60/60" in text
    assert set(result.variables) == {"params", "batch_stats", "constants"}


def test_resume_is_exact(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", steps=17, eval_every=6)
    # 11 is neither a logging nor a checkpoint step: the metrics since step 10 must be carried.
    run(tmp_path / "parts", steps=11, eval_every=6)
    rows = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts" / "metrics.jsonl").write_text("".join(rows[:-1]))  # the row of "the end"
    second, text = run(tmp_path / "parts", steps=17, eval_every=6)
    assert "continuing at step 11" in text
    jax.tree.map(np.testing.assert_array_equal, whole.variables, second.variables)


def test_a_killed_run_writes_the_same_metrics(tmp_path: Path) -> None:
    options = ("--steps=60", "--eval_every=15", "--delay=0.04", "--noise=0.1")
    killed = start(tmp_path / "killed", *options)
    run(tmp_path / "whole", steps=60, eval_every=15)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoints" / "15").is_dir():
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # some steps further, at no particular place
    killed.kill()
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert read_metrics(tmp_path / "killed")[-1]["step"] < 60

    assert "continuing at step" in finish(start(tmp_path / "killed", *options))
    assert_same_metrics(tmp_path / "whole", tmp_path / "killed")


def test_a_run_asked_to_end_saves_first(tmp_path: Path) -> None:
    class Terminated(ToyBatches):
        def __next__(self):
            if self.get_state()["index"] == 13:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    run(tmp_path / "whole", steps=30, eval_every=15)
    system, config = ToySystem(noise=0.1), toy_config(steps=30, eval_every=15)
    evaluate, stream = toy_evaluate(system), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    first = train(config, system, Terminated(), tmp_path / "parts", evaluate, stream=stream)
    assert first.stopped == "SIGTERM" and 11 <= first.step <= 14
    assert signal.getsignal(signal.SIGTERM) is before
    assert f"stopped at step {first.step} of 30" in stream.getvalue()
    _, text = run(tmp_path / "parts", steps=30, eval_every=15)
    assert f"continuing at step {first.step}" in text
    assert_same_metrics(tmp_path / "whole", tmp_path / "parts")


def assert_same_metrics(expected: Path, got: Path) -> None:
    assert set(files(expected)) == set(files(got))
    for name in ("metrics.jsonl", "train.csv", "evaluation.csv"):
        assert files(expected)[name] == files(got)[name], name


def test_a_new_run_starts_with_the_weights_and_the_optimiser_of_another(tmp_path: Path) -> None:
    """The first five steps in one folder, the others in another: the same as in one run."""

    class Later(ToyBatches):
        """The batches of the whole run from the sixth on."""

        def __init__(self) -> None:
            super().__init__()
            self.set_state({"index": 5})

    config = toy_config(steps=11)
    quiet = {"stream": io.StringIO()}
    whole = train(config, ToySystem(), ToyBatches(), tmp_path / "whole", **quiet)
    train(toy_config(steps=5), ToySystem(), ToyBatches(), tmp_path / "first", **quiet)
    initial, _ = load_variables(tmp_path / "first")
    found = {}
    for name, optimizer in (("fresh", None), ("same", partial(load_optimizer, tmp_path / "first"))):
        found[name] = train(
            toy_config(steps=6),
            ToySystem(),
            Later(),
            tmp_path / name,
            initial=initial,
            initial_optimizer=optimizer,
            **quiet,
        )
    jax.tree.map(np.testing.assert_array_equal, whole.variables, found["same"].variables)
    other = found["fresh"].variables["params"]["w"]
    assert not np.allclose(whole.variables["params"]["w"], other, rtol=1e-5)


def test_no_optimiser_to_start_from(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "run", steps=2)
    record = RunRecord(2, {}, None, [])
    weights = save_variables(tmp_path / "weights", result.variables, record)
    state = optax.adam(0.1).init(result.variables["params"])
    assert load_optimizer(tmp_path / "run", state)[0].count == 2
    for place in (weights, "metahmr-small"):
        with pytest.raises(UserError, match="holds weights alone, without an optimiser; train on"):
            load_optimizer(place, state)
    for other in (
        optax.sgd(0.1, 0.9).init(result.variables["params"]),
        optax.adam(0.1).init(np.ones(4)),
    ):
        with pytest.raises(UserError, match="of another network or optimiser|shape"):
            load_optimizer(tmp_path / "run", other)


def test_four_devices_give_the_loss_of_one(tmp_path: Path) -> None:
    four = start(tmp_path / "4", "--steps=12", "--log_every=1", "--eval_every=6", devices=4)
    run(tmp_path / "1", ToySystem(), steps=12, log_every=1, eval_every=6)
    finish(four)
    rows = [read_metrics(tmp_path / n) for n in ("1", "4")]
    assert len(rows[0]) == len(rows[1]) == 14
    for a, b in zip(*rows):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(
            [v for v in a.values() if v != a["split"]],
            [v for v in b.values() if v != b["split"]],
            rtol=2e-5,
        )
    # What one kind of machine saved, the other continues.
    _, text = run(tmp_path / "4", ToySystem(), steps=14)
    assert "continuing at step 12" in text


@pytest.mark.slow
def test_two_hosts_give_the_loss_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    hosts = [
        start(
            tmp_path / "2",
            *("--steps=12", "--log_every=1", "--eval_every=6"),
            devices=2,
            extra={
                "JAXRECON_DISTRIBUTED": "1",
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAXRECON_PROCESS_COUNT": "2",
                "JAXRECON_PROCESS_INDEX": str(index),
            },
        )
        for index in range(2)
    ]
    run(tmp_path / "1", ToySystem(), steps=12, log_every=1, eval_every=6)
    for host in hosts:
        finish(host)
    rows = [read_metrics(tmp_path / n) for n in ("1", "2")]
    assert len(rows[0]) == len(rows[1]) == 14
    for a, b in zip(*rows):
        np.testing.assert_allclose(a.get("loss", 0), b.get("loss", 0), rtol=2e-5)
    _, text = run(tmp_path / "2", ToySystem(), steps=14)
    assert "continuing at step 12" in text


def test_one_compilation_and_no_hidden_transfer(tmp_path: Path) -> None:
    traces = []

    class Counting(ToySystem):
        def loss(self, *args):
            traces.append(1)
            return super().loss(*args)

    class Guarded(ToyBatches):
        """From the third batch on, whatever reaches a device unasked is an error."""

        def __next__(self):
            batch = super().__next__()
            if self.get_state()["index"] == 3:
                jax.config.update("jax_transfer_guard", "disallow")
            return batch

    try:
        train(toy_config(steps=12), Counting(), Guarded(), tmp_path, stream=io.StringIO())
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert len(traces) == 1


def test_it_stops_at_the_first_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step 10: loss is nan.*learning rate") as caught:
        run(tmp_path, poison_step=10, steps=20, log_every=3)
    assert "\n" not in str(caught.value)
    assert [row["step"] for row in read_metrics(tmp_path)] == [3, 6, 9]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 8
    checkpoints.close()


def test_the_time_limit_saves_and_says_so(tmp_path: Path) -> None:
    result, text = run(tmp_path, steps=1000, time_limit_minutes=1e-9)
    assert result.stopped == "time limit" and result.step == 1
    assert "the same command continues" in text
    result, text = run(tmp_path, steps=3)
    assert "continuing at step 1 " in text and result.step == 3


def test_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    first, _ = run(tmp_path, steps=4)
    before = files(tmp_path)
    second, _ = run(tmp_path, steps=4)
    assert second.step == 4
    assert before == files(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)


def test_data_that_end_are_named(tmp_path: Path) -> None:
    class Short(ToyBatches):
        def __next__(self):
            if self.get_state()["index"] == 5:
                raise StopIteration
            return super().__next__()

    with pytest.raises(UserError, match="the data ended before step 6"):
        train(toy_config(), ToySystem(), Short(), tmp_path, stream=io.StringIO())
