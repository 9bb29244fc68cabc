"""How non-rigid shapes are scored (spec 6.1, 6.2): on the device, batched, one value a frame.

Alignments that allow a reflection say so; `similarity_align` never does.
"""

import flax.struct
import jax.numpy as jnp

from jaxrecon.geometry.metrics import mean_distance
from jaxrecon.geometry.procrustes import nearest_orthogonal, similarity_align
from jaxrecon.systems.base import Leaf
from jaxrecon.systems.mhr_net.cameras import lift
from jaxrecon.typing import AnyArray, Array, Float

# Joints that PCK and AUC look at (of the 17), and the reach of AUC in metres.
PCK_JOINTS = (2, 3, *range(5, 17))
PCK_REACH = 0.150
AUC_THRESHOLDS = 31


def joint_distance(
    pred: Float[AnyArray, "*b j 3"], target: Float[AnyArray, "*b j 3"]
) -> Float[Array, "*b"]:
    """MPJPE of each frame, without any alignment."""
    return mean_distance(pred, target)


def aligned_distance(
    pred: Float[AnyArray, "*b j 3"],
    target: Float[AnyArray, "*b j 3"],
    mask: Float[AnyArray, "*b j"] | None = None,
) -> Float[Array, "*b"]:
    """P-MPJPE of each frame; with a mask the mean over its joints, all joints being aligned."""
    aligned = similarity_align(pred, target)
    if mask is None:
        return mean_distance(aligned, target)
    distance = jnp.sqrt(jnp.sum((aligned - target) ** 2, axis=-1))
    return jnp.sum(distance * mask, axis=-1) / jnp.sum(mask, axis=-1)


def scaled_distance(
    pred: Float[AnyArray, "*b j 3"], target: Float[AnyArray, "*b j 3"]
) -> Float[Array, "*b"]:
    """N-MPJPE of each frame: the best scale, no rotation, no shift."""
    pred, target = jnp.asarray(pred), jnp.asarray(target)
    scale = jnp.sum(target * pred, (-2, -1)) / jnp.sum(pred * pred, (-2, -1))
    return mean_distance(scale[..., None, None] * pred, target)


def normalised_error(
    pred: Float[AnyArray, "*b j 3"], target: Float[AnyArray, "*b j 3"]
) -> Float[Array, "*b"]:
    """|P - G| / |G| of each frame, Frobenius norms, no alignment."""
    return _size(jnp.asarray(pred) - target) / _size(jnp.asarray(target))


def calibrated(
    pred: Float[AnyArray, "*b j 3"],
    target: Float[AnyArray, "*b j 3"],
    weights: Float[AnyArray, "*b j"] | None = None,
) -> Float[Array, "*b j 3"]:
    """`pred` times the scale of its best similarity alignment, reflections allowed.

    Neither rotated nor shifted (spec 6.1, step 3).
    """
    return _calibration(pred, target, weights)[..., None, None] * jnp.asarray(pred)


def _calibration(
    pred: AnyArray, target: AnyArray, weights: AnyArray | None = None
) -> Float[Array, "*b"]:
    w = jnp.ones(jnp.shape(pred)[:-1]) if weights is None else jnp.asarray(weights)
    w = w[..., None]
    p, t = _centred(jnp.asarray(pred), w), _centred(jnp.asarray(target), w)
    _, values = nearest_orthogonal(_product(w * t, p))
    spread = jnp.sum(w * p * p, (-2, -1))
    return jnp.sum(values, axis=-1) / jnp.where(spread > 0, spread, 1.0)


@flax.struct.dataclass
class Lifted:
    """Both candidates of the protocol and their errors; lengths in the unit of the target."""

    points: Leaf  # (b, j, 3)
    flipped: Leaf  # (b, j, 3)
    mpjpe: Leaf  # (b)
    mpjpe_flipped: Leaf  # (b)
    pa_mpjpe: Leaf  # (b)
    pa_mpjpe_flipped: Leaf  # (b)

    @property
    def best_mpjpe(self) -> Float[Array, "*b"]:
        """The smaller of the two, as published: the sign of depth comes from the target."""
        return jnp.minimum(self.mpjpe, self.mpjpe_flipped)

    @property
    def best_pa_mpjpe(self) -> Float[Array, "*b"]:
        return jnp.minimum(self.pa_mpjpe, self.pa_mpjpe_flipped)


