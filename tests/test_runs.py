"""What makes a run: epochs as steps, when a folder holds the same run, what it starts from."""

from types import SimpleNamespace

import pytest

from jaxrecon import runs
from jaxrecon.config import load_config, save_config
from jaxrecon.errors import UserError


def test_epochs_become_steps() -> None:
    batches = SimpleNamespace(batches_per_epoch=7)
    config = load_config("metahmr:tiny", {"epochs": 3, "eval_epochs": 2, "checkpoint_every": 11})
    training = runs._with_epochs(config, batches).training
    assert (training.steps, training.eval_every, training.checkpoint_every) == (21, 14, 11)
    config = load_config("metahmr:tiny", {"checkpoint_epochs": 1})
    training = runs._with_epochs(config, batches).training
    assert (training.steps, training.eval_every, training.checkpoint_every) == (4, 2, 7)


def test_the_published_evaluation_is_every_five_epochs() -> None:
    training = runs._with_epochs(
        load_config("metahmr:paper"), SimpleNamespace(batches_per_epoch=10000)
    ).training
    assert (training.steps, training.eval_every) == (300000, 50000)


def test_a_run_from_before_a_setting_continues_unless_it_is_changed(tmp_path) -> None:
    config = load_config("metahmr:tiny")
    older = config.copy_and_resolve_references().unlock()
    del older.data["photometric"]
    save_config(older, tmp_path)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    runs.check_same_run(config, tmp_path)
    changed = load_config("metahmr:tiny", {"photometric": True})
    with pytest.raises(UserError, match="config.data.photometric is False there and True here"):
        runs.check_same_run(changed, tmp_path)


def test_an_optimiser_needs_a_checkpoint_to_come_from(tmp_path) -> None:
    config = load_config("metahmr:tiny", {"init_optimizer": True})
    with pytest.raises(UserError, match="training.init_optimizer needs a checkpoint"):
        runs._initial_optimizer(config)
    changes = {"init_optimizer": True, "init_from": "metahmr-small"}
    take = runs._initial_optimizer(load_config("metahmr:tiny", changes))
    with pytest.raises(UserError, match="metahmr-small holds weights alone"):
        take({})
    assert runs._initial_optimizer(load_config("metahmr:tiny")) is None
