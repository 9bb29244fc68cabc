"""The public result for a video or a folder: one body over many frames."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxrecon.bodies.model import BodyModel, BodyOutput, body_forward
from jaxrecon.bodies.tracks import WINDOW, Track, fill_gaps, share_shape, smooth_track
from jaxrecon.errors import UserError
from jaxrecon.io.amass import Motion
from jaxrecon.io.frames import FrameSource
from jaxrecon.reconstruction import Camera, Instance, Reconstruction, confident
from jaxrecon.typing import AnyArray

CHUNK = 16  # frames posed in one call of the compiled body
_SHOWN = 6  # reasons, and runs of frame numbers, that are listed


@dataclasses.dataclass(frozen=True)
class SequenceReconstruction:
    """What a system recovered from the frames of a video or a folder.

    `N` frames were looked at; in T of them there is a body (`track.frames` are their numbers).
    Iterating gives (number, `Reconstruction`) of every one of the N frames, where a frame without
    a body has no instance; indexing gives one of them.

    Attributes:
      source: the pictures, read again when they are needed.
      track: pose, shape and place in each of the T frames.
      body: the model.
      focal: (N,) pixels.
      image_sizes: (N, 2) height and width in pixels; zeros where the picture cannot be read.
      keypoints2d: (N, K, 3) the evidence: pixels and confidence, zeros without; or None.
      keypoint_set: the names of these.
      history: name -> (N, steps + 1), test-time optimisation of each frame, NaN without.
      system: the name of the system that made it.
      missing: frame number -> why the system found nobody there.
    """

    source: FrameSource
    track: Track
    body: BodyModel
    focal: np.ndarray
    image_sizes: np.ndarray
    keypoints2d: np.ndarray | None = None
    keypoint_set: str | None = None
    history: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    system: str = ""
    missing: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.track) == 0:
            raise UserError(f"{self.source.title}: there is no frame with a body")

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return (
            f"SequenceReconstruction({self.system or 'unnamed'}: {len(self.track)} bodies in "
            f"{len(self)} frames, {self.fps:g} frames/s)"
        )

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.source.fps

    @property
    def notes(self) -> list[str]:
        """What is odd about the source, what was skipped and what was filled in, in words."""
        filled = set(self.track.frames[~self.track.observed].tolist())
        names = self.source.names
        gaps = {n: why for n, why in self.missing.items() if n in filled}
        skipped = {n: why for n, why in self.missing.items() if n not in filled}
        return [
            *self.source.notes,
            *frame_notes(skipped, names, "skipped"),
            *frame_notes(gaps, names, "filled in between their neighbours"),
        ]

    def __iter__(self) -> Iterator[tuple[int, Reconstruction]]:
        posed = self._posed()
        for number, picture in enumerate(self.source):
            image = None if isinstance(picture, UserError) else picture
            yield number, self._frame(number, image, next(posed) if self._at(number) >= 0 else None)

    def __getitem__(self, number: int) -> Reconstruction:
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"frame {number} of {count}")
        number %= count
        posed = None
        if (at := self._at(number)) >= 0:
            every = _pose(self.body, self.track.betas[at : at + 1], self.track.rotmats[at : at + 1])
            posed = jax.tree.map(lambda x: x[0], every)
        return self._frame(number, self.source[number], posed)

    def smoothed(self, seconds: float | int = WINDOW) -> "SequenceReconstruction":
        """The same without jitter and gaps, and with one shape (see `tracks.smooth_track`)."""
        track = smooth_track(self.track, self.body, self.fps, seconds)
        return dataclasses.replace(self, track=track)

    def even_track(self) -> Track:
        """The track with one shape and no gap between its first and its last frame."""
        return fill_gaps(share_shape(self.track, self.body))

    def motion(self) -> Motion:
        """The body over time in AMASS's layout, camera frame.

        It has every frame from the first to the last with a body; `extra` says which of them were
        seen (`observed`), their numbers (`frames`), and the camera (`focal`, `image_size`).
        """
        track = self.even_track()
        return Motion(
            poses=track.poses,
            trans=track.transl,
            betas=track.betas[0],
            frame_rate=self.fps,
            extra={
                "observed": track.observed,
                "frames": track.frames,
                "focal": self.focal[track.frames],
                "image_size": self.image_sizes[track.frames],
                "coordinates": np.array("camera: x right, y down, z forward"),
            },
        )

    def vertices(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(R, V, 3) metres in the camera frame, of some rows of the track."""
        track = self.track
        part = dataclasses.replace(
            track, **{f.name: getattr(track, f.name)[rows] for f in dataclasses.fields(track)}
        )
        posed = dataclasses.replace(self, track=part)._posed()
        return np.stack([np.asarray(body.vertices) for body in posed]) + part.transl[:, None]

    def keypoint_errors(self) -> np.ndarray:
        """(N,) mean distance in pixels of the projected joints to the 2D evidence; NaN without."""
        errors = np.full(len(self), np.nan)
        if self.keypoints2d is None:
            return errors
        posed = self._posed()
        for number in self.track.frames.tolist():
            body = next(posed)
            if confident(self.keypoints2d[number]).any():
                errors[number] = self._frame(number, None, body).keypoint_error().pixels
        return errors

    def summary(self) -> str:
        """What was found, in a few lines."""
        lines = [f"{self}"]
        errors = self.keypoint_errors()
        if np.isfinite(errors).any():
            lines.append(
                f"mean 2D error over {int(np.isfinite(errors).sum())} frames: "
                f"{np.nanmean(errors):.1f} px"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def save(self, path: str | os.PathLike[str], progress: bool = False) -> list[Path]:
        """Writes a folder with everything; or one thing, by suffix. Each file whole or not at all.

        | path | what |
        | --- | --- |
        | a folder | all of the below, and `frames/` with .npz, .glb and overlay of each frame |
        | .glb | the moving body with its skeleton |
        | .npz | the motion in AMASS's layout; `io.amass.read_motion` reads it |
        | .mp4 .webp .gif | the overlay as a video or an animation |
        | .html | one self-contained page |

        Args:
          progress: show how many frames are written a second, and the time left.

        Returns:
          the files, of `frames/` the folder only.

        Raises:
          UserError: another suffix, or a path that cannot be written.
        """
        from jaxrecon import sequence_files

        return sequence_files.save(self, Path(path), progress)

    def _at(self, number: int) -> int:
        """Place of a frame in the track, or -1."""
        at = int(np.searchsorted(self.track.frames, number))
        return at if at < len(self.track) and self.track.frames[at] == number else -1

    def _posed(self) -> Iterator[BodyOutput]:
        """The posed body of each frame of the track, computed by chunks of one size."""
        for begin in range(0, len(self.track), CHUNK):
            rows = np.minimum(np.arange(begin, begin + CHUNK), len(self.track) - 1)
            chunk = _pose(self.body, self.track.betas[rows], self.track.rotmats[rows])
            for i in range(min(CHUNK, len(self.track) - begin)):
                yield jax.tree.map(lambda x, i=i: x[i], chunk)

    def camera(self, number: int) -> Camera:
        """The camera of one frame; of an unreadable picture that of the nearest readable one."""
        readable = np.flatnonzero(self.image_sizes.prod(-1))
        number = int(readable[np.argmin(np.abs(readable - number))])
        height, width = (int(x) for x in self.image_sizes[number])
        return Camera(float(self.focal[number]), (width / 2, height / 2), (height, width))

    def _frame(
        self, number: int, image: np.ndarray | None, posed: BodyOutput | None
    ) -> Reconstruction:
        instances = []
        if posed is not None:
            at = self._at(number)
            points = None if self.keypoints2d is None else self.keypoints2d[number]
            if points is not None and not confident(points).any():
                points = None
            history = {
                k: v[number] for k, v in self.history.items() if np.isfinite(v[number]).any()
            }
            instance = Instance.of_body(
                self.body,
                self.track.betas[at],
                self.track.rotmats[at],
                self.track.transl[at],
                posed=posed,
                keypoints2d=points,
                keypoint_set=None if points is None else self.keypoint_set,
                history=history,
            )
            instances.append(instance)
        return Reconstruction(instances, self.camera(number), image, self.system, self.body)


@jax.jit
def _pose(body: BodyModel, betas: AnyArray, rotmats: AnyArray) -> BodyOutput:
    return body_forward(body, betas, rotmats)


def frame_notes(missing: Mapping[int, str], names: Sequence[str], what: str) -> list[str]:
    """Lines such as "12 of 90 frames skipped: nobody was detected (3-9, 80-84)"."""
    reasons: dict[str, list[int]] = {}
    for number, reason in sorted(missing.items()):
        reasons.setdefault(reason, []).append(number)
    lines = []
    for reason, numbers in list(reasons.items())[:_SHOWN]:
        count, total = len(numbers), len(names)
        lines.append(
            f"{count} of {total} frames {what}: {reason} ({_ranges(numbers)}, from 0)"
            if count > 1
            else f"frame {numbers[0]} ({names[numbers[0]]}) {what}: {reason}"
        )
    if len(reasons) > _SHOWN:
        rest = sum(len(numbers) for numbers in list(reasons.values())[_SHOWN:])
        lines.append(f"{rest} more frames {what} for other reasons")
    return lines


def _ranges(numbers: Sequence[int]) -> str:
    """3-9, 12, ..."""
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    parts = [
        f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}"
        for part in np.split(np.asarray(numbers), cuts)
    ]
    shown = ", ".join(parts[:_SHOWN])
    return f"{shown}, ..." if len(parts) > _SHOWN else shown
