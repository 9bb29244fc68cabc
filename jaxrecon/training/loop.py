"""The training loop, for every system: read it from top to bottom.

It knows no paper (the system brings loss and optimiser), no device (`parallel` places things) and
no file format (`checkpoints` and `logging` write).
"""

import dataclasses
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.systems.base import System, Variables
from jaxrecon.training.checkpoints import Checkpoints, RunRecord, check_shapes
from jaxrecon.training.logging import MetricWriter, Progress, SilentWriter
from jaxrecon.training.parallel import (
    BatchIterator,
    DeviceFeed,
    Placement,
    agree,
    host_count,
    main_process,
)
from jaxrecon.training.state import TrainState, create_state, state_shapes, variables_of

Evaluate = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      variables: params, batch_stats and constants, on one device.
      step: steps done.
      stopped: None if all steps are done; else why not ("signal", "time limit").
    """

    variables: dict[str, Any]
    step: int
    stopped: str | None


def train(
    config: Any,
    system: System,
    batches: BatchIterator,
    workdir: str | Path,
    evaluate: Evaluate | None = None,
    placement: Placement | None = None,
    stream: Any = None,
    initial: Variables | None = None,
    initial_optimizer: Callable[[Any], Any] | None = None,
) -> TrainResult:
    """Trains, and continues by itself where the run folder has a checkpoint.

    Args:
      config: resolved; the fields of `config.training` steer this loop.
      system: what to train.
      batches: endless host batches with a position (`get_state`, `set_state`).
      workdir: the run folder: metrics, times and checkpoints.
      evaluate: variables -> scalars, and pictures (h, w, 3) uint8 for TensorBoard, by name;
        called every `eval_every` steps.
      placement: devices; all local ones by default.
      stream: the text stream that progress goes to; standard error by default.
      initial: params and batch_stats to start from, where the run has no checkpoint yet.
      initial_optimizer: fresh state of the optimiser -> the one to start from with these.

    Raises:
      UserError: a loss that is not finite (with its step), damaged checkpoints, data that end.
    """
    settings = config.training
    placement = placement or Placement()
    workdir = Path(workdir)
    optimizer = system.optimizer()

    # ---- where the run stands: the newest checkpoint, or nowhere
    checkpoints = Checkpoints(workdir, settings.keep_checkpoints, settings.best_metric or None)
    start = checkpoints.latest_step or 0
    record = checkpoints.read_record(start) if start else None
    if record is not None:
        batches.set_state(record.data)
    feed = DeviceFeed(batches, placement)
    fixed = system.constants()
    if start:
        state = checkpoints.restore(start, state_shapes(system, optimizer, feed.peek()))
    else:
        state = create_state(system, optimizer, feed.peek(), settings.seed)
        state = _start_from(initial, state, optimizer, initial_optimizer) if initial else state
        state = _prepared(system, state, fixed, optimizer, stream)
    state = placement.replicate(state)
    constants = placement.replicate(fixed)
    step_function = placement.train_step(system, optimizer)

    # ---- what the run writes
    writer: MetricWriter | SilentWriter = SilentWriter()
    if main_process():
        writer = MetricWriter(workdir, start, settings.tensorboard)
    progress = Progress(settings.steps, start, settings.batch_size, stream)
    if start:
        progress.say(f"continuing at step {start} of {settings.steps} in {workdir}")
    watch = LossWatch(placement, record.pending if record else [], start, workdir)
    began, stopped, step = time.monotonic(), None, start

    try:
        with StopSignals() as signals:
            for step in range(start + 1, settings.steps + 1):
                # ---- one step
                batch, position = _take(feed, step)
                state, metrics = step_function(state, constants, batch)
                watch.add(step, metrics)
                progress.advance()
                if step == start + 1:
                    watch.flush()
                    progress.say(f"first step, with compilation: {time.monotonic() - began:.1f} s")
                last = step == settings.steps
                logs = last or _due(step, settings.log_every)
                late = 0 < settings.time_limit_minutes * 60 < time.monotonic() - began
                stopped = None if last else _reason_to_stop(signals, late, logs)

                # ---- what is due after it
                if logs:
                    row = watch.mean()
                    writer.write("train", step, row)
                    writer.time(
                        step,
                        seconds=time.monotonic() - began,
                        images_per_second=_finite_or_zero(progress.images_per_second),
                    )
                    progress.report(step, row)
                scores = None
                if evaluate is not None and _due(step, settings.eval_every):
                    progress.pause()
                    watch.flush()
                    found = evaluate(placement.unreplicate(variables_of(state, constants)))
                    scores = {name: value for name, value in found.items() if not np.ndim(value)}
                    for name in sorted(set(found) - set(scores)):
                        writer.picture("evaluation", name, step, found[name])
                    writer.write("evaluation", step, scores)
                    progress.say(f"step {step}  evaluation  " + _scores_line(scores))
                if last or stopped or scores is not None or _due(step, settings.checkpoint_every):
                    progress.pause()
                    pending = watch.flush()
                    writer.sync()
                    checkpoints.save(
                        placement.unreplicate(state),
                        RunRecord(step, config.to_dict(), position, pending),
                        scores,
                    )
                if stopped:
                    progress.say(
                        f"stopped at step {step} of {settings.steps} ({stopped}); "
                        "the same command continues"
                    )
                    break
    finally:
        checkpoints.close()
        writer.close()
        progress.close()
    return TrainResult(placement.unreplicate(variables_of(state, constants)), step, stopped)


class LossWatch:
    """Holds the metrics of the steps since the last log row, and looks at each one once.

    A step's metrics are fetched only when the next step has been handed to the device, so that
    looking never keeps the device waiting.
    """

    def __init__(
        self, placement: Placement, pending: list[dict[str, float]], step: int, workdir: Path
    ) -> None:
        self._placement = placement
        self._fetched = list(pending)
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._workdir = workdir

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes the metrics of a step that has just been dispatched; checks the one before."""
        self._fetch()
        self._waiting.append((step, metrics))

    def flush(self) -> list[dict[str, float]]:
        """All pending metrics, checked.

        Raises:
          UserError: one of them is not finite.
        """
        self._fetch()
        return list(self._fetched)

    def mean(self) -> dict[str, float]:
        """The mean of the pending metrics, which are then done with."""
        rows = self.flush()
        self._fetched = []
        return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[-1]}

    def _fetch(self) -> None:
        for step, metrics in self._waiting:
            values = self._placement.fetch(metrics)
            bad = [name for name in ("loss", *values) if not math.isfinite(values[name])]
            if bad:
                raise UserError(
                    f"step {step}: {bad[0]} is {values[bad[0]]}, so training stops here; the last "
                    f"good checkpoint is kept in {self._workdir}; "
                    "lower the learning rate, or look at the data of this step"
                )
            self._fetched.append(values)
        self._waiting = []


