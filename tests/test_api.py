"""The doors on a run that really happened: fit, load, reconstruct, evaluate, save, convert.

The data set is replaced by a few made-up records, so that nothing is rendered.
"""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrecon
from jaxrecon import api, runs
from jaxrecon.data import pipeline
from jaxrecon.errors import UserError
from jaxrecon.io.images import write_image
from jaxrecon.io.torch_files import read_checkpoint, write_checkpoint
from jaxrecon.main import main
from tests.data.people import make_records, photograph
from tests.training.test_logging import read_events

SMALL = {
    "image_size": (32, 32),
    "main_iterations": 1,
    "aux_iterations": 1,
    "steps": 3,
    "tto": {"steps": 1},
    "evaluation": {
        "examples": 6,
        "predictions": "found.npz",
        "overlay_every": 3,
        "mesh_every": 5,
    },
    "tensorboard": importlib.util.find_spec("tensorboardX") is not None,
}
PERSON = np.array([[60 + 3 * i, 20 + 7 * (i % 12), 0.9] for i in range(25)], np.float32)


def made_up(config):
    return [make_records(12)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """A finished run and its Reconstructor."""
    folder = tmp_path_factory.mktemp("doors") / "run"
    # The compiler's best takes longer here than all that is computed.
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, runs):
            patch.setattr(module, "open_sources", made_up)
        yield folder, jaxrecon.fit("metahmr:tiny", folder, **SMALL)
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_image("photo.jpg", photograph(1))
    people = [{"pose_keypoints_2d": PERSON.ravel().tolist()}]
    Path("photo.json").write_text(json.dumps({"people": people}))
    return "photo.jpg"


