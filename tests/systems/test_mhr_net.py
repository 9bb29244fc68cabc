"""MHR-Net on a tiny network: what the golden files cannot show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxrecon.errors import UserError
from jaxrecon.io.torch_files import read_checkpoint, write_checkpoint
from jaxrecon.systems.mhr_net import MHRNet, Noise, metrics, published, rigid
from jaxrecon.systems.mhr_net.cameras import see, turn
from jaxrecon.systems.mhr_net.evidence import centre_keypoints
from jaxrecon.systems.mhr_net.hparams import settings_of
from jaxrecon.systems.mhr_net.likelihood import fit_views, surprise
from jaxrecon.systems.mhr_net.rotations import exponential
from jaxrecon.training.parallel import step_function
from jaxrecon.training.state import TrainState

TINY = {"width": 16, "blocks": 1, "pairs": 3, "margin": 10.0, "joints": 5}
KEY = jax.random.PRNGKey(0)


def poses(count: int = 8, joints: int = 5, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=(count, joints, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def system() -> MHRNet:
    return MHRNet(**TINY, w_view=0.5)


@pytest.fixture(scope="module")
def variables(system: MHRNet) -> dict:
    return system.init(KEY, system.example())


@pytest.fixture(scope="module")
def loss(system: MHRNet):
    """Loss and gradient of a batch with a mask, compiled once for the module."""

    def run(variables, batch):
        def of(params):
            return system.loss({**variables, "params": params}, batch, KEY, True)[0]

        return jax.value_and_grad(of)(variables["params"])

    return jax.jit(run)


@pytest.mark.slow
def test_all_visible_is_no_mask(system, variables, loss):
    batch = {"keypoints2d": poses()}
    plain, _ = loss(variables, batch)
    masked, _ = loss(variables, {**batch, "visible": np.ones((8, 5), np.float32)})
    np.testing.assert_allclose(masked, plain, rtol=1e-6)


def test_missing_keypoints_do_not_matter_whatever_they_are(variables, loss):
    visible = np.ones((8, 5), np.float32)
    visible[0, 2] = visible[1, 0] = visible[2, 0] = visible[2, 4] = 0
    hidden = visible[..., None] == 0
    first = {"keypoints2d": poses(), "visible": visible}
    value, grad = loss(variables, first)
    with_nan = np.where(hidden, np.nan, poses())
    other, other_grad = loss(variables, {**first, "keypoints2d": with_nan})
    assert np.isfinite(value) and value == other
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(other_grad)):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


def test_without_root_only_the_place_is_lost(variables, loss):
    visible = np.ones((8, 5), np.float32)
    visible[:, 0] = 0
    batch = {"keypoints2d": poses(), "visible": visible}
    value, _ = loss(variables, batch)
    moved, _ = loss(variables, {**batch, "keypoints2d": poses() + np.float32(0.5)})
    np.testing.assert_allclose(moved, value, rtol=1e-4)
    seen, centre, _ = centre_keypoints(batch["keypoints2d"], visible)
    np.testing.assert_allclose(seen[:, 1:].sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(centre, batch["keypoints2d"][:, 1:].mean(1), atol=1e-6)


def test_every_weight_but_the_unused_layer_learns(variables, loss):
    _, grad = loss(variables, {"keypoints2d": poses(), "visible": np.ones((8, 5), np.float32)})
    # A bias before a batch norm has no effect; all kernels have one.
    for path, value in jax.tree_util.tree_leaves_with_path(grad):
        name = jax.tree_util.keystr(path)
        if name.endswith("['kernel']"):
            assert np.any(value) == ("trans_layer" not in name), name


def test_mixture_is_a_density_that_knows_its_poses():
    rng = np.random.default_rng(4)
    centre = 0.3 * rng.normal(size=(2, 5, 2))
    which = rng.integers(0, 2, 600)
    data = (centre[which] + 0.02 * rng.normal(size=(600, 5, 2))).astype(np.float32)
    mixture = jax.device_get(fit_views(data))
    count, width = mixture["mean"].shape
    assert (count, width) == (6, 10)

    points = (data - data[:, :1]).reshape(600, -1)[:20]
    parts = []
    for k in range(count):
        inverse = np.linalg.inv(mixture["whiten"][k].astype(np.float64))
        spread = inverse @ inverse.T
        parts.append(multivariate_normal(mixture["mean"][k], spread).logpdf(points))
    offset = np.linalg.slogdet(mixture["whiten"].astype(np.float64))[1]
    weight = mixture["log_weight"] + 0.5 * width * np.log(2 * np.pi) - offset
    assert np.exp(weight).sum() == pytest.approx(1, abs=1e-3)
    want = -np.logaddexp.reduce(np.stack(parts) + weight[:, None], axis=0) / width
    np.testing.assert_allclose(surprise(mixture, data[:20]), want, rtol=1e-3)

    mixed = np.concatenate([data[which == 0][:50, :3], data[which == 1][:50, 3:]], axis=1)
    assert surprise(mixture, mixed).min() > surprise(mixture, data).max()
    assert fit_views(data[:99]) is None


def test_unlikely_second_views_count(system, variables):
    views = fit_views(poses(200))
    likely = dataclasses.replace(system, w_likely=0.5)
    batch = {"keypoints2d": poses()}
    given = {**variables, "constants": {"views": views}}

    @jax.jit
    def compare(given):
        plain, _ = system.loss(given, batch, KEY, True)
        return plain, *likely.loss(given, batch, KEY, True)

    plain, total, aux = compare(given)
    term = aux.metrics["loss_likely"]
    np.testing.assert_allclose(total, plain + 0.5 * term, rtol=1e-5)
    assert np.isfinite(term) and term != 0


def test_rotation_has_a_finite_derivative_at_zero():
    grad = jax.jacobian(exponential)(jnp.zeros(3))
    assert np.isfinite(grad).all()


def test_hypotheses_at_test_time_are_free_and_seeded(system, variables):
    batch = {"keypoints2d": poses()}
    many = dataclasses.replace(system, test_hypotheses=7)
    predict = jax.jit(lambda noise: many.predict(variables, batch, noise))
    found = predict(None)
    assert found.hypotheses.shape == (8, 7, 5, 3)
    np.testing.assert_array_equal(found.errors.argmin(1), found.chosen)
    best = np.take_along_axis(np.asarray(found.hypotheses), found.chosen[:, None, None, None], 1)
    np.testing.assert_array_equal(best[:, 0], found.joints3d)
    np.testing.assert_array_equal(predict(None).joints3d, found.joints3d)
    other = predict(Noise(np.ones((7 * 8, 4), np.float32)))
    assert np.abs(other.joints3d - found.joints3d).max() > 0


def test_evaluation_of_the_truth_is_zero_and_flipped_depth_is_forgiven(system):
    rng = np.random.default_rng(1)
    shape = (0.3 * rng.normal(size=(6, 5, 3))).astype(np.float32)
    shape -= shape[:, :1]
    seen = np.asarray(see(shape, "perspective"))
    metres = 0.7 * shape
    protocol = jax.jit(lambda depth: metrics.lifting_protocol(depth, seen, metres))
    found = protocol(shape[..., 2])
    assert np.asarray(found.mpjpe).max() < 1e-5
    wrong = protocol(-shape[..., 2])
    assert np.asarray(wrong.mpjpe).min() > 0.01
    assert (np.asarray(wrong.best_mpjpe) <= np.asarray(wrong.mpjpe)).all()


def test_rigid_baseline_finds_a_rigid_shape():
    rng = np.random.default_rng(2)
    shape = (0.4 * rng.normal(size=(9, 3))).astype(np.float32)
    shape -= shape[:1]
    rotation = exponential(jnp.asarray(rng.normal(size=(5, 3)).astype(np.float32)))
    scale = rng.uniform(0.7, 1.3, (5, 1, 1)).astype(np.float32)
    posed = scale * np.asarray(turn(np.broadcast_to(shape, (5, 9, 3)), rotation))
    visible = np.ones((5, 9), np.float32)
    visible[0, 3] = 0
    points, _, errors = rigid.fit(shape, see(posed, "perspective"), visible, "perspective")
    assert np.asarray(errors).max() < 1e-3
    np.testing.assert_allclose(points, posed, atol=5e-3)
    mean = np.asarray(rigid.mean_shape(posed))
    unit = mean / np.linalg.norm(mean)
    turned = np.asarray(metrics.match_shape(unit[None], shape[None]))[0]
    np.testing.assert_allclose(turned, shape, atol=1e-3)


def test_sequence_errors_know_their_ambiguities():
    rng = np.random.default_rng(3)
    shape = rng.normal(size=(4, 6, 3)).astype(np.float32)
    score = jax.jit(metrics.sequence_errors)
    found = score(shape * np.array([1, 1, -1], np.float32) + 3, shape)
    assert found.reflected < 1e-5 and found.aligned < 1e-5 and found.sign == -1
    mixed = shape * np.array([1, 1, -1], np.float32) ** np.arange(4)[:, None, None]
    found = score(mixed.astype(np.float32), shape)
    assert found.reflected > 0.1 and found.aligned < 1e-5


def test_published_checkpoint_round_trip(system, variables, tmp_path):
    optimizer = dataclasses.replace(system, steps_per_epoch=3).optimizer()
    state = TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
        KEY,
    )
    step = jax.jit(step_function(system, optimizer, None))
    for _ in range(3):
        state, _ = step(state, {}, {"keypoints2d": poses()})
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    clocked = dataclasses.replace(system, steps_per_epoch=3)
    path = tmp_path / "model_epoch_1.bin"
    write_checkpoint(
        path, published.export_checkpoint(trained, clocked, state.opt_state, epoch=1, steps=3)
    )
    tree = read_checkpoint(path)
    assert published.network_settings(tree) == {
        "joints": 5, "width": 16, "blocks": 1, "bases": 10, "see_visibility": False,
    }  # fmt: skip
    found = published.read_published(tree, variables)
    assert found.epoch == 1 and found.rate == pytest.approx(1e-3)
    restored = published.optimizer_state(clocked, found)
    for a, b in (
        (found.params, state.params),
        (found.batch_stats, state.batch_stats),
        (restored, state.opt_state),
    ):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
            np.testing.assert_array_equal(x, y)


def test_foreign_checkpoints_are_one_line(variables):
    state = published.to_state_dict(variables)
    with pytest.raises(UserError, match="missing"):
        published.from_state_dict({n: v for n, v in state.items() if "rot" not in n}, variables)
    with pytest.raises(UserError, match="unexpected"):
        published.from_state_dict({**state, "more.weight": np.zeros(3)}, variables)
    wider = {**state, "rot_layer.weight": np.zeros((3, 99, 1, 1))}
    with pytest.raises(UserError, match=r"rot_layer.weight.*system\.joints"):
        published.from_state_dict(wider, variables)
    for tree in (3, {"state": {}}):
        with pytest.raises(UserError, match="checkpoint"):
            published.network_settings(tree)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection": "fisheye"}, "perspective, orthographic"),
        ({"width": 30}, "multiple of 4"),
        ({"optimizer_name": "lbfgs"}, "sgd, adam"),
        ({"bases": 0}, "1 or more"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(UserError, match=message):
        MHRNet(**fields)


def test_hyper_parameter_string_takes_numbers_in_any_notation():
    found = settings_of(
        "w_procrust=.5,n_layers=3,weight_init_std=1e-3,projection_type=orthographic"
    )
    assert found == {"w_procrust": 0.5, "blocks": 3, "init_std": 1e-3, "projection": "orthographic"}
    with pytest.raises(UserError, match="n_fully_connected"):
        settings_of("n_fully=3")
    with pytest.raises(UserError, match="name=value"):
        settings_of("n_layers")


def test_rate_halves_and_falls():
    steps = MHRNet(steps_per_epoch=10, decay_every=2)
    assert [float(steps.rate_at(s)) for s in (0, 19, 20, 40)] == pytest.approx(
        [1e-3, 1e-3, 5e-4, 2.5e-4]
    )
    falling = MHRNet(steps_per_epoch=10, cosine_epochs=2)
    assert float(falling.rate_at(10)) == pytest.approx(5e-4)
    assert float(falling.rate_at(30)) == pytest.approx(0.0, abs=1e-9)


def test_noise_is_all_the_randomness(system, variables):
    batch = {"keypoints2d": poses(), "noise": system.draw(KEY, 8)}
    loss = jax.jit(lambda rng: system.loss(variables, batch, rng, True)[0])
    assert loss(jax.random.PRNGKey(1)) == loss(jax.random.PRNGKey(2))
