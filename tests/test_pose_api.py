"""A user's own keypoints through a trained network: `load`, `reconstruct`, `save`, and mistakes."""

import json

import numpy as np
import pytest

import jaxrecon
from jaxrecon.errors import UserError
from jaxrecon.main import main
from jaxrecon.pose_reconstruction import PoseReconstruction


def call(*arguments: str) -> int:
    return main(["jaxrecon", *arguments])


def pixels(frames: int = 5, joints: int = 17) -> np.ndarray:
    return np.random.default_rng(0).uniform(300, 700, (frames, joints, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert call("--config=mhrnet:tiny", f"--workdir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def lifter(trained):
    return jaxrecon.load(trained)


def test_arrays_and_files_agree(lifter, tmp_path):
    found = lifter.reconstruct(pixels(), 1100.0)
    assert found.joints3d.shape == (5, 17, 3) and found.hypotheses.shape == (5, 3, 17, 3)
    assert (np.diff(found.errors, axis=1) >= 0).all() and found.joint_names[0] == "pelvis"
    np.savez(tmp_path / "mine.npz", keypoints2d=pixels(), focal_length=1100.0)
    again = lifter.reconstruct(tmp_path / "mine.npz")
    np.testing.assert_array_equal(again.hypotheses, found.hypotheses)
    # x and y are the observed ones: the shape projects onto the evidence.
    image = found.joints3d[..., :2] / (5 + found.joints3d[..., 2:])
    seen = pixels() - pixels()[:, :1]
    np.testing.assert_allclose(image / np.abs(image).max(), seen / np.abs(seen).max(), atol=1e-4)


def test_hypotheses_and_seed(lifter):
    many = lifter.reconstruct(pixels(), hypotheses=7)
    assert many.hypotheses.shape[1] == 7 and many.errors.shape == (5, 7)
    other = lifter.reconstruct(pixels(), hypotheses=7, seed=1)
    assert np.abs(other.hypotheses - many.hypotheses).max() > 0


def test_every_suffix(lifter, tmp_path):
    found = lifter.reconstruct(pixels(2))
    for name in ("a.npz", "a.html", "a.png", "a.webp", "a.glb", "a.obj", "a.ply"):
        assert found.save(tmp_path / name).stat().st_size > 500, name
    again = PoseReconstruction.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.hypotheses, found.hypotheses)
    assert again.bones == found.bones and again.joint_names == found.joint_names
    with pytest.raises(UserError, match="must end in"):
        found.save(tmp_path / "a.txt")
    with pytest.raises(UserError, match="no frame 2"):
        found.save(tmp_path / "b.png", frame=2)
    (tmp_path / "c.npz").write_bytes(b"hello")
    with pytest.raises(UserError, match="no pose reconstruction"):
        PoseReconstruction.load(tmp_path / "c.npz")


def test_saved_and_loaded_again(lifter, tmp_path):
    lifter.save(tmp_path / "kept")
    again = jaxrecon.load(tmp_path / "kept")
    assert again.config.data.factor == lifter.config.data.factor > 0
    one, two = (x.reconstruct(pixels(2)).joints3d for x in (lifter, again))
    np.testing.assert_array_equal(one, two)


def test_a_published_file_is_loaded_too(trained, lifter, tmp_path):
    path = tmp_path / "model_best.bin"
    assert call("--mode=convert", f"--input={trained}", f"--output={path}") == 0
    found = jaxrecon.load(path, system={"test_hypotheses": 2}).reconstruct(pixels(2))
    assert found.hypotheses.shape[1] == 2
    same = jaxrecon.load(path).reconstruct(pixels(2))
    np.testing.assert_array_equal(same.joints3d, lifter.reconstruct(pixels(2)).joints3d)


def test_reconstruct_from_the_command_line(trained, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", keypoints2d=pixels(3))
    options = (f"--workdir={trained}", f"--input={tmp_path / 'mine.npz'}")
    out = tmp_path / "out"
    assert call("--mode=reconstruct", *options, f"--output={out}") == 0
    assert "3 frames, 3 hypotheses each" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {
        "poses.npz", "poses.html", "turntable.webp", "first_frame.png", "first_frame.glb",
    }  # fmt: skip


@pytest.mark.slow
def test_evaluate_from_python(lifter, tmp_path):
    scores = lifter.evaluate(tmp_path)
    assert scores.frames == 16
    assert json.loads((tmp_path / "evaluation.json").read_text())["after"] == scores.own


def _nan_frame():
    points = pixels()
    points[2] = np.nan
    return points


def _one_missing():
    points = pixels()
    points[1, 4] = np.nan
    return points


RAGGED = np.array([pixels(1)[0], pixels(1, 3)[0]], dtype=object)
MISTAKES = [
    (RAGGED, "ragged"),
    (_nan_frame(), "frame 2 has 0 visible keypoints"),
    (_one_missing(), "frame 1 lacks joints"),
    (pixels(3, 16), "has 16 joints and the network 17"),
    (np.zeros((0, 17, 2)), "there is nothing in it"),
    (np.full((2, 17, 2), np.inf), "infinite"),
    (np.ones((2, 17, 2)), "coincide|set the scale"),
]


@pytest.mark.parametrize(("points", "message"), MISTAKES)
def test_mistakes_are_one_line(points, message, trained, lifter, tmp_path, capsys):
    with pytest.raises(UserError, match=message):
        lifter.reconstruct(points)
    np.savez(tmp_path / "mine.npz", keypoints2d=points)
    out = tmp_path / "out"
    options = (f"--workdir={trained}", f"--input={tmp_path / 'mine.npz'}", f"--output={out}")
    assert call("--mode=reconstruct", *options) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "mine.npz" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"PK hello", "not a readable keypoint file")]
)
def test_files_that_are_none(content, message, trained, tmp_path, capsys):
    (tmp_path / "mine.npz").write_bytes(content)
    options = (f"--workdir={trained}", f"--input={tmp_path / 'mine.npz'}")
    assert call("--mode=reconstruct", *options, f"--output={tmp_path / 'out'}") == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.count("\n") == 0
