import argparse
import io
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.pickles import Opaque
from jaxrecon.io.torch_files import read_checkpoint, write_checkpoint


def arrays():
    rng = np.random.default_rng(0)
    return {
        "weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 5), np.float32),
        "half": rng.normal(size=3).astype(np.float16),
        "brain": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
        "double": rng.normal(size=7),
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
        "small": np.array([-1, 2], np.int16),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32)),
    }


def tree():
    more = {"epoch": 3, "big": -(2**45), "lr": 1e-3, "name": "r\u00e9s", "none": None, "yes": True}
    return {"model": arrays(), "list": [1, (2.5, "x"), []], **more, "raw": b"\x00\xff", 7: "key"}


def same(got, want):
    if isinstance(want, np.ndarray):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert got.tobytes() == want.tobytes()
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key])
    elif isinstance(want, list | tuple):
        assert type(got) is type(want) and len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    else:
        assert type(got) is type(want) and got == want


def test_round_trip_and_the_same_bytes_again(tmp_path):
    write_checkpoint(tmp_path / "a.pt", tree())
    same(read_checkpoint(tmp_path / "a.pt"), tree())
    first = (tmp_path / "a.pt").read_bytes()
    write_checkpoint(tmp_path / "a.pt", tree())
    assert (tmp_path / "a.pt").read_bytes() == first


def test_torch_reads_what_was_written(tmp_path):
    torch = pytest.importorskip("torch")
    write_checkpoint(tmp_path / "a.pt", {"model": arrays(), "epoch": 3, "l": [1, (2.5, "x")]})
    got = torch.load(tmp_path / "a.pt", weights_only=True)
    assert got["epoch"] == 3 and got["l"] == [1, (2.5, "x")]
    for key, want in arrays().items():
        tensor = got["model"][key]
        if key == "brain":
            assert tensor.dtype == torch.bfloat16
            tensor, want = tensor.float(), want.astype(np.float32)
        np.testing.assert_array_equal(tensor.numpy(), want)
        assert tensor.numpy().dtype == want.dtype and tensor.is_contiguous()


def test_scalars_and_jax_arrays_are_written(tmp_path):
    import jax.numpy as jnp

    write_checkpoint(tmp_path / "a.pt", {"loss": np.float32(0.5), "w": jnp.arange(3.0)})
    got = read_checkpoint(tmp_path / "a.pt")
    assert got["loss"] == 0.5 and got["w"].tolist() == [0, 1, 2]
    for bad, name in ((np.zeros(2, np.uint16), "uint16"), (object(), "object"), ({1}, "set")):
        with pytest.raises(UserError, match=f"cannot hold .*{name}"):
            write_checkpoint(tmp_path / "b.pt", {"x": bad})
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize("zip_format", [True, False])
def test_what_torch_writes_is_read(tmp_path, zip_format):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.randn(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    base = torch.arange(24.0)
    saved = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "transposed": base.reshape(4, 6).T,
        "window": base[5:9],
        "expanded": base[3].expand(2, 2),
        "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "shape": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "best": np.float64(0.25),
        "table": np.arange(6).reshape(2, 3),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "history": OrderedDict(a=[1, 2]),
    }
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(saved, path, _use_new_zipfile_serialization=zip_format)
    got = read_checkpoint(path)
    assert list(got) == list(saved)
    for key, tensor in net.state_dict().items():
        np.testing.assert_array_equal(got["model"][key], tensor.numpy())
        assert got["model"][key].dtype == tensor.numpy().dtype
    moments = got["optimizer"]["state"][0]["exp_avg"]
    np.testing.assert_array_equal(moments, optimizer.state_dict()["state"][0]["exp_avg"].numpy())
    assert got["optimizer"]["param_groups"][0]["lr"] == 0.1
    for key in ("transposed", "window", "expanded", "parameter"):
        np.testing.assert_array_equal(got[key], saved[key].detach().numpy())
    assert got["brain"].dtype == ml_dtypes.bfloat16 and got["brain"].tolist() == [1.5, -2.0]
    assert (got["shape"], got["device"], got["best"]) == ((1, 2), "cpu", 0.25)
    assert got["table"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert got["args"]["lr"] == 0.1 and os.path.normpath(got["args"]["path"]) == "a/b"
    assert got["history"] == {"a": [1, 2]}


def test_types_without_a_storage_class(tmp_path):
    torch = pytest.importorskip("torch")
    values = torch.tensor([0.5, -3.0])
    saved = {"u": torch.tensor([1, 65535], dtype=torch.uint16), "f": values.to(torch.float8_e5m2)}
    torch.save(saved, tmp_path / "a.pt")
    got = read_checkpoint(tmp_path / "a.pt")
    assert got["u"].dtype == np.uint16 and got["u"].tolist() == [1, 65535]
    assert got["f"].astype(np.float32).tolist() == [0.5, -3.0]


def test_unknown_classes_are_refused_or_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2), "net": torch.nn.Linear(1, 1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt: it asks for torch.nn.modules.linear.Linear"):
        read_checkpoint(tmp_path / "a.pt")
    got = read_checkpoint(tmp_path / "a.pt", skip_unknown=True)
    assert got["w"].tolist() == [1, 1]
    assert got["net"] == Opaque("torch.nn.modules.linear.Linear")


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("skip_unknown", [False, True])
def test_a_checkpoint_that_tries_to_run_code_does_not(tmp_path, skip_unknown):
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"x": Bomb(mark)}, 2))
    if skip_unknown:
        assert read_checkpoint(path, skip_unknown=True) == {"x": Opaque("posix.system")}
    else:
        with pytest.raises(UserError, match="refused to read .*evil.pt: it asks for posix.system"):
            read_checkpoint(path)
    assert not mark.exists()


