"""What NumPy, SciPy, chumpy and the standard containers look like inside a pickle.

Each builder takes a recipe (see `jaxrecon.io.pickles`) apart and makes the NumPy array or plain
value that it stands for. Sizes are checked before anything is allocated.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrecon.io.pickle_machine import PickleFault, Recipe

# A dense matrix above this is no joint regressor but a damaged or hostile file.
_MOST_ELEMENTS = 2**28

Resolve = Callable[[Any], Any]

_SIMPLE_DTYPE = re.compile(r"[biufc](1|2|4|8|16)|\?|O(4|8)?|[SUa]\d+")


def _dtype(recipe: Recipe, resolve: Resolve) -> np.dtype[Any]:
    """numpy.dtype: arguments (code, align, copy), state (version, byte order, sub-array, ...)."""
    code = resolve(recipe.args[0])
    if not isinstance(code, str) or not _SIMPLE_DTYPE.fullmatch(code):
        raise PickleFault(f"arrays of element type {code!r} are not supported")
    dtype = np.dtype("O" if code[0] == "O" else code)
    state = resolve(recipe.state)
    if state is not None and state[1] in ("<", ">"):
        if state[2] is not None:
            raise PickleFault("arrays of sub-arrays are not supported")
        dtype = dtype.newbyteorder(state[1])
    return dtype


def _bytes(data: Any) -> bytes:
    """Array data: bytes, or what Python 2 wrote as a string."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise PickleFault("array data are missing")
    return bytes(data)


def _array(shape: Any, dtype: Any, fortran: bool, data: Any) -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not isinstance(dtype, np.dtype) or any(not isinstance(s, int) or s < 0 for s in shape):
        raise PickleFault("an array has an impossible shape or element type")
    count = math.prod(shape)
    order: Any = "F" if fortran else "C"
    if dtype.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise PickleFault("an array of objects has the wrong length")
        flat = np.empty(count, dtype=object)
        flat[:] = data
        return flat.reshape(shape, order=order)
    raw = _bytes(data)
    if len(raw) != count * dtype.itemsize:
        raise PickleFault(f"an array of shape {shape} has {len(raw)} bytes")
    flat = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))  # writable, native order
    return flat.reshape(shape, order=order)


def _reconstructed(recipe: Recipe, resolve: Resolve) -> np.ndarray:
    """numpy ndarray by __reduce__: state (version, shape, dtype, is Fortran, data)."""
    if recipe.state is None:
        raise PickleFault("an array has no content")
    _, shape, dtype, fortran, data = resolve(recipe.state)
    return _array(shape, dtype, bool(fortran), data)


def _from_buffer(recipe: Recipe, resolve: Resolve) -> np.ndarray:
    """numpy ndarray of protocol 5: (data, dtype, shape, order)."""
    data, dtype, shape, order = (resolve(a) for a in recipe.args)
    return _array(shape, dtype, order == "F", data)


def _scalar(recipe: Recipe, resolve: Resolve) -> Any:
    """numpy scalar: (dtype, data)."""
    dtype, data = (resolve(a) for a in recipe.args)
    if isinstance(dtype, np.dtype) and dtype.hasobject:
        raise PickleFault("a scalar of objects is not supported")
    return _array((), dtype, False, data)[()]


def _name_only(recipe: Recipe, resolve: Resolve) -> Any:
    raise PickleFault(f"{recipe.made_of} is built in a way that is not supported")


def _state(recipe: Recipe) -> dict[Any, Any]:
    state = recipe.state
    if isinstance(state, tuple) and len(state) == 2:  # (dictionary, slots)
        state = (state[0] or {}) | (state[1] or {})
    if not isinstance(state, dict):
        raise PickleFault(f"{recipe.made_of} has no content")
    return state


