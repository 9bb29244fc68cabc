"""The best that one rigid shape can do: the baseline of every non-rigid method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from jaxrecon.geometry.procrustes import orthogonal_procrustes_rotation, similarity_align
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from jaxrecon.systems.mhr_net.cameras import DISTANCE, see, turn
from jaxrecon.typing import AnyArray, Array, Float

_STARTS = 400  # rotations tried for each frame
_REFINED = 3  # of these, by Gauss-Newton
_STEPS = 12


def mean_shape(shapes: Float[AnyArray, "n j 3"], rounds: int = 8) -> Float[Array, "j 3"]:
    """The mean of shapes turned and scaled onto each other (generalised Procrustes), root at 0.

    It is made from 3D ground truth, which no method here is trained with: a strong baseline.

    Returns:
        metres, of the mean size of the given shapes.
    """
    shapes = jnp.asarray(shapes)
    shapes = shapes - shapes.mean(1, keepdims=True)
    size = jnp.sqrt(jnp.mean(shapes**2, (1, 2), keepdims=True))
    unit = shapes / size
    mean = unit[0]
    for _ in range(rounds):
        covariance = jnp.einsum("nja,jb->nab", unit, mean, precision="highest")
        nearest = orthogonal_procrustes_rotation(covariance)  # shapes are not mirrored
        turned = jnp.einsum("nja,nab->njb", unit, nearest, precision="highest")
        mean = turned.mean(0)
        mean = mean / jnp.sqrt(jnp.mean(mean**2))
    return (mean - mean[:1]) * size.mean()


def fit(
    shape: Float[AnyArray, "j 3"],
    keypoints2d: Float[AnyArray, "b j 2"],
    visible: Float[AnyArray, "b j"],
    projection: str,
) -> tuple[Float[Array, "b j 3"], Float[Array, "b 3 3"], Float[Array, "b"]]:
    """The rigid shape, turned and scaled so that it reprojects best on each frame.

    Many rotations are tried, the best refined by Gauss-Newton steps.

    Args:
        keypoints2d: centred as the network sees them.

    Returns:
        points in the camera frame (root at 0), rotations (rows from the right), and the
        Frobenius norm of what is left in 2D.
    """
    shape, visible = jnp.asarray(shape), jnp.asarray(visible)
    starts = jnp.asarray(
        Rotation.random(_STARTS, np.random.default_rng(0)).as_matrix().astype(np.float32)
    )
    unit = shape * (1.0 if projection == "orthographic" else 1.0 / DISTANCE)
    image = turn(unit, starts)[..., :2]
    weights = visible[..., None]
    rootless = visible[:, :1, None] == 0

    # Without perspective, the best scale of every start has a closed form.
    across = jnp.einsum("bjc,sjc->bs", keypoints2d * weights, image)
    along = jnp.einsum("bj,sjc->bs", visible, image**2)
    gain = jnp.where(across > 0, across**2 / along, 0.0)
    _, best = jax.lax.top_k(gain, _REFINED)
    scale = jnp.take_along_axis(jnp.maximum(across, 1e-3) / along, best, 1)

    def residual(state: Array, start: Array, frame: tuple[Array, Array, Array]) -> Array:
        seen, weight, free = frame
        points = _posed(state, start, shape)
        rest = (seen - see(points, projection)) * weight
        shift = jnp.sum(rest, 0) / jnp.maximum(jnp.sum(weight), 1.0)
        return ((rest - jnp.where(free, shift, 0.0)) * weight).reshape(-1)

    def refine(start: Array, scale: Array, frame: tuple[Array, Array, Array]) -> tuple:
        def step(_: Any, state: Array) -> Array:
            value = residual(state, start, frame)
            jacobian = jax.jacfwd(residual)(state, start, frame)
            normal = jacobian.T @ jacobian
            damped = normal + (1e-3 * jnp.trace(normal) + 1e-9) * jnp.eye(4)
            move = -jnp.linalg.solve(damped, jacobian.T @ value)
            new = state + move
            better = jnp.sum(residual(new, start, frame) ** 2) < jnp.sum(value**2)
            return jnp.where(better, new, state)

        state = jnp.concatenate([jnp.full(3, 1e-4), jnp.log(scale)[None]])
        state = jax.lax.fori_loop(0, _STEPS, step, state)
        error = jnp.sqrt(jnp.sum(residual(state, start, frame) ** 2))
        rotation = start @ axis_angle_to_matrix(state[:3])
        return _posed(state, start, shape), rotation, error

    frames = (jnp.asarray(keypoints2d), weights, rootless)
    each = jax.vmap(jax.vmap(refine, (0, 0, None)))
    points, rotations, errors = each(starts[best], scale, frames)
    winner = jnp.argmin(errors, axis=1)

    def pick(x: Array) -> Array:
        return jnp.take_along_axis(x, winner.reshape(-1, *[1] * (x.ndim - 1)), 1)[:, 0]

    return pick(points), pick(rotations), pick(errors)


def _posed(state: Array, start: Array, shape: Array) -> Array:
    rotation = start @ axis_angle_to_matrix(state[:3])
    return jnp.exp(state[3]) * (shape @ rotation)


def oracle(
    shape: Float[AnyArray, "j 3"],
    keypoints2d: Float[AnyArray, "b j 2"],
    target: Float[AnyArray, "b j 3"],
    visible: Float[AnyArray, "b j"],
    projection: str,
) -> Float[Array, "b j 3"]:
    """The rigid shape turned with the ground truth's help: no rigid method can turn it better.

    Returns:
        points in the camera frame at the size that the 2D keypoints have.
    """
    target = jnp.asarray(target)
    points = similarity_align(jnp.broadcast_to(shape, target.shape), target)
    reach = 1.0 if projection == "orthographic" else DISTANCE
    weights = jnp.asarray(visible)[..., None]

    def middled(points: Array) -> Array:
        middle = jnp.sum(points * weights, 1, keepdims=True) / jnp.sum(weights, 1, keepdims=True)
        return (points - middle) * weights

    seen, known = middled(reach * jnp.asarray(keypoints2d)), middled(target[..., :2])
    scale = jnp.sum(seen * known, (1, 2)) / jnp.sum(known**2, (1, 2))
    points = scale[:, None, None] * points
    return points - points[:, :1]
