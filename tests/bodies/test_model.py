"""The skinned body: against its definition, its subsets, and its own symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.bodies import (
    body_forward,
    body_subset,
    build_body,
    h36m_joints,
    joints49,
    joints49_forward,
    joints49_model,
    load_body,
    lsp14_centred,
)
from jaxrecon.bodies.model import tree_levels
from jaxrecon.errors import UserError
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from tests.golden.support.synthetic_smpl import make_body

forward = jax.jit(body_forward)


@pytest.fixture(scope="module")
def small():
    arrays = make_body(431)
    arrays["vertex_ids"] = arrays.pop("extra_vertex_ids")
    return arrays, build_body(arrays, "small")


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(2, 10)).astype(np.float32)
    pose = rng.normal(0, 0.4, (2, 24, 3)).astype(np.float32)
    return betas, np.asarray(axis_angle_to_matrix(pose))


def skin_by_definition(arrays, betas, rotmats):
    """Joint by joint and vertex by vertex, in float64, from the equations of the SMPL paper."""
    parents = arrays["kintree_table"][0]
    shaped = arrays["v_template"] + arrays["shapedirs"].astype(float) @ betas
    joints = arrays["J_regressor"].astype(float) @ shaped
    feature = (rotmats[1:] - np.eye(3)).ravel()
    posed = shaped + arrays["posedirs"].astype(float) @ feature
    world = []
    for joint in range(24):
        local = np.eye(4)
        local[:3, :3] = rotmats[joint]
        parent = parents[joint] if joint else -1
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    out = np.zeros_like(posed)
    for vertex in range(len(posed)):
        for joint in range(24):
            moved = world[joint][:3, :3] @ (posed[vertex] - joints[joint]) + world[joint][:3, 3]
            out[vertex] += arrays["weights"][vertex, joint] * moved
    return out, np.stack([g[:3, 3] for g in world])


def test_agrees_with_the_definition(small, state):
    arrays, body = small
    got = forward(body, *state)
    for i in range(2):
        vertices, joints = skin_by_definition(arrays, state[0][i], state[1][i].astype(float))
        np.testing.assert_allclose(got.vertices[i], vertices, atol=2e-6)
        np.testing.assert_allclose(got.joints[i], joints, atol=2e-6)


def test_levels_hold_every_joint_after_its_parent(small):
    _, body = small
    levels = tree_levels(body.parents)
    assert len(levels) == 9
    assert sorted(np.concatenate(levels)) == list(range(24))
    for above, level in zip(levels, levels[1:], strict=False):
        assert {body.parents[j] for j in level} <= set(above)


def test_a_subset_gives_the_same_vertices_and_joints(small, state):
    _, body = small
    ids = np.array([3, 7, 100, 430])
    part = body_subset(body, ids)
    whole, some = forward(body, *state), forward(part, *state)
    np.testing.assert_allclose(some.vertices, whole.vertices[:, ids], atol=1e-6)
    np.testing.assert_allclose(some.joints, whole.joints, atol=1e-6)
    # What the subset cannot compute it must not pretend to.
    assert part.J_regressor_extra is None and part.vertex_ids is None
    with pytest.raises(UserError, match="landmarks"):
        joints49(part, some)


def test_joints_only_body_gives_the_same_joints(small, state):
    _, body = small
    few = joints49_model(body, h36m=True)
    assert few.v_template.shape[0] < body.v_template.shape[0] // 2
    whole = forward(body, *state)
    np.testing.assert_allclose(joints49_forward(few, *state), joints49(body, whole), atol=2e-6)
    np.testing.assert_allclose(
        h36m_joints(few, forward(few, *state).vertices),
        h36m_joints(body, whole.vertices),
        atol=2e-6,
    )


def test_open_body_at_rest_is_its_template_and_turns_about_the_pelvis():
    body = load_body()
    identity = np.tile(np.eye(3, dtype=np.float32), (2, 24, 1, 1))
    turn = np.asarray(axis_angle_to_matrix(np.float32([0.3, 1.2, -0.4])))
    identity[1, 0] = turn
    got = forward(body, np.zeros((2, 10), np.float32), identity)
    np.testing.assert_allclose(got.vertices[0], body.v_template, atol=1e-6)
    pelvis = np.asarray(got.joints[0, 0])
    np.testing.assert_allclose(
        got.vertices[1], (np.asarray(body.v_template) - pelvis) @ turn.T + pelvis, atol=2e-6
    )


def test_open_body_landmarks_are_where_they_should_be():
    """Right is at negative x, the head above, the toes in front."""
    body = load_body()
    rest = forward(
        body, np.zeros((1, 10), np.float32), np.eye(3, dtype=np.float32)[None, None].repeat(24, 1)
    )
    from jaxrecon.bodies.joints import JOINT_SETS

    place = dict(zip(JOINT_SETS["spin49"], np.asarray(joints49(body, rest)[0]), strict=True))
    for name, point in place.items():
        if name.startswith("r_"):
            assert point[0] < 0, name
            assert np.linalg.norm(point * [-1, 1, 1] - place["l_" + name[2:]]) < 1e-3, name
    assert place["head_top"][1] > place["neck"][1] > place["pelvis"][1] > place["l_knee"][1]
    assert place["l_big_toe"][2] > place["l_heel"][2] + 0.1
    assert place["nose"][2] > place["head"][2]
    assert lsp14_centred(body, rest.vertices).shape == (1, 14, 3)


def test_genders_differ_and_wrong_ones_are_named():
    male, female = (load_body(gender=g).v_template for g in ("male", "female"))
    height = [float(v[:, 1].max() - v[:, 1].min()) for v in (male, female)]
    assert height[0] > height[1] + 0.05
    with pytest.raises(UserError, match="neutral, male, female"):
        load_body(gender="other")


def test_regressor_of_another_mesh_is_refused(small):
    arrays, _ = small
    with pytest.raises(UserError, match="J_regressor_extra is made for 6890"):
        build_body({**arrays, "J_regressor_extra": np.zeros((9, 6890))}, "small")


def test_landmarks_beyond_the_mesh_are_refused(small):
    arrays, _ = small
    with pytest.raises(UserError, match="beyond"):
        build_body({**arrays, "vertex_ids": np.array([431])}, "small")


def test_gradient_of_the_joints_is_finite_and_batched_over_any_axes(small, state):
    _, body = small
    few = joints49_model(body)
    betas, rotmats = (np.stack([x, x]) for x in state)
    grads = jax.grad(lambda b, r: jnp.sum(joints49_forward(few, b, r) ** 2), (0, 1))(betas, rotmats)
    assert all(np.isfinite(g).all() for g in grads)
    np.testing.assert_allclose(grads[0][0], grads[0][1], rtol=1e-5)
