"""Pose sets from prepared data sets: the chunks of the TFDS builders, put together again."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxrecon.data.h36m_archives import poses_of_clips
from jaxrecon.data.lifting import PoseSet, spread_factor
from jaxrecon.data.pose_files import poses_of_arrays
from jaxrecon.data.sources import open_builder
from jaxrecon.errors import UserError
from jaxrecon.io.h36m_archives import Clip, plain_action
from jaxrecon.io.pose_files import FEWEST, PoseArrays

PathLike = str | os.PathLike[str]


def records_of(name: str, config: Any, split: str, data_dir: PathLike | None) -> list[dict]:
    """All records of a split, prepared now if this is the first use.

    Raises:
      UserError: what the builder says about its files; a split that there is not.
    """
    with _plain_faults():
        builder = open_builder(name, data_dir or None, config=config)
    if split not in builder.info.splits:
        raise UserError(
            f"data set {name!r} has no {split!r}; it has {', '.join(builder.info.splits)}"
        )
    return list(builder.as_data_source(split))


def clips_of(records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records of one clip joined into one of all its frames."""
    start = 0
    while start < len(records):
        end = start + 1
        while end < len(records) and records[end]["first_frame"] > 0:
            end += 1
        parts = records[start:end]
        whole = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("keypoints2d", "visible", "joints3d")
        }
        texts = {n: v.decode() for n, v in parts[0].items() if isinstance(v, bytes)}
        yield {**parts[0], **texts, **whole}
        start = end


def h36m_poses(
    folder: PathLike,
    keypoints: str,
    subjects: Sequence[str],
    data_dir: PathLike | None = None,
    actions: Sequence[str] = (),
    **options: Any,
) -> PoseSet:
    """Human3.6M's poses of some subjects, as `data.h36m_archives.load_h36m` gives them.

    Args:
      options: of `poses_of_clips`.
    """
    from jaxrecon.datasets_builders.h36m_lifting import h36m_lifting_dataset_builder as builder

    config = builder.archives(folder, keypoints)
    held: dict[str, list[Clip]] = {}
    for split in builder.SPLITS:
        if not set(subjects) & set(builder.SPLITS[split]):
            continue
        for clip in clips_of(records_of(builder.Builder.name, config, split, data_dir)):
            action = f"{clip['action']} {clip['take']}".strip()
            chosen = not actions or any(plain_action(action).startswith(a) for a in actions)
            if clip["subject"] in subjects and chosen:
                held.setdefault(clip["subject"], []).append(
                    Clip(
                        clip["subject"],
                        action,
                        int(clip["camera"]),
                        clip["keypoints2d"],
                        clip["joints3d"],
                        clip["intrinsics"],
                    )
                )
    absent = [subject for subject in subjects if subject not in held]
    if absent and not actions:
        raise UserError(f"{folder}: there is no subject {absent[0]!r} in the archives")
    ordered = (clip for subject in subjects for clip in held.get(subject, ()))
    what = f"{folder}: no clip of {', '.join(subjects)} {', '.join(actions)}"
    return poses_of_clips(ordered, nothing=what, **options)


def file_poses(
    path: PathLike,
    focal_length: float = 0.0,
    data_dir: PathLike | None = None,
    factor: float | None = None,
) -> PoseSet:
    """One's own keypoint file or folder of files; clips are the files."""
    from jaxrecon.datasets_builders.keypoint_file import keypoint_file_dataset_builder as builder

    config = builder.keypoint_files(path, focal_length)
    records = records_of(builder.Builder.name, config, "train", data_dir)
    frames = _joined(records)
    solid = all(record["has_joints3d"] for record in records)
    focal = np.concatenate(
        [np.broadcast_to(r["focal_length"], (len(r["visible"]), 2)) for r in records]
    )
    visible = None if frames["visible"].all() else frames["visible"].astype(np.float32)
    arrays = PoseArrays(
        frames["keypoints2d"], visible, frames["joints3d"] if solid else None, focal
    )
    return poses_of_arrays(arrays, factor, str(path))


def face_poses(folder: PathLike, split: str, data_dir: PathLike | None = None) -> PoseSet:
    """300-VW's landmarks for an orthographic camera: each video scaled by its own spread.

    There is no 3D. Groups are the categories of the test videos.
    """
    from jaxrecon.datasets_builders.vw300 import vw300_dataset_builder as builder

    config = builder.videos(folder)
    parts, clips, at = [], [], 0
    groups: dict[str, list[tuple[int, int]]] = {}
    for clip in clips_of(records_of(builder.Builder.name, config, split, data_dir)):
        points = clip["keypoints2d"] - clip["keypoints2d"].mean(1, keepdims=True)
        points = points * np.float32(_ORTHOGRAPHIC_SPREAD * spread_factor(points))
        parts.append(points - points[:, :1])
        clips.append((clip["clip"], len(points)))
        if clip["category"]:
            groups.setdefault(f"category {clip['category']}", []).append((at, at + len(points)))
        at += len(points)
    return PoseSet(np.concatenate(parts), groups=groups, clips=tuple(clips))


def surreal_poses(
    folder: PathLike,
    split: str,
    projection: str,
    data_dir: PathLike | None = None,
    factor: float | None = None,
) -> PoseSet:
    """SURREAL's joints; frames with fewer than two joints inside of the image are left out.

    Args:
      projection: "perspective": pixels over focal length. "orthographic": x and y of the 3D, as in
        the paper, all of them visible.
    """
    from jaxrecon.datasets_builders.surreal_joints import (
        surreal_joints_dataset_builder as builder,
    )

    config = builder.sequences(folder)
    frames = _joined(records_of(builder.Builder.name, config, split, data_dir))
    solid = frames["joints3d"] - frames["joints3d"][:, :1]
    if projection == "orthographic":
        seen = solid[..., :2]
        if factor is None:
            factor = _ORTHOGRAPHIC_SPREAD * spread_factor(seen)
        return PoseSet((factor * seen).astype(np.float32), None, solid, factor=factor)
    kept = frames["visible"].sum(1) >= FEWEST
    if not kept.any():
        raise UserError(f"{folder}: nobody in {split} is inside of the image")
    visible = frames["visible"][kept].astype(np.float32)
    focal = np.full(2, builder.FOCAL, np.float32)
    arrays = PoseArrays(
        frames["keypoints2d"][kept], None if visible.all() else visible, solid[kept], focal
    )
    return poses_of_arrays(arrays, factor, f"{folder}/{split}")


# `spread_factor` is made for the image at distance five, where a unit of 3D is a fifth.
_ORTHOGRAPHIC_SPREAD = 5.0


def _joined(records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {
        name: np.concatenate([record[name] for record in records])
        for name in ("keypoints2d", "visible", "joints3d")
    }


@contextlib.contextmanager
def _plain_faults() -> Iterator[None]:
    """TFDS adds lines of its own to an exception that passes through it; ours is one line."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error.args[0])) from error
