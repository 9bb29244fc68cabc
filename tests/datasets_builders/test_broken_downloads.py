"""Each data set of people, whole and broken: the message names what is wrong and where."""

import numpy as np
import pytest

from jaxrecon.data.pipeline import DataConfig, open_sources
from jaxrecon.errors import MissingFiles, UserError
from tests.datasets_builders.people import DOWNLOADS, write_download

everywhere = pytest.mark.parametrize("dataset", DOWNLOADS)


@pytest.fixture(autouse=True)
def manual(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_MANUAL", str(tmp_path / "manual"))
    return tmp_path / "manual"


def open_it(tmp_path, dataset):
    split = DOWNLOADS[dataset][0]
    config = DataConfig(datasets=(dataset,), split=split, data_dir=str(tmp_path / "data"))
    return open_sources(config)[0]


def fault(tmp_path, dataset):
    """The message, once it is known that nothing half-built was left."""
    with pytest.raises(UserError) as caught:
        open_it(tmp_path, dataset)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite(file, change):
    with np.load(file) as archive:
        fields = {name: archive[name] for name in archive.files}
    change(fields)
    np.savez(file, **fields)


@everywhere
def test_whole(tmp_path, manual, dataset, capsys):
    write_download(manual, dataset)
    source = open_it(tmp_path, dataset)
    assert len(source) == 4
    assert "Preparing data set" in capsys.readouterr().err


@everywhere
def test_no_archive(tmp_path, manual, dataset):
    _, file, _ = write_download(manual, dataset)
    file.unlink()
    with pytest.raises(MissingFiles):
        open_it(tmp_path, dataset)
    message = fault(tmp_path, dataset)
    assert file.name in message and f"to be put into {file.parent}" in message
    assert f"datasets_builders/{dataset.split('/')[0].replace('3dpw', 'pw3d')}/README.md" in message


NEEDED = {
    "h36m": ("pose", "shape", "S", "part"),
    "coco": ("pose", "shape", "part"),
    "mpii": ("pose", "shape", "part"),
    "mpi_inf_3dhp": ("pose", "shape", "has_smpl", "S", "part"),
    "3dpw": ("pose", "shape", "gender", "part"),
    "spin_npz/street": ("imgname", "part"),
}


@everywhere
def test_missing_fields(tmp_path, manual, dataset):
    _, file, _ = write_download(manual, dataset)

    def drop(fields):
        for name in ("center", *NEEDED[dataset]):
            del fields[name]

    rewrite(file, drop)
    message = fault(tmp_path, dataset)
    assert message.startswith(f"{file} has no field")
    assert all(repr(name) in message for name in NEEDED[dataset])


@everywhere
def test_wrong_lengths(tmp_path, manual, dataset):
    _, file, _ = write_download(manual, dataset)
    rewrite(file, lambda fields: fields.update(pose=fields["pose"][:3]))
    assert f"{file}: field 'pose' has 3 rows, but 'imgname' has 4" in fault(tmp_path, dataset)


@everywhere
def test_missing_images(tmp_path, manual, dataset):
    root, file, images = write_download(manual, dataset)
    images[1].unlink()
    images[3].unlink()
    message = fault(tmp_path, dataset)
    assert f"2 of the 4 images that {file} names are not in {root}" in message
    assert images[1].name in message and images[3].name in message


@everywhere
def test_corrupt_jpeg(tmp_path, manual, dataset):
    _, _, images = write_download(manual, dataset)
    images[2].write_bytes(images[2].read_bytes()[:-200])
    message = fault(tmp_path, dataset)
    assert f"the image {images[2]} is damaged: it ends" in message
    images[2].write_bytes(b"")
    assert f"the image {images[2]} is empty" in fault(tmp_path, dataset)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"part": np.zeros((4, 25, 3))}, r"'part' is float64 \(4, 25, 3\); numbers \(N, 24, 3\)"),
        ({"shape": np.zeros((4, 9))}, r"'shape' is float64 \(4, 9\); numbers \(N, 10\)"),
        ({"scale": np.array(["a"] * 4)}, r"'scale' is <U1 \(4,\); numbers \(N,\)"),
        ({"imgname": np.arange(4)}, r"'imgname' is int64 \(4,\); text \(N,\)"),
        ({"imgname": np.array(["a", None, 2, 3], object)}, "'imgname' holds Python objects"),
        ({"pose": None}, "has 'shape' but no 'pose'"),
        ({"shape": np.full((4, 10), np.nan)}, r"'shape', row 0 \(0001.jpg\) has a value that"),
        (dict.fromkeys(("imgname", "part", "pose", "shape")), "no field 'imgname'"),
    ],
)
def test_wrong_fields(tmp_path, manual, change, message):
    _, file, _ = write_download(manual, "spin_npz/street")

    def apply(fields):
        fields.update(change)
        for name in [name for name, value in change.items() if value is None]:
            del fields[name]

    rewrite(file, apply)
    with pytest.raises(UserError, match=message):
        open_it(tmp_path, "spin_npz/street")


def test_an_archive_that_is_none(tmp_path, manual):
    _, file, _ = write_download(manual, "spin_npz/street")
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"x" * 100, b""):
        file.write_bytes(content)
        assert str(file) in fault(tmp_path, "spin_npz/street")
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "is a single array" in fault(tmp_path, "spin_npz/street")
    np.savez(file, imgname=np.array([], "U1"), part=np.zeros((0, 24, 3)))
    assert "is empty: it has no row" in fault(tmp_path, "spin_npz/street")


def test_what_is_unknown_need_not_be_a_number(tmp_path, manual):
    _, file, _ = write_download(manual, "spin_npz/street")

    def change(fields):
        fields["part"][1, 5] = [np.nan, np.nan, 0]
        fields["has_smpl"][2] = 0
        fields["pose"][2] = np.nan

    rewrite(file, change)
    source = open_it(tmp_path, "spin_npz/street")
    assert not source[1]["keypoints2d"][25 + 5].any()
    assert not source[2]["pose"].any() and source[2]["has_smpl"] == 0
    rewrite(file, lambda fields: fields["part"].__setitem__((1, 5, 2), 0.5))
    with pytest.raises(UserError, match=r"'part', row 1 \(0002.jpg\)"):
        open_it(tmp_path / "again", "spin_npz/street")


def test_bytes_and_columns_of_old_archives(tmp_path, manual):
    _, file, _ = write_download(manual, "3dpw")

    def change(fields):
        for name in ("imgname", "gender"):
            fields[name] = fields[name].astype("S")
        fields["scale"], fields["shape"] = fields["scale"][:, None], np.ones((4, 300))
        fields["pose"] = fields["pose"].reshape(4, 24, 3)

    rewrite(file, change)
    source = open_it(tmp_path, "3dpw")
    assert [source[i]["gender"] for i in range(4)] == [0, 1, 0, 1]
    assert source[0]["betas"].shape == (10,)
