"""One camera for all systems: a pinhole, camera frame x right, y down, z forward.

A pixel is u = f x / z + c. Networks of the HMR family predict a weak-perspective camera
(s, tx, ty) of the *crop*; the functions here turn it into a translation in metres, either for
the crop itself (HMR) or for the whole photograph (CLIFF).
"""

import jax.numpy as jnp

from jaxrecon.typing import AnyArray, Array, Float

HMR_FOCAL = 5000.0  # pixels; the focal length at which HMR crops are taken to be seen
_EPS = 1e-9  # published guard against a zero scale


def project(
    points: Float[AnyArray, "*b n 3"],
    focal: Float[AnyArray, "*b"],
    center: Float[AnyArray, "*b 2"],
    rotation: Float[AnyArray, "*b 3 3"] | None = None,
    translation: Float[AnyArray, "*b 3"] | None = None,
    min_depth: float = 0.0,
) -> Float[Array, "*b n 2"]:
    """Pixels of `rotation @ point + translation` (spec meta_hmr 3.8).

    Args:
        points: metres.
        focal: pixels, one for each leading index.
        center: principal point in pixels.
        min_depth: Points nearer than this many metres, or behind the camera, are projected as
            if at this depth, which keeps derivatives of an untrained network finite. 0
            (published): the depth is taken as it is.
    """
    points = jnp.asarray(points)
    if rotation is not None:
        points = points @ jnp.swapaxes(jnp.asarray(rotation), -1, -2)
    if translation is not None:
        points = points + jnp.asarray(translation)[..., None, :]
    depth = points[..., 2:]
    if min_depth > 0:
        depth = jnp.maximum(depth, min_depth)
    plane = points[..., :2] / depth
    return jnp.asarray(focal)[..., None, None] * plane + jnp.asarray(center)[..., None, :]


def back_project(
    pixels: Float[AnyArray, "*b n 2"],
    depth: Float[AnyArray, "*b n"],
    focal: Float[AnyArray, "*b"],
    center: Float[AnyArray, "*b 2"],
) -> Float[Array, "*b n 3"]:
    """Points in the camera frame whose projections are `pixels` at the given depths (metres)."""
    plane = (pixels - jnp.asarray(center)[..., None, :]) / jnp.asarray(focal)[..., None, None]
    return jnp.concatenate([plane * depth[..., None], jnp.asarray(depth)[..., None]], axis=-1)


def crop_to_full_camera(
    cam: Float[AnyArray, "*b 3"],
    center: Float[AnyArray, "*b 2"],
    scale: Float[AnyArray, "*b"],
    image_size: Float[AnyArray, "*b 2"],
    focal: Float[AnyArray, "*b"],
) -> Float[Array, "*b 3"]:
    """Crop camera (s, tx, ty) to a translation in the full camera frame (CLIFF, eq. 8).

    Args:
        cam: weak-perspective camera of the crop.
        center: box centre in full-image pixels (x, y).
        scale: box height / 200 pixels.
        image_size: (height, width) in pixels.
        focal: pixels.
    """
    size = 200.0 * scale * cam[..., 0] + _EPS
    x = 2.0 * (center[..., 0] - image_size[..., 1] / 2.0) / size + cam[..., 1]
    y = 2.0 * (center[..., 1] - image_size[..., 0] / 2.0) / size + cam[..., 2]
    return jnp.stack([x, y, 2.0 * focal / size], axis=-1)


def full_to_crop_camera(
    transl: Float[AnyArray, "*b 3"],
    center: Float[AnyArray, "*b 2"],
    scale: Float[AnyArray, "*b"],
    image_size: Float[AnyArray, "*b 2"],
    focal: Float[AnyArray, "*b"],
) -> Float[Array, "*b 3"]:
    """The inverse of `crop_to_full_camera`."""
    size = 2.0 * focal / transl[..., 2]
    s = (size - _EPS) / (200.0 * scale)
    x = transl[..., 0] - 2.0 * (center[..., 0] - image_size[..., 1] / 2.0) / size
    y = transl[..., 1] - 2.0 * (center[..., 1] - image_size[..., 0] / 2.0) / size
    return jnp.stack([s, x, y], axis=-1)


def weak_to_perspective(
    cam: Float[AnyArray, "*b 3"], size: float, focal: float = HMR_FOCAL
) -> Float[Array, "*b 3"]:
    """Crop camera to a translation seen by HMR's distant camera (spec meta_hmr 3.7).

    Args:
        cam: (s, tx, ty).
        size: side of the crop in pixels (the longer one of rectangular crops).
        focal: pixels.
    """
    depth = 2.0 * focal / (size * cam[..., 0] + _EPS)
    return jnp.stack([cam[..., 1], cam[..., 2], depth], axis=-1)


def estimate_translation(
    points: Float[AnyArray, "*b n 3"],
    keypoints2d: Float[AnyArray, "*b n 3"],
    focal: Float[AnyArray, "*b"],
    center: Float[AnyArray, "*b 2"],
) -> Float[Array, "*b 3"]:
    """Translation that best projects `points` on `keypoints2d`, confidence-weighted linear
    least squares (spec meta_hmr 3.2).

    Args:
        points: metres.
        keypoints2d: pixels and confidence.

    Returns:
        metres; not finite if fewer than two points have confidence.
    """
    points, keypoints2d = jnp.asarray(points), jnp.asarray(keypoints2d)
    f = jnp.asarray(focal)[..., None]
    offset = keypoints2d[..., :2] - jnp.asarray(center)[..., None, :]
    weight = jnp.sqrt(keypoints2d[..., 2])
    zero = jnp.zeros_like(weight)
    ones = f * jnp.ones_like(weight)
    rows_x = jnp.stack([ones, zero, -offset[..., 0]], axis=-1)
    rows_y = jnp.stack([zero, ones, -offset[..., 1]], axis=-1)
    right = offset * points[..., 2:] - f[..., None] * points[..., :2]
    a = jnp.concatenate([rows_x * weight[..., None], rows_y * weight[..., None]], axis=-2)
    b = jnp.concatenate([right[..., 0] * weight, right[..., 1] * weight], axis=-1)
    normal = jnp.swapaxes(a, -1, -2) @ a
    return jnp.linalg.solve(normal, jnp.swapaxes(a, -1, -2) @ b[..., None])[..., 0]


def apply_affine(
    matrix: Float[AnyArray, "*b 2 3"], points: Float[AnyArray, "*b n 2"]
) -> Float[Array, "*b n 2"]:
    """Points mapped by 2x3 matrices, such as full image -> crop."""
    matrix = jnp.asarray(matrix)
    return jnp.asarray(points) @ jnp.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]
