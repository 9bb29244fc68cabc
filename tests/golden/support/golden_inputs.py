"""Inputs of the Meta-HMR parity cases that are too large to store, from their seeds."""

import numpy as np


def make_images(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Normalised images (count, 3, height, width): coarse blocks of 32 pixels, fine noise."""
    coarse = rng.standard_normal((count, 3, height // 32, width // 32))
    fine = rng.standard_normal((count, 3, height, width))
    return (coarse.repeat(32, axis=2).repeat(32, axis=3) + 0.3 * fine).astype(np.float32)


def make_batch(seed, count, height, width, has_smpl, has_pose_3d) -> dict[str, np.ndarray]:
    """A batch with the keys and types of the published loader."""
    rng = np.random.default_rng(seed)
    img = make_images(rng, count, height, width)
    img_h = rng.integers(480, 1100, count)
    img_w = rng.integers(640, 1950, count)
    place = rng.uniform(0.3, 0.7, (count, 2))
    center = (place * np.stack([img_w, img_h], axis=1)).astype(np.float32)
    scale = rng.uniform(1.2, 3.0, count)
    focal = np.sqrt(img_h.astype(np.float64) ** 2 + img_w.astype(np.float64) ** 2)
    pose = (0.3 * rng.standard_normal((count, 72))).astype(np.float32)
    betas = (0.5 * rng.standard_normal((count, 10))).astype(np.float32)
    joints = 0.4 * rng.standard_normal((count, 24, 3))
    joints_confidence = (rng.uniform(0, 1, (count, 24, 1)) < 0.8).astype(np.float64)
    pixels = rng.uniform(0, 1, (count, 49, 2)) * np.array([width, height])
    confidence = rng.uniform(0, 1, (count, 49, 1))
    confidence[confidence < 0.2] = 0.0
    x, y = (center[:, i].astype(np.float64) for i in (0, 1))
    box = [
        (x - img_w / 2.0) / focal * 2.8,
        (y - img_h / 2.0) / focal * 2.8,
        (200.0 * scale - 0.24 * focal) / (0.06 * focal),
    ]
    zoom = height / (200.0 * scale)
    crop = np.zeros((count, 2, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = zoom
    crop[:, 0, 2] = width / 2.0 - zoom * x
    crop[:, 1, 2] = height / 2.0 - zoom * y
    return {
        "img": img,
        "img_h": img_h.astype(np.int64),
        "img_w": img_w.astype(np.int64),
        "center": center,
        "scale": scale,
        "focal_length": focal,
        "bbox_info": np.stack(box, axis=1).astype(np.float32),
        "crop_trans": crop.astype(np.float32),
        "pose": pose,
        "betas": betas,
        "pose_3d": np.concatenate([joints, joints_confidence], axis=2).astype(np.float32),
        "keypoints": np.concatenate([pixels, confidence], axis=2).astype(np.float32),
        "has_smpl": np.asarray(has_smpl, np.int64),
        "has_pose_3d": np.asarray(has_pose_3d, np.int64),
        "gender": (np.arange(count) % 2).astype(np.int32),
    }
