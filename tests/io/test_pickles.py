import os
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import scipy.sparse

from jaxrecon.errors import UserError
from jaxrecon.io.pickles import read_pickle


def stored(tmp_path, value, protocol):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def same(got, want):
    assert type(got) is type(want) or isinstance(want, OrderedDict | defaultdict)
    if isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key])
    elif isinstance(want, list | tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert np.array_equal(got, want)
    else:
        assert got == want


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_reads_plain_values_and_arrays(tmp_path, protocol):
    rng = np.random.default_rng(0)
    shared = [1, 2]
    value = {
        "numbers": [0, -1, 255, 70000, -(2**40), 3**90, 0.5, float("inf"), True, False, None],
        "text": ["plain", "line\nbreak 'quoted'", "\u00e9\u4e2d", ""],
        "bytes": (b"", bytes(range(256)), bytearray(b"abc")),
        "nested": {"a": (1, (2, (3, 4, 5, 6))), "shared": [shared, shared]},
        "sets": ({1, 2}, frozenset({3})),
        "complex": 1 + 2j,
        "ordered": OrderedDict([("z", 1), ("a", 2)]),
        "default": defaultdict(list, {"k": [1]}),
        "float32": rng.normal(size=(3, 4, 2)).astype(np.float32),
        "fortran": np.asfortranarray(rng.normal(size=(5, 3))),
        "big_endian": np.arange(4, dtype=">i4").astype(np.int32),
        "uint32": np.array([4294967295, 0], np.uint32),
        "bool": np.array([True, False]),
        "half": np.array([0.5], np.float16),
        "empty": np.zeros((0, 3)),
        "zero_d": np.array(7),
        "words": np.array(["ab", "c"]),
        "scalars": [np.float64(0.1), np.int32(-5), np.bool_(True)],
    }
    got = read_pickle(stored(tmp_path, value, protocol))
    same(got, value)
    assert got["nested"]["shared"][0] is got["nested"]["shared"][1]
    got["float32"][0] = 0  # writable, like any array


def test_big_endian_arrays_become_native(tmp_path):
    got = read_pickle(stored(tmp_path, np.arange(4, dtype=">i4"), 2))
    assert got.dtype == np.int32 and got.tolist() == [0, 1, 2, 3]


def test_arrays_of_objects_keep_their_members(tmp_path):
    value = np.empty((2, 2), dtype=object)
    value[:] = [["a", None], [np.arange(3), {"k": 1}]]
    got = read_pickle(stored(tmp_path, value, 2))
    assert got.shape == (2, 2) and got[0, 0] == "a" and got[1, 1] == {"k": 1}
    assert got[1, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
@pytest.mark.parametrize("flavour", ["matrix", "array"])
def test_sparse_matrices_become_dense(tmp_path, kind, flavour):
    dense = np.random.default_rng(1).normal(size=(4, 9)) * (np.arange(36).reshape(4, 9) % 3 == 0)
    sparse = getattr(scipy.sparse, f"{kind}_{flavour}")(dense)
    assert np.array_equal(read_pickle(stored(tmp_path, sparse, 2)), dense)


def test_python_2_pickles_are_read(tmp_path):
    """Byte for byte what Python 2 writes for {'a': array([1., 2.]), 'b': 'text'}."""
    array = np.array([1.0, -2.0]).tobytes()
    head = b"(dp0\nS'b'\np1\nS'text'\np2\nsS'a'\np3\ncnumpy.core.multiarray\n_reconstruct\np4\n"
    body = b"(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n(I1\n(I2\ntp10\ncnumpy\ndtype\n"
    tail = b"p11\n(S'f8'\np12\nI0\nI1\ntp13\nRp14\n(I3\nS'<'\np15\nNNNI-1\nI-1\nI0\ntp16\nb"
    text = repr(array)[1:].encode("ascii")  # '\x00...' with escapes, as Python 2 has it
    protocol_0 = head + body + tail + b"I00\nS" + text + b"\np17\ntp18\nbs."
    path = tmp_path / "py2.pkl"
    path.write_bytes(protocol_0)
    got = read_pickle(path)
    assert got["b"] == "text" and got["a"].tolist() == [1.0, -2.0]

    short = b"U" + bytes([len(array)]) + array  # SHORT_BINSTRING of protocol 2
    path.write_bytes(b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\ncnumpy\n")
    with path.open("ab") as f:
        f.write(
            b"ndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        )
        f.write(b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + short + b"tbs.")
    assert read_pickle(path)["a"].tolist() == [1.0, -2.0]


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_tries_to_run_code_is_refused_unrun(tmp_path, protocol):
    mark = tmp_path / "ran"
    bombs = [
        Bomb(os.system, f"touch {mark}"),
        Bomb(eval, f"open({str(mark)!r}, 'w')"),
        Bomb(getattr, os, "system") if protocol == 4 else Bomb(open, str(mark), "w"),
        Bomb(np.load, str(mark)),
        Bomb(np.ndarray.tofile, np.zeros(3), str(mark)) if protocol == 4 else Bomb(exec, "1"),
    ]
    for bomb in bombs:
        try:
            path = stored(tmp_path, {"v_template": np.zeros(3), "x": bomb}, protocol)
        except TypeError:  # a module cannot be pickled
            continue
        with pytest.raises(UserError, match=r"refused to read .*data.pkl: it asks for \w+"):
            read_pickle(path)
    assert not mark.exists()


def test_allowed_names_cannot_be_misused(tmp_path):
    """Every attack with the names on the list ends in the same one line, not in a call."""
    attacks = [
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",  # an encoding with side effects
        b"cnumpy\nndarray\n(I3\ntR.",  # a bare ndarray
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nttR.",  # no content
        b"cnumpy\ndtype\n(S'O8'\ntR}S'newbyteorder'\nNsb.",
        b"cbuiltins\nlist\n(I1\ntR.",
        b"(I1\nI2\nR.",  # calls a number
        b"c__builtin__\nobject\n(tR.",
        b"ccopy_reg\n_reconstructor\n(I1\nI2\nI3\ntR.",
        b"(lp0\ng0\na0.",
        b"Pabc\n.",  # a persistent id
        b"\x80\x02\x8a\x04\xff\xff\xff\x7f\x86b.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 2**63 bytes
        b"(" * 3000 + b"t" * 3000 + b".",  # absurd depth
    ]
    for attack in attacks:
        path = tmp_path / "attack.pkl"
        path.write_bytes(attack)
        try:
            read_pickle(path)
        except UserError as error:
            assert "attack.pkl" in str(error) and "\n" not in str(error)
        else:
            assert attack.startswith(b"cnumpy\ndtype")  # an odd, but harmless element type


def test_a_claimed_size_is_checked_before_it_is_allocated(tmp_path):
    huge = scipy.sparse.csc_matrix((2**20, 2**20))
    with pytest.raises(UserError, match="sparse matrix of shape"):
        read_pickle(stored(tmp_path, huge, 2))


def test_every_truncation_is_one_line(tmp_path):
    data = pickle.dumps({"a": np.arange(50.0), "b": ["x", 1]}, 2)
    path = tmp_path / "cut.pkl"
    for cut in (*range(1, len(data), 9), len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match="cut.pkl is not a readable pickle"):
            read_pickle(path)


def test_no_pickle_at_all(tmp_path):
    path = tmp_path / "page.pkl"
    path.write_text("<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(UserError, match="not a readable"):
        read_pickle(path)
    with pytest.raises(UserError, match="no such pickle"):
        read_pickle(tmp_path / "absent.pkl")
