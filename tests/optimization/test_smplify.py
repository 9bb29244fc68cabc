"""Fits to keypoints of known bodies: one compiled fit serves every test of this file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrecon.bodies.joints import joint_names, mirror_permutation
from jaxrecon.bodies.load import load_body
from jaxrecon.bodies.model import joints49_forward, joints49_model
from jaxrecon.bodies.poses import sample_poses
from jaxrecon.errors import UserError
from jaxrecon.geometry.metrics import mean_distance
from jaxrecon.geometry.procrustes import similarity_align
from jaxrecon.geometry.rotations import axis_angle_to_matrix, skew
from jaxrecon.optimization.fit_energy import (
    FitSettings,
    FitState,
    Problem,
    Weights,
    normal_equations,
    pose_and_energy,
    state_rotmats,
)
from jaxrecon.optimization.fit_hypotheses import N_VARIANTS, depth_variants
from jaxrecon.optimization.landmarks import (
    landmark_jacobian,
    landmarks,
    left_jacobian,
    pose_landmarks,
)
from jaxrecon.optimization.priors import (
    bending_energy,
    default_pose_prior,
    limit_excess,
    mirror_pose,
    mixture_energy,
)
from jaxrecon.optimization.smplify import FitResult, fit_keypoints

PEOPLE = 4
FOCAL, WIDTH, HEIGHT = 1100.0, 1000.0, 1000.0
LIMBS = [
    i
    for i, name in enumerate(joint_names("openpose25"))
    if name[2:] in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
]


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def scene(body):
    """Natural poses before a camera: joints (N, 25, 3), keypoints (N, 25, 3), thetas (N, 24, 3)."""
    rng = np.random.default_rng(11)
    thetas = sample_poses(rng, PEOPLE).astype(np.float32)
    betas = rng.normal(0, 0.7, (PEOPLE, 10)).astype(np.float32)
    rotmats = axis_angle_to_matrix(thetas)
    joints = joints49_forward(joints49_model(body), betas, rotmats)[:, :25]
    transl = np.stack([rng.uniform(-0.3, 0.3, PEOPLE), np.zeros(PEOPLE), np.full(PEOPLE, 4.5)], -1)
    joints = np.asarray(joints) + transl[:, None].astype(np.float32)
    pixels = FOCAL * joints[..., :2] / joints[..., 2:] + (WIDTH / 2, HEIGHT / 2)
    keypoints = np.concatenate([pixels, np.ones((PEOPLE, 25, 1))], -1).astype(np.float32)
    keypoints[..., :2] += rng.normal(0, 3.0, pixels.shape)
    return joints, keypoints, thetas, betas, transl.astype(np.float32)


def mirrored(keypoints):
    """The keypoints of the person in the mirrored picture."""
    keypoints = keypoints[:, mirror_permutation("openpose25")].copy()
    keypoints[..., 0] = WIDTH - keypoints[..., 0]
    return keypoints


def without_arm(keypoints):
    """The left forearm unseen, at coordinates that would spoil a fit that looked at them."""
    keypoints = keypoints.copy()
    gone = [joint_names("openpose25").index(n) for n in ("l_elbow", "l_wrist")]
    keypoints[:, gone] = (np.nan, 1e6, 0.0)
    return keypoints


def fit(body, keypoints, **options) -> FitResult:
    count = len(keypoints)
    focal, center = np.full(count, FOCAL), np.tile([WIDTH / 2, HEIGHT / 2], (count, 1))
    return fit_keypoints(body, keypoints, focal, center, **options)


@pytest.fixture(scope="module")
def fitted(body, scene):
    keypoints = scene[1]
    return fit(body, np.concatenate([keypoints, mirrored(keypoints), without_arm(keypoints)]))


@jax.jit
def pa_mm(a, b):
    return 1000 * mean_distance(similarity_align(a, b), b)


def side_of(keypoints):
    return np.ptp(keypoints[..., :2], axis=1).max(-1)


def test_fit_recovers_poses_from_keypoints(scene, fitted):
    joints, keypoints, *_ = scene
    own = slice(0, PEOPLE)
    errors = pa_mm(fitted.joints[own][:, LIMBS], joints[:, LIMBS])
    flat = pa_mm(np.zeros_like(joints[:, LIMBS]) + fitted.joints[0][LIMBS], joints[:, LIMBS])
    assert np.mean(errors) < 60 and np.mean(errors) < 0.5 * np.mean(flat[1:])
    assert np.all(fitted.error[own].mean(-1) < 0.03 * side_of(keypoints))


def test_result_is_one_body(body, fitted):
    """Joints, rotations, axis-angle, translation and pixels of a result belong together."""
    joints = joints49_forward(joints49_model(body), fitted.betas, fitted.rotmats)[:, :25]
    joints = np.asarray(joints) + fitted.transl[:, None]
    np.testing.assert_allclose(fitted.joints, joints, atol=2e-3)
    rotmats = axis_angle_to_matrix(fitted.pose.reshape(-1, 24, 3))
    np.testing.assert_allclose(fitted.rotmats, rotmats, atol=1e-5)
    pixels = FOCAL * fitted.joints[..., :2] / fitted.joints[..., 2:] + (WIDTH / 2, HEIGHT / 2)
    np.testing.assert_allclose(fitted.reprojected, pixels, atol=0.01)


def test_mirrored_picture_gives_the_mirrored_body(fitted):
    """The two solutions may differ where two poses are as likely; their energies must not."""
    first, second = slice(0, PEOPLE), slice(PEOPLE, 2 * PEOPLE)
    ratio = fitted.energy[second] / fitted.energy[first]
    assert np.median(np.abs(ratio - 1)) < 0.02 and np.all(np.abs(ratio - 1) < 0.25)
    back = fitted.joints[second][:, mirror_permutation("openpose25")] * np.array([-1, 1, 1])
    gap = 1000 * np.linalg.norm(back - fitted.joints[first], axis=-1).mean(-1)
    assert np.median(gap) < 30


def test_missing_joints_are_filled_by_the_prior(scene, fitted):
    joints, keypoints, *_ = scene
    rows = slice(2 * PEOPLE, 3 * PEOPLE)
    seen = without_arm(keypoints)[..., 2] > 0
    assert np.isfinite(fitted.joints[rows]).all() and np.isfinite(fitted.energy[rows]).all()
    error = np.where(seen, fitted.error[rows], 0).sum(-1) / seen.sum(-1)
    assert np.all(error < 0.03 * side_of(keypoints))
    legs = [i for i in LIMBS if joint_names("openpose25")[i][2:] in ("ankle", "knee", "hip")]
    assert np.mean(pa_mm(fitted.joints[rows][:, legs], joints[:, legs])) < 60


def test_energy_falls_within_every_stage(fitted):
    settings = FitSettings()
    stages = fitted.history.reshape(len(fitted.history), settings.stages, settings.steps)
    assert np.all(np.diff(stages, axis=-1) <= 1e-3)
    assert np.all(stages[:, -1, -1] <= stages[:, 1, -1] + 1e-3)
    np.testing.assert_allclose(fitted.energy, stages[:, -1, -1])


def test_batch_and_init_do_not_disturb(body, scene, fitted):
    """A person alone gets the fit that he gets in company; a start from the truth is used."""
    _, keypoints, thetas, betas, transl = scene
    alone = fit(body, keypoints[:1])
    np.testing.assert_allclose(alone.joints[0], fitted.joints[0], atol=1e-4)
    init = FitState(
        root=axis_angle_to_matrix(thetas[:, 0]),
        pose=jnp.asarray(thetas[:, 1:].reshape(-1, 69)),
        betas=jnp.asarray(betas),
        transl=jnp.asarray(transl),
    )
    started = fit(body, keypoints, init=init)
    assert np.all(started.energy <= 1.15 * fitted.energy[:PEOPLE])


def test_settings_need_no_new_compilation(body, scene, fitted):
    from jaxrecon.optimization.smplify import _fit_chunk

    before = _fit_chunk._cache_size()
    loose = fit(body, scene[1][:2], settings=FitSettings(noise=0.03))
    assert _fit_chunk._cache_size() == before
    assert not np.allclose(loose.joints, fitted.joints[:2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"confidence": 0.0}, "person 1 has 0 keypoints"),
        ({"value": np.nan}, "not finite"),
        ({"focal": 0.0}, "focal length positive"),
        ({"joint_set": "coco17"}, "25 joints"),
        ({"joint_set": "spine5"}, "spine5"),
        ({"people": 0}, "nobody"),
    ],
)
def test_mistakes_are_told(body, scene, change, words):
    keypoints = scene[1][: change.get("people", 3)].copy()
    if "confidence" in change:
        keypoints[1, :, 2] = change["confidence"]
    if "value" in change:
        keypoints[1, 4, 0] = change["value"]
    count = len(keypoints)
    focal = np.full(count, change.get("focal", FOCAL))
    center, joint_set = np.zeros((count, 2)), change.get("joint_set", "openpose25")
    with pytest.raises(UserError, match=words):
        fit_keypoints(body, keypoints, focal, center, joint_set)


@pytest.fixture(scope="module")
def state(body):
    rng = np.random.default_rng(3)
    pose = sample_poses(rng, 1)[0]
    return FitState(
        root=axis_angle_to_matrix(pose[0].astype(np.float32)),
        pose=jnp.asarray(pose[1:].reshape(69), jnp.float32),
        betas=jnp.asarray(rng.normal(size=10), jnp.float32),
        transl=jnp.array([0.2, -0.1, 4.0]),
    )


@pytest.mark.parametrize("joint_set", ["spin49", "h36m17", "smpl24"])
def test_landmarks_are_the_bodys_joints(body, state, joint_set):
    from jaxrecon.bodies.joints import index_map
    from jaxrecon.bodies.model import body_forward

    rotmats = state_rotmats(state)
    model = landmarks(body, joint_set)
    found = jax.jit(pose_landmarks)(model, state.betas, rotmats).points
    output = jax.jit(body_forward)(body, state.betas, rotmats)
    if joint_set == "spin49":
        want = joints49_forward(joints49_model(body), state.betas, rotmats)
    elif joint_set == "h36m17":
        rows = index_map("h36m17_regressor", "h36m17")[0]
        want = (body.J_regressor_h36m @ output.vertices)[rows]
    else:
        want = output.joints
    # The pose blend shapes of mixed vertices turn with their mean rotation: under a millimetre.
    np.testing.assert_allclose(found, want, atol=1e-3)


def test_landmark_jacobian_is_the_derivative(body, state):
    model = landmarks(body, "openpose25").replace(pose_dirs=jnp.zeros((25, 3, 207)))
    theta = jnp.concatenate([jnp.array([[0.3, -2.0, 0.4]]), state.pose.reshape(23, 3)])

    def points(theta, betas):
        return pose_landmarks(model, betas, axis_angle_to_matrix(theta)).points

    by_theta, by_betas = jax.jit(jax.jacfwd(points, argnums=(0, 1)))(theta, state.betas)
    posed = jax.jit(pose_landmarks)(model, state.betas, axis_angle_to_matrix(theta))
    levers, shape = jax.jit(landmark_jacobian)(model, posed)
    above = posed.rotations[np.maximum(model.parents, 0)].at[0].set(jnp.eye(3))
    axes = above @ left_jacobian(theta)
    np.testing.assert_allclose(
        np.einsum("lkab,kbc->lakc", -skew(levers), axes), by_theta, atol=1e-5
    )
    np.testing.assert_allclose(shape, by_betas, atol=1e-6)


def test_left_jacobian_is_continuous_at_zero():
    tiny = left_jacobian(jnp.array([[0.0, 0.0, 0.0], [1e-3, 0.0, 0.0], [0.0101, 0.0, 0.0]]))
    np.testing.assert_allclose(tiny[0], np.eye(3), atol=1e-7)
    np.testing.assert_allclose(tiny[2], np.eye(3) + skew(jnp.array([0.00505, 0, 0])), atol=1e-4)


def test_normal_equations_hold_the_gradient(body, state):
    """g is half the energy's gradient, finite also at the rest pose."""
    model = landmarks(body, "openpose25").replace(pose_dirs=jnp.zeros((25, 3, 207)))
    prior, settings = default_pose_prior(), FitSettings()
    weights = Weights(jnp.array(1.0), jnp.array(1.0))
    rng = np.random.default_rng(5)
    problem = Problem(
        keypoints=jnp.asarray(rng.uniform(300, 700, (25, 2)), jnp.float32),
        weights=jnp.asarray(rng.uniform(0, 1, 25), jnp.float32),
        side=jnp.array(400.0),
        focal=jnp.array(FOCAL),
        center=jnp.array([500.0, 500.0]),
    )

    @jax.jit
    def both(state):
        def energy(turn, pose, betas, transl):
            moved = FitState(axis_angle_to_matrix(turn) @ state.root, pose, betas, transl)
            return pose_and_energy(model, prior, problem, settings, moved, weights)[1]

        grads = jax.grad(energy, argnums=(0, 1, 2, 3))(
            jnp.zeros(3), state.pose, state.betas, state.transl
        )
        posed, _ = pose_and_energy(model, prior, problem, settings, state, weights)
        return grads, normal_equations(model, prior, problem, settings, state, posed, weights)

    for at in (state, state.replace(pose=jnp.zeros(69), betas=jnp.zeros(10))):
        grads, (hessian, gradient) = both(at)
        directions = np.array([[4.0, 0, 0.5 * 0.2], [0, 4.0, 0.5 * -0.1], [0, 0, 0.5 * 4.0]])
        want = np.concatenate([*grads[:3], grads[3] @ directions]) / 2
        assert np.isfinite(want).all()
        scale = np.abs(want).max()
        np.testing.assert_allclose(gradient / scale, want / scale, atol=2e-4)
        np.testing.assert_allclose(hessian, hessian.T, rtol=1e-4, atol=1.0)
        assert np.linalg.eigvalsh(np.asarray(hessian, np.float64)).min() > -1.0


