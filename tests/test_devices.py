"""The real command on four devices: the same losses as on one, at the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_four_devices_train_as_one(tmp_path: Path, order: str) -> None:
    """Inner steps, batch statistics, every masked mean and the optimiser, under `pmap`."""
    rows = {}
    for devices in (1, 4):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAXRECON_DATA": str(tmp_path / "data"),
        }
        run = tmp_path / f"{devices}"
        command = [
            *(sys.executable, "-m", "jaxrecon.main", "--mode=train", f"--workdir={run}"),
            *("--config=configs/metahmr.py:tiny", "--config.image_size=32,32"),
            *("--config.steps=3", "--config.eval_every=0", f"--config.system.order={order}"),
            *("--config.tto.steps=1", "--config.system.inner_lr=1e-2", "--config.schedule_steps=0"),
        ]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        rows[devices] = [row for row in map(json.loads, lines) if "loss" in row]
    one, four = rows[1], rows[4]
    assert len(one) == len(four) == 3
    for alone, together in zip(one, four, strict=True):
        names = [name for name in alone if "loss" in name or "/" in name]
        assert len(names) > 10
        np.testing.assert_allclose(
            [together[name] for name in names], [alone[name] for name in names], rtol=2e-3
        )
        np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-4)
