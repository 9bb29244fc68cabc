"""MHR-Net through the command line: train, resume, evaluate, convert, and mistakes."""

import json

import numpy as np
import pytest
import scipy.io

from jaxrecon.main import main
from jaxrecon.training.checkpoints import load_variables


def call(*arguments: str) -> int:
    return main(["jaxrecon", *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert call("--config=mhrnet:tiny", f"--workdir={folder}") == 0
    return folder


def test_a_run_and_its_page(trained):
    found = json.loads((trained / "evaluation.json").read_text())
    assert found["examples"] == 16 and found["after"]["mpjpe"] > 0
    assert set(found["baselines"]) == {
        "rigid shape, posed by the 2D",
        "rigid shape, posed by the truth",
    }
    assert found["normalisation_factor"] > 0
    page = (trained / "index.html").read_text()
    assert "hypothesis 2, side" in page and "MPJPE" in page
    assert (trained / "turntable.webp").stat().st_size > 1000
    assert len(list((trained / "hypotheses").glob("*.png"))) >= 6


@pytest.mark.slow
def test_evaluated_again_it_is_the_same(trained, capsys):
    before = json.loads((trained / "evaluation.json").read_text())["after"]
    assert call("--mode=evaluate", f"--workdir={trained}") == 0
    assert "MHR-Net" in capsys.readouterr().out
    assert json.loads((trained / "evaluation.json").read_text())["after"] == before


def test_to_published_and_back(trained, tmp_path):
    there, back = tmp_path / "model_epoch_2.bin", tmp_path / "back"
    config = "--config=mhrnet:tiny"
    assert call("--mode=convert", f"--input={trained}", f"--output={there}", config) == 0
    assert call("--mode=convert", f"--input={there}", f"--output={back}", config) == 0
    one, two = load_variables(trained)[0], load_variables(back)[0]
    np.testing.assert_array_equal(
        one["params"]["rot_layer"]["kernel"], two["params"]["rot_layer"]["kernel"]
    )


@pytest.mark.slow
def test_trains_on_from_a_published_file(trained, tmp_path, capsys):
    file = tmp_path / "model_epoch_2.bin"
    assert call("--mode=convert", f"--input={trained}", f"--output={file}") == 0
    options = ("--config=mhrnet:tiny", f"--config.training.init_from={file}")
    assert call(*options, f"--workdir={tmp_path / 'more'}", "--config.training.epochs=3") == 0
    assert "continuing after epoch 2 of 3" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_keypoints_and_own_files(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 800, (40, 9, 2))
    points[rng.uniform(size=(40, 9)) < 0.2] = np.nan
    np.savez(tmp_path / "mine.npz", keypoints2d=points)
    options = ("--config=mhrnet:tiny", "--config.data.source=file", "--config.system.joints=0")
    path = f"--config.data.path={tmp_path / 'mine.npz'}"
    assert call(*options, path, f"--workdir={tmp_path / 'run'}") == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(found["after"]) == {"reprojection"} and found["after"]["reprojection"] > 0


@pytest.mark.slow
def test_missing_keypoints_are_scored_at_several_shares(tmp_path, capsys):
    options = ("--config=mhrnet:tiny", "--config.data.missing=0.2")
    assert call(*options, f"--workdir={tmp_path / 'run'}") == 0
    groups = json.loads((tmp_path / "run" / "evaluation.json").read_text())["groups"]
    shares = [f"MHR-Net, {share} % missing" for share in (0, 10, 20, 30, 40)]
    assert list(groups) == shares and "MHR-Net, 40 % missing" in capsys.readouterr().out
    assert all(np.isfinite(value) for row in groups.values() for value in row.values())
    # A network that was told about missing joints takes a file with some.
    points = np.random.default_rng(0).uniform(0, 800, (4, 17, 2))
    points[1, 3] = np.nan
    np.savez(tmp_path / "mine.npz", keypoints2d=points)
    where = (f"--input={tmp_path / 'mine.npz'}", f"--output={tmp_path / 'out'}")
    assert call("--mode=reconstruct", f"--workdir={tmp_path / 'run'}", *where) == 0


@pytest.mark.slow
def test_a_sequence(tmp_path):
    at = np.linspace(0, 6, 32)
    spin = np.stack([np.cos(at), np.sin(at), -np.sin(at), np.cos(at)]).reshape(2, 2, -1)
    cloud = np.random.default_rng(0).normal(size=(3, 6, 1)) + np.zeros((3, 6, 32))
    cloud[[0, 2]] = np.einsum("abf,bpf->apf", spin, cloud[[0, 2]])
    scipy.io.savemat(tmp_path / "x.mat", {"X": cloud})
    options = ("--config=mhrnet:sequence", "--config.training.epochs=2")
    path = f"--config.data.path={tmp_path / 'x.mat'}"
    small = ("--config.system.width=16", "--config.training.batch_size=16")
    assert call(*options, path, *small, f"--workdir={tmp_path / 'run'}") == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 < found["after"]["after_rotation"] <= found["after"]["normalised_3d_error"]
    fit = next(row for name, row in found["baselines"].items() if name.startswith("classical"))
    assert fit["normalised_3d_error"] < 0.02  # a rigid shape on a turning camera


@pytest.mark.slow
def test_the_table_of_sequences(tmp_path, capsys):
    from jaxrecon.pose_table import main as table

    at = np.linspace(0, 6, 40)
    cloud = np.random.default_rng(0).normal(size=(3, 6, 1)) * np.ones(40)
    cloud[0], cloud[2] = (
        np.cos(at) * cloud[0] + np.sin(at) * cloud[2],
        np.cos(at) * cloud[2] - np.sin(at) * cloud[0],
    )
    scipy.io.savemat(tmp_path / "turn.mat", {"X": cloud})
    small = ("--config.training.epochs=1", "--config.system.width=16")
    assert table([str(tmp_path), f"--workdir={tmp_path / 'runs'}", *small]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| turn | 40 | 6 |"))
    # The sequence is rigid: turned by the truth, its mean shape is the answer.
    assert float(row.split("|")[5]) < 1e-3
    assert (tmp_path / "runs" / "table.md").read_text().strip() in printed
    assert table([str(tmp_path / "runs")]) == 2
    assert "holds no .mat" in capsys.readouterr().err
    assert table([str(tmp_path), "--steps=3"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--config.data.source=lidar",), "open_body, h36m, vw300, surreal, file, sequence"),
        (("--config.data.source=vw300", "--config.data.path=x"), "projection=orthographic"),
        (("--config.data.fit=true",), "projection=orthographic"),
        (("--config.data.source=file",), "needs config.data.path"),
        (("--config.system.joints=5",), "the data have 17 joints"),
        (("--config.system.width=30",), "multiple of 4"),
        (("--config.training.batch_size=500",), "above the 64 examples"),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert call("--config=mhrnet:tiny", f"--workdir={workdir}", *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.count("\n") == 0
    assert not workdir.exists()
