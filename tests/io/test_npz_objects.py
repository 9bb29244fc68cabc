"""Archives of pickled objects: read as data, or refused."""

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.npz_objects import read_npz


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_objects_and_arrays(tmp_path):
    tree = {"S1": {"Walking 1": np.arange(6.0).reshape(2, 3)}, "n": [1, (2, "x")]}
    np.savez(tmp_path / "a.npz", tree=np.array(tree, object), plain=np.eye(2))
    found = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["tree"]["S1"]["Walking 1"], tree["S1"]["Walking 1"])
    assert found["tree"]["n"] == tree["n"]
    np.testing.assert_array_equal(found["plain"], np.eye(2))


def test_code_is_refused_and_not_run(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", tree=np.array({"x": Evil()}, object))
    with pytest.raises(UserError, match="print"):
        read_npz(tmp_path / "a.npz")
    assert capsys.readouterr().out == ""


def test_truncated(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(1000.0))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(data[:500])
    with pytest.raises(UserError, match="b.npz"):
        read_npz(tmp_path / "b.npz")
