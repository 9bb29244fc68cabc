"""Where the photographs of an annotation lie, and their bytes, checked."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jaxrecon.datasets_builders.people.videos import VideoFrames

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.images import check_image

_NAMED = 3  # missing images that a message names
_FRAME_BYTES = 200_000  # about, of a frame that was not extracted

# What an image's name says of a video that has it: paths it may have, and the frame from 0.
FindVideo = Callable[[str], tuple[Sequence[str], int] | None]


class ImageFolder:
    """The photographs below a folder, by the names that annotations have for them.

    Args:
      root: the folder of the data set.
      folders: sub-folders to look in, beside `root` itself; archives differ in whether the names
        they hold begin with them.
      video: serves images that are not there from the videos of the data set.
    """

    def __init__(
        self, root: Path, folders: Sequence[str] = (), video: FindVideo | None = None
    ) -> None:
        self.root, self._video, self._frames = root, video, VideoFrames()
        self._places = [root, *(root / folder for folder in folders)]

    def find(self, name: str) -> Path | None:
        """The file that `name` means, or None if there is none.

        Names that differ in spaces and underscores are one: Human3.6M's own have spaces, those
        of its "fixname" archives have none.
        """
        for i, place in enumerate(self._places):
            for spelling in dict.fromkeys((name, name.replace(" ", "_"))):
                if (place / spelling).is_file():
                    # Most likely where the others are as well.
                    self._places.insert(0, self._places.pop(i))
                    return place / spelling
        return None

    def find_frame(self, name: str) -> tuple[Path, int] | None:
        """The video and frame that an image is, or None if there is no such video."""
        paths, frame = (self._video(name) if self._video is not None else None) or ((), 0)
        for path in paths:
            if (self.root / path).is_file():
                return self.root / path, frame
        return None

    def check(self, names: Iterable[str], source: str) -> None:
        """Makes sure that every photograph is there.

        Raises:
          UserError: some are missing; names the first of them and says how many.
        """
        unique = list(dict.fromkeys(names))
        missing = [name for name in unique if not (self.find(name) or self.find_frame(name))]
        if missing:
            shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            raise UserError(
                f"{len(missing)} of the {len(unique)} images that {source} names are not in "
                f"{self.root}: {shown}; unpack the images of the data set there"
            )

    def size(self, name: str) -> int:
        """About how many bytes a photograph has."""
        path = self.find(name)
        return path.stat().st_size if path is not None else _FRAME_BYTES

    def read(self, name: str) -> bytes:
        """The bytes of a photograph.

        Raises:
          UserError: it is missing, or damaged.
        """
        path = self.find(name)
        frame = self.find_frame(name) if path is None else None
        if frame is not None:
            return self._frames.jpeg(*frame)
        file = existing_file(path or self.root / name, "image", "unpack the images again")
        data = file.read_bytes()
        check_image(data, str(file))
        return data
