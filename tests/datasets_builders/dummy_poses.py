"""Small made-up data in the layouts of real pose data sets."""

from pathlib import Path

import numpy as np
import scipy.io

from jaxrecon.io.h36m_archives import extrinsics, intrinsics9


def h36m(folder: Path, frames: int = 6, seed: int = 0) -> Path:
    """Archives of VideoPose3D: four subjects, two takes each; one 2D track is longer."""
    rng = np.random.default_rng(seed)
    world, pixels = {}, {}
    for subject in ("S1", "S5", "S9", "S11"):
        world[subject], pixels[subject] = {}, {}
        for action in ("Walking", "Walking 1"):
            position = extrinsics(subject, 0)[1] * np.array([0.0, 0.0, 0.5], np.float32)
            joints = position + rng.normal(size=(frames, 32, 3)).astype(np.float32) * 0.4
            world[subject][action] = joints.astype(np.float32)
            # The order of magnitude of pixels is all that matters here.
            longer = frames + (action == "Walking 1")
            pixels[subject][action] = [
                rng.uniform(200, 800, (longer, 17, 2)).astype(np.float32) for _ in range(4)
            ]
        pixels[subject]["Directions"] = [np.zeros((3, 17, 2), np.float32)] * 4  # without 3D
    assert intrinsics9(0).shape == (9,)
    return h36m_archives(folder, world, pixels)


def h36m_archives(folder: Path, world: dict, pixels: dict) -> Path:
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(world, dtype=object))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz",
        positions_2d=np.array(pixels, dtype=object),
        metadata=np.array({"num_joints": 17}, dtype=object),
    )
    return folder


def vw300(folder: Path, videos: tuple[int, ...] = (1, 2, 114, 410), frames: int = 5) -> Path:
    rng = np.random.default_rng(1)
    for video in videos:
        annotation = folder / f"{video:03d}" / "annot"
        annotation.mkdir(parents=True)
        for frame in range(1, frames + 1):
            points = rng.uniform(100, 300, (68, 2))
            write_points(annotation / f"{frame:06d}.pts", points)
    return folder


def write_points(path: Path, points: np.ndarray) -> None:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")


def surreal_info(frames: int = 4, seed: int = 2) -> dict[str, np.ndarray]:
    """One `_info.mat`: a person seven metres before a camera that looks along the world's -x."""
    rng = np.random.default_rng(seed)
    camera = np.array([7.0, 0.5, 1.0], np.float32)
    solid = rng.normal(size=(frames, 24, 3)).astype(np.float32) * 0.4 + [0, 0.5, 1.0]
    relative = solid - camera
    depth = -relative[..., 0]
    seen = 600 * np.stack([relative[..., 1], -relative[..., 2]], -1) / depth[..., None] + (160, 120)
    return {
        "joints2D": seen.transpose(2, 1, 0),
        "joints3D": solid.transpose(2, 1, 0),
        "camLoc": camera[:, None],
        "gender": np.ones((frames, 1)),
    }


def surreal(folder: Path) -> Path:
    for split, sequence, frames in (("train", "01_01", 4), ("train", "02_05", 1), ("test", "7", 3)):
        path = folder / split / "run0" / sequence / f"{sequence}_c0001_info.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        info = surreal_info(frames)
        if frames == 1:  # MATLAB drops a last axis of length one
            info = {n: a[..., 0] if n.startswith("joints") else a for n, a in info.items()}
        scipy.io.savemat(path, info)
    return folder
