"""The command line: every mistake is one line and leaves nothing behind; the modes work."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxrecon.config import load_config
from jaxrecon.io.images import write_image
from jaxrecon.main import main
from jaxrecon.training.checkpoints import RunRecord, save_variables
from tests.data.people import photograph

ROOT = Path(__file__).resolve().parents[1]
PERSON = np.array([[60 + 3 * i, 20 + 7 * (i % 12), 0.9] for i in range(25)])


def call(*arguments: str) -> int:
    return main(["jaxrecon", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a photograph and its keypoints, and the ways to spoil them."""
    monkeypatch.chdir(tmp_path)
    write_image("photo.jpg", photograph(1))
    write_keypoints("photo.json", [PERSON])
    return tmp_path


def write_keypoints(path: str, people: list[np.ndarray]) -> None:
    entries = [{"pose_keypoints_2d": person.ravel().tolist()} for person in people]
    Path(path).write_text(json.dumps({"people": entries}))


def with_nan() -> list[np.ndarray]:
    person = PERSON.copy()
    person[3, 1] = np.nan
    return [person]


class Evil:
    """A pickle that runs a command when it is loaded carelessly."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def truncated_checkpoint() -> None:
    config = load_config("metahmr:tiny")
    variables = {"params": {"w": np.ones((64, 64), np.float32)}, "batch_stats": {}}
    saved = save_variables("run/checkpoints/3", variables, RunRecord(3, config.to_dict(), None, []))
    for path in saved.rglob("*"):
        if path.is_file() and "/d/" in path.as_posix():
            path.write_bytes(path.read_bytes()[:100])


SPOIL: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "remove photo": lambda: Path("photo.jpg").unlink(),
    "photo is a folder": lambda: (Path("photo.jpg").unlink(), Path("photo.jpg").mkdir()),
    "corrupt photo": lambda: Path("photo.jpg").write_bytes(Path("photo.jpg").read_bytes()[:700]),
    "photo of text": lambda: Path("photo.jpg").write_text("not a picture"),
    "remove keypoints": lambda: Path("photo.json").unlink(),
    "empty json": lambda: Path("photo.json").write_text("{}"),
    "empty file": lambda: Path("photo.json").write_text(""),
    "cut json": lambda: Path("photo.json").write_text('{"people": [{"pose'),
    "nan keypoints": lambda: write_keypoints("photo.json", with_nan()),
    "nobody": lambda: write_keypoints("photo.json", []),
    "nobody seen": lambda: write_keypoints("photo.json", [PERSON * 0]),
    "evil body": lambda: Path("evil.pkl").write_bytes(pickle.dumps(Evil())),
    "evil torch": lambda: Path("evil.pt").write_bytes(pickle.dumps(Evil())),
    "truncated": truncated_checkpoint,
    "out is a file": lambda: Path("out").write_text("mine"),
    "run is a file": lambda: Path("run").write_text("mine"),
    "empty run": lambda: Path("run").mkdir(),
}
FIT = ("--mode=reconstruct", "--input=photo.jpg", "--keypoints=photo.json", "--output=out")
USE = ("--mode=reconstruct", "--input=photo.jpg", "--keypoints=photo.json", "--output=out")

MISTAKES = [
    ("remove photo", FIT, r"photo\.jpg"),
    ("photo is a folder", FIT, r"the folder photo\.jpg is empty"),
    ("corrupt photo", FIT, r"photo\.jpg"),
    ("photo of text", FIT, r"photo\.jpg"),
    ("remove keypoints", FIT, r"no such keypoint file: photo\.json"),
    ("empty json", FIT, r"photo\.json"),
    ("empty file", FIT, r"photo\.json"),
    ("cut json", FIT, r"photo\.json is not valid JSON"),
    ("nan keypoints", FIT, r"photo\.json: person 0, joint 3"),
    ("nobody", FIT, r"photo\.json holds no person"),
    ("nobody seen", FIT, r"photo\.jpg: no keypoint has a confidence"),
    ("out is a file", FIT, "--output=out is a file"),
    ("nothing", FIT[:2] + FIT[3:], "give --keypoints .* or trained weights"),
    ("nothing", FIT[:1] + FIT[2:], "needs --input"),
    ("nothing", FIT[:3], "needs --output"),
    ("nothing", (*FIT, "--bbox=1,2,3"), r"--bbox=1,2,3 has 3 numbers"),
    ("nothing", (*FIT, "--bbox=1,2,0,5"), "no area"),
    ("nothing", (*FIT, "--bbox=900,900,20,50"), r"photo\.jpg|no detected person"),
    ("nothing", (*FIT, "--bbox=absent.json"), r"absent\.json"),
    ("nothing", (*FIT, "--focal_length=-3"), "focal length"),
    ("nothing", (*FIT, "--config.body.path=absent.pkl"), r"absent\.pkl"),
    ("evil body", (*FIT, "--config.body.path=evil.pkl"), r"evil\.pkl"),
    ("nothing", (*FIT, "--config.batchsize=8"), "did you mean config.training.batch_size"),
    ("nothing", (*FIT, "--config.batch_size=many"), "takes a whole number"),
    ("nothing", (*FIT, "--config.batch_size"), "has no value"),
    ("nothing", (*FIT, "--config=metahmr:papr"), "did you mean 'paper'"),
    ("nothing", (*FIT, "--config=configs/other.py"), r"no config 'configs/other\.py'"),
    ("nothing", (*FIT, "--keypoint=photo.json"), "keypoint.*Did you mean: keypoints"),
    ("nothing", (*FIT, "--steps=some"), "steps"),
    ("nothing", (*FIT[1:], "--mode=dance"), "mode.*train"),
    ("nothing", (*FIT, "photo.json"), "belongs to no flag"),
    ("truncated", (*FIT, "--checkpoint=run"), r"run/checkpoints/3 cannot be read"),
    ("truncated", (*FIT, "--workdir=run"), r"run/checkpoints/3 cannot be read"),
    ("empty run", (*FIT, "--checkpoint=run"), "no checkpoint in run"),
    ("empty run", (*FIT, "--workdir=run"), "--workdir=run has no checkpoint"),
    ("nothing", ("--mode=evaluate", "--workdir=run"), "no checkpoint at run"),
    ("truncated", ("--mode=evaluate", "--workdir=run"), "cannot be read"),
    ("run is a file", ("--mode=train", "--workdir=run"), "run is a file"),
    ("nothing", ("--mode=train", "--config.order=third"), "order='third'"),
    ("nothing", ("--mode=train", "--config.system.name=meta_hmm"), "did you mean 'meta_hmr'"),
    ("nothing", ("--mode=train", "--config.datasets=open_bodi"), "did you mean 'open_body'"),
    ("nothing", ("--mode=train", "--config.init_from=absent"), "no checkpoint at absent"),
    ("evil torch", ("--mode=convert", "--input=evil.pt", "--output=out"), r"evil\.pt"),
    ("nothing", ("--mode=convert", "--input=absent.pt", "--output=out"), r"absent\.pt"),
]


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"), MISTAKES, ids=[f"{m[0]}: {m[2]}" for m in MISTAKES]
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folder: Path,
    capsys: pytest.CaptureFixture,
    spoil: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    SPOIL[spoil]()
    before = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    capsys.readouterr()
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("jaxrecon: ")
    import re

    assert re.search(message, err), err
    after = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    assert after == before, "something was written"


def test_help_and_the_console_script(capsys: pytest.CaptureFixture) -> None:
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert "--mode" in out and "--config.group.field=value" in out
    # As a process: the status arrives, and importing the package loads neither JAX nor TFDS.
    done = subprocess.run(
        [sys.executable, "-m", "jaxrecon.main", "--mode=reconstruct"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert done.stderr == "jaxrecon: --mode=reconstruct needs --input\n"
    quick = (
        "import sys, jaxrecon, jaxrecon.main\n"
        "print([name for name in ('jax', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", quick], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_reconstruct_by_fitting_alone(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*FIT) == 0
    out = capsys.readouterr().out
    assert "mean 2D error over 25 confident keypoints" in out
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {
        "photo.npz",
        "photo.glb",
        "photo.html",
        "photo_overlay.png",
        "photo_side.png",
    }
    shutil.rmtree(folder / "out")
