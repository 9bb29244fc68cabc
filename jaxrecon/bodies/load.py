"""From files of the SMPL family to a `BodyModel`; the open body when no file is given."""

from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies.joints import SMPL24, SMPL_PARENTS, SMPL_VERTEX_IDS
from jaxrecon.bodies.model import BodyModel
from jaxrecon.bodies.open_body import assets_path
from jaxrecon.errors import UserError

SMPL_VERTICES = 6890
GENDERS = ("neutral", "male", "female")


def build_body(arrays: dict[str, np.ndarray], name: str) -> BodyModel:
    """A `BodyModel` from the arrays of a file.

    Landmark ids and the two extra regressors come with the arrays when they have them; SMPL's
    constants serve only a mesh of SMPL's own size, since an id beyond the mesh would silently
    give a wrong point.

    Args:
        arrays: v_template, shapedirs, posedirs, J_regressor, weights, kintree_table, f, and
            vertex_ids, J_regressor_extra, J_regressor_h36m where known.
    """
    regressor = np.asarray(arrays["J_regressor"], np.float64)
    template = np.asarray(arrays["v_template"], np.float64)
    shapedirs = np.asarray(arrays["shapedirs"], np.float64)[..., :10]
    parents = np.asarray(arrays["kintree_table"])[0].astype(np.int64)
    parents = np.where(np.arange(len(parents)) == 0, -1, parents)
    count = len(template)
    ids = arrays.get("vertex_ids")
    if ids is None and count == SMPL_VERTICES and len(parents) == len(SMPL24):
        ids = SMPL_VERTEX_IDS
    if ids is not None and (np.min(ids) < 0 or np.max(ids) >= count):
        raise UserError(f"{name}: vertex_ids point beyond its {count} vertices")

    def optional(key: str) -> jnp.ndarray | None:
        value = arrays.get(key)
        if value is None:
            return None
        if value.shape[-1] != count:
            raise UserError(
                f"{name}: {key} is made for {value.shape[-1]} vertices, the mesh has {count}"
            )
        return jnp.asarray(value, jnp.float32)

    return BodyModel(
        v_template=jnp.asarray(template, jnp.float32),
        shapedirs=jnp.asarray(shapedirs, jnp.float32),
        posedirs=jnp.asarray(np.asarray(arrays["posedirs"], np.float32)),
        weights=jnp.asarray(arrays["weights"], jnp.float32),
        faces=jnp.asarray(np.asarray(arrays["f"]).astype(np.int32)),
        J_template=jnp.asarray(regressor @ template, jnp.float32),
        J_shapedirs=jnp.asarray(np.einsum("jv,vcs->jcs", regressor, shapedirs), jnp.float32),
        J_regressor_extra=optional("J_regressor_extra"),
        J_regressor_h36m=optional("J_regressor_h36m"),
        vertex_ids=None if ids is None else jnp.asarray(ids, jnp.int32),
        parents=tuple(int(p) for p in parents),
        name=name,
    )


def load_body(path: str | Path | None = None, gender: str = "neutral") -> BodyModel:
    """The body model at `path`, or the open body that comes with the package.

    Args:
        path: a SMPL file (.pkl or .npz), or a folder that holds SMPL_NEUTRAL, SMPL_MALE and
            SMPL_FEMALE. `J_regressor_extra.npy` and `J_regressor_h36m.npy` are looked for
            beside the file. None: the open body (CC0).
        gender: "neutral", "male" or "female".

    Raises:
        UserError: missing or unreadable file, unknown gender, regressors of another mesh.
    """
    if gender not in GENDERS:
        raise UserError(f"gender {gender!r} is unknown; known: {', '.join(GENDERS)}")
    # Concrete arrays even under a trace: they are kept for later calls.
    with jax.ensure_compile_time_eval():
        return _load_body(None if path is None else str(path), gender)


@lru_cache(maxsize=8)
def _load_body(path: str | None, gender: str) -> BodyModel:
    if path is None:
        with np.load(assets_path() / "open_body.npz", allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
        if gender != "neutral":
            betas = np.asarray(arrays["gender_betas"])[GENDERS.index(gender) - 1]
            arrays["v_template"] = arrays["v_template"] + arrays["shapedirs"] @ betas
        return build_body(arrays, "open_body" if gender == "neutral" else f"open_body_{gender}")
    from jaxrecon.io.smpl_files import read_body_file

    file = Path(path)
    if file.is_dir():
        file = _body_in_folder(file, gender)
    arrays = read_body_file(file)
    for key in ("J_regressor_extra", "J_regressor_h36m"):
        beside = file.parent / f"{key}.npy"
        if key not in arrays and beside.is_file():
            arrays[key] = np.load(beside, allow_pickle=False)
    body = build_body(arrays, file.stem)
    if body.parents != SMPL_PARENTS:
        raise UserError(f"{file}: its kinematic tree is not SMPL's 24 joints; is it a SMPL file?")
    return body


def _body_in_folder(folder: Path, gender: str) -> Path:
    names = [f"SMPL_{gender.upper()}{suffix}" for suffix in (".pkl", ".npz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds neither {names[0]} nor {names[1]}")