def legacy_bytes():
    """An older-format file made by hand, so that this also runs where torch is absent."""
    from jaxrecon.io.pickle_machine import Global, Recipe
    from jaxrecon.io.pickle_writer import PersistentId, dump

    values = np.arange(6, dtype=np.float32)
    storage = PersistentId(("storage", Global("torch", "FloatStorage"), "77", "cpu", 6, None))
    tensor = Recipe(Global("torch._utils", "_rebuild_tensor"), (storage, 1, (2, 2), (3, 1)))
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"w": tensor}, ["77"]]
    head = b"".join(dump(part, lambda value: value) for part in parts)
    return head + (6).to_bytes(8, "little") + values.tobytes()


def test_the_older_format_by_hand(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(legacy_bytes())
    assert read_checkpoint(path)["w"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_every_truncation_is_one_line(tmp_path, kind):
    path = tmp_path / "cut.pt"
    if kind == "zip":
        write_checkpoint(path, {"w": np.arange(40.0)})
        data = path.read_bytes()
    else:
        data = legacy_bytes()
    for cut in range(1, len(data), 5):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match="cut.pt is not a readable PyTorch checkpoint") as e:
            read_checkpoint(path)
        assert "\n" not in str(e.value)


def test_a_flipped_byte_in_the_data_is_noticed(tmp_path):
    path = tmp_path / "flipped.pt"
    write_checkpoint(path, {"w": np.arange(40.0)})
    data = bytearray(path.read_bytes())
    data[data.index(np.float64(17).tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        read_checkpoint(path)


def test_other_files_are_told_apart(tmp_path):
    def content(data):
        (tmp_path / "file.pt").write_bytes(data)
        return tmp_path / "file.pt"

    with pytest.raises(UserError, match="is a web page"):
        read_checkpoint(content(b"\n<!DOCTYPE html><html>Sign in</html>"))
    with pytest.raises(UserError, match="git lfs pull"):
        read_checkpoint(content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"))
    with pytest.raises(UserError, match="not a readable PyTorch checkpoint"):
        read_checkpoint(content(pickle.dumps({"w": 1})))
    with pytest.raises(UserError, match="no such PyTorch checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(UserError, match="has no data.pkl"):
        read_checkpoint(content(packed.getvalue()))


def test_tensors_cannot_reach_beyond_their_storage(tmp_path):
    from jaxrecon.io.pickle_machine import Global, Recipe
    from jaxrecon.io.pickle_writer import PersistentId, dump

    storage = PersistentId(("storage", Global("torch", "FloatStorage"), "0", "cpu", 2))
    for offset, size, stride in ((0, (3,), (1,)), (1, (2,), (1,)), (0, (2,), (-1,)), (0, (2,), ())):
        function = Global("torch._utils", "_rebuild_tensor_v2")
        tensor = Recipe(function, (storage, offset, size, stride, False, None))
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", dump({"w": tensor}, lambda value: value))
            archive.writestr("a/data/0", bytes(8))
        with pytest.raises(UserError, match="beyond its storage|impossible shape"):
            read_checkpoint(tmp_path / "a.pt")


def test_published_files(shared_dir):
    hpn = shared_dir / "golden" / "hpn"
    want = np.load(hpn / "checkpoint.npz")
    for name in ("checkpoint_zip.pt", "checkpoint_legacy.pt"):
        got = read_checkpoint(hpn / name)
        for key in want.files:
            short = key.removeprefix("out_")
            if short.startswith("exp_avg_"):
                value = got["optimizer"]["state"][int(short[8:])]["exp_avg"]
            else:
                value = got.get(short, got["model"].get(short))
            np.testing.assert_array_equal(value, want[key])
            assert np.asarray(value).shape == want[key].shape
    mhr = shared_dir / "golden" / "mhr_net"
    want = np.load(mhr / "checkpoint_small.npz")
    for name in ("checkpoint_small_zip.bin", "checkpoint_small_legacy.bin"):
        got = read_checkpoint(mhr / name)
        keys = [k for k in want.files if k.startswith("out_model/")]
        assert {k.removeprefix("out_model/") for k in keys} == set(got["model_pos"])
        for key in keys:
            value = got["model_pos"][key.removeprefix("out_model/")]
            np.testing.assert_array_equal(value, want[key])
            assert value.dtype == want[key].dtype
        # Optimizer states count the parameters, so they lack the buffers of the state dict.
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        parameters = [k for k in got["model_pos"] if not k.endswith(buffers)]
        momentum = [k for k in want.files if k.startswith("out_momentum/")]
        for key in momentum:
            index = parameters.index(key.removeprefix("out_momentum/"))
            value = got["optimizer"]["state"][index]["momentum_buffer"]
            np.testing.assert_array_equal(value, want[key])
        assert momentum and got["epoch"] == 9