def lifting_protocol(
    depth: Float[AnyArray, "*b j"],
    keypoints2d: Float[AnyArray, "*b j 2"],
    target: Float[AnyArray, "*b j 3"],
    projection: str = "perspective",
) -> Lifted:
    """The published evaluation of a frame (spec 6.1, steps 1-6).

    Args:
        depth: predicted, relative to the root.
        keypoints2d: normalised, the root at 0.
        target: metres, root-relative.
        projection: "orthographic" lifts without the perspective factor, which the published
            code applies whatever the camera.
    """
    points = lift(keypoints2d, depth, projection)
    flipped = points * jnp.array([1.0, 1.0, -1.0])
    target = rooted(target)
    # The scale is the same for both.
    scale = _calibration(points, target)[..., None, None]
    points, flipped = rooted(scale * points), rooted(scale * flipped)
    return Lifted(
        points,
        flipped,
        joint_distance(points, target),
        joint_distance(flipped, target),
        aligned_distance(points, target),
        aligned_distance(flipped, target),
    )


@flax.struct.dataclass
class SequenceErrors:
    """Normalised 3D errors of one sequence, |S_est - S| / |S| averaged over its frames.

    Attributes:
      reflected: after the one reflection in depth that serves the whole sequence best.
      aligned: after the best rotation or reflection of each frame; no scale.
      sign: of depth, that reflection: 1 or -1.
    """

    reflected: Leaf  # ()
    aligned: Leaf  # ()
    sign: Leaf  # ()


def sequence_errors(
    points: Float[AnyArray, "f p 3"], target: Float[AnyArray, "f p 3"]
) -> SequenceErrors:
    """The score of non-rigid structure from motion, for orthographic reconstructions.

    Args:
        points: at the scale of the target; both are centred here, frame by frame.
    """
    ones = jnp.ones(jnp.shape(points)[:-1])[..., None]
    points, target = _centred(jnp.asarray(points), ones), _centred(jnp.asarray(target), ones)
    turned, _ = nearest_orthogonal(_product(points, target))
    aligned = jnp.sum(points[..., :, :, None] * turned[..., None, :, :], axis=-2)
    plain = jnp.mean(normalised_error(points, target))
    flipped = jnp.mean(normalised_error(points * jnp.array([1.0, 1.0, -1.0]), target))
    return SequenceErrors(
        jnp.minimum(plain, flipped),
        jnp.mean(normalised_error(aligned, target)),
        jnp.where(plain <= flipped, 1.0, -1.0),
    )


def rooted(points: Float[AnyArray, "*b j c"]) -> Float[Array, "*b j c"]:
    """Relative to joint 0."""
    points = jnp.asarray(points)
    return points - points[..., :1, :]


