import os
import random

import numpy as np
import pytest

from jaxrecon.data.mixing import Mixture, mixture, published_mixture
from jaxrecon.data.occlusion import load_occluders, make_occluders, occlude, paste_occluder
from jaxrecon.errors import UserError


def object_array(images):
    array = np.empty(len(images), dtype=object)
    array[:] = images
    return array


def test_procedural_occluders_are_whole_and_the_same_every_time():
    first, again = make_occluders(24, seed=3), make_occluders(24, seed=3)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.uint8 and a.shape[2] == 4
        covered = (a[..., 3] > 128).mean()
        assert 0.05 < covered < 0.95
    assert any(a.shape != b.shape for a, b in zip(first, make_occluders(24, seed=4)))


def test_occlusion_covers_some_and_leaves_the_original():
    image = np.full((128, 96, 3), 100, np.uint8)
    occluders = make_occluders(16)
    numbers, choice = np.random.RandomState(0), random.Random(0)
    covered = [
        (occlude(image, occluders, numbers, choice) != image).any(axis=2).mean() for _ in range(40)
    ]
    assert (image == 100).all()
    assert 0.02 < np.mean(covered) < 0.5


def test_paste_beyond_the_border():
    image = np.zeros((20, 30, 3), np.uint8)
    occluder = np.full((10, 10, 4), 255, np.uint8)
    paste_occluder(image, occluder, np.array([100.0, 5.0]))
    assert not image.any()
    paste_occluder(image, occluder, np.array([29.0, 0.0]))
    assert image[:5, 24:].all() and image.sum() == 5 * 6 * 3 * 255


def test_cut_outs_from_files(tmp_path):
    images = make_occluders(3)
    np.save(tmp_path / "pascal_occluders.npy", object_array(images), allow_pickle=True)
    np.savez(tmp_path / "cut_outs.npz", *images)
    np.save(tmp_path / "same.npy", np.stack([images[0], images[0]]))
    for name in ("pascal_occluders.npy", "cut_outs.npz"):
        for got, want in zip(load_occluders(tmp_path / name), images, strict=True):
            np.testing.assert_array_equal(got, want)
    assert len(load_occluders(tmp_path / "same.npy")) == 2


class RunsCode:
    def __reduce__(self):
        return os.system, ("echo hacked > hacked",)


@pytest.mark.parametrize(
    "content, message",
    [
        (object_array([RunsCode()]), "refused to read .*bad.npy: it asks for posix.system"),
        (object_array([np.zeros((4, 4, 3), np.uint8)]), "item 0 of the occluder file .* RGBA"),
        (object_array(["text"]), "item 0 of the occluder file .* RGBA"),
        (object_array([]), "holds no image"),
        (np.zeros((3, 4)), "item 0 of the occluder file .* RGBA"),
    ],
)
def test_bad_cut_outs(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "bad.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        load_occluders(tmp_path / "bad.npy")
    assert not (tmp_path / "hacked").exists()


def test_damaged_and_missing_cut_outs(tmp_path):
    with pytest.raises(UserError, match="no such occluder file"):
        load_occluders(tmp_path / "none.npy")
    for name in ("bad.npy", "bad.npz"):
        (tmp_path / name).write_bytes(b"not what it says" * 10)
        with pytest.raises(UserError, match="not a readable occluder file"):
            load_occluders(tmp_path / name)
    np.save(tmp_path / "cut.npy", object_array(make_occluders(2)), allow_pickle=True)
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable occluder file"):
        load_occluders(tmp_path / "cut.npy")


def test_the_last_data_set_serves_where_rounding_falls_short():
    mix = Mixture(("a", "b"), (10, 4), (0.5, 1 - 1e-12))
    assert mix.locate(7, 1 - 1e-16) == (1, 3)
    assert mix.locate(7, 0.5) == (0, 7)


def test_mixtures_by_length_and_weight():
    lengths = {"a": 30, "b": 10}
    assert mixture(lengths).partition == (0.75, 1.0)
    assert mixture(lengths, {"b": 3, "a": 1}).partition == (0.25, 1.0)
    assert len(mixture(lengths)) == 30


@pytest.mark.parametrize(
    "lengths, weights, message",
    [
        ({}, None, "no data set"),
        ({"a": 0}, None, "data set a is empty"),
        ({"a": 3}, {"b": 1.0}, "do not match: a, b"),
        ({"a": 3}, {"a": -1.0}, "weight of a is -1.0"),
        ({"a": 3}, {"a": float("nan")}, "weight of a is nan"),
    ],
)
def test_faults_of_mixtures(lengths, weights, message):
    with pytest.raises(UserError, match=message):
        mixture(lengths, weights)


def test_published_mixture_needs_its_data_sets():
    with pytest.raises(UserError, match="mpii, mpi_inf_3dhp, 3dpw"):
        published_mixture({"h36m": 3, "coco": 3}, with_3dpw=True)
