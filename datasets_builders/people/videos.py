"""Frames of a data set's videos, for those who have not extracted them as images."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.images import encode_image

JPEG_QUALITY = 95


class VideoFrames:
    """Frames by their number, quick where the numbers of one video rise.

    The video last read stays open; to go back it is read from its beginning again, since seeking
    is not exact in all formats.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._capture: Any = None
        self._next = 0

    def jpeg(self, path: Path, frame: int) -> bytes:
        """Frame number `frame`, from 0, of a video as a JPEG file.

        Raises:
          UserError: no such video, one that cannot be read, or with fewer frames.
        """
        if path != self._path or frame < self._next:
            self.close()
            existing_file(path, "video", "download it again")
            self._capture, self._path, self._next = cv2.VideoCapture(str(path)), path, 0
        while self._next <= frame:
            if not self._capture.grab():
                read = self._next
                self.close()
                raise UserError(
                    f"{path} has no frame {frame + 1}: {read} frames can be read; is it cut off, "
                    "or not the video that the annotation means?"
                )
            self._next += 1
        _, pixels = self._capture.retrieve()
        return encode_image(np.ascontiguousarray(pixels[:, :, ::-1]), ".jpg", JPEG_QUALITY)

    def close(self) -> None:
        """Closes the video that is open."""
        if self._capture is not None:
            self._capture.release()
        self._path, self._capture, self._next = None, None, 0
