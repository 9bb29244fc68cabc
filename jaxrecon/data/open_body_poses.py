"""The embedded set for lifting: H36M-17 keypoints of the open body seen by random cameras.

Made in seconds, from nothing but a seed: anatomical poses, random builds, cameras all around at
four to six metres, with the perspective of a real camera and the person anywhere in the image.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies import body_forward, body_subset, h36m_joints, load_body
from jaxrecon.bodies.joints import index_map
from jaxrecon.bodies.poses import sample_body, sample_views
from jaxrecon.data.lifting import PoseSet, length_factor

_CHUNK = 4096
_SEEDS = {"train": 0, "test": 1}
NEAREST, FARTHEST = 4.0, 6.0  # metres, as in Human3.6M's room
OFF_AXIS = 0.25  # largest offset of the person from the optical axis, in units of depth


def open_body_poses(
    count: int,
    split: str = "train",
    seed: int = 0,
    body: str | None = None,
    factor: float | None = None,
) -> PoseSet:
    """Random poses of random people, each seen by a camera of its own.

    Args:
      count: number of poses.
      split: "train" or "test", which share no pose.
      body: a SMPL file; the open body by default.
      factor: of another split; None: of this one's own lengths.

    Returns:
      a set with 3D ground truth (metres), in the joint order of Human3.6M.
    """
    rng = np.random.default_rng([seed, _SEEDS[split]])
    joints = _joints(rng, count, body)
    depth = rng.uniform(NEAREST, FARTHEST, (count, 1))
    offset = rng.uniform(-OFF_AXIS, OFF_AXIS, (count, 2)) * depth
    place = np.concatenate([offset, depth], 1).astype(np.float32)[:, None]
    target = joints - joints[:, :1]
    points = target + place
    image = points[..., :2] / points[..., 2:]
    image = image - image[:, :1]
    if factor is None:
        factor = length_factor(image)
    return PoseSet((image * np.float32(factor)).astype(np.float32), None, target, factor=factor)


def _joints(rng: np.random.Generator, count: int, body: str | None) -> np.ndarray:
    """(count, 17, 3) float32, metres, turned into the camera's orientation."""
    rotmats = sample_body(rng, count)
    rotmats[:, 0] = sample_views(rng, count) @ rotmats[:, 0]
    betas = np.clip(rng.normal(size=(count, 10)), -2.5, 2.5).astype(np.float32)
    pose = rotmats.astype(np.float32)
    forward = _forward(body)
    found = []
    for first in range(0, count, _CHUNK):
        rows = np.arange(first, first + _CHUNK).clip(max=count - 1)
        found.append(np.asarray(forward(betas[rows], pose[rows])))
    return np.concatenate(found)[:count]


@functools.lru_cache(maxsize=2)
def _forward(body: str | None):
    whole = load_body(body)
    used = np.flatnonzero(np.any(np.asarray(whole.J_regressor_h36m) != 0, axis=0))
    small = body_subset(whole, used)
    order, _ = index_map("h36m17_regressor", "h36m17")

    def forward(betas: jax.Array, rotmats: jax.Array) -> jax.Array:
        vertices = body_forward(small, betas, rotmats).vertices
        return h36m_joints(small, vertices)[:, jnp.asarray(order)]

    return jax.jit(forward)
