"""The published training without its data: one message lists everything, until all is there."""

import json

import numpy as np
import pytest

from jaxrecon.bodies.open_body import assets_path
from jaxrecon.config import load_config
from jaxrecon.data.pipeline import train_batches
from jaxrecon.errors import MissingFiles, UserError
from jaxrecon.main import main
from jaxrecon.requirements import check_files
from jaxrecon.runs import training_data
from tests.datasets_builders.people import write_archive, write_download, write_photos, write_smpl

PAPER = "--config=configs/metahmr.py:paper"


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("JAXRECON_MANUAL", raising=False)
    return tmp_path / "data/downloads/manual"


def lacking(config):
    with pytest.raises(MissingFiles) as caught:
        check_files(config)
    return {one.what: one.files for one in caught.value.missing}


def test_the_command_lists_everything_once(tmp_path, data, capsys):
    workdir = tmp_path / "run"
    assert main(["jaxrecon", PAPER, "--mode=train", f"--workdir={workdir}"]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("jaxrecon: ") == 1
    assert not workdir.exists() and not (tmp_path / "data").exists()
    lines = said.err.splitlines()
    for name, folder, source in (
        ("data set 'h36m', split 'train'", "h36m", "vision.imar.ro"),
        ("data set 'coco', split 'train'", "coco", "cocodataset.org"),
        ("data set 'mpii', split 'train'", "mpii", "human-pose.mpi-inf.mpg.de"),
        ("data set 'mpi_inf_3dhp', split 'train'", "mpi_inf_3dhp", "vcai.mpi-inf.mpg.de"),
        ("data set '3dpw', split 'test'", "pw3d", "virtualhumans.mpi-inf.mpg.de"),
        ("config.body.path", "smpl", "smpl.is.tue.mpg.de"),
        ("config.training.init_from", "weights", "--mode=convert"),
    ):
        (first,) = [i for i, line in enumerate(lines) if f" {name} lacks " in line]
        fetch = next(i for i in range(first, len(lines)) if "fetch: " in lines[i])
        assert source in lines[fetch]
        assert lines[fetch + 1].strip() == f"put into: {data / folder}"
    # Two splits of Human3.6M come from one place.
    assert len(lines) == 1 + 7 * 3 + 1 and "'test_p2'" in lines[2]


def test_what_comes_is_not_listed_any_more(data):
    config = load_config("metahmr:paper")
    write_download(data, "coco")
    write_download(data, "3dpw")  # its training part alone
    missing = lacking(config)
    assert "data set 'coco', split 'train'" not in missing
    assert "data set '3dpw', split 'test'" in missing
    for dataset in ("h36m", "mpii", "mpi_inf_3dhp"):
        write_download(data, dataset)
    frame = ["imageFiles/street_00/image_00001.jpg"]
    write_archive(data / "pw3d/3dpw_test_w2d_smpl3d_gender_openpose.npz", frame)
    assert set(lacking(config)) == {
        "data set 'h36m', split 'test_p2'", "config.body.path", "config.training.init_from",
    }  # fmt: skip
    # Other sets are measured while training only.
    config = load_config(config, {"training.eval_every": 0, "training.eval_epochs": 0})
    assert set(lacking(config)) == {"config.body.path", "config.training.init_from"}
    (data / "weights/metahmr-start").mkdir(parents=True)
    for name in ("SMPL_NEUTRAL.pkl", "SMPL_FEMALE.npz", "J_regressor_extra.npy"):
        (data / "smpl").mkdir(exist_ok=True)
        (data / "smpl" / name).write_bytes(b"x")
    assert lacking(config) == {"config.body.path": "SMPL_MALE.pkl, J_regressor_h36m.npy"}
    for name in ("SMPL_MALE.pkl", "J_regressor_h36m.npy"):
        (data / "smpl" / name).write_bytes(b"x")
    check_files(config)


def test_other_settings_that_name_files(tmp_path):
    fine = load_config("metahmr:tiny")
    check_files(fine)
    check_files(load_config("metahmr:tiny", {"body.path": str(assets_path() / "open_body.npz")}))
    for name, value in (
        ("body.path", "none/SMPL_NEUTRAL.pkl"),
        ("data.occluders", "none/occluders.npy"),
    ):
        missing = lacking(load_config("metahmr:tiny", {name: value}))
        assert missing == {f"config.{name}": value.split("/")[1]}
    # A checkpoint that the user has named is the loader's to refuse.
    check_files(load_config("metahmr:tiny", {"init_from": "none"}))
    check_files(load_config("metahmr:tiny", {"init_from": "metahmr-small"}))
    with pytest.raises(UserError, match="'h36' is unknown; did you mean 'h36m'"):
        check_files(load_config("metahmr:tiny", {"data.datasets": "h36"}))
    with pytest.raises(UserError, match="'coco' has no split 'val'; it has train, test"):
        check_files(load_config("metahmr:tiny", {"data.datasets": "coco", "data.split": "val"}))
    with pytest.raises(UserError, match="'coco' has no builder config 'x'; it has smpl, official"):
        check_files(load_config("metahmr:tiny", {"data.datasets": "coco/x"}))


def test_the_published_mixtures_are_made_of_these_data_sets(data):
    counts = {"h36m": 12, "coco": 5, "mpii": 4, "mpi_inf_3dhp": 6, "3dpw": 7}
    for seed, (dataset, count) in enumerate(counts.items()):
        write_download(data, dataset, count, seed)
    everything = {"mixture": "published_3dpw", "data.datasets": ",".join(counts)}
    small = {"system.image_size": (64, 48), "data.threads": 1}
    for overrides, shares in (
        ({}, {"h36m": 0.5, "coco": 0.3 * 5 / 9, "mpii": 0.3 * 4 / 9, "mpi_inf_3dhp": 0.2}),
        (
            everything,
            {"h36m": 0.4, "coco": 0.3 * 5 / 9, "mpii": 0.3 * 4 / 9, "mpi_inf_3dhp": 0.1,
             "3dpw": 0.2},
        ),
    ):  # fmt: skip
        config = load_config("metahmr:paper", {**overrides, **small})
        batches = train_batches(training_data(config), 6, 0)
        assert batches.batches_per_epoch == 12 // 6
        batch = next(batches)
        batches.close()
        assert batch["image"].shape == (6, 64, 48, 3)
        mix = batches._make_item.mix
        assert mix.names == tuple(shares) and mix.lengths == tuple(map(counts.get, shares))
        np.testing.assert_allclose(np.diff(mix.partition, prepend=0), list(shares.values()))


def test_evaluation_sets_by_their_published_names(data):
    from jaxrecon.data.sources import open_source

    root = data / "h36m"
    names = [f"S9_Eating.{camera}_000001.jpg" for camera in ("60457274", "54138969")]
    write_archive(root / "h36m_mosh_val_p1.npz", names)
    write_photos(root, names)
    assert len(open_source("h36m-p1", "test")) == 2
    assert len(open_source("h36m-p2", "test")) == len(open_source("H36M_P2", "test[:1]")) == 1
    write_download(data, "mpi_inf_3dhp")
    assert len(open_source("mpi-inf-3dhp", "train[:3]")) == 3
    with pytest.raises(MissingFiles, match="'mpi_inf_3dhp', split 'test' lacks"):
        open_source("mpi-inf-3dhp", "test")


def test_evaluation_without_its_data(tmp_path, capsys):
    tiny = ["--config=metahmr:tiny", "--config.steps=1", "--config.eval_every=0"]
    workdir = f"--workdir={tmp_path / 'run'}"
    assert main(["jaxrecon", *tiny, "--config.evaluation.dataset=h36m-p2", workdir]) == 2
    said = capsys.readouterr().err
    assert "data set 'h36m', split 'test_p2' lacks h36m_mosh_val_p2" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_published_training_runs_once_all_is_there(tmp_path, data):
    for seed, (dataset, count) in enumerate({"h36m": 8, "coco": 5, "mpii": 4}.items()):
        write_download(data, dataset, count, seed)
    write_download(data, "mpi_inf_3dhp", 6)
    frames = [f"imageFiles/street_00/image_0000{i}.jpg" for i in range(3)]
    write_archive(data / "pw3d/3dpw_test_w2d_smpl3d_gender_openpose.npz", frames)
    write_photos(data / "pw3d", frames)
    write_smpl(data / "smpl")
    small = {
        "system.backbone": "resnet_tiny", "system.aux_backbone": "resnet_tiny",
        "system.hidden": 32, "system.image_size": "64,48", "system.main_iterations": 1,
        "system.aux_iterations": 1, "system.vertex_stride": 64,
        "training.init_from": "", "training.epochs": 1, "training.batch_size": 4,
        "training.log_every": 1, "training.eval_epochs": 0, "training.eval_every": 0,
        "evaluation.batch_size": 3, "tto.steps": 1,
    }  # fmt: skip
    overrides = [f"--config.{name}={value}" for name, value in small.items()]
    assert main(["jaxrecon", PAPER, *overrides, f"--workdir={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert result["examples"] == 3 and result["protocol"]["dataset"] == "3dpw"
    assert result["labelled"]["pa_mpjpe"] == 3
