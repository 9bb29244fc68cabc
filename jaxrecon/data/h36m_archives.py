"""Human3.6M prepared for lifting (spec mhr_net, 7.4)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxrecon.data.lifting import PoseSet, length_factor
from jaxrecon.errors import UserError
from jaxrecon.io.h36m_archives import (
    ACTIONS,
    TEST_SUBJECTS,
    TRAIN_SUBJECTS,
    Clip,
    plain_action,
    read_clips,
)
from jaxrecon.systems.mhr_net.hparams import hashed_choice

__all__ = ["TEST_SUBJECTS", "TRAIN_SUBJECTS", "load_h36m", "poses_of_clips"]


def load_h36m(
    folder: str | Path,
    keypoints: str = "gt",
    subjects: Sequence[str] = TRAIN_SUBJECTS,
    actions: Sequence[str] = (),
    downsample: int = 1,
    subset: float = 1.0,
    factor: float | None = None,
) -> PoseSet:
    """One split, all cameras, straight from the archives; see `poses_of_clips`.

    Args:
      folder, keypoints, subjects, actions: as for `io.h36m_archives.read_clips`.

    Raises:
      UserError: archives that are missing, damaged or do not fit each other; no clip chosen.
    """
    clips = read_clips(folder, keypoints, subjects, actions)
    what = f"{folder}: no clip of {', '.join(subjects)} {', '.join(actions)}"
    return poses_of_clips(clips, downsample, subset, factor, what)


def poses_of_clips(
    clips: Iterable[Clip],
    downsample: int = 1,
    subset: float = 1.0,
    factor: float | None = None,
    nothing: str = "there are no clips",
) -> PoseSet:
    """Clips as one set, in the published order (7.4).

    Args:
      downsample: every n-th frame of a clip.
      subset: the share of each clip that is kept, from a hashed start.
      factor: of another split; None: of this one's own lengths, as published.
      nothing: the message where there are none.

    Returns:
      groups are the actions; clips are "subject/action take/camera".
    """
    points, targets, lenses, parts = [], [], [], []
    for clip in clips:
        rows = _rows(len(clip.joints3d), downsample, subset)
        view, target = clip.keypoints2d[rows], clip.joints3d
        points.append((view - view[:, :1]) / clip.intrinsics[:2])
        targets.append((target - target[:, :1])[rows])
        lenses.append(np.broadcast_to(clip.intrinsics, (len(rows), 9)))
        parts.append((f"{clip.subject}/{clip.action}/{clip.camera}", len(rows)))
    if not parts:
        raise UserError(nothing)
    keypoints2d = np.concatenate(points)
    if factor is None:
        factor = length_factor(keypoints2d)
    return PoseSet(
        (keypoints2d * np.float32(factor)).astype(np.float32),
        None,
        np.concatenate(targets),
        _action_ranges(parts),
        factor,
        np.concatenate(lenses).astype(np.float32),
        tuple(parts),
    )


def _rows(length: int, downsample: int, subset: float) -> np.ndarray:
    if subset >= 1:
        return np.arange(0, length, downsample)
    count = int(round(length // downsample * subset) * downsample)
    start = hashed_choice(0, length - count + 1, str(length))
    return np.arange(start, start + count, downsample)


def _action_ranges(clips: Sequence[tuple[str, int]]) -> dict[str, list[tuple[int, int]]]:
    """Action -> row ranges; the cameras of one take are one range."""
    takes: dict[tuple[str, str], tuple[int, int]] = {}
    position = 0
    for name, length in clips:
        subject, action, _ = name.split("/")
        first, _ = takes.get((subject, action), (position, position))
        position += length
        takes[subject, action] = (first, position)
    found: dict[str, list[tuple[int, int]]] = {}
    for (_, action), rows in takes.items():
        found.setdefault(plain_action(action), []).append(rows)
    ordered = [a for a in ACTIONS if a in found] + [a for a in found if a not in ACTIONS]
    return {action: found[action] for action in ordered}