class StopSignals:
    """SIGTERM and the first Ctrl-C ask the loop to save and stop; a second one ends at once."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


def _start_from(
    initial: Variables,
    state: TrainState,
    optimizer: Any,
    initial_optimizer: Callable[[Any], Any] | None,
) -> TrainState:
    names = ("params", "batch_stats")
    fresh = {name: getattr(state, name) for name in names}
    given = {name: initial[name] for name in names}
    check_shapes("the checkpoint of config.training.init_from", fresh, given)
    opt_state = optimizer.init(given["params"])
    if initial_optimizer is not None:
        opt_state = initial_optimizer(opt_state)
    return dataclasses.replace(state, **given, opt_state=opt_state)


def _prepared(
    system: System, state: TrainState, constants: Any, optimizer: Any, stream: Any
) -> TrainState:
    """The state after what the system learns before its first batch."""
    began = time.monotonic()

    def report(done: int, steps: int, loss: float) -> None:
        left = (time.monotonic() - began) * (steps - done) / done
        line = f"before the first batch: step {done}/{steps}  loss {loss:.4g}  left {left:.0f} s"
        if main_process():
            print(line, file=stream or sys.stderr)

    params = system.prepare(variables_of(state, constants), state.rng, report)["params"]
    if params is state.params:
        return state
    return dataclasses.replace(state, params=params, opt_state=optimizer.init(params))


def _take(feed: DeviceFeed, step: int) -> tuple[dict[str, Any], Any]:
    try:
        return next(feed)
    except StopIteration:
        raise UserError(f"the data ended before step {step}; they should repeat") from None


def _reason_to_stop(signals: StopSignals, late: bool, logs: bool) -> str | None:
    reason = signals.received or ("time limit" if late else None)
    if host_count() == 1:
        return reason
    # Hosts must stop at the same step: the first one decides, at the steps that log.
    return (reason or "the first host") if logs and agree(reason is not None) else None


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finite_or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _scores_line(scores: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
