"""Bodies without a photograph: from where joints are seen to a pose, learnt from the model alone.

Rendering is what makes photographs dear. What a pose looks like as points costs nothing: a body
takes a pose, a camera looks at it, and the joints in its crop are known. A network that reads its
maps at points (`networks.points`) learns from thousands of such bodies in every step how points
become a body, while the photographs teach it where the points are. Not published.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxrecon.bodies import BodyModel, joints49_forward
from jaxrecon.bodies.poses import sample_poses
from jaxrecon.geometry.cameras import apply_affine, full_to_crop_camera, project
from jaxrecon.geometry.rotations import axis_angle_to_matrix
from jaxrecon.networks.points import PointLifter
from jaxrecon.systems.base import Variables
from jaxrecon.systems.meta_hmr import losses
from jaxrecon.typing import Array, Float

if TYPE_CHECKING:
    from jaxrecon.systems.meta_hmr.system import MetaHMR

POSES = 50_000
BATCH = 256
LIFTING_RATE = 1e-3
FRONTAL = 1.0  # as the embedded photographs
_GT24 = 25
_IMAGE = 192.0  # longer side, pixels


@functools.lru_cache(maxsize=1)
def pose_bank(count: int = POSES, seed: int = 1) -> Float[np.ndarray, "n 24 3"]:
    """Poses as axis-angle vectors, the root in the frame of a level camera (radians).

    Args:
        count: Poses.
        seed: Of the generator; the photographs have other poses.
    """
    rng = np.random.default_rng([seed, count])
    return sample_poses(rng, count, FRONTAL).astype(np.float32)


def draw_batch(
    key: Array, poses: Float[Array, "n 24 3"], body: BodyModel, size: tuple[int, int], count: int
) -> tuple[dict[str, Any], Array, Array]:
    """Bodies before cameras: a batch without images, and points as a network would find them.

    Args:
        key: random key.
        poses: the bank.
        body: with the 49 joints.
        size: (height, width) of the crop.
        count: bodies.

    Returns:
        Entries of a batch (see `data.items.BATCH_TYPES`) with the true `rotmats` and `cam`, and
        places (B, 24, 2) with their spread (B, 24) in units of [-1, 1] of the crop.
    """
    keys = iter(jax.random.split(key, 16))

    def uniform(low: Any, high: Any, *shape: int) -> Array:
        return jax.random.uniform(next(keys), (count, *shape), jnp.float32, low, high)

    def normal(*shape: int) -> Array:
        return jax.random.normal(next(keys), (count, *shape))

    rotmats = axis_angle_to_matrix(poses[jax.random.randint(next(keys), (count,), 0, len(poses))])
    roll = jnp.deg2rad(8.0) * normal(1) * jnp.asarray([0.0, 0.0, 1.0])
    rotmats = rotmats.at[:, 0].set(axis_angle_to_matrix(roll) @ rotmats[:, 0])
    betas = jnp.clip(normal(10), -2.5, 2.5)
    joints = joints49_forward(body, betas, rotmats)[:, _GT24:]

    # A camera with 25 to 80 degrees across the diagonal, and a person who fills most of the image.
    short = uniform(0.56, 1.0)
    tall = uniform(0.0, 1.0) < 0.5
    frame = _IMAGE * jnp.stack([jnp.where(tall, 1.0, short), jnp.where(tall, short, 1.0)], -1)
    view = jnp.deg2rad(jnp.clip(54.0 + 12.0 * normal(), 25.0, 80.0))
    focal = 0.5 * jnp.linalg.norm(frame, axis=-1) / jnp.tan(0.5 * view)
    low, high = joints.min(1), joints.max(1)
    extent = 1.15 * (high - low)[:, :2] + 0.1
    fill = uniform(0.5, 1.2)
    per_metre = fill * jnp.min(frame[:, ::-1] / extent, axis=-1)
    depth = jnp.maximum(focal / per_metre, 1.0)
    room = jnp.maximum(frame[:, ::-1] - extent * (focal / depth)[:, None], 0.0) / 2
    pixel = uniform(-1.0, 1.0, 2) * room
    middle = 0.5 * (low + high)
    at = jnp.concatenate([pixel * (depth / focal)[:, None], depth[:, None]], -1) - middle
    seen = project(joints, focal, frame[:, ::-1] / 2, translation=at, min_depth=0.2)

    low, high = seen.min(1), seen.max(1)
    center = 0.5 * (low + high)
    box = 1.2 * jnp.maximum((high - low)[:, 0] * 4 / 3, (high - low)[:, 1])
    box = box * jnp.clip(1.0 + 0.2 * normal(), 0.75, 1.25)
    height, width = size
    zoom = height / box
    corner = jnp.asarray([width, height]) / 2 - zoom[:, None] * center
    crop_trans = jnp.zeros((count, 2, 3)).at[:, [0, 1], [0, 1]].set(zoom[:, None])
    crop_trans = crop_trans.at[:, :, 2].set(corner)
    cropped = apply_affine(crop_trans, seen)

    offset = 2.8 * (center - frame[:, ::-1] / 2) / focal[:, None]
    bbox_info = jnp.concatenate([offset, ((box / focal - 0.24) / 0.06)[:, None]], -1)
    ones = jnp.ones((count, 24, 1))
    nobody = jnp.zeros((count, _GT24, 3))
    batch = {
        "keypoints2d": jnp.concatenate([nobody, jnp.concatenate([cropped, ones], -1)], 1),
        "betas": betas,
        "rotmats": rotmats,
        "joints3d": jnp.concatenate([joints, ones], -1),
        "has_smpl": jnp.ones(count, jnp.int32),
        "has_joints3d": jnp.ones(count, jnp.int32),
        "center": center,
        "scale": box / 200.0,
        "focal_length": focal,
        "image_size": frame,
        "bbox_info": bbox_info,
        "crop_trans": crop_trans,
        "cam": full_to_crop_camera(at, center, box / 200.0, frame, focal),
    }
    # Errors of the places: small ones mostly, and a few joints that are anywhere.
    spread = 0.16 * uniform(0.05, 1.0, 1) * jnp.exp(0.5 * normal(24))
    spread = jnp.where(uniform(0.0, 1.0, 24) < 0.04, 0.4, spread)
    places = cropped / jnp.asarray([width / 2.0, height / 2.0]) - 1.0
    places = places + spread[..., None] * normal(24, 2)
    spread = spread * jnp.exp(0.2 * normal(24))
    return batch, jnp.clip(places, -0.95, 0.95), spread


def lifting_terms(
    system: "MetaHMR", variables: Variables, key: Array, dropout_rng: Array | None
) -> dict[str, Array]:
    """Terms of the outer loss over bodies without a photograph: all that need no mesh.

    These cameras are known, so their squared error stands for the reprojection error and L_cam:
    those run away where a joint is misplaced and the scale comes near 0.
    """
    constants = variables["constants"]
    body = constants["joints"]
    batch, places, spread = draw_batch(key, constants["poses"], body, system.image_size, BATCH)
    main = variables["params"]["main"]
    weights = main["backbone"]["points"]["lifter"]
    lifter = PointLifter(features=weights["first"]["kernel"].shape[-1])
    lifted: Any = lifter.apply({"params": weights}, places, spread)
    features = jnp.concatenate([lifted, places.reshape(BATCH, -1)], axis=-1)
    pred = system.regress(
        "main",
        main["head"],
        variables["batch_stats"]["main"]["head"],
        features,
        batch,
        dropout_rng,
    )
    joints = joints49_forward(body, pred.betas, pred.rotmats)
    has, axis = batch["has_smpl"], system.axis_name
    return {
        "keypoints2d": losses.masked_mean((pred.cam - batch["cam"]) ** 2, None, axis),
        "joints3d": losses.joint_loss(joints, batch["joints3d"], has, axis),
        "pose": losses.pose_loss(pred.rotmats, batch["rotmats"], has, axis),
        "betas": losses.betas_loss(pred.betas, batch["betas"], has, axis),
    }


def learn_from_bodies(
    system: "MetaHMR",
    variables: Variables,
    key: Array,
    steps: int,
    report: Callable[[int, float], None],
) -> Any:
    """Parameters after the lifter and the head of the main network learnt from bodies alone.

    A step costs a fraction of one on photographs, so this comes before the first of these.

    Args:
        steps: of Adam, its rate falling from `LIFTING_RATE` to 0 along a half cosine.
        report: called now and then with the steps done and the loss.
    """
    chunk = min(250, steps)
    schedule = optax.warmup_cosine_decay_schedule(0.0, LIFTING_RATE, min(300, steps // 4), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def objective(trained: Any, fixed: Variables, key: Array) -> Array:
        joined = {**fixed, "params": _with(fixed["params"], trained)}
        return system.weighted(lifting_terms(system, joined, key, None))

    @functools.partial(jax.jit, donate_argnums=0)
    def some(state: Any, fixed: Variables, keys: Array) -> tuple[Any, Array]:
        def step(state: Any, key: Array) -> tuple[Any, Array]:
            trained, moments = state
            value, gradient = jax.value_and_grad(objective)(trained, fixed, key)
            change, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(trained, change), moments), value

        state, values = lax.scan(step, state, keys)
        return state, jnp.mean(values)

    params = variables["params"]
    trained = {
        "lifter": params["main"]["backbone"]["points"]["lifter"],
        "head": params["main"]["head"],
    }
    state = jax.tree.map(jnp.copy, (trained, optimizer.init(trained)))
    used = {"poses", "joints"}
    fixed = {
        **variables,
        "constants": {k: v for k, v in variables["constants"].items() if k in used},
    }
    keys = jax.random.split(key, steps)
    for first in range(0, steps, chunk):
        part = keys[first : first + chunk]
        state, value = some(state, fixed, part)
        report(first + len(part), float(value))
    return _with(params, state[0])


def _with(params: Any, trained: Any) -> Any:
    """Parameters with another lifter and head of the main network."""
    main = params["main"]
    points = {**main["backbone"]["points"], "lifter": trained["lifter"]}
    backbone = {**main["backbone"], "points": points}
    return {**params, "main": {**main, "backbone": backbone, "head": trained["head"]}}
