"""Training on data that live on the device: an epoch is one compiled scan.

For sets of small examples (2D poses: 1.56 million are 212 MB) the host would only be in the way:
here it says which epoch it is, and the device shuffles, gathers and steps by itself. What is
written is what `loop.train` writes, so that everything that reads a run folder reads these too.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrecon.errors import UserError
from jaxrecon.systems.base import System
from jaxrecon.training.checkpoints import Checkpoints, RunRecord
from jaxrecon.training.logging import MetricWriter, Progress
from jaxrecon.training.loop import StopSignals, TrainResult
from jaxrecon.training.parallel import AXIS, step_function
from jaxrecon.training.state import TrainState, create_state, state_shapes, variables_of

Evaluate = Callable[[dict[str, Any]], Mapping[str, float]]
EpochFlags = Callable[[int], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class EpochResult(TrainResult):
    """How a run ended, with the best of its evaluations.

    Attributes:
      state: the last one, with the optimiser's.
      best: the scores of the best evaluated epoch, with its number as `epoch`; {} without.
    """

    state: Any = None
    best: dict[str, float] = dataclasses.field(default_factory=dict)


def steps_per_epoch(examples: int, batch_size: int, keep_partial: bool) -> int:
    """How many steps an epoch has; a last batch of one example is skipped (batch norm).

    Raises:
      UserError: not even one batch.
    """
    whole, rest = divmod(examples, batch_size)
    steps = whole + (keep_partial and rest > 1)
    if not steps:
        raise UserError(
            f"batch_size={batch_size} is above the {examples} examples of the training set; "
            "make it smaller"
        )
    return int(steps)


def epoch_function(
    system: System,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    keep_partial: bool,
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """(state, constants, arrays, flags, key) -> (state, mean metrics), compiled once.

    Args of the function:
      arrays: name -> (N, ...) on the device.
      flags: scalars that every batch of the epoch is given besides.
      key: of the shuffling.

    With several devices each batch is split over them; the compiler adds what must be added.
    """
    step = step_function(system, optimizer, None)
    devices = jax.local_devices()
    split = len(devices) > 1 and batch_size % len(devices) == 0

    def place(batch: dict[str, Any]) -> dict[str, Any]:
        if not split:
            return batch
        mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
        along = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        return jax.lax.with_sharding_constraint(batch, along)

    def epoch(
        state: TrainState, constants: Any, arrays: dict[str, Any], flags: dict[str, Any], key: Any
    ) -> tuple[TrainState, dict[str, Any]]:
        count = len(next(iter(arrays.values())))
        order = jax.random.permutation(key, count)
        whole = count // batch_size

        def one(state: TrainState, rows: Any) -> tuple[TrainState, dict[str, Any]]:
            batch = place({name: array[rows] for name, array in arrays.items()})
            return step(state, constants, {**batch, **flags})

        rows = order[: whole * batch_size].reshape(whole, batch_size)
        sums: dict[str, Any] = {}
        if whole:
            state, metrics = jax.lax.scan(one, state, rows)
            sums = {name: batch_size * jnp.sum(values) for name, values in metrics.items()}
        rest = order[whole * batch_size :]
        used = whole * batch_size
        if keep_partial and len(rest) > 1:
            state, metrics = one(state, rest)
            sums = {name: sums.get(name, 0.0) + len(rest) * v for name, v in metrics.items()}
            used += len(rest)
        return state, {name: value / used for name, value in sums.items()}

    return jax.jit(epoch, donate_argnums=0)


def train_epochs(
    config: Any,
    system: System,
    arrays: Mapping[str, np.ndarray],
    workdir: str | Path,
    flags: EpochFlags,
    evaluate: Evaluate | None = None,
    constants: dict[str, Any] | None = None,
    initial: TrainState | None = None,
    first_epoch: int = 0,
    stream: Any = None,
) -> EpochResult:
    """Trains for `config.training.epochs`, and continues where the run folder has a checkpoint.

    Args:
      config: resolved; of `config.training` the fields epochs, batch_size, seed, log_every,
        eval_every, checkpoint_every (all in epochs here), keep_checkpoints, best_metric,
        time_limit_minutes, tensorboard, keep_partial.
      arrays: the training set, name -> (N, ...).
      flags: epoch (from 1) -> scalars for its batches.
      evaluate: variables -> scalars.
      constants: of the system, where it needs some while training.
      initial: the state to start from, after `first_epoch` epochs, where the run has no
        checkpoint yet.

    Raises:
      UserError: a loss that is not finite, damaged checkpoints, a batch above the set.
    """
    settings = config.training
    workdir = Path(workdir)
    optimizer = system.optimizer()
    count = len(next(iter(arrays.values())))
    steps = steps_per_epoch(count, settings.batch_size, settings.keep_partial)
    example = {name: array[:2] for name, array in arrays.items()}

    # ---- where the run stands
    checkpoints = Checkpoints(workdir, settings.keep_checkpoints, settings.best_metric or None)
    newest = checkpoints.latest_step
    begin, best = first_epoch, {}
    if newest:
        position = checkpoints.read_record(newest).data
        begin, best = position["epoch"], dict(position["best"])
        state = checkpoints.restore(newest, state_shapes(system, optimizer, example))
    else:
        state = initial or create_state(system, optimizer, example, settings.seed)
    state = jax.device_put(state)
    on_device = jax.device_put(dict(arrays))
    constants = constants or {}
    run_epoch = epoch_function(system, optimizer, settings.batch_size, settings.keep_partial)
    shuffle = jax.random.PRNGKey(settings.seed + 1)

    # ---- what the run writes
    writer = MetricWriter(workdir, begin * steps, settings.tensorboard)
    progress = Progress(settings.epochs * steps, begin * steps, settings.batch_size, stream)
    if begin:
        progress.say(f"continuing after epoch {begin} of {settings.epochs} in {workdir}")
    started, stopped, epoch = time.monotonic(), None, begin

    try:
        with StopSignals() as signals:
            for epoch in range(begin + 1, settings.epochs + 1):
                # ---- one epoch
                at = time.monotonic()
                key = jax.random.fold_in(shuffle, epoch)
                state, metrics = run_epoch(state, constants, on_device, flags(epoch), key)
                row = {name: float(value) for name, value in jax.device_get(metrics).items()}
                seconds = time.monotonic() - at
                _check_finite(row, epoch, workdir)
                last = epoch == settings.epochs
                late = 0 < settings.time_limit_minutes * 60 < time.monotonic() - started
                stopped = None if last else signals.received or ("time limit" if late else None)

                # ---- what is due after it
                step = epoch * steps
                if last or _due(epoch, settings.log_every):
                    writer.write("train", step, row)
                    writer.time(step, seconds=time.monotonic() - started, epoch_seconds=seconds)
                    progress.say(
                        _line(epoch, settings.epochs, seconds, count, row, epoch == begin + 1)
                    )
                scores = None
                if evaluate is not None and (last or _due(epoch, settings.eval_every)):
                    scores = dict(evaluate(variables_of(state, constants)))
                    writer.write("evaluation", step, scores)
                    progress.say(
                        f"epoch {epoch}  evaluation  "
                        + "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
                    )
                    name = settings.best_metric
                    if name in scores and scores[name] < best.get(name, math.inf):
                        best = {**scores, "epoch": epoch}
                if last or stopped or scores or _due(epoch, settings.checkpoint_every):
                    writer.sync()
                    record = RunRecord(step, config.to_dict(), {"epoch": epoch, "best": best}, [])
                    checkpoints.save(state, record, scores)
                if stopped:
                    progress.say(
                        f"stopped after epoch {epoch} of {settings.epochs} ({stopped}); "
                        "the same command continues"
                    )
                    break
    finally:
        checkpoints.close()
        writer.close()
        progress.close()
    return EpochResult(variables_of(state, constants), epoch * steps, stopped, state, best)


def _check_finite(row: Mapping[str, float], epoch: int, workdir: Path) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"epoch {epoch}: {bad[0]} is {row[bad[0]]}, so training stops here; the last good "
            f"checkpoint is kept in {workdir}; lower the learning rate, or look at the data"
        )


def _line(
    epoch: int, epochs: int, seconds: float, count: int, row: Mapping[str, float], first: bool
) -> str:
    terms = "  ".join(
        f"{name.removeprefix('loss_')} {1000 * value:.2f}"
        for name, value in row.items()
        if name.startswith("loss_")
    )
    note = " with compilation" if first else f", {count / seconds:,.0f} poses/s"
    return f"epoch {epoch}/{epochs}  loss x1000: {terms}  {seconds:.1f} s{note}"


def _due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0
