"""Files of the SMPL family (SMPL, SMPL-H, MANO and the open models), .pkl or .npz, as arrays."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.pickles import explained, read_pickle

REGISTRATION = (
    "SMPL files are free after registration at smpl.is.tue.mpg.de, MANO's at mano.is.tue.mpg.de; "
    "the open body that ships with this package needs no file"
)

_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
# Taken over where the file has them; True marks indices.
_OPTIONAL = {
    "J": False,
    "vertex_ids": True,
    "vert_sym_idxs": True,
    "wrist_loop": True,
    "makehuman_vertex_ids": True,
    "J_regressor_extra": False,
    "J_regressor_h36m": False,
    "gender_betas": False,
    "hands_components": False,
    "hands_mean": False,
    "hands_coeffs": False,
}
_OPTIONAL_NAMES = ("vertex_names", "joint_names")


def read_body_file(path: str | os.PathLike[str], num_betas: int = 10) -> dict[str, np.ndarray]:
    """The arrays of a body or hand model file, checked against each other.

    Args:
      path: a .pkl (as distributed, Python 2 with chumpy and SciPy objects included) or .npz file.
      num_betas: how many shape components to keep.

    Returns:
      `v_template` (V, 3) metres, `shapedirs` (V, 3, num_betas), `posedirs` (V, 3, 9 (J - 1)),
      `J_regressor` (J, V) dense, `weights` (V, J), all float32; `kintree_table` (2, J) and its
      first row `parents` (J,), int32 with root -1; `f` (F, 3) int32. Where the file has them,
      `J`, `J_regressor_extra` (., V), `J_regressor_h36m` (17, V), `gender_betas`, `hands_mean`
      (45,), `hands_components` (45, 45), `hands_coeffs`, float32; `vertex_ids`, `vert_sym_idxs`,
      `wrist_loop`, `makehuman_vertex_ids`, int32; `vertex_names`, `joint_names`, text.

    Raises:
      UserError: no such file, a folder, truncated, a pickle that asks for code, or no body model.
    """
    file = existing_file(path, "body model file", REGISTRATION)
    if file.suffix.lower() == ".npz":
        raw = _npz(file)
    elif file.suffix.lower() == ".pkl":
        raw = read_pickle(file, "body model file", REGISTRATION)
    else:
        raise UserError(f"{file} is not a body model file: its name ends neither in .pkl nor .npz")
    if not isinstance(raw, dict):
        raise UserError(f"{file} is not a body model: it holds a {type(raw).__name__}, not arrays")
    missing = [key for key in _REQUIRED if key not in raw]
    if len(missing) > len(_REQUIRED) // 2:
        found = ", ".join(sorted(map(str, raw))[:6]) or "nothing"
        raise UserError(
            f"{file} is not a body model: it holds {found}, but no {missing[0]}; {REGISTRATION}"
        )
    if missing:
        raise UserError(f"the body model {file} lacks {', '.join(missing)}; get it again")
    return _checked(file, raw, num_betas)


def _npz(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            wanted = {*_REQUIRED, *_OPTIONAL, *_OPTIONAL_NAMES}
            # Others may be pickled objects, which are neither needed nor read.
            return {k: archive[k] if k in wanted else None for k in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as e:
        raise UserError(
            f"{file} is not a readable body model file: truncated, damaged or of another format "
            f"({e}); get it again"
        ) from e


def _checked(file: Path, raw: dict[str, Any], num_betas: int) -> dict[str, np.ndarray]:
    def fail(reason: str) -> UserError:
        return UserError(f"the body model {file} is not usable: {reason}")

    def real(key: str) -> np.ndarray:
        array = np.asarray(raw[key])
        if array.dtype.kind not in "fiu":
            raise fail(f"{key} holds {array.dtype} instead of numbers")
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise fail(f"{key} holds values that are not finite")
        return array

    def whole(key: str) -> np.ndarray:
        array = np.asarray(raw[key])
        if array.dtype.kind not in "fiu" or (array != np.floor(array)).any():
            raise fail(f"{key} does not hold whole numbers")
        return array.astype(np.int64)

    with explained(file, "body model file"):
        result = {key: real(key) for key in _REQUIRED if key not in ("kintree_table", "f")}
        tree, faces = whole("kintree_table"), whole("f")
    vertices = len(result["v_template"])
    joints = tree.shape[-1]
    shapes = {
        "v_template": (vertices, 3),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
    }
    for key, shape in shapes.items():
        if result[key].shape != shape:
            raise fail(f"{key} has the shape {result[key].shape}, {shape} fits its other arrays")
    if result["shapedirs"].ndim != 3 or result["shapedirs"].shape[:2] != (vertices, 3):
        raise fail(f"shapedirs has the shape {result['shapedirs'].shape}, not ({vertices}, 3, n)")
    if result["shapedirs"].shape[2] < num_betas:
        raise fail(f"{result['shapedirs'].shape[2]} shape components, {num_betas} are needed")
    result["shapedirs"] = np.ascontiguousarray(result["shapedirs"][:, :, :num_betas])
    if faces.ndim != 2 or faces.shape[1] != 3 or not 0 <= faces.min() <= faces.max() < vertices:
        raise fail(f"f does not hold triangles of its {vertices} vertices")
    result["f"] = faces.astype(np.int32)
    if tree.ndim != 2 or tree.shape[0] != 2:
        raise fail(f"kintree_table has the shape {tree.shape}, not (2, joints)")
    tree[0, 0] = -1  # written as 4294967295 (uint32), as -1, or even as 0
    if ((tree[0, 1:] < 0) | (tree[0, 1:] >= np.arange(1, joints))).any():
        raise fail("kintree_table names a parent that does not come before its child")
    result["kintree_table"] = tree.astype(np.int32)
    result["parents"] = result["kintree_table"][0].copy()
    if np.abs(result["weights"].sum(1) - 1).max() > 1e-2:
        raise fail("the skinning weights of a vertex do not add up to 1")
    for key, is_index in _OPTIONAL.items():
        if raw.get(key) is not None:
            result[key] = whole(key).astype(np.int32) if is_index else real(key)
    for key in ("vertex_ids", "vert_sym_idxs", "wrist_loop"):
        if key in result and result[key].max(initial=0) >= vertices:
            raise fail(f"{key} names a vertex that the model does not have")
    for key in ("J_regressor_extra", "J_regressor_h36m"):
        if key in result and (result[key].ndim != 2 or result[key].shape[1] != vertices):
            raise fail(f"{key} has the shape {result[key].shape}, not (joints, {vertices})")
    for key in _OPTIONAL_NAMES:
        if raw.get(key) is not None:
            result[key] = np.asarray(raw[key]).astype(str)
    return result
