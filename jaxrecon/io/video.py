"""Videos in and out, by OpenCV: RGB frames one after the other, never a whole video in memory."""

import functools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import atomic_path
from jaxrecon.io.files import existing_file

Image = UInt8[np.ndarray, "height width 3"]

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".3gp", ".gif",
)  # fmt: skip
USUAL_RATE = 30.0  # frames a second, where nothing says how many
# (codec, suffix of its file). H.264 plays everywhere, but OpenCV's wheels cannot write it; MPEG-4
# part 2 is always there, for players; VP8 plays in browsers. (VP9 takes ten times as long.)
CODECS = (("avc1", ".mp4"), ("mp4v", ".mp4"))
PAGE_CODECS = (("avc1", ".mp4"), ("VP80", ".webm"))


@dataclass(frozen=True)
class Video:
    """A video file that can be read from its beginning as often as wanted.

    Attributes:
      path: the file.
      fps: frames a second.
      count: frames that can really be read.
      image_size: (height, width) in pixels.
      promised: frames that the file says it has; more than `count` where it is cut off.
    """

    path: Path
    fps: float
    count: int
    image_size: tuple[int, int]
    promised: int

    def frames(self) -> Iterator[Image]:
        """All frames in order, RGB, turned upright."""
        capture = _open(self.path)
        try:
            for _ in range(self.count):
                done, frame = capture.read()
                if not done:
                    raise UserError(f"the video {self.path} changed while it was read")
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()


def open_video(path: str | os.PathLike[str]) -> Video:
    """A video, once all of its frames have been found readable (they are counted, not kept).

    Raises:
      UserError: the file is missing, a folder, empty, no video, or has no frame.
    """
    file = existing_file(path, "video")
    capture = _open(file)
    try:
        done, first = capture.read()
        if not done:
            raise UserError(
                f"the video {file} has no frame that can be read: it is cut off or damaged; copy "
                "or write it again"
            )
        fps = capture.get(cv2.CAP_PROP_FPS)
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = 1
        while capture.grab():
            count += 1
    finally:
        capture.release()
    height, width = first.shape[:2]
    usable = math.isfinite(fps) and 0 < fps <= 1000
    known = math.isfinite(promised) and 0 < promised < 1e9
    return Video(
        file,
        float(fps) if usable else USUAL_RATE,
        count,
        (height, width),
        int(promised) if known else count,
    )


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a video, by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class VideoWriter:
    """Takes the frames of a video that is being written; see `write_video`."""

    def __init__(self, writer: cv2.VideoWriter, image_size: tuple[int, int]) -> None:
        self._writer = writer
        self._size = image_size

    def add(self, frame: Image) -> None:
        """One more RGB frame; fitted into the video's size with a dark border if of another."""
        fitted = fit_frame(frame, self._size)
        self._writer.write(np.ascontiguousarray(fitted[:, :, ::-1]))


@functools.cache
def working_codec(
    codecs: tuple[tuple[str, str], ...] = CODECS,
) -> tuple[str, str] | None:
    """The first (codec, suffix) of some that this OpenCV can write, or None."""
    frame = np.zeros((64, 64, 3), np.uint8)
    with TemporaryDirectory() as folder:
        for codec, suffix in codecs:
            path = Path(folder) / f"{codec}{suffix}"
            with _quiet():
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, (64, 64))
                if writer.isOpened():
                    writer.write(frame)
                writer.release()
            if path.is_file() and path.stat().st_size > 0:
                return codec, suffix
    return None


@contextmanager
def write_video(
    path: str | os.PathLike[str], image_size: tuple[int, int], fps: float | int, codec: str
) -> Iterator[VideoWriter]:
    """A video that appears at `path` when the block ends well, and not at all when it does not.

        with write_video("out.mp4", (480, 640), 30, "mp4v") as video:
            video.add(frame)

    Args:
      path: ends in .mp4 (or another container that OpenCV writes).
      image_size: (height, width); made even, which most codecs need.
      fps: frames a second.
      codec: its four letters, see `working_codec`.

    Raises:
      UserError: the path cannot be written, or not with this codec.
    """
    height, width = even_size(image_size)
    with atomic_path(path) as scratch:
        with _quiet():
            writer = cv2.VideoWriter(
                str(scratch), cv2.VideoWriter.fourcc(*codec), float(fps), (width, height)
            )
        if not writer.isOpened():
            raise UserError(f"{path}: OpenCV cannot write {width} x {height} pixels as {codec!r}")
        try:
            yield VideoWriter(writer, (height, width))
        finally:
            writer.release()


def even_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) rounded up to even numbers."""
    height, width = image_size
    return height + height % 2, width + width % 2


def fit_frame(frame: Image, image_size: tuple[int, int]) -> UInt8[np.ndarray, "rows columns 3"]:
    """A frame at (height, width): scaled to fit if it is larger, centred on a dark ground."""
    height, width = image_size
    if frame.shape[:2] == (height, width):
        return frame
    scale = min(1.0, height / frame.shape[0], width / frame.shape[1])
    if scale < 1:
        size = (max(1, int(frame.shape[1] * scale)), max(1, int(frame.shape[0] * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 24, np.uint8)
    top, left = (height - frame.shape[0]) // 2, (width - frame.shape[1]) // 2
    canvas[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return canvas


def _open(file: Path) -> cv2.VideoCapture:
    with _quiet():
        capture = cv2.VideoCapture(str(file))
    if not capture.isOpened():
        raise UserError(
            f"{file} cannot be read as a video: it is damaged, cut off, or of a kind that this "
            "OpenCV does not know; convert it to .mp4, or give a folder of images"
        )
    return capture


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of OpenCV and FFmpeg about what does not open; ours says it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # They write to the descriptor, past Python's stream; there may be none (Windows, services).
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