def test_flips_keep_the_picture(body, state):
    """Far from the camera a flip in depth moves no bone in the picture, and no bone's length."""
    model = landmarks(body, "smpl24")
    far = state.replace(transl=jnp.array([0.0, 0.0, 300.0]))

    @jax.jit
    def joints_of(states):
        rotmats = jax.vmap(state_rotmats)(states)
        return jax.vmap(lambda b, r: pose_landmarks(model, b, r).joints)(states.betas, rotmats)

    posed = jax.jit(pose_landmarks)(model, far.betas, state_rotmats(far))
    joints = np.asarray(joints_of(jax.jit(depth_variants)(model, far, posed)))
    assert joints.shape[0] == N_VARIANTS
    np.testing.assert_allclose(joints[0], posed.joints, atol=1e-5)
    names = joint_names("smpl24")
    limbs = [names.index(f"{s}_{n}") for s in "lr" for n in ("knee", "ankle", "elbow", "wrist")]
    np.testing.assert_allclose(
        joints[2:, limbs, :2], np.broadcast_to(joints[0, limbs, :2], (12, 8, 2)), atol=5e-3
    )
    moved = np.abs(joints[2:, limbs, 2] - joints[0, limbs, 2]).max(-1)
    assert np.all(moved > 1e-3)
    for upper, lower in (("l_hip", "l_knee"), ("r_elbow", "r_wrist")):
        bone = joints[:, names.index(lower)] - joints[:, names.index(upper)]
        length = np.linalg.norm(bone, axis=-1)
        np.testing.assert_allclose(length, length[0], rtol=1e-4)