def correct_shares(
    pred: Float[AnyArray, "b j 3"],
    flipped: Float[AnyArray, "b j 3"],
    target: Float[AnyArray, "b j 3"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(PCK at 150 mm, AUC) over `PCK_JOINTS`; each joint takes the better of both candidates."""
    distance = jnp.minimum(_distances(pred, target), _distances(flipped, target))
    distance = distance[:, jnp.array(PCK_JOINTS)]
    thresholds = jnp.linspace(0.0, PCK_REACH, AUC_THRESHOLDS)
    shares = jnp.mean(distance[..., None] < thresholds, axis=(0, 1))
    return shares[-1], jnp.mean(shares)


def match_shape(
    points: Float[AnyArray, "b j 3"], target: Float[AnyArray, "b j 3"]
) -> Float[Array, "b j 3"]:
    """`points` at the target's size, turned (or mirrored) onto it; for pictures."""
    return _matched(points, target)[0]


def match_shape_and_camera(
    points: Float[AnyArray, "b j 3"],
    target: Float[AnyArray, "b j 3"],
    camera: Float[AnyArray, "b 3 3"],
) -> tuple[Float[Array, "b j 3"], Float[Array, "b 3 3"]]:
    """The same, with the camera (row vectors: image = points @ camera) turned back.

    The camera is first divided by its spectral norm, and the points multiplied by it.
    """
    camera = jnp.asarray(camera)
    _, values = nearest_orthogonal(camera)
    norm = values[..., :1, None]
    matched, turn = _matched(jnp.asarray(points) * norm, target)
    return matched, _product(turn, camera / norm)


def _matched(points: AnyArray, target: AnyArray) -> tuple[Array, Array]:
    points, target = jnp.asarray(points), jnp.asarray(target)
    points = points * (_size(target) / _size(points))[..., None, None]
    turn, _ = nearest_orthogonal(_product(points, target))
    return jnp.sum(points[..., :, :, None] * turn[..., None, :, :], axis=-2), turn


def stress(
    pred: Float[AnyArray, "*b j 3"],
    target: Float[AnyArray, "*b j 3"],
    mask: Float[AnyArray, "*b j"] | None = None,
) -> Float[Array, "*b"]:
    """Mean over pairs of (visible) points of the error of their distance (C3DPO's convention)."""
    first, second = jnp.triu_indices(jnp.shape(pred)[-2], 1)

    def apart(points: AnyArray) -> Array:
        points = jnp.asarray(points)
        return jnp.sqrt(jnp.sum((points[..., first, :] - points[..., second, :]) ** 2, -1))

    error = jnp.abs(apart(pred) - apart(target))
    if mask is None:
        return jnp.mean(error, axis=-1)
    both = jnp.asarray(mask)[..., first] * jnp.asarray(mask)[..., second]
    return jnp.sum(error * both, axis=-1) / jnp.sum(both, axis=-1)


@flax.struct.dataclass
class C3DPOErrors:
    """MPJPE as it is, with depth mirrored, the smaller; and stress. One value a frame."""

    mpjpe: Leaf  # (b)
    mpjpe_flipped: Leaf  # (b)
    mpjpe_best: Leaf  # (b)
    stress: Leaf  # (b)


def c3dpo_errors(
    pred: Float[AnyArray, "b j 3"],
    target: Float[AnyArray, "b j 3"],
    scale: Float[AnyArray, "b"],
    mask: Float[AnyArray, "b j"] | None = None,
    centre_depth: bool = False,
) -> C3DPOErrors:
    """Errors of C3DPO's code, for comparison with its published numbers.

    Args:
        scale: of each frame, multiplies its errors.
        mask: joints that count (for MPJPE).
        centre_depth: subtract the mean depth first, as for sets other than Human3.6M.
    """
    pred, target = jnp.asarray(pred), jnp.asarray(target)
    weights = jnp.ones(pred.shape[:-1]) if mask is None else jnp.asarray(mask)

    def centred(points: Array) -> Array:
        if not centre_depth:
            return points
        total = jnp.sum(weights, -1, keepdims=True)
        mean = jnp.sum(points[..., 2] * weights, -1, keepdims=True) / total
        return points.at[..., 2].add(-mean)

    def error(points: Array) -> Array:
        distance = _distances(points, centred(target)) * weights
        return jnp.sum(distance, -1) / jnp.sum(weights, -1) * scale

    plain = error(centred(pred))
    flipped = error(centred(pred * jnp.array([1.0, 1.0, -1.0])))
    apart = stress(pred, target, weights) * jnp.asarray(scale)
    return C3DPOErrors(plain, flipped, jnp.minimum(plain, flipped), apart)


def _distances(a: AnyArray, b: AnyArray) -> Array:
    return jnp.sqrt(jnp.sum((jnp.asarray(a) - b) ** 2, axis=-1))


def _size(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axis=(-2, -1)))


def _centred(points: Array, weights: Array) -> Array:
    total = jnp.sum(weights, -2, keepdims=True)
    return points - jnp.sum(weights * points, -2, keepdims=True) / jnp.where(total > 0, total, 1.0)


def _product(a: Array, b: Array) -> Array:
    """a^T b summed over rows, at full precision."""
    return jnp.sum(a[..., :, None] * b[..., None, :], axis=-3)
