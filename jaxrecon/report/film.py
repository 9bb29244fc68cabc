"""A film of any length, frame by frame: a video, or an animated image where none can be made."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxrecon.io.video import CODECS, VideoWriter, even_size, fit_frame, working_codec, write_video
from jaxrecon.report.animation import SUFFIXES, write_animation

_ANIMATED = 150  # frames of an animated image, which lie in memory
_ANIMATED_LONGEST = 420  # ... and their longer side in pixels
_MIME = {".mp4": "video/mp4", ".webm": "video/webm", ".webp": "image/webp", ".gif": "image/gif"}


class Film:
    """Takes frames; see `film`.

    Attributes:
      path: the file that appears when the film is done.
      image_size: (height, width) of its frames.
      stride: every so many frames one is kept.
    """

    def __init__(
        self, path: Path, image_size: tuple[int, int], stride: int, video: VideoWriter | None
    ) -> None:
        self.path, self.image_size, self.stride = path, image_size, stride
        self.pictures: list[np.ndarray] = []
        self._video, self._seen = video, 0

    @property
    def mime(self) -> str:
        """The kind of the file, for a page."""
        return _MIME[self.path.suffix.lower()]

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """One more RGB frame of any size."""
        if self._seen % self.stride == 0:
            fitted = fit_frame(frame, self.image_size)
            if self._video is None:
                self.pictures.append(fitted)
            else:
                self._video.add(fitted)
        self._seen += 1


@contextmanager
def film(
    path: str | os.PathLike[str],
    image_size: tuple[int, int],
    fps: float | int,
    count: int,
    longest: int,
    codecs: tuple[tuple[str, str], ...] = CODECS,
    most: int = 0,
) -> Iterator[Film]:
    """A film that appears when the block ends well, and not at all when it does not.

    Args:
      path: .webp or .gif for an animation (small, of at most 150 frames, evenly spaced); any
        other gives a video, with the suffix of its codec, or a .webp where none works.
      image_size: (height, width) of the largest frame.
      fps: frames a second.
      count: of frames that will come.
      longest: pixels that the longer side has at most.
      codecs: see `io.video.working_codec`.
      most: frames that a video keeps at most, evenly spaced; 0: all.

    Raises:
      UserError: the path cannot be written.
    """
    target = Path(path)
    animated = target.suffix.lower() in SUFFIXES
    found = None if animated else working_codec(codecs)
    if found is None:
        target = target if animated else target.with_suffix(".webp")
        longest, most = min(longest, _ANIMATED_LONGEST), _ANIMATED
    else:
        target = target.with_suffix(found[1])
    stride = max(1, math.ceil(count / most)) if most else 1
    size = even_size(at_most(image_size, longest))
    with ExitStack() as stack:
        video = None
        if found is not None:
            video = stack.enter_context(write_video(target, size, fps / stride, found[0]))
        taken = Film(target, size, stride, video)
        yield taken
    if found is None:
        write_animation(target, taken.pictures, fps / stride)


def at_most(image_size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) scaled down, where needed, to a longer side of `longest` pixels."""
    height, width = (int(side) for side in image_size)
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
