"""From footage to a `SequenceReconstruction`: frames in batches of one size, compiled once."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxrecon import results
from jaxrecon.bodies import load_body
from jaxrecon.bodies.tracks import Track
from jaxrecon.config import load_config
from jaxrecon.data.crops import estimate_focal_length
from jaxrecon.data.photos import Photo, filled_batch
from jaxrecon.data.sequences import Footage
from jaxrecon.errors import UserError
from jaxrecon.optimization.smplify import CHUNK, LEAST_KEYPOINTS, fit_keypoints
from jaxrecon.reconstruction import CONFIDENT
from jaxrecon.sequence import SequenceReconstruction
from jaxrecon.sequence_files import frame_bar
from jaxrecon.systems import create_system
from jaxrecon.systems.base import Batch, System, Variables, pick_each

_PIECE = 8  # people that a CPU, which takes them one by one, fits between two moves of the bar


def reconstruct_footage(
    config: Any, variables: Variables, footage: Footage, steps: int, progress: bool = False
) -> SequenceReconstruction:
    """Every frame through the network, and `steps` steps of test-time optimisation of its own.

    Frames go in batches of `config.evaluation.batch_size`, the last one filled up; each adapts
    its own copy of the weights, so that a frame's result is that of the same single photograph.

    Raises:
      UserError: no frame can be used.
    """
    half, joint_set = footage.evidence
    config = load_config(config, {"tto.openpose": joint_set == "openpose25", "tto.per_image": True})
    system = create_system(config)
    probable = results.keeps_probable(config)
    size = tuple(config.system.image_size)
    batch_size = max(1, min(config.evaluation.batch_size, len(footage)))
    table = _Table(footage)
    waiting: list[tuple[int, Photo]] = []
    pending: tuple[list[tuple[int, Photo]], Any] | None = None

    def start() -> tuple[list[tuple[int, Photo]], Any]:
        batch = filled_batch([photo for _, photo in waiting], size, batch_size)
        return list(waiting), _network(system, variables, batch, steps, probable)

    with frame_bar(len(footage), "network", progress) as bar:

        def finish(started: tuple[list[tuple[int, Photo]], Any] | None) -> None:
            if started is not None:
                rows, found = started
                table.add([number for number, _ in rows], jax.device_get(found))
                bar.update(len(rows))

        for number, photo in table.usable():
            waiting.append((number, photo))
            if len(waiting) == batch_size:
                # The next frames are read and cropped while the device works on these.
                started, waiting = start(), []
                finish(pending)
                pending = started
        finish(pending)
        if waiting:
            finish(start())
        bar.update(len(table.missing))
    body = load_body(config.body.path or None)
    return table.sequence(body, config.system.name, half, joint_set)


def fit_footage(
    footage: Footage, body_path: str | None = None, progress: bool = False
) -> SequenceReconstruction:
    """Every frame from its keypoints alone, by optimisation from the mean pose, all in batches.

    Raises:
      UserError: no keypoints, or no frame can be used.
    """
    if footage.keypoints2d is None:
        raise UserError(f"{footage.source.title}: a fit needs 2D keypoints, not only a box")
    half, joint_set = footage.evidence
    body = load_body(body_path)
    table = _Table(footage, LEAST_KEYPOINTS, half)
    with frame_bar(len(footage), "reading", progress) as bar:
        numbers = [number for number, _ in table.usable(bar)]
    piece = CHUNK if jax.default_backend() != "cpu" else _PIECE
    points = footage.keypoints2d[:, half]
    center = table.image_sizes[:, ::-1].astype(np.float32) / 2
    with frame_bar(len(numbers), "fitting", progress) as bar:
        for begin in range(0, len(numbers), piece):
            rows = np.array(numbers[begin : begin + piece])
            fitted = fit_keypoints(
                body, points[rows], table.focal[rows].astype(np.float32), center[rows], joint_set
            )
            found = {
                name: np.asarray(getattr(fitted, name)) for name in ("betas", "rotmats", "transl")
            }
            table.add(rows.tolist(), {**found, "losses": np.asarray(fitted.history).T})
            bar.update(len(rows))
    return table.sequence(body, "smplify", half, joint_set)


@functools.partial(jax.jit, static_argnames=("system", "steps", "probable"))
def _network(
    system: System, variables: Variables, batch: Batch, steps: int, probable: bool
) -> dict[str, Any]:
    """The last or the most probable state of `results.adapt`, and the losses of all."""
    adaptation = results.adapt(system, variables, batch, steps)
    history = adaptation.history
    if probable and adaptation.chosen is not None:
        state = pick_each(history, adaptation.chosen)
    else:
        state = jax.tree.map(lambda x: x[-1], history)
    return {
        "betas": state.betas,
        "rotmats": state.rotmats,
        "transl": state.transl,
        "keypoints2d": history.keypoints2d,
        "losses": adaptation.losses,
    }


class _Table:
    """What is known of each of N frames, filled in as they are read and computed."""

    def __init__(self, footage: Footage, least: int = 0, half: slice = slice(None)) -> None:
        count = len(footage)
        self.footage = footage
        self.missing: dict[int, str] = {}
        self.image_sizes = np.zeros((count, 2), np.int32)
        self.focal = np.zeros(count, np.float64)
        self._least, self._half = least, half
        self._found: list[tuple[int, dict[str, np.ndarray]]] = []

    def usable(self, bar: Any = None) -> Iterator[tuple[int, Photo]]:
        """Frames with a person that can be used; the others are noted in `missing`."""
        for number, (size, photo) in enumerate(self.footage.photos()):
            self.image_sizes[number] = size
            self.focal[number] = self.footage.focal_length or estimate_focal_length(*size)
            if bar is not None:
                bar.update(1)
            if isinstance(photo, str):
                self.missing[number] = photo
                continue
            seen = int((photo.keypoints2d[self._half, 2] > 0).sum())
            if seen < self._least:
                self.missing[number] = f"{seen} keypoints are seen, {self._least} are needed"
                continue
            yield number, photo
        if len(self.missing) == len(self.footage):
            reason = next(iter(self.missing.values()))
            raise UserError(
                f"{self.footage.source.title}: none of its {len(self.footage)} frames can be used "
                f"({reason})"
            )

    def add(self, numbers: list[int], found: dict[str, np.ndarray]) -> None:
        """Results of a batch; arrays lead with it, histories with their steps."""
        for i, number in enumerate(numbers):
            row = {name: found[name][i] for name in ("betas", "rotmats", "transl")}
            for name in ("keypoints2d", "losses"):
                if name in found:
                    row[name] = found[name][:, i] if found[name].ndim > 1 else found[name]
            self._found.append((number, row))

    def sequence(
        self, body: Any, system: str, half: slice, joint_set: str
    ) -> SequenceReconstruction:
        """All of it as the public result."""
        numbers = np.array([number for number, _ in self._found])
        rows = [row for _, row in self._found]

        def stacked(name: str) -> np.ndarray:
            return np.stack([row[name] for row in rows]).astype(np.float32)

        track = Track(
            frames=numbers,
            rotmats=stacked("rotmats"),
            betas=stacked("betas"),
            transl=stacked("transl"),
            observed=np.ones(len(numbers), bool),
        )
        points = self.footage.keypoints2d
        points = None if points is None else points[:, half]
        history = {}
        if np.isfinite(losses := stacked("losses")).all() and losses.shape[1] > 1:
            history["loss"] = self._spread(numbers, losses)
        if points is not None and "keypoints2d" in rows[0]:
            evidence = points[numbers]
            seen = (evidence[..., 2] >= CONFIDENT)[:, None]
            moves = stacked("keypoints2d")[:, :, half] - evidence[:, None, :, :2]
            distance = np.where(seen, np.linalg.norm(moves, axis=-1), 0.0)
            with np.errstate(invalid="ignore"):
                mean = distance.sum(-1) / seen.sum(-1)
            history["keypoint_error"] = self._spread(numbers, mean)
        return SequenceReconstruction(
            source=self.footage.source,
            track=track,
            body=body,
            focal=self.focal,
            image_sizes=self.image_sizes,
            keypoints2d=points,
            keypoint_set=None if points is None else joint_set,
            history=history,
            system=system,
            missing=self.missing,
        )

    def _spread(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(T, S) as (N, S), NaN for the other frames."""
        every = np.full((len(self.footage), values.shape[1]), np.nan)
        every[numbers] = values
        return every
