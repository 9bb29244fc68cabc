"""Bodies without a photograph: their labels agree with each other, and they teach what they may."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.bodies import joints49_forward, joints49_model, load_body
from jaxrecon.data.crops import box_information, crop_matrix
from jaxrecon.geometry.cameras import full_to_crop_camera
from jaxrecon.networks.points import SPOT, PointLifter, PointPooling, place_spread
from jaxrecon.systems.meta_hmr import MetaHMR, lifting
from jaxrecon.systems.meta_hmr.losses import LossWeights

SIZE = (80, 64)
COUNT = 64


@pytest.fixture(scope="module")
def poses():
    return lifting.pose_bank(200, seed=3)


@pytest.fixture(scope="module")
def body():
    return joints49_model(load_body())


@pytest.fixture(scope="module")
def drawn(poses, body):
    draw = jax.jit(lambda key: lifting.draw_batch(key, jnp.asarray(poses), body, SIZE, COUNT))
    return jax.device_get(draw(jax.random.key(0)))


def test_bank_is_repeatable_and_faces_the_camera(poses):
    np.testing.assert_array_equal(poses, lifting.pose_bank(200, seed=3))
    assert poses.shape == (200, 24, 3) and poses.dtype == np.float32
    assert not np.array_equal(poses, lifting.pose_bank(200, seed=4))


def test_box_and_crop_are_those_of_the_pipeline(drawn):
    batch, _, _ = drawn
    for i in range(5):
        center, scale = batch["center"][i].astype(np.float64), float(batch["scale"][i])
        expected = box_information(
            center, scale, batch["image_size"][i], float(batch["focal_length"][i])
        )
        np.testing.assert_allclose(batch["bbox_info"][i], expected, atol=1e-3)
        np.testing.assert_allclose(
            batch["crop_trans"][i], crop_matrix(center, scale, *SIZE), rtol=2e-4, atol=2e-2
        )


def test_the_true_body_lands_on_its_own_keypoints(drawn, body):
    """Through the system's own projection, with some camera of the crop."""
    batch, _, _ = drawn
    system = MetaHMR(image_size=SIZE)
    joints = joints49_forward(body, batch["betas"], batch["rotmats"])
    np.testing.assert_allclose(joints[:, 25:], batch["joints3d"][..., :3], atol=1e-5)
    seen = batch["keypoints2d"][:, 25:, :2]

    def camera(i: int) -> np.ndarray:
        # Two equations a joint in the translation: (u - c) (z + t_z) = f (x + t_x).
        focal, frame = batch["focal_length"][i], batch["image_size"][i][::-1]
        matrix = batch["crop_trans"][i]
        full = (seen[i] - matrix[:, 2]) / matrix[0, 0] - frame / 2
        point = np.asarray(joints[i, 25:], np.float64)
        a = np.zeros((24, 2, 3))
        a[:, 0, 0] = a[:, 1, 1] = focal
        a[:, :, 2] = -full
        b = full * point[:, 2:] - focal * point[:, :2]
        return np.linalg.lstsq(a.reshape(48, 3), b.reshape(48), rcond=None)[0]

    transl = np.stack([camera(i) for i in range(COUNT)]).astype(np.float32)
    assert transl[:, 2].min() > 0.9
    where = (batch["center"], batch["scale"], batch["image_size"], batch["focal_length"])
    np.testing.assert_allclose(batch["cam"], full_to_crop_camera(transl, *where), atol=1e-3)
    points = system.crop_points(joints[:, 25:], jnp.asarray(batch["cam"]), batch)
    pixels = (np.asarray(points) + 1) * np.array([SIZE[1], SIZE[0]]) / 2
    np.testing.assert_allclose(pixels, seen, atol=0.05)


def test_places_are_near_the_keypoints_as_far_as_their_spread_says(drawn):
    batch, places, spread = drawn
    true = batch["keypoints2d"][:, 25:, :2] / (np.array([SIZE[1], SIZE[0]]) / 2) - 1
    inside = np.abs(true).max(-1) < 0.9
    error = np.sqrt(np.mean((places - true) ** 2, -1))
    sure, unsure = inside & (spread < 0.05), inside & (spread > 0.1)
    assert sure.sum() > 100 and unsure.sum() > 100
    assert error[sure].mean() < 0.05 < error[unsure].mean()
    assert np.abs(places).max() <= 0.95


