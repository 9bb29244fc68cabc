"""Checkpoints: what comes back, what is kept, and how damage is told."""

import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxrecon.errors import UserError
from jaxrecon.training.checkpoints import (
    Checkpoints,
    RunRecord,
    find_checkpoint,
    load_variables,
    save_variables,
)
from jaxrecon.training.state import TrainState


def make_state(width: int = 4, seed: int = 0) -> TrainState:
    rng = np.random.default_rng(seed)
    params = {"layer": {"kernel": rng.normal(size=(3, width)).astype(np.float32)}}
    return TrainState(
        step=np.asarray(7, np.int32),
        params=params,
        batch_stats={"mean": rng.normal(size=width).astype(np.float32)},
        opt_state=optax.adam(1e-3).init(params),
        rng=np.asarray(jax.random.PRNGKey(seed)),
    )


def record(step: int) -> RunRecord:
    return RunRecord(step, {"system": "toy"}, {"position": b"\x00\xff", "n": 3}, [{"loss": 0.1}])


def save(folder: Path, *steps: int, scores: dict[int, float] | None = None) -> TrainState:
    state = make_state()
    checkpoints = Checkpoints(folder, keep=2, best_metric="pa_mpjpe" if scores else None)
    for step in steps:
        score = (scores or {}).get(step)
        metrics = None if score is None else {"pa_mpjpe": score}
        checkpoints.save(state, record(step), metrics)
    checkpoints.close()
    return state


def test_everything_comes_back(tmp_path: Path) -> None:
    state = save(tmp_path, 7)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 7
    assert checkpoints.read_record(7) == record(7)
    restored = checkpoints.restore(7, make_state(seed=1))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, state, restored)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5, scores={1: 90.0, 2: 60.0, 4: 80.0})
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [2, 4, 5]


def test_variables_load_from_run_folder_or_checkpoint(tmp_path: Path) -> None:
    state = save(tmp_path, 3, 8)
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "8"):
        variables, found = load_variables(path)
        assert found.step == 8
        assert set(variables) == {"params", "batch_stats"}
        jax.tree.map(np.testing.assert_array_equal, state.params, variables["params"])
    assert load_variables(tmp_path / "checkpoints" / "3")[1].step == 3


def test_variables_alone_can_be_saved(tmp_path: Path) -> None:
    state = make_state()
    variables = {
        "params": state.params,
        "batch_stats": state.batch_stats,
        "constants": {"licensed": np.ones(3)},
    }
    for _ in range(2):  # the second replaces the first
        folder = save_variables(tmp_path / "small", variables, record(9))
    found, kept = load_variables(folder)
    assert kept == record(9) and set(found) == {"params", "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, found["params"], state.params)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name, message in (("other", "holds other things"), ("file", "is a file")):
        with pytest.raises(UserError, match=message):
            save_variables(tmp_path / name, variables, record(9))


def test_other_shapes_are_named(tmp_path: Path) -> None:
    save(tmp_path, 7)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="checkpoints/7") as caught:
        checkpoints.restore(7, make_state(width=5))
    checkpoints.close()
    assert "\n" not in str(caught.value) and "--workdir" in str(caught.value)


def truncate_arrays(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and "/d/" in path.as_posix():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_arrays(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def cut_record(folder: Path) -> None:
    path = folder / "run" / "metadata"
    path.write_text(path.read_text()[:20])


def drop_record(folder: Path) -> None:
    shutil.rmtree(folder / "run")


def make_foreign(folder: Path) -> None:
    (folder / "run" / "metadata").write_text('{"epoch": 3}')


@pytest.mark.parametrize(
    "damage", [truncate_arrays, drop_arrays, cut_record, drop_record, make_foreign]
)
def test_damage_is_one_line_with_the_path(tmp_path: Path, damage) -> None:
    save(tmp_path, 7)
    folder = tmp_path / "checkpoints" / "7"
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_variables(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError) as again:
        checkpoints.read_record(7)
        checkpoints.restore(7, make_state())
    checkpoints.close()
    for message in (str(caught.value), str(again.value)):
        assert str(folder) in message
        assert "\n" not in message
        assert "delete" in message


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match="no checkpoint in"):
        find_checkpoint(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="is a file"):
        find_checkpoint(tmp_path / "model.pt")
