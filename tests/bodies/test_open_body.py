"""The shipped open body and hand keep every bound of their design (spec open_body, section 11)."""

import hashlib
import json

import numpy as np
import pytest

from jaxrecon.bodies.joints import SMPL24, SMPL_PARENTS
from jaxrecon.bodies.open_body import assets_path, body_file, hand_file
from jaxrecon.bodies.open_body.generate.hand_poses import HAND_JOINTS, HAND_PARENTS
from tests.bodies.mesh_checks import (
    crossing_pairs,
    euler_characteristic,
    is_closed,
    volumes,
    winding_numbers,
)


@pytest.fixture(scope="module")
def body():
    return dict(np.load(body_file(), allow_pickle=False))


@pytest.fixture(scope="module")
def hand():
    return dict(np.load(hand_file(), allow_pickle=False))


def shaped(model, betas):
    """(..., V, 3) of betas (..., 10)."""
    return model["v_template"] + np.einsum(
        "vdk,...k->...vd", model["shapedirs"].astype(np.float32), betas.astype(np.float32)
    )


@pytest.fixture(scope="module")
def crowd(body):
    """Statures and volumes of 500 random shapes."""
    betas = np.random.default_rng(0).normal(size=(500, 10))
    statures, contents = [], []
    for part in np.split(betas, 20):
        vertices = shaped(body, part)
        statures.append(np.ptp(vertices[..., 1], axis=-1))
        contents.append(volumes(vertices, body["f"]))
    return np.concatenate(statures), np.concatenate(contents)


def joint(body, name):
    return body["J"][SMPL24.index(name)]


def landmark(body, name):
    return body["v_template"][body["vertex_ids"][body["vertex_names"].tolist().index(name)]]


def test_the_files_are_those_of_the_readme():
    readme = (assets_path() / "README.md").read_text()
    for file in (body_file(), hand_file()):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme
    assert "CC0 1.0 Universal" in (assets_path() / "LICENSE.txt").read_text()


@pytest.mark.parametrize("name, count, joints", [("body", 7009, 24), ("hand", 900, 16)])
def test_layout(name, count, joints, request):
    model = request.getfixturevalue(name)
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, 10),
        "posedirs": (count, 3, 9 * (joints - 1)),
        "J_regressor": (joints, count),
        "J": (joints, 3),
        "weights": (count, joints),
        "kintree_table": (2, joints),
    }
    assert {key: model[key].shape for key in shapes} == shapes
    assert count not in (6890, 778)  # so that arrays of the other models cannot fit
    for key in ("v_template", "weights", "J_regressor"):
        assert model[key].dtype == np.float32  # float16 sums would be off by 1e-3
    assert model["kintree_table"].dtype == np.uint32
    parents = SMPL_PARENTS if name == "body" else HAND_PARENTS
    names = SMPL24 if name == "body" else HAND_JOINTS
    assert model["kintree_table"][0, 0] == 2**32 - 1
    assert tuple(model["kintree_table"][0, 1:]) == parents[1:]
    assert model["kintree_table"][1].tolist() == list(range(joints))
    assert tuple(model["joint_names"]) == names
    assert json.loads(str(model["meta"]))["licence"] == "CC0-1.0"
    assert all(value.dtype != object for value in model.values())


@pytest.mark.parametrize("name", ["body", "hand"])
def test_the_surface_is_closed_and_wound_outwards(name, request):
    model = request.getfixturevalue(name)
    assert is_closed(model["f"])
    assert euler_characteristic(model["f"]) == 2
    assert len(np.unique(model["f"])) == len(model["v_template"])
    assert volumes(model["v_template"], model["f"]) > 0


@pytest.mark.parametrize("name", ["body", "hand"])
def test_weights_and_regressors_are_convex(name, request):
    model = request.getfixturevalue(name)
    rows = [model["weights"], model["J_regressor"]]
    rows += [model[key] for key in ("J_regressor_extra", "J_regressor_h36m") if key in model]
    for table in rows:
        assert table.min() >= 0
        np.testing.assert_allclose(table.sum(1, dtype=np.float64), 1, atol=1e-6)
    assert (model["weights"] > 0).sum(1).max() <= 5
    assert (model["J_regressor"] > 0).sum(1).max() <= 40
    np.testing.assert_allclose(model["J_regressor"] @ model["v_template"], model["J"], atol=1e-5)


def test_the_body_is_its_own_mirror_image(body):
    sym, flip = body["vert_sym_idxs"], np.array([-1, 1, 1], np.float32)
    assert np.array_equal(sym[sym], np.arange(len(sym)))
    assert np.array_equal(body["v_template"][sym] * flip, body["v_template"])
    image = np.sort(sym[body["f"]], axis=1)
    assert {tuple(f) for f in image.tolist()} == {
        tuple(f) for f in np.sort(body["f"], axis=1).tolist()
    }
    swap = {"l": "r", "r": "l"}
    joints = [SMPL24.index(swap[n[0]] + n[1:] if n[1] == "_" else n) for n in SMPL24]
    np.testing.assert_allclose(body["weights"][sym][:, joints], body["weights"], atol=1e-6)
    np.testing.assert_allclose(body["J_regressor"][joints][:, sym], body["J_regressor"], atol=1e-6)


@pytest.mark.parametrize("name", ["body", "hand"])
def test_joints_are_inside(name, request):
    model = request.getfixturevalue(name)
    betas = np.concatenate([np.zeros((1, 10)), np.random.default_rng(1).normal(size=(8, 10))])
    for vertices in shaped(model, betas):
        inside = winding_numbers(model["J_regressor"] @ vertices, vertices, model["f"])
        np.testing.assert_allclose(inside, 1, atol=1e-2)


