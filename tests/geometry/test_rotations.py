"""Rotations: round trips, derivatives at the awkward places, SciPy as the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxrecon.geometry import rotations as r


@pytest.fixture(scope="module")
def oracle():
    return Rotation.random(200, random_state=0)


def test_matrices_agree_with_scipy(oracle):
    matrix = oracle.as_matrix().astype(np.float32)
    vector = oracle.as_rotvec().astype(np.float32)
    np.testing.assert_allclose(r.axis_angle_to_matrix(vector), matrix, atol=2e-6)
    np.testing.assert_allclose(r.matrix_to_axis_angle(matrix), vector, atol=2e-5)
    xyzw = oracle.as_quat().astype(np.float32)
    np.testing.assert_allclose(r.quaternion_to_matrix(xyzw[:, [3, 0, 1, 2]]), matrix, atol=2e-6)


@pytest.mark.parametrize("order", ["xyz", "zyx", "yxz"])
def test_euler_angles_agree_with_scipy(order):
    angles = np.random.default_rng(0).uniform(-3, 3, (50, 3)).astype(np.float32)
    want = Rotation.from_euler(order.upper(), angles).as_matrix()
    np.testing.assert_allclose(r.euler_to_matrix(angles, order), want, atol=2e-6)


def test_six_numbers_round_trip(oracle):
    matrix = oracle.as_matrix().astype(np.float32)
    six = r.matrix_to_rot6d(matrix)
    np.testing.assert_allclose(six[:, 0], matrix[:, 0, 0])
    np.testing.assert_allclose(six[:, 1], matrix[:, 0, 1])
    np.testing.assert_allclose(r.rot6d_to_matrix(six), matrix, atol=2e-6)


def test_six_numbers_for_a_flattened_batch_of_three():
    """A cross product without a fixed axis is wrong exactly there (quirk 24)."""
    six = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    one = jnp.stack([r.rot6d_to_matrix(x) for x in six])
    np.testing.assert_allclose(r.rot6d_to_matrix(six), one, atol=1e-6)


@pytest.mark.parametrize(
    "convert, x",
    [
        (r.rot6d_to_matrix, np.zeros(6)),
        (r.rot6d_to_matrix, np.array([1.0, 2, 0, 0, 0, 0])),
        (r.axis_angle_to_matrix, np.zeros(3)),
        (r.axis_angle_to_matrix, np.full(3, -1e-8)),
        (r.axis_angle_to_matrix, np.array([np.pi, 0, 0])),
        (r.quaternion_to_matrix, np.zeros(4)),
        (r.quaternion_to_axis_angle, np.array([1.0, 0, 0, 0])),
        (r.quaternion_to_axis_angle, np.array([0.0, 0, 1, 0])),
        (r.matrix_to_axis_angle, np.eye(3)),
        (r.matrix_to_axis_angle, np.diag([1.0, -1, -1])),
        (r.matrix_to_quaternion, np.diag([-1.0, -1, 1])),
    ],
)
def test_derivatives_stay_finite(convert, x):
    jacobian = jax.jacobian(convert)(jnp.asarray(x, jnp.float32))
    assert np.isfinite(jacobian).all()


def test_logarithm_has_the_right_derivative_at_the_identity():
    jacobian = jax.jacobian(lambda v: r.matrix_to_axis_angle(r.axis_angle_to_matrix(v)))(
        jnp.full(3, 1e-5)
    )
    np.testing.assert_allclose(jacobian, np.eye(3), atol=2e-3)


def test_geodesic_distance_is_the_angle():
    angles = jnp.array([0.0, 1e-3, 0.5, 3.0])
    turned = r.axis_rotation("y", angles)
    np.testing.assert_allclose(
        r.geodesic_distance(jnp.eye(3) + 0 * turned, turned), angles, atol=1e-5
    )