def test_fit_leaves_a_whole_run(run) -> None:
    folder, reconstructor = run
    assert reconstructor.step == 3
    for name in ("config.json", "metrics.jsonl", "train.csv", "evaluation.csv", "timing.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["examples"] == 6
    assert [row["step"] for row in evaluation["curve"]] == [0, 1]
    for name in ("joints", "alignment", "keypoint_source", "body", "dataset", "adaptation_unit"):
        assert name in evaluation["protocol"], name
    assert evaluation["protocol"]["adaptation_steps"] == 1
    assert evaluation["protocol"]["dataset"] == "open_body/tiny"
    assert {"pa_mpjpe", "mpjpe", "pve"} <= set(evaluation["mean_pose"])
    page = (folder / "index.html").read_text()
    assert "PA-MPJPE" in page and 'src="http' not in page
    assert (folder / "turntable.webp").is_file() and list((folder / "overlays").iterdir())
    saved = {p.name for p in (folder / "checkpoints" / "3" / "variables").rglob("*")}
    assert not any("v_template" in name for name in saved)  # the body's arrays stay out


def test_pictures_while_training(run) -> None:
    pytest.importorskip("tensorboardX", reason="the event files need tensorboardX")
    events = read_events(run[0] / "tensorboard")
    step, value = events["evaluation/overlay_3"]
    assert step == 2 and (value.image.height, value.image.width) == (120, 140)
    assert "overlay" not in (run[0] / "evaluation.csv").read_text()


def test_the_same_command_has_nothing_to_do(run, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = run
    finished = []
    monkeypatch.setattr(api, "finish", lambda *args: finished.append(args))
    before = (folder / "metrics.jsonl").read_bytes()
    command = ["jaxrecon", f"--config={folder}/config.json", f"--workdir={folder}"]
    assert main(command) == 0
    assert len(finished) == 1 and "continuing at step 3 of 3" in capsys.readouterr().err
    assert (folder / "metrics.jsonl").read_bytes() == before

    assert main([*command, "--config.dropout=0.25"]) == 2
    assert "config.system.dropout is 0.0 there and 0.25 here" in capsys.readouterr().err
    assert main([*command, "--config.steps=3", "--config.log_every=9"]) == 0


def test_load_gives_the_same_predictions(run, tmp_path: Path) -> None:
    folder, reconstructor = run
    config = reconstructor.config
    data = runs.evaluation_data(config)
    batch = next(runs.evaluation_batches(config, data, runs.evaluation_source(data, 4)))
    expected = reconstructor.adapt(batch, 0).history
    assert expected.betas.shape == (1, 4, 10)
    saved = reconstructor.save(tmp_path / "small")
    for path in (folder, saved):
        loaded = jaxrecon.load(path, tto={"steps": 5})
        assert loaded.config.tto.steps == 5 and loaded.step == 3
        found = loaded.adapt(batch, 0).history
        jax.tree.map(np.testing.assert_array_equal, expected, found)


def test_evaluate_by_python_and_by_command(run, tmp_path: Path, capsys) -> None:
    folder, reconstructor = run
    evaluation = reconstructor.evaluate(0, examples=5, workdir=tmp_path)
    assert evaluation.examples == 5 and len(evaluation.curve) == 1
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again["before"] == evaluation.before
    capsys.readouterr()
    arguments = [f"--checkpoint={folder}", f"--workdir={tmp_path}", "--steps=0"]
    assert main(["jaxrecon", "--mode=evaluate", *arguments, "--config.examples=5"]) == 0
    printed = capsys.readouterr()
    assert f"{evaluation.before['pa_mpjpe']:.2f}" in printed.out
    assert f"evaluation.json, {tmp_path}/found.npz, " in printed.err
    with np.load(tmp_path / "found.npz") as found:
        assert len(found["imgname"]) == 5 and not found["step"].any()
    with pytest.raises(UserError, match="must be 0 or more"):
        reconstructor.evaluate(-1)


def test_fit_leaves_predictions_and_pictures(run) -> None:
    folder, _ = run
    evaluation = json.loads((folder / "evaluation.json").read_text())
    with np.load(folder / "found.npz") as found:
        assert len(found["imgname"]) == 6 and found["pose"].any()
        # `tto.keep` is "probable" by default, and these are the states of its row.
        for name in ("mpjpe", "pa_mpjpe", "pve"):
            assert found[name].mean() == pytest.approx(evaluation["kept"][name], rel=1e-5)
    assert len(list((folder / "overlays").glob("00000?_*_ours.jpg"))) == 2
    assert len(list((folder / "meshes").glob("*.obj"))) == 4


def test_reconstruct_a_photograph(run, photo: str, capsys) -> None:
    folder, reconstructor = run
    found = reconstructor.reconstruct(photo, "photo.json")
    assert isinstance(found, jaxrecon.Reconstruction)
    (body,) = found.instances
    assert body.vertices.shape[1] == 3 and np.isfinite(body.vertices).all()
    assert body.keypoint_set == "openpose25" and found.image is not None
    for name in ("keypoint_error", "loss", "vertices"):
        assert len(body.history[name]) == 2, name  # before, and after the one step
    np.testing.assert_allclose(body.history["vertices"][-1], body.vertices, atol=2e-4)
    assert found.keypoint_error().pixels == pytest.approx(
        body.history["keypoint_error"][-1], rel=1e-2
    )
    arguments = [f"--workdir={folder}", f"--input={photo}", "--keypoints=photo.json"]
    assert main(["jaxrecon", "--mode=reconstruct", *arguments, "--output=out"]) == 0
    assert "mean 2D error over 25 confident keypoints" in capsys.readouterr().out
    written = {p.name for p in Path("out").iterdir()}
    assert {"photo.npz", "photo.glb", "photo.html", "photo_overlay.png"} <= written


def test_a_box_alone_is_enough_to_predict(run, photo: str) -> None:
    _, reconstructor = run
    found = reconstructor.reconstruct(photo, bbox=(20, 10, 80, 100))
    assert found.instances[0].keypoints2d is None
    assert np.isnan(found.keypoint_error().pixels)
    with pytest.raises(UserError, match="need 2D keypoints"):
        reconstructor.reconstruct(photo, bbox=(20, 10, 80, 100), adapt_steps=2)
    with pytest.raises(UserError, match="nothing that says where the person is"):
        reconstructor.reconstruct(photo)


def test_published_layout_and_back(run, tmp_path: Path, capsys) -> None:
    folder, reconstructor = run
    file, back = tmp_path / "ours.pt", tmp_path / "back"
    assert main(["jaxrecon", "--mode=convert", f"--input={folder}", f"--output={file}"]) == 0
    arguments = [f"--input={file}", f"--output={back}", f"--config={folder}/config.json"]
    assert main(["jaxrecon", "--mode=convert", *arguments]) == 0
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    found = jaxrecon.load(back)
    for name in ("params", "batch_stats"):
        jax.tree.map(
            np.testing.assert_array_equal, reconstructor.variables[name], found.variables[name]
        )
    # What a training starts from comes as one file for each network.
    tree = read_checkpoint(file)
    for name, key in (("main", "model"), ("aux", "model_aux")):
        write_checkpoint(tmp_path / f"{name}.pth", {"model": tree[key]})
    both = f"main={tmp_path}/main.pth,aux={tmp_path}/aux.pth"
    parts = [f"--input={both}", f"--output={tmp_path}/parts", arguments[2]]
    assert main(["jaxrecon", "--mode=convert", *parts]) == 0
    joined = jaxrecon.load(tmp_path / "parts")
    jax.tree.map(
        np.testing.assert_array_equal, found.variables["params"], joined.variables["params"]
    )
    parts[0] = f"--input=head={tmp_path}/main.pth"
    assert main(["jaxrecon", "--mode=convert", *parts]) == 2
    assert "no network 'head'" in capsys.readouterr().err
    # Weights of another network are refused with the name of the tensor.
    other = [*arguments[:1], f"--output={tmp_path}/other", "--config=metahmr:tiny"]
    assert main(["jaxrecon", "--mode=convert", *other, "--config.hidden=48"]) == 2
    assert "deccam.weight: the checkpoint has shape (3, 32)" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_training_starts_from_given_weights(run, tmp_path: Path) -> None:
    _, reconstructor = run
    start = reconstructor.save(tmp_path / "start")
    config = api.load_config(
        reconstructor.config, {"init_from": str(start), "steps": 0, "eval_every": 0}
    )
    _, _, result = runs.train_run(config, tmp_path / "next")
    jax.tree.map(
        np.testing.assert_array_equal, result.variables["params"], reconstructor.variables["params"]
    )
    with pytest.raises(UserError, match="other settings"):
        runs.train_run(api.load_config(config, {"hidden": 48}), tmp_path / "third")


def test_names_of_the_package() -> None:
    assert jaxrecon.fit is api.fit and jaxrecon.load is api.load
    assert jaxrecon.Reconstructor is api.Reconstructor
    assert {"fit", "load", "Reconstructor", "Reconstruction"} <= set(dir(jaxrecon))
    with pytest.raises(AttributeError, match="no attribute 'reconstrutor'"):
        jaxrecon.reconstrutor  # noqa: B018
    assert api.default_workdir("metahmr:tiny") == Path("runs/metahmr-tiny")
    assert api.default_workdir("configs/metahmr.py") == Path("runs/metahmr")