def test_prior_prefers_natural_poses_and_knows_no_side():
    prior = default_pose_prior()
    rng = np.random.default_rng(9)
    natural = sample_poses(rng, 64)[:, 1:].reshape(64, 69).astype(np.float32)
    wild = rng.permuted(natural, axis=1)
    energy = jax.jit(jax.vmap(lambda pose: mixture_energy(prior, pose)[0]))
    assert np.median(energy(wild)) > 3 * np.median(energy(natural))
    excess = jax.vmap(lambda pose: limit_excess(prior, pose))
    assert np.abs(excess(natural)).max() < 1e-3 < np.abs(excess(wild)).max()
    other = mirror_pose(natural).astype(np.float32)
    np.testing.assert_allclose(mirror_pose(other), natural)
    # The trunk's mixture is fitted to both sides; the arms' are mirror images by construction.
    np.testing.assert_allclose(np.median(energy(other)), np.median(energy(natural)), rtol=0.1)


def test_bending_energy_punishes_the_wrong_way():
    pose = np.zeros((5, 23, 3), np.float32)
    pose[1, 17, 1] = pose[2, 18, 1] = -1.0  # left elbow bends this way, the right one cannot
    pose[3, 3, 0] = 1.0  # left knee bends
    pose[4, 3, 0] = -1.0
    found = bending_energy(pose.reshape(5, 69))
    want = [4, 3 + np.exp(-2), 3 + np.exp(2), 3 + np.exp(-2), 3 + np.exp(2)]
    np.testing.assert_allclose(found, want, rtol=1e-5)