@pytest.mark.parametrize("name", ["body", "hand"])
def test_the_surface_does_not_cut_itself(name, request):
    model = request.getfixturevalue(name)
    assert crossing_pairs(model["v_template"], model["f"]) == 0
    if name == "body":
        vertices = shaped(model, np.random.default_rng(2).normal(size=10))
        assert crossing_pairs(vertices, model["f"]) <= 40  # at the lips


def test_a_crossing_would_be_found(body):
    """The check above is not blind: an arm folded into the trunk is seen."""
    moved = body["v_template"].copy()
    arm = body["weights"][:, [SMPL24.index("l_elbow"), SMPL24.index("l_hand")]].sum(1) > 0.5
    moved[arm] -= [0.5, 0.1, 0]
    assert crossing_pairs(moved, body["f"]) > 100


def test_sizes(body, crowd):
    assert 1.65 < np.ptp(body["v_template"][:, 1]) < 1.75
    assert 0.060 < volumes(body["v_template"], body["f"]) < 0.072
    statures, contents = crowd
    assert abs(statures.mean() - 1.69) < 0.02
    assert abs(statures.std() - 0.095) < 0.015
    assert contents.min() > 0.03


def test_what_the_betas_do(body):
    two = np.concatenate([-2 * np.eye(10), 2 * np.eye(10)])
    vertices = shaped(body, two)
    stature = np.ptp(vertices[..., 1], axis=-1)
    assert 1.4 < stature[0] < 1.6 and 1.8 < stature[10] < 2.0
    content = volumes(vertices, body["f"])
    change = content[10:] - content[:10]
    assert (change > -1e-4).all() and change.max() < 0.045
    assert np.all(np.diff(body["explained_variance"]) < 0) and body["gender_betas"].shape == (2, 10)
    male, female = (np.ptp(shaped(body, b)[:, 1]) for b in body["gender_betas"])
    assert male - female > 0.1


def test_rest_pose(body):
    np.testing.assert_allclose(joint(body, "pelvis"), [0, -0.22, 0.03], atol=1e-4)
    for side, sign in (("l", 1), ("r", -1)):
        arm = np.stack([joint(body, f"{side}_{n}") for n in ("shoulder", "elbow", "wrist", "hand")])
        assert abs(arm[2, 1] - arm[0, 1]) < 0.02
        assert np.ptp(arm[:3, 2]) < 0.03
        assert (np.diff(sign * arm[:, 0]) > 0).all() and (sign * arm[:, 0] > 0).all()
        big_toe, heel = (landmark(body, f"{side.upper()}{n}") for n in ("BigToe", "Heel"))
        assert big_toe[2] - heel[2] > 0.15
        assert abs(landmark(body, f"{side}index")[0]) > abs(arm[3, 0])
    assert landmark(body, "nose")[2] > joint(body, "head")[2] + 0.05
    assert landmark(body, "leye")[0] > 0 > landmark(body, "reye")[0]
    assert landmark(body, "lear")[0] > landmark(body, "leye")[0] + 0.02


def test_other_regressors_agree_with_the_joints(body):
    h36m = body["J_regressor_h36m"] @ body["v_template"]
    for row, name in ((2, "l_knee"), (3, "l_ankle"), (5, "r_knee"), (13, "l_wrist")):
        np.testing.assert_allclose(h36m[row], joint(body, name), atol=1e-5)
    assert h36m[1, 0] > joint(body, "l_hip")[0] and h36m[10, 1] > joint(body, "head")[1]
    extra = body["J_regressor_extra"] @ body["v_template"]
    assert extra[3, 1] > extra[8, 1] > extra[2, 1] > extra[6, 1] > extra[4, 1]  # top ... pelvis
    assert extra[0, 0] < 0 < extra[1, 0]


def test_hand(hand):
    tips = hand["v_template"][hand["vertex_ids"]]
    middle = np.linalg.norm(tips[hand["vertex_names"].tolist().index("middle")] - hand["J"][0])
    assert 0.17 < middle < 0.20
    basis = hand["hands_components"]
    np.testing.assert_allclose(basis @ basis.T, np.eye(45), atol=1e-5)
    assert (basis.sum(1) >= 0).all()
    flexion = hand["hands_mean"].reshape(15, 3)[:3, 2]  # index1-3 about z
    assert (flexion > 0.2).all()
    for tip, name in zip(hand["vertex_ids"], hand["vertex_names"], strict=True):
        assert hand["weights"][tip, HAND_JOINTS.index(f"{name}3")] > 0.5
    assert tips[1:, 0].max() < hand["J"][0, 0] - 0.1  # fingers along -x
    assert tips[0, 2] > hand["J"][0, 2]  # thumb in front
    loop = hand["wrist_loop"]
    cap = hand["f"][-18:]
    assert set(np.unique(cap)) == set(loop.tolist())
    assert np.abs(hand["v_template"].mean(0)).max() < 1e-5


def test_posed_bodies_keep_their_volume(body):
    import jax
    import jax.numpy as jnp

    from jaxrecon.bodies import body_forward, load_body
    from jaxrecon.bodies.poses import sample_poses
    from jaxrecon.geometry.rotations import axis_angle_to_matrix

    rng = np.random.default_rng(3)
    poses = axis_angle_to_matrix(jnp.asarray(sample_poses(rng, 20), jnp.float32))
    betas = jnp.asarray(rng.normal(size=(20, 10)), jnp.float32)
    model = load_body()
    posed = np.asarray(jax.jit(body_forward)(model, betas, poses).vertices)
    assert np.isfinite(posed).all()
    ratio = volumes(posed, body["f"]) / volumes(shaped(body, np.asarray(betas)), body["f"])
    assert ratio.min() > 0.90 and ratio.max() < 1.05
