"""kill -9 in the middle of a real training, then the same command again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_command_ends_with_the_same_metrics(tmp_path: Path, workers: int) -> None:
    """The whole path: builder, grain (with and without worker processes), network, orbax."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAXRECON_DATA": str(tmp_path / "data")}

    def start(name: str) -> subprocess.Popen:
        command = [
            *(sys.executable, "-m", "jaxrecon.main", "--mode=train"),
            *("--config=configs/metahmr.py:tiny", f"--workdir={tmp_path / name}"),
            *("--config.steps=40", "--config.eval_every=10", "--config.checkpoint_every=7"),
            *("--config.image_size=32,32", "--config.main_iterations=1", "--config.tto.steps=1"),
            f"--config.workers={workers}",
        ]
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    killed = start("killed")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 900
    while not metrics.is_file() or metrics.read_text().count("\n") < 12:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert metrics.read_text().count("\n") < 44, "killed too late to show anything"
    assert start("killed").wait(900) == 0
    assert start("whole").wait(900) == 0
    for name in ("metrics.jsonl", "train.csv", "evaluation.csv"):
        expected, got = (tmp_path / run / name for run in ("whole", "killed"))
        assert expected.read_bytes() == got.read_bytes(), name
