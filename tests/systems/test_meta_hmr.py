"""Meta-HMR on a tiny network: what the golden files cannot show."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrecon.bodies import h36m_joints
from jaxrecon.errors import UserError
from jaxrecon.systems.meta_hmr import AdaptSettings, MetaHMR, adaptation, losses, scores

TINY = {
    "backbone": "resnet_tiny",
    "aux_backbone": "resnet_tiny",
    "hidden": 16,
    "image_size": (64, 64),
    "main_iterations": 3,
    "dropout": 0.0,
    "vertex_stride": 50,
    "inner_lr": 1e-2,
    "aux_supervision": True,
}


def make_batch(count: int, seed: int = 0, size: tuple[int, int] = (64, 64)) -> dict:
    """Random images with labels of the right shapes and plausible cameras."""
    rng = np.random.default_rng(seed)
    height, width = size
    center = rng.uniform(200, 300, (count, 2))
    scale = rng.uniform(1.0, 1.5, count)
    zoom = height / (200 * scale)
    crop = np.zeros((count, 2, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = zoom
    crop[:, :, 2] = np.array([width, height]) / 2 - zoom[:, None] * center
    keypoints = np.concatenate(
        [rng.uniform(0, height, (count, 49, 2)), np.ones((count, 49, 1))], axis=2
    )
    full = keypoints.copy()
    full[..., :2] = (keypoints[..., :2] - crop[:, None, :, 2]) / zoom[:, None, None]
    batch = {
        "image": rng.integers(0, 255, (count, height, width, 3)).astype(np.uint8),
        "keypoints2d": keypoints,
        "keypoints2d_full": full,
        "pose": rng.normal(0, 0.2, (count, 72)),
        "betas": rng.normal(0, 1, (count, 10)),
        "joints3d": np.concatenate(
            [rng.normal(0, 0.4, (count, 24, 3)), np.ones((count, 24, 1))], axis=2
        ),
        "center": center,
        "scale": scale,
        "focal_length": np.full(count, 700.0),
        "image_size": np.full((count, 2), 500.0),
        "bbox_info": rng.uniform(-1, 1, (count, 3)),
        "crop_trans": crop,
    }
    batch = {k: v if v.dtype == np.uint8 else v.astype(np.float32) for k, v in batch.items()}
    labels = np.ones(count, np.int32)
    return {**batch, "has_smpl": labels, "has_joints3d": labels, "gender": labels * 2}


@pytest.fixture(scope="module")
def tiny():
    system = MetaHMR(**TINY)
    variables = jax.jit(system.init)(jax.random.key(0), make_batch(2))
    return system, variables


def value_and_grads(system, variables, batch):
    def objective(params):
        loss, aux = system.loss({**variables, "params": params}, batch, jax.random.key(1), True)
        return loss, aux

    return jax.jit(jax.value_and_grad(objective, has_aux=True))(variables["params"])


@pytest.mark.slow
def test_orders_share_the_value_and_differ_in_the_gradient(tiny):
    _, variables = tiny
    batch = make_batch(4)
    quiet = {**TINY, "aux_supervision": False}
    (first, aux), first_grad = value_and_grads(MetaHMR(**quiet, order="first"), variables, batch)
    (second, _), second_grad = value_and_grads(MetaHMR(**quiet, order="second"), variables, batch)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    # Only the second order reaches the auxiliary network.
    assert optax.global_norm(first_grad["aux"]) == 0
    assert optax.global_norm(second_grad["aux"]) > 0
    assert np.isfinite(optax.global_norm(second_grad))
    assert "inner0/keypoints2d" in aux.metrics


@pytest.mark.slow
def test_second_order_is_the_derivative_of_the_whole_step(tiny):
    """Along a random direction, by central differences through the inner step."""
    _, variables = tiny
    system = MetaHMR(**{**TINY, "aux_supervision": False, "order": "second", "inner_lr": 3e-3})
    batch = make_batch(4)
    _, grads = value_and_grads(system, variables, batch)
    params = variables["params"]
    rng = np.random.default_rng(0)
    head = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape).astype(np.float32) * np.abs(p).mean()),
        params["main"]["head"],
    )
    direction = jax.tree.map(jnp.zeros_like, params)
    direction["main"] = {**direction["main"], "head": head}

    @jax.jit
    def at(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        loss, _ = system.loss({**variables, "params": moved}, batch, jax.random.key(1), True)
        return loss

    slope = (at(1e-2) - at(-1e-2)) / 2e-2
    want = sum(
        float(jnp.vdot(g, d))
        for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(slope, want, rtol=2e-2)


def test_no_label_gives_no_loss_and_no_nan(tiny):
    """A batch without 3D labels crashed the published trainer (quirk 4)."""
    system, variables = tiny
    none = np.zeros(4, np.int32)
    batch = {**make_batch(4), "has_smpl": none, "has_joints3d": none}
    (loss, aux), grads = value_and_grads(system, variables, batch)
    assert np.isfinite(loss) and np.isfinite(optax.global_norm(grads))
    assert aux.metrics["loss_vertices"] == 0 and aux.metrics["loss_joints3d"] == 0
    assert aux.metrics["loss_keypoints2d"] > 0


@pytest.mark.slow
def test_running_statistics_take_the_batch_once_per_pass(tiny):
    system, variables = tiny
    batch = make_batch(4)
    (_, aux), _ = value_and_grads(system, variables, batch)
    plain = dataclasses.replace(system, inner_steps=0, aux_supervision=False)
    (_, once), _ = value_and_grads(plain, variables, batch)
    old = variables["batch_stats"]["main"]["backbone"]["bn1"]["mean"]
    twice = aux.state["main"]["backbone"]["bn1"]["mean"]
    single = once.state["main"]["backbone"]["bn1"]["mean"]
    seen = (single - 0.9 * old) / 0.1
    np.testing.assert_allclose(twice, 0.81 * old + 0.19 * seen, atol=1e-5)


def test_adaptation_lowers_the_2d_loss_and_keeps_the_weights(tiny):
    system, variables = tiny
    system = dataclasses.replace(system, test_time=AdaptSettings(inner_lr=1e-3, after_lr=1e-3))
    batch = make_batch(3)
    before = jax.tree.map(np.asarray, variables["params"])
    result = jax.jit(lambda v, b: system.adapt(v, b, 5))(variables, batch)
    assert result.losses.shape == (6, 3)
    assert result.losses[-1].mean() < result.losses[0].mean()
    assert result.history.vertices.shape[:2] == (6, 3)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(variables["params"]), strict=True):
        np.testing.assert_array_equal(old, new)
    # The last entry of the history is what the adapted network predicts.
    again = jax.jit(system.predict)(result.variables, batch)
    np.testing.assert_allclose(again.vertices, result.history.vertices[-1], atol=2e-4)
    first = jax.jit(system.predict)(variables, batch)
    np.testing.assert_allclose(first.vertices, result.history.vertices[0], atol=2e-4)


def test_images_adapt_in_even_groups_on_a_cpu():
    groups = [adaptation.images_at_once(count, "cpu") for count in (1, 3, 6, 7, 20)]
    assert groups == [1, 3, 3, 1, 4]
    assert adaptation.images_at_once(20, "gpu") == 20


@pytest.mark.slow
def test_images_that_adapt_alone_do_not_see_each_other(tiny):
    system, variables = tiny
    system = dataclasses.replace(
        system, test_time=AdaptSettings(inner_lr=1e-3, after_lr=1e-3, per_image=True)
    )
    batch, other = make_batch(3), make_batch(3, seed=9)
    adapt = jax.jit(lambda v, b: system.adapt(v, b, 2))
    alone = adapt(variables, batch)
    mixed = adapt(variables, {k: np.concatenate([v[:1], other[k][1:]]) for k, v in batch.items()})
    np.testing.assert_allclose(alone.history.betas[:, 0], mixed.history.betas[:, 0], atol=1e-6)
    assert not np.allclose(alone.history.betas[-1, 1], mixed.history.betas[-1, 1])
    again = jax.jit(system.predict)(alone.variables, batch)
    np.testing.assert_allclose(again.betas, alone.history.betas[-1], atol=1e-4)


def test_stopped_adaptation_repeats_its_last_state(tiny):
    from jaxrecon.systems.meta_hmr.adaptation import test_time_optimise

    system, variables = tiny
    stop = AdaptSettings(inner_lr=1e-3, after_lr=1e-3, stop_change=1e9)
    system = dataclasses.replace(system, test_time=stop)
    trace = jax.jit(lambda v, b: test_time_optimise(system, v, b, 4))(variables, make_batch(2))
    assert int(trace.steps_run) == 2
    assert np.isnan(np.asarray(trace.loss2d)[2:]).all()
    np.testing.assert_array_equal(trace.regressions.betas[2], trace.regressions.betas[-1])


def test_zero_steps_change_nothing(tiny):
    system, variables = tiny
    batch = make_batch(2)
    result = jax.jit(lambda v, b: system.adapt(v, b, 0))(variables, batch)
    assert result.history.vertices.shape[0] == 1
    np.testing.assert_allclose(
        result.history.betas[0], jax.jit(system.predict)(variables, batch).betas, atol=1e-5
    )


def test_perfect_prediction_has_no_error(tiny):
    system, variables = tiny
    batch = make_batch(2)
    prediction = jax.jit(system.predict)(variables, batch)
    truth = jax.jit(functools.partial(scores.true_vertices, system))(variables, batch)
    metrics = system.evaluate(variables, prediction.replace(vertices=truth), batch)
    for name in ("mpjpe", "pa_mpjpe", "pve"):
        np.testing.assert_allclose(metrics[name], 0, atol=0.05)
    some = np.array([1, 0], np.int32)
    unlabelled = {**batch, "has_smpl": some, "has_joints3d": some}
    metrics = system.evaluate(variables, prediction, unlabelled)
    assert np.isfinite(metrics["mpjpe"][0]) and np.isnan(metrics["mpjpe"][1])


def test_the_mean_pose_stands_upright(tiny):
    """In a camera frame whose y points down, the head is at smaller y than the feet."""
    system, variables = tiny
    standing = jax.jit(system.baseline)(variables, make_batch(2))
    head, ankle = standing.joints3d[0, 25 + 13], standing.joints3d[0, 25 + 0]
    assert head[1] < ankle[1] - 1.0


def test_crop_and_photograph_agree():
    """A joint projected into the photograph and cropped is the joint projected into the crop."""
    system = MetaHMR(**TINY)
    batch = make_batch(3)
    rng = np.random.default_rng(0)
    joints = jnp.asarray(rng.normal(0, 0.3, (3, 49, 3)).astype(np.float32))
    cam = jnp.asarray(np.float32([[0.9, 0.1, -0.1]] * 3))
    full = system.full_points(joints, cam, batch)
    crop = batch["crop_trans"]
    pixels = np.einsum("bij,bnj->bni", crop[:, :, :2], full) + crop[:, None, :, 2]
    np.testing.assert_allclose(
        system.crop_points(joints, cam, batch), pixels / 32.0 - 1.0, atol=1e-4
    )


@pytest.mark.slow
def test_hmr_without_box(tiny):
    system = MetaHMR(**{**TINY, "model": "hmr"})
    batch = make_batch(2)
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    (loss, _), _ = value_and_grads(system, variables, batch)
    assert np.isfinite(loss)


def test_dropout_makes_passes_differ(tiny):
    _, variables = tiny
    system = MetaHMR(**{**TINY, "dropout": 0.5})
    batch = make_batch(2)
    losses_of = jax.jit(lambda key: system.loss(variables, batch, key, True)[0])
    assert losses_of(jax.random.key(0)) != losses_of(jax.random.key(1))
    quiet = jax.jit(lambda key: system.loss(variables, batch, key, False)[0])
    assert quiet(jax.random.key(0)) == quiet(jax.random.key(1))


@pytest.mark.parametrize(
    "field, value", [("model", "spin"), ("backbone", "resnet51"), ("order", "third")]
)
def test_unknown_choices_are_named(field, value):
    with pytest.raises(UserError, match=value):
        MetaHMR(**{field: value})


def test_masked_mean():
    values = np.float32([[1, 3], [10, 10]])
    assert losses.masked_mean(values, np.array([1, 0])) == 2
    assert losses.masked_mean(values, np.array([0, 0])) == 0
    assert losses.masked_mean(values) == 6


def history_of(system, offsets_px, moved, batch):
    """Predictions whose gt24 keypoints are off by pixels of the crop, joints by metres: (S, B)."""
    zoom = batch["crop_trans"][:, 1, 1][:, None, None]
    truth = batch["keypoints2d_full"][..., :2]
    points = np.stack([truth + np.array([o, 0.0]) / zoom for o in offsets_px])
    base = np.random.default_rng(0).normal(0, 0.3, (len(truth), 49, 3))
    joints = np.stack([base * (1 + m) for m in moved])
    return types.SimpleNamespace(keypoints2d=jnp.asarray(points), joints3d=jnp.asarray(joints))


def test_the_kept_state_weighs_keypoints_against_the_start():
    batch = make_batch(3)
    system = MetaHMR(**TINY)
    choose = adaptation.most_probable_state
    # 64 px crops: 2 % are 1.3 px. The last step buys a pixel for a body blown up by half.
    history = history_of(system, [8.0, 3.0, 2.0], [0.0, 0.02, 0.5], batch)
    np.testing.assert_array_equal(choose(system, history, batch), [1, 1, 1])
    trusting = AdaptSettings(prior_deviation=10.0)
    trusting = dataclasses.replace(system, test_time=trusting)
    np.testing.assert_array_equal(choose(trusting, history, batch), [2, 2, 2])
    # Never a state whose keypoints fit worse than those of the start, nor one that is no number.
    worse = history_of(system, [3.0, 4.0, np.nan], [0.0, 0.0, 0.0], batch)
    np.testing.assert_array_equal(choose(system, worse, batch), [0, 0, 0])
    with pytest.raises(UserError, match="keypoint_noise"):
        AdaptSettings(keypoint_noise=0.0)


def test_annotated_joints_score_where_there_is_no_mesh(tiny):
    system, variables = tiny
    batch = make_batch(2)
    prediction = jax.jit(system.predict)(variables, batch)
    joints = np.array(h36m_joints(variables["constants"]["neutral"], prediction.vertices))
    annotated = np.zeros((2, 24, 4), np.float32)
    annotated[:, scores.GT24_OF_H36M, :3] = joints - joints[:, :1]
    annotated[:, scores.GT24_OF_H36M, 3] = 1
    annotated[1, scores.GT24_OF_H36M[3], 3] = 0  # not all 17 are there
    no_mesh = {**batch, "has_smpl": np.zeros(2, np.int32), "joints3d": annotated}
    found = system.evaluate(variables, prediction, no_mesh)
    np.testing.assert_allclose(found["mpjpe"][0], 0, atol=1e-2)
    assert np.isnan(found["mpjpe"][1]) and np.isnan(found["pve"]).all()


def test_unknown_gender_is_male_unless_told(tiny):
    system, variables = tiny
    batch = {**make_batch(2), "gender": np.array([-1, 2], np.int32)}
    bodies = variables["constants"]
    marked = {**variables, "constants": {**bodies, "male": bodies["male"].replace(
        v_template=bodies["male"].v_template + 1.0)}}  # fmt: skip
    male = scores.true_vertices(system, marked, batch)
    neutral = dataclasses.replace(system, unknown_gender="neutral")
    other = scores.true_vertices(neutral, marked, batch)
    assert np.abs(male[0] - other[0]).max() > 0.5
    np.testing.assert_array_equal(male[1], other[1])


def test_the_papers_algorithm_descends_the_dual_loss_in_every_step(tiny):
    system, variables = tiny
    paper = AdaptSettings(inner_lr=1e-3, after_lr=1e-3, optimizer="sgd", dual_every_step=True)
    system = dataclasses.replace(system, test_time=paper)
    trace = jax.jit(lambda v, b: adaptation.test_time_optimise(system, v, b, 2))(
        variables, make_batch(2)
    )
    # The dual loss is more than its 2D term.
    assert (np.asarray(trace.objective) > 5 * np.asarray(trace.loss2d)).all()
    assert trace.objective[-1] < trace.objective[0]