def _sparse(recipe: Recipe, resolve: Resolve) -> np.ndarray:
    """scipy.sparse csc, csr and coo matrices and arrays, as a dense array."""
    state = {k: resolve(v) for k, v in _state(recipe).items()}
    rows, columns = state["_shape"] if "_shape" in state else state["shape"]
    if min(rows, columns) < 0 or rows * columns > _MOST_ELEMENTS:
        raise PickleFault(f"a sparse matrix of shape {(rows, columns)}")
    data = np.asarray(state["data"])
    if recipe.made_of.name.startswith("coo"):
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
    else:
        pointers = np.asarray(state["indptr"])
        major = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        minor = np.asarray(state["indices"])
        row, column = (minor, major) if recipe.made_of.name.startswith("csc") else (major, minor)
    row, column = np.asarray(row), np.asarray(column)
    if not len(data) == len(row) == len(column):
        raise PickleFault("a sparse matrix has index lists of unequal length")
    if len(data) and (min(row.min(), column.min()) < 0):
        raise PickleFault("a sparse matrix has negative indices")
    dense = np.zeros((rows, columns), data.dtype)
    np.add.at(dense, (row, column), data)  # repeated entries add up; an index out of range raises
    return dense


def _chumpy(recipe: Recipe, resolve: Resolve) -> np.ndarray:
    """chumpy's arrays: a leaf keeps its values in `x`, a reordering its operand in `a`."""
    state = _state(recipe)

    def value(key: str) -> np.ndarray:
        if key not in state:
            raise PickleFault(f"{recipe.made_of} lacks its {key!r}")
        return np.asarray(resolve(state[key]))

    match recipe.made_of.name.lower():
        case "ch":
            return value("x")
        case "select":
            chosen = value("a").ravel()[value("idxs")]
            shape = resolve(state.get("preferred_shape"))
            return chosen if shape is None else chosen.reshape(tuple(shape))
        case "reshape":
            return value("a").reshape(tuple(value("newshape")))
        case "ravel":
            return value("a").ravel()
        case _:
            axes = resolve(state.get("axes"))
            return value("a").transpose(axes)


def _plain(recipe: Recipe, resolve: Resolve) -> Any:
    """Values that pickles before protocol 3 or 4 write as calls."""
    args = [resolve(a) for a in recipe.args]
    match recipe.made_of.name:
        case "encode":  # bytes below protocol 3: text and its encoding
            if not args[1:] or args[1] in ("latin1", "latin-1"):
                return args[0].encode("latin-1")
            raise PickleFault(f"bytes in the encoding {args[1]!r}")
        case "bytes":
            return bytes(args[0]) if args and isinstance(args[0], list | bytes) else b""
        case "bytearray":
            return bytearray(_bytes(args[0]) if args else b"")
        case "frozenset":
            return frozenset(args[0] if args else ())
        case "tuple":
            return tuple(args[0] if args else ())
        case "complex":
            return complex(*args)
        case _:
            raise PickleFault(f"{recipe.made_of} is not a value")


def _mapping(recipe: Recipe, resolve: Resolve) -> dict[Any, Any]:
    """defaultdict, Counter, Namespace: a dictionary of their items or attributes."""
    attributes = recipe.state if isinstance(recipe.state, dict) else {}
    given = [a for a in recipe.args if isinstance(a, dict)]
    return resolve({k: v for part in (*given, attributes, recipe.items) for k, v in part.items()})


def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _dtype,
        ("numpy", "ndarray"): _name_only,
        ("numpy.matrixlib.defmatrix", "matrix"): _name_only,
        ("_codecs", "encode"): _plain,
        ("copy_reg", "_reconstructor"): _name_only,
        ("copyreg", "_reconstructor"): _name_only,
        ("collections", "defaultdict"): _mapping,
        ("collections", "Counter"): _mapping,
        ("argparse", "Namespace"): _mapping,
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _reconstructed
        table[f"{core}.multiarray", "scalar"] = _scalar
        table[f"{core}.numeric", "_frombuffer"] = _from_buffer
    for module in ("builtins", "__builtin__"):
        for name in ("bytes", "bytearray", "frozenset", "tuple", "complex"):
            table[module, name] = _plain
        for name in ("object", "int", "float", "str", "bool"):
            table[module, name] = _name_only  # the base of a class, the factory of a defaultdict
    for kind in ("csc", "csr", "coo"):
        for package in ("scipy.sparse", f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"):
            table[package, f"{kind}_matrix"] = table[package, f"{kind}_array"] = _sparse
    table["chumpy.ch", "Ch"] = table["chumpy", "Ch"] = _chumpy
    for name in ("Select", "transpose", "Transpose", "Ravel", "ravel", "Reshape", "reshape"):
        table["chumpy.reordering", name] = _chumpy
    return table


ARRAY_RECIPES = _table()
