"""The experiment's bookkeeping: every arm once, continued where it was, honest arithmetic."""

import json

import pytest

from jaxrecon.experiments import meta_against_plain as experiment


def evaluation(value):
    row = dict.fromkeys(experiment.METRICS, value)
    worse = {place: dict.fromkeys(experiment.METRICS, 0.25) for place in ("after", "kept")}
    return {
        "before": dict.fromkeys(experiment.METRICS, 100.0),
        "after": row,
        "kept": row,
        "worse_than_before": worse,
    }


@pytest.fixture
def measured(monkeypatch):
    """Calls of what trains and measures; the meta-trained arm ends 10 mm lower, by seed +-1."""
    calls = []

    def measure(folder, arm, steps, seed, examples, tto_steps, share, changes):
        calls.append((arm, seed, share, changes["tto.dual_step"]))
        return evaluation((60.0 if arm == "meta" else 70.0) + seed * (2 if arm == "meta" else 1))

    monkeypatch.setattr(experiment, "_measure", measure)
    return calls


def test_every_cell_is_measured_once_and_kept(tmp_path, measured):
    found = experiment.run(tmp_path, 1, [0, 1], 5, 2)
    assert len(measured) == len(set(measured)) == 2 * len(experiment.ROWS) * len(experiment.NOISES)
    again = experiment.run(tmp_path, 1, [0, 1], 5, 2)
    assert len(measured) == 12
    assert json.dumps(found) == json.dumps(again)


def test_the_page_says_the_paired_differences(tmp_path, measured, capsys):
    status = experiment.main(["x", f"--output={tmp_path}", "--seeds=0,1", "--steps=3"])
    assert status == 0
    text = (tmp_path / "README.md").read_text()
    assert "| meta + dual step | annotated | 100.0 ± 0.0 | 61.0 ± 1.4 |" in text
    assert "25 %, 25 %" in text
    # 70 - 60 and 71 - 62
    assert "mpjpe 9.5 ± 0.7" in text and "3 steps of batch 32" in text
    assert "Both arms start from the shipped small model" in text
    assert str(tmp_path / "README.md") in capsys.readouterr().out


def test_wrong_flags_are_one_line(capsys):
    assert experiment.main(["x", "--seeds=one"]) == 2
    assert experiment.main(["x", "--step=1"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
