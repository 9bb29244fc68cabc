"""Configs: presets, overrides by name, and what a wrong one is told."""

import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxrecon.config import (
    available_configs,
    field_names,
    load_config,
    save_config,
    with_new_fields,
)
from jaxrecon.errors import UserError
from jaxrecon.systems.meta_hmr import AdaptSettings, MetaHMR


@pytest.mark.parametrize("preset", ["", "tiny", "pretrain", "resnet50", "paper"])
def test_presets_have_the_same_fields(preset: str) -> None:
    config = load_config(f"metahmr:{preset}")
    assert field_names(config) == field_names(load_config("metahmr"))
    assert config.is_locked


def test_the_paper_preset_is_the_published_setting() -> None:
    config = load_config("configs/metahmr.py:paper")
    assert (config.system.inner_lr, config.system.outer_lr, config.system.aux_lr) == (
        1e-5,
        1e-4,
        1e-6,
    )
    assert config.system.order == "first" and config.system.image_size == (256, 192)
    assert (config.training.batch_size, config.training.epochs, config.tto.steps) == (30, 30, 14)
    assert config.data.mixture == "published" and len(config.data.datasets) == 4
    assert config.data.occlusion == ("h36m", "mpi_inf_3dhp") and not config.system.aux_supervision


def test_the_table_of_settings_tells_the_truth() -> None:
    """Every `group.field=value` and `group.field` of the docstring is one, and is taken."""
    from jaxrecon.configs import metahmr

    table = [line for line in metahmr.__doc__.splitlines() if line.startswith("| ")]
    code = " ".join(re.findall(r"`([^`]+)`", " ".join(table)))
    settings = [word for word in code.split() if re.match(r"[a-z]+\.[a-z_0-9.]+(=|$)", word)]
    assert len(settings) > 40
    for word in settings:
        name, equals, value = word.partition("=")
        if equals:
            load_config("metahmr:paper", {name: value})
        else:
            assert name in field_names(load_config("metahmr")), name


def test_an_older_config_gets_the_fields_that_came_later() -> None:
    whole = load_config("metahmr:paper", {"evaluation.examples": 7})
    older = whole.copy_and_resolve_references().unlock()
    for group, field in (("evaluation", "predictions"), ("data", "photometric"), ("tto", "keep")):
        del older[group][field]
    del older.system["min_depth"]
    filled = with_new_fields(older)
    assert filled.evaluation.predictions == "" and filled.data.photometric is False
    assert filled.tto.keep == load_config("metahmr").tto.keep
    assert filled.evaluation.examples == 7 and "min_depth" not in filled.system
    assert "predictions" not in older.evaluation  # the given one is left alone
    assert load_config(filled, {"predictions": "all.npz"}).evaluation.predictions == "all.npz"


def test_the_paper_preset_makes_the_published_system() -> None:
    """The defaults of `MetaHMR` are the published ones, so the two must not drift apart."""
    config = load_config("metahmr:paper")
    assert config.body.path and config.training.init_from
    test_time = AdaptSettings(stop_change=2e-5)
    want = MetaHMR(mean_pose=False, test_time=test_time, body=config.body.path)
    assert MetaHMR.from_config(config) == want
    assert config.training.eval_every > 0


def test_overrides_by_full_and_by_short_name() -> None:
    config = load_config(
        "metahmr",
        {
            "batch_size": "8",  # of training, although evaluation has one too
            "tto.steps": 3,
            "data.data_dir": "x y",
            "image_size": "64,48",
            "dropout": "1e-1",
            "tensorboard": "true",
            "outer_lr": 1,
        },
    )
    assert config.training.batch_size == 8 and config.evaluation.batch_size == 20
    assert config.tto.steps == 3 and config.data.data_dir == "x y"
    assert config.system.image_size == (64, 48)
    assert config.system.dropout == 0.1 and config.training.tensorboard is True
    assert config.system.outer_lr == 1.0 and isinstance(config.system.outer_lr, float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batchsize", 8, r"unknown config field 'batchsize'; did you mean config.training.batch_s"),
        ("tto.step", 8, "did you mean config.tto.steps"),
        ("zzzz", 8, "the fields are: body.path"),
        ("inner_lr", 1e-3, "ambiguous: config.system.inner_lr, config.tto.inner_lr"),
        ("batch_size", "many", "config.training.batch_size takes a whole number, not 'many'"),
        ("batch_size", "8.5", "takes a whole number"),
        ("batch_size", True, "takes a whole number"),
        ("batch_size", 8.0, "takes a whole number"),
        ("outer_lr", "fast", "takes a number"),
        ("augment", "maybe", "takes true or false"),
        ("image_size", "a,b", "takes a whole number"),
        ("order", 2, "takes text"),
        ("tto", "3", "config.tto is a group"),
    ],
)
def test_wrong_overrides_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config("metahmr", {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("metahmr:papr", r"unknown preset 'papr' \(did you mean 'paper'\?\); there are: ''"),
        ("metahrm", r"no config 'metahrm' \(did you mean 'metahmr'\?\)"),
        ("nowhere/metahmr.py", "no config 'nowhere/metahmr.py'"),
        ("absent.json", "no such config file"),
    ],
)
def test_wrong_configs_are_named(config: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(config)


def test_files_of_the_working_directory_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/metahmr.py").training.batch_size == 32  # the package's
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metahmr.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(preset=''):\n    return ConfigDict({'x': preset or 'mine'})\n"
    )
    assert load_config("configs/metahmr.py").x == "mine"
    assert load_config("configs/metahmr.py:other").x == "other"
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(UserError, match="broken.py fails: ModuleNotFoundError"):
        load_config("broken.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="has no function get_config"):
        load_config("empty.py")


def test_a_resolved_config_comes_back_from_its_file(tmp_path: Path) -> None:
    config = load_config("metahmr:tiny", {"steps": 7, "image_size": (32, 32)})
    path = save_config(config, tmp_path / "run")
    again = load_config(str(path))
    assert again.to_dict() == config.to_dict()
    assert again.system.image_size == (32, 32) and isinstance(again.system.image_size, tuple)
    path.write_text(json.dumps([1]))
    with pytest.raises(UserError, match="is not JSON of a config"):
        load_config(str(path))


def test_a_given_config_is_copied() -> None:
    mine = ConfigDict({"training": {"steps": 3}})
    assert load_config(mine, {"steps": 5}).training.steps == 5
    assert load_config({"training": {"steps": 3}}).training.steps == 3
    assert mine.training.steps == 3


def test_configs_are_listed() -> None:
    assert "metahmr" in available_configs()


def test_a_packaged_config_by_its_whole_path(tmp_path, monkeypatch):
    import jaxrecon.configs.metahmr as packaged

    path = str(Path(packaged.__file__).resolve())
    monkeypatch.chdir(tmp_path)
    assert load_config(f"{path}:tiny").training.steps == load_config("metahmr:tiny").training.steps