def test_spread_is_that_of_the_map_beyond_a_spot():
    height = width = 12
    cells = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2)

    def blurred(deviation: float) -> np.ndarray:
        weight = np.exp(-0.5 * np.sum((cells - 5.5) ** 2, -1) / deviation**2)
        return weight / weight.sum()

    attention = np.stack([blurred(SPOT), blurred(2.0)])[None].astype(np.float32)
    found = np.asarray(place_spread(attention, np.zeros((1, 2, 2), np.float32), height, width))
    np.testing.assert_allclose(found[0], [0.01, np.sqrt(2.0**2 - SPOT**2) * 2 / 12], atol=0.015)


def test_pooled_features_are_the_lifter_s_where_appearance_says_nothing():
    stages = [np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype(np.float32)]
    norm = {"use_running_average": True, "axis_name": None, "updates": 1}
    pooling = PointPooling(points=3, features=16, norm=norm)
    variables = pooling.init(jax.random.key(0), stages)
    neck = jax.tree.map(jnp.zeros_like, variables["params"]["neck2"])
    variables = {**variables, "params": {**variables["params"], "neck2": neck}}
    out = pooling.apply(variables, stages)
    attention = jax.nn.softmax(out["point_logits"].reshape(2, 96, 3), 1).transpose(0, 2, 1)
    places = np.asarray(out["features"][:, 16:]).reshape(2, 3, 2)
    expected = PointLifter(16).apply(
        {"params": variables["params"]["lifter"]}, places, place_spread(attention, places, 8, 12)
    )
    np.testing.assert_allclose(out["features"][:, :16], expected, atol=1e-5)


@pytest.fixture
def small(monkeypatch, poses):
    """A system that learns from bodies, with a few of them."""
    monkeypatch.setattr(lifting, "BATCH", 16)
    system = MetaHMR(
        backbone="resnet_small", aux_backbone="resnet_tiny", hidden=16, image_size=(64, 64),
        main_iterations=3, dropout=0.0, weights=LossWeights(lifting=1.0, points=0.2),
    )  # fmt: skip
    bank = {"joints": joints49_model(load_body()), "poses": jnp.asarray(poses)}
    image = jnp.zeros((1, 64, 64, 3), jnp.float32)
    made = jax.jit(system.main.init)(jax.random.key(0), image, jnp.zeros((1, 3)))
    return system, {
        "params": {"main": made["params"]},
        "batch_stats": {"main": made["batch_stats"]},
        "constants": bank,
    }


def test_bodies_teach_the_lifter_and_the_head_alone(small):
    system, variables = small

    @jax.jit
    @jax.value_and_grad
    def objective(params, key):
        terms = lifting.lifting_terms(system, {**variables, "params": params}, key, None)
        return system.weighted(terms)

    value, gradient = objective(variables["params"], jax.random.key(2))
    moved = {
        path[2].key if path[1].key == "backbone" else path[1].key: float(jnp.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if path[-2].key not in ("deccam",)
    }
    assert np.isfinite(value)
    assert moved["head"] > 0
    assert moved["conv1"] == 0 == moved["layer1_0"]
    points = gradient["main"]["backbone"]["points"]
    assert float(jnp.abs(points["lifter"]["first"]["kernel"]).max()) > 0
    assert float(jnp.abs(points["neck1"]["kernel"]).max()) == 0

    # And with other bodies each time, before the first batch, they become known better.
    seen = []
    taught = dataclasses.replace(system, lifting_steps=50)
    prepared = taught.prepare(variables, jax.random.key(4), lambda *row: seen.append(row))
    assert seen[-1][:2] == (50, 50) and np.isfinite(seen[-1][2])
    assert float(objective(prepared["params"], jax.random.key(2))[0]) < 0.8 * float(value)
    before, after = (v["params"]["main"]["backbone"] for v in (variables, prepared))
    np.testing.assert_array_equal(before["conv1"]["kernel"], after["conv1"]["kernel"])
    assert system.prepare(variables, jax.random.key(4), lambda *row: None) is variables


def test_only_networks_with_points_learn_from_bodies(small):
    system, _ = small
    assert system.lifts
    assert not dataclasses.replace(system, backbone="resnet_tiny").lifts
    assert not dataclasses.replace(system, weights=LossWeights()).lifts
