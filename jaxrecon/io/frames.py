"""Frames in order, whatever they come from: a video, a folder of images, a list, an array.

A source can be read as often as wanted and gives one frame at a time, so that a long video never
lies in memory.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.images import IMAGE_SUFFIXES, read_image
from jaxrecon.io.video import USUAL_RATE, Video, is_video, open_video

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class FrameSource:
    """Pictures in order.

    Attributes:
      title: what to call the whole in messages.
      stem: what output files of the whole begin with.
      names: of the frames, without suffix, all different: output files begin with them.
      fps: frames a second.
      kind: "video", "folder" or "arrays".
      content: a `Video`, or a path or RGB array for each frame.
      notes: what is odd about it, in words.
    """

    title: str
    stem: str
    names: tuple[str, ...]
    fps: float
    kind: str
    content: Any
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray | UserError]:
        """RGB pixels (H, W, 3) uint8 of each frame, or what is wrong with its file."""
        if isinstance(self.content, Video):
            yield from self.content.frames()
            return
        for item in self.content:
            if isinstance(item, np.ndarray):
                yield item
                continue
            try:
                yield read_image(item)
            except UserError as error:
                yield error

    def __getitem__(self, index: int) -> np.ndarray:
        """The pixels of one frame. Raises UserError where its file cannot be read."""
        if isinstance(self.content, Video):
            for number, frame in enumerate(self.content.frames()):
                if number == index:
                    return frame
            raise IndexError(index)
        item = self.content[index]
        return item if isinstance(item, np.ndarray) else read_image(item)


def is_sequence(source: Any) -> bool:
    """Whether something holds frames and is not one image: a folder, a video, a list, (T, H, W, 3).

    A path that does not exist counts by its suffix.
    """
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    if isinstance(source, list | tuple | FrameSource):
        return True
    return Path(source).is_dir() or is_video(source)


def open_frames(source: Any, fps: float | int | None = None) -> FrameSource:
    """The frames of a folder (in natural order: 2 before 10), a video, a list or an array.

    Args:
      source: a folder of images, a video, a sequence of image files or RGB arrays, or an array
        (T, H, W, 3) uint8.
      fps: frames a second; by default the video's own, and 30 for all else.

    Raises:
      UserError: the folder is missing, empty or holds no image; the video cannot be read; an
        array is no picture; a rate that is not positive.
    """
    if isinstance(source, FrameSource):
        return source
    if fps is not None and not (np.isfinite(fps) and 0 < fps <= 1000):
        raise UserError(f"{fps} frames a second are impossible; give a number above 0")
    rate = USUAL_RATE if fps is None else float(fps)
    if isinstance(source, np.ndarray | list | tuple):
        return _from_list(source, rate)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, rate)
    if not path.exists() and not is_video(path):
        raise UserError(f"no such image, folder or video: {path}; check the path")
    video = open_video(path)
    notes = []
    if video.promised > video.count + 1:
        notes.append(
            f"{path} says that it has {video.promised} frames; only {video.count} can be read"
        )
    names = tuple(f"{path.stem}_{i:06d}" for i in range(video.count))
    own = video.fps if fps is None else float(fps)
    return FrameSource(str(path), path.stem, names, own, "video", video, tuple(notes))


def natural_key(name: str) -> list[Any]:
    """Sorts names as people count: frame_2 before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)] + [name]


def _from_folder(folder: Path, fps: float) -> FrameSource:
    entries = sorted(
        (p for p in folder.iterdir() if p.is_file()), key=lambda p: natural_key(p.name)
    )
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        if not any(folder.iterdir()):
            raise UserError(f"the folder {folder} is empty; put images into it, or name a video")
        videos = [path.name for path in entries if is_video(path)]
        hint = f"; name the video {folder / videos[0]} itself" if videos else ""
        raise UserError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}){hint}")
    stem = folder.resolve().name or "sequence"
    return FrameSource(str(folder), stem, _names(images), fps, "folder", tuple(images))


def _from_list(items: Sequence[Any] | np.ndarray, fps: float) -> FrameSource:
    if len(items) == 0:
        raise UserError("the list of frames is empty; give at least one image")
    if all(isinstance(item, np.ndarray) for item in items):
        for number, item in enumerate(items):
            if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
                raise UserError(
                    f"frame {number}: an array {item.dtype} {item.shape} is no picture; RGB bytes "
                    "(height, width, 3), uint8 from 0 to 255, are expected"
                )
        names = tuple(f"frame_{i:06d}" for i in range(len(items)))
        return FrameSource("the frames", "sequence", names, fps, "arrays", tuple(items))
    paths = [Path(item) for item in items]
    return FrameSource("the list of images", "sequence", _names(paths), fps, "folder", tuple(paths))


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Stems, with the suffix or a number where two would be alike (on any file system)."""
    names: list[str] = []
    taken: set[str] = set()
    stems = Counter(path.stem.lower() for path in paths)
    for i, path in enumerate(paths):
        name = path.stem
        if stems[name.lower()] > 1:
            name = f"{name}_{path.suffix[1:].lower()}"
        if name.lower() in taken:
            name = f"{name}_{i:06d}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)
