import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from jaxrecon.bodies.open_body import body_file, hand_file
from jaxrecon.errors import UserError
from jaxrecon.io.smpl_files import read_body_file


def tiny_body(joints=3, vertices=8, betas=12):
    """A consistent model in the layout of an SMPL file."""
    rng = np.random.default_rng(0)
    regressor = rng.uniform(size=(joints, vertices)) * (rng.uniform(size=(joints, vertices)) > 0.4)
    parents = np.array([4294967295, 0, 1][:joints], np.uint32)
    weights = rng.uniform(size=(vertices, joints))
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": rng.normal(size=(vertices, 3, betas)),
        "posedirs": rng.normal(size=(vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(joints, dtype=np.uint32)]),
        "f": rng.integers(0, vertices, (10, 3)).astype(np.uint32),
        "bs_style": "lbs",
    }


def write_pickle(path, model):
    path.write_bytes(pickle.dumps(model, 2))
    return path


@pytest.fixture
def chumpy(monkeypatch):
    """Classes that pickle under chumpy's names, with the attributes that its arrays keep."""
    modules = {
        name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def make(module, name, **state):
        if not hasattr(modules[module], name):
            setattr(modules[module], name, type(name, (), {"__module__": module}))
        instance = getattr(modules[module], name)()
        instance.__dict__.update(state, _status="new", _dirty_vars=set(), _itr=None)
        return instance

    return make


def check(got, model):
    for key in ("v_template", "posedirs", "J_regressor", "weights"):
        assert got[key].dtype == np.float32
        np.testing.assert_array_equal(got[key], model[key].astype(np.float32))
    np.testing.assert_array_equal(got["shapedirs"], model["shapedirs"][..., :10].astype(np.float32))
    assert got["parents"].tolist() == [-1, 0, 1] and got["kintree_table"].dtype == np.int32
    np.testing.assert_array_equal(got["f"], model["f"])


def test_a_pickle_as_it_is_distributed(tmp_path, chumpy):
    model = tiny_body()
    leaf = chumpy("chumpy.ch", "Ch", x=model["shapedirs"].ravel()[::-1].copy())
    order = np.arange(model["shapedirs"].size)[::-1]
    stored = model | {
        "J_regressor": scipy.sparse.csc_matrix(model["J_regressor"]),
        "v_template": chumpy("chumpy.ch", "Ch", x=model["v_template"]),
        "shapedirs": chumpy(
            "chumpy.reordering", "Select", a=leaf, idxs=order, preferred_shape=(8, 3, 12)
        ),
        "pose_training_info": {"anything": "else"},
    }
    check(read_body_file(write_pickle(tmp_path / "SMPL.pkl", stored)), model)


def test_an_unknown_chumpy_expression_is_refused(tmp_path, chumpy):
    stored = tiny_body() | {"v_template": chumpy("chumpy.ch", "dot", a=np.eye(3), b=np.eye(3))}
    with pytest.raises(UserError, match="asks for chumpy.ch.dot"):
        read_body_file(write_pickle(tmp_path / "SMPL.pkl", stored))


def test_npz_and_pickle_give_the_same(tmp_path):
    model = tiny_body()
    np.savez(tmp_path / "body.npz", **model, extra=np.array({"object": 1}, dtype=object))
    check(read_body_file(tmp_path / "body.npz"), model)
    check(read_body_file(write_pickle(tmp_path / "body.pkl", model)), model)


def test_the_shipped_models_are_read():
    body = read_body_file(body_file())
    assert body["v_template"].shape == (7009, 3) and body["posedirs"].shape == (7009, 3, 207)
    assert body["J_regressor_extra"].shape == (9, 7009) and body["vertex_ids"].shape == (21,)
    assert body["parents"].tolist()[:5] == [-1, 0, 0, 0, 1]
    assert body["joint_names"][0] == "pelvis"
    hand = read_body_file(hand_file())
    assert hand["parents"].shape == (16,) and hand["hands_components"].shape == (45, 45)


def changed(**changes):
    return lambda model: {k: v for k, v in (model | changes).items() if v is not None}


def with_nan(model):
    model["v_template"][2, 1] = np.nan
    return model


@pytest.mark.parametrize(
    "change, message",
    [
        (changed(posedirs=None), "lacks posedirs"),
        (changed(v_template=np.zeros((5, 3))), "J_regressor has the shape|has the shape"),
        (changed(shapedirs=np.zeros((8, 3, 4))), "4 shape components, 10 are needed"),
        (changed(f=np.full((2, 3), 8)), "triangles of its 8 vertices"),
        (changed(kintree_table=np.array([[-1, 2, 0], [0, 1, 2]])), "come before its child"),
        (changed(weights=np.zeros((8, 3))), "add up to 1"),
        (changed(vertex_ids=np.array([3, 8])), "vertex_ids names a vertex"),
        (changed(J_regressor_h36m=np.zeros((17, 6890))), r"not \(joints, 8\)"),
        (changed(f=np.array([["a", "b", "c"]])), "f does not hold whole numbers"),
        (with_nan, "v_template holds values that are not finite"),
        (lambda model: {"means": 1, "covars": 2}, "not a body model: it holds covars, means"),
        (lambda model: [1, 2], "it holds a list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    path = write_pickle(tmp_path / "model.pkl", change(tiny_body()))
    with pytest.raises(UserError, match=message) as caught:
        read_body_file(path)
    assert "model.pkl" in str(caught.value) and "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="no such body model file: .*registration at smpl.is.tue"):
        read_body_file(tmp_path / "SMPL_NEUTRAL.pkl")
    with pytest.raises(UserError, match="is a folder"):
        read_body_file(tmp_path)
    (tmp_path / "model.txt").write_text("x")
    with pytest.raises(UserError, match="neither in .pkl nor .npz"):
        read_body_file(tmp_path / "model.txt")
    path = write_pickle(tmp_path / "evil.pkl", tiny_body() | {"x": Bomb()})
    with pytest.raises(UserError, match="asks for posix.system"):
        read_body_file(path)
    assert not (tmp_path / "ran").exists()
    for suffix in (".npz", ".pkl"):
        whole = tmp_path / ("whole" + suffix)
        if suffix == ".npz":
            np.savez(whole, **tiny_body())
        else:
            write_pickle(whole, tiny_body())
        data = whole.read_bytes()
        cut = tmp_path / ("cut" + suffix)
        for part in (0.1, 0.5, 0.99):
            cut.write_bytes(data[: int(part * len(data))])
            with pytest.raises(UserError, match="is not a readable body model file"):
                read_body_file(cut)
