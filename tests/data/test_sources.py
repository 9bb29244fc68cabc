import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from jaxrecon.data.pipeline import eval_batches
from jaxrecon.data.sources import builder_names, find_builder, open_source, resolve_name
from jaxrecon.errors import UserError
from tests.data.people import make_record


@pytest.fixture(autouse=True)
def tiny_people(monkeypatch):
    package = importlib.import_module("jaxrecon.datasets_builders")
    folder = str(Path(__file__).parent / "builders")
    monkeypatch.setattr(package, "__path__", [*package.__path__, folder])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


def test_builds_at_first_use_and_only_then(data_dir, capsys):
    source = open_source("tiny_people", "train", data_dir)
    first = capsys.readouterr().err
    assert "Preparing data set tiny_people" in first
    assert len(source) == 12
    open_source("tiny_people", "test", data_dir)
    assert "Preparing" not in capsys.readouterr().err


def test_records_are_what_was_written_with_images_still_encoded(data_dir):
    source = open_source("tiny_people", "test", data_dir)
    wanted = {make_record(number)["imgname"]: make_record(number) for number in range(5)}
    assert len(source) == len(wanted)
    for index in range(len(source)):
        got = source[index]
        want = wanted.pop(got["imgname"].decode())
        assert got["image"] == want["image"]
        for key in ("keypoints2d", "pose", "joints3d", "center", "scale", "has_smpl"):
            np.testing.assert_array_equal(got[key], want[key])
    assert not wanted


def test_a_source_travels_to_another_process(data_dir):
    source = open_source("tiny_people", "train", data_dir)
    copy = pickle.loads(pickle.dumps(source))
    assert copy._opened is None
    np.testing.assert_array_equal(copy[7]["pose"], source[7]["pose"])


def test_the_data_dir_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "here"))
    batches = eval_batches(
        {"datasets": "tiny_people", "split": "test", "height": 32, "width": 24}, 5
    )
    assert next(batches)["image"].shape == (5, 32, 24, 3)
    assert (tmp_path / "here/tiny_people/1.0.0/dataset_info.json").is_file()


def test_a_build_that_fails_leaves_no_data_set(tmp_path):
    with pytest.raises(UserError, match="0003.jpg is missing; download it"):
        open_source("tiny_people", "train", tmp_path, broken=True)
    assert not list(tmp_path.glob("tiny_people/1.0.0*"))
    assert len(open_source("tiny_people", "train", tmp_path)) == 12


def test_unknown_names_say_what_is_near():
    assert "tiny_people" in builder_names()
    with pytest.raises(UserError, match="'tiny_peple' is unknown; did you mean 'tiny_people'"):
        find_builder("tiny_peple")
    with pytest.raises(UserError, match="known: .*tiny_people"):
        find_builder("zzz")


def test_data_sets_by_the_names_of_the_field():
    for name, split, want in (
        ("3dpw", "test", ("pw3d", "test")),
        ("3DPW", "train", ("pw3d", "train")),
        ("mpi-inf-3dhp", "train", ("mpi_inf_3dhp", "train")),
        ("mpii3d", "test", ("mpi_inf_3dhp", "test")),
        ("h36m-p1", "test", ("h36m", "test_p1")),
        ("h36m_p2", "test[:10]", ("h36m", "test_p2[:10]")),
        ("h36m", "train", ("h36m", "train")),
        ("h36m-p1", "train", ("h36m", "train")),
        ("tiny_people", "test", ("tiny_people", "test")),
        ("nothing-p1", "test", ("nothing-p1", "test")),
    ):
        assert resolve_name(name, split) == want
    assert {"h36m", "coco", "mpii", "mpi_inf_3dhp", "pw3d", "spin_npz"} < set(builder_names())
    assert "people" not in builder_names()
    assert find_builder("3dpw") is find_builder("pw3d")


def test_unknown_split(data_dir):
    with pytest.raises(UserError, match="no split 'valid'; it has .*test"):
        open_source("tiny_people", "valid", data_dir)


def test_data_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        open_source("tiny_people", "train", tmp_path / "file" / "data")
