"""The parity runner itself: it must be able to fail."""

import numpy as np
import pytest

from tests.golden import check, runner


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with cases of two made-up kinds, one of them the longer name."""
    monkeypatch.setattr(runner, "_KINDS", {})
    for name in ("toy_a", "h_toy_a_b", "stranger", "synthetic_model"):
        np.savez(tmp_path / f"{name}.npz", in_x=np.arange(3.0), out_y=np.arange(3.0) * 2)
    runner.kind("toy", "toy")(
        lambda case: [runner.Check("y", 2 * case.arrays["in_x"], case.arrays["out_y"], 1e-6)]
    )
    monkeypatch.setattr(check, "load_kinds", lambda system: None)
    return tmp_path


def test_longest_kind_wins(folder):
    runner.kind("toy", "toy_a")(lambda case: [])
    assert runner.find_kind("toy", "h_toy_a_b") == "toy_a"
    assert runner.find_kind("toy", "toy_b") == "toy"
    assert runner.find_kind("toy", "stranger") is None


def test_words_after_the_kind(folder):
    (case,) = (c for c in runner.cases("toy", folder) if c.name == "h_toy_a_b")
    assert case.words == ["a", "b"]


def test_unknown_kind_fails_the_run(folder, capsys):
    assert check.main(["toy", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "stranger" in out and "unknown kind" in out
    assert "synthetic_model" not in out
    assert "2 passed, 1 failed" in out


def test_good_cases_pass(folder):
    (folder / "stranger.npz").unlink()
    assert check.main(["toy", str(folder)]) == 0


def test_wrong_number_wrong_shape_and_nan_fail(folder):
    want = np.ones(3)
    for got in (np.array([1, 1, 1.1]), np.ones(2), np.array([1, np.nan, 1])):
        error, allowed = runner.Check("x", got, want, 1e-3).outcome()
        assert error > allowed


def test_missing_folder(capsys):
    assert check.main(["toy", "no/such/folder"]) == 2
    assert "no such folder" in capsys.readouterr().out
