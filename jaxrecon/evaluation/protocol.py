"""Evaluation before and after test-time optimisation, with the protocol beside the numbers."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_text
from jaxrecon.systems.base import Adaptation, Batch, System, pick_each
from jaxrecon.training.parallel import Placement, sum_over_hosts

EVALUATION_FILE = "evaluation.json"
# Entries of a batch that steer the evaluation and are no evidence for the system.
_STEERING = ("valid", "index")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics over a data set.

    Attributes:
      curve: means at step 0 (before), 1, ..., `steps` (after) of test-time optimisation.
      baseline: means of the prediction without evidence (the mean pose); {} if there is none.
      kept: means over the state that the system's own rule keeps for each example; {} if it has
        none (see `Adaptation.chosen`).
      worse: share of the examples that adaptation left worse than their start, by metric: for the
        last state ("after") and for the kept one ("kept").
      examples: how many were measured.
      labelled: metric -> how many of these have a label for it.
      protocol: how it was measured, in words.
      first: what `adapt` made of the first batch, on the host (its `variables` left out); for
        pictures. None unless it was asked for.
      files: what was written beside the numbers (see `evaluation.outputs`).
    """

    curve: list[dict[str, float]]
    baseline: dict[str, float]
    examples: int
    labelled: dict[str, int]
    protocol: dict[str, Any]
    kept: dict[str, float] = dataclasses.field(default_factory=dict)
    worse: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    first: Any = None
    files: list[Path] = dataclasses.field(default_factory=list)

    @property
    def before(self) -> dict[str, float]:
        """Means before any step."""
        return self.curve[0]

    @property
    def after(self) -> dict[str, float]:
        """Means after the last step."""
        return self.curve[-1]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a metric that no example has a label for is None."""
        return {
            "protocol": self.protocol,
            "examples": self.examples,
            "labelled": self.labelled,
            "mean_pose": _json_row(self.baseline),
            "before": _json_row(self.before),
            "after": _json_row(self.after),
            "kept": _json_row(self.kept),
            "worse_than_before": {rule: _json_row(row) for rule, row in self.worse.items()},
            "curve": [{"step": i, **_json_row(row)} for i, row in enumerate(self.curve)],
        }

    def save(self, path: str | Path) -> Path:
        """Writes `evaluation.json` into a folder, or the file of that name."""
        target = Path(path)
        if target.suffix != ".json":
            target = target / EVALUATION_FILE
        write_text(target, json.dumps(self.to_dict(), indent=2) + "\n")
        return target

    def table(self) -> str:
        """A small table for people: one line each for the mean pose and some of the steps."""
        names = list(self.curve[0])
        lines = [f"{'':<12}" + "".join(f"{name:>16}" for name in names)]
        rows = [("mean pose", self.baseline)] if self.baseline else []
        last = len(self.curve) - 1
        shown = [i for i in range(last + 1) if i in (0, last) or (i & (i - 1)) == 0]
        rows += [("before" if i == 0 else f"after {i}", self.curve[i]) for i in shown]
        if self.kept:
            rows.append(("kept", self.kept))
        for label, row in rows:
            lines.append(f"{label:<12}" + "".join(f"{row[name]:>16.2f}" for name in names))
        for rule, row in self.worse.items():
            shares = "".join(f"{100 * row[name]:>14.1f} %" for name in names)
            lines.append(f"{'worse, ' + rule:<12}" + shares)
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Result:
    """What is handed out for one batch, on the host.

    Attributes:
      prediction: of the state that counts, with leaves (B, ...).
      steps: (B,), how many steps of adaptation are behind it.
      metrics: its errors, name -> (B,).
    """

    prediction: Any
    steps: np.ndarray
    metrics: Mapping[str, np.ndarray]


class Evaluator:
    """Measures a system over batches; compiled once, used at every evaluation of a run.

    Every device works on batches of its own, so the unit of adaptation is the batch on any
    number of devices.

    Args:
      system: what to measure.
      steps: steps of test-time optimisation; 0 predicts only.
      placement: devices; all local ones by default.
      baseline: also measure the prediction without evidence.
      keeps: of the states, the one that the system's rule keeps is handed out, not the last.
    """

    def __init__(
        self,
        system: System,
        steps: int = 0,
        placement: Placement | None = None,
        baseline: bool = True,
        keeps: bool = False,
    ) -> None:
        if steps < 0:
            raise UserError(f"steps of test-time optimisation: {steps}; it must be 0 or more")
        self._system, self._steps = system, steps
        self._placement = placement or Placement()
        self._baseline, self._keeps = baseline, keeps
        self._adapt = self._placement.each_device(_adaptation(system, steps))
        self._pick, self._keep, self._metrics, self._plain = _parts(system, self._placement)

    def __call__(
        self,
        variables: Mapping[str, Any],
        batches: Iterable[Batch],
        protocol: Mapping[str, Any] | None = None,
        say: Callable[[int], None] | None = None,
        keep_first: bool = False,
        each: Callable[[Batch, Result], None] | None = None,
    ) -> Evaluation:
        """Means over all batches of this and the other hosts.

        Args:
          variables: of one device.
          batches: of one size; `valid` (B,) marks the examples that count (all without it).
          protocol: facts about data and run to name beside the system's own.
          say: called with the number of examples done, for progress.
          keep_first: also give what was predicted for the first batch.
          each: called with every batch of this host and its result.

        Raises:
          UserError: there are no examples.
        """
        on_device = self._placement.replicate(dict(variables))
        sums: dict[tuple[str, str], Any] = {}
        done, first = 0, None
        for group in _groups(batches, len(self._placement.devices)):
            measured, adapted = self._run(on_device, group)
            if keep_first and first is None:
                first = self._placement.fetch_first(adapted)
            if each is not None:
                for batch, result in zip(group, self._results(adapted, measured)):
                    each(batch, result)
            for batch, metrics in zip(group, measured):
                valid = np.asarray(batch.get("valid", np.ones(_size(batch), bool)))
                done += int(valid.sum())
                _add(sums, metrics, valid)
            if say is not None:
                say(done)
        sums = _over_hosts(sums)
        if not sums or not any(count.any() for _, count in sums.values()):
            raise UserError("there is not one example to evaluate; is the split empty?")
        means = {
            name: total / np.where(count > 0, count, np.nan)
            for name, (total, count) in sums.items()
        }
        names = [name for where, name in means if where == "curve"]

        def row(place: str) -> dict[str, float]:
            return {name: float(value) for (where, name), value in means.items() if where == place}

        return Evaluation(
            curve=[
                {name: float(means["curve", name][i]) for name in names}
                for i in range(self._steps + 1)
            ],
            baseline=row("baseline"),
            kept=row("kept"),
            worse={rule: found for rule in ("after", "kept") if (found := row(f"worse {rule}"))},
            examples=int(sum_over_hosts({"examples": float(done)})["examples"]),
            labelled={name: int(sums["curve", name][1][0]) for name in names},
            protocol={
                **self._system.protocol(),
                "adaptation_steps": self._steps,
                **(protocol or {}),
            },
            first=first,
        )

    def _run(self, variables: Any, group: list[Batch]) -> tuple[list[dict[str, Any]], Any]:
        """Metrics of each batch of a group, one batch for each device; and their adaptation."""
        inputs = [{k: v for k, v in b.items() if k not in _STEERING} for b in group]
        # A device without a batch of its own repeats the last one; its result is left out.
        inputs += [inputs[-1]] * (len(self._placement.devices) - len(inputs))
        batch = self._placement.put_each(inputs)
        adapted = self._adapt(variables, batch)
        steps = [self._placement.replicate(np.int32(i)) for i in range(self._steps + 1)]
        curve = [
            self._metrics(variables, self._pick(adapted.history, step), batch) for step in steps
        ]
        found: dict[str, Any] = {
            # One row for each step, then the examples.
            "curve": [self._placement.fetch_each(row) for row in curve],
        }
        if self._steps and adapted.chosen is not None:
            kept = self._keep(adapted.history, adapted.chosen)
            found["kept"] = self._placement.fetch_each(self._metrics(variables, kept, batch))
        plain = self._plain(variables, batch) if self._baseline else None
        if plain is not None:
            found["baseline"] = self._placement.fetch_each(self._metrics(variables, plain, batch))
        measured = []
        for i in range(len(group)):
            rows = [row[i] for row in found["curve"]]
            metrics = {"curve": {name: np.stack([r[name] for r in rows]) for name in rows[0]}}
            for where in ("kept", "baseline"):
                if where in found:
                    metrics[where] = found[where][i]
            measured.append(metrics | _worse(metrics))
        return measured, adapted

    def _results(self, adapted: Any, measured: list[dict[str, Any]]) -> list[Result]:
        """What is handed out of each batch of a group."""
        if self._keeps and self._steps and adapted.chosen is not None:
            states = self._keep(adapted.history, adapted.chosen)
            steps = self._placement.fetch_each(adapted.chosen)
            metrics = [found["kept"] for found in measured]
        else:
            last = self._placement.replicate(np.int32(self._steps))
            states = self._pick(adapted.history, last)
            metrics = [{n: row[-1] for n, row in found["curve"].items()} for found in measured]
            steps = [np.full(len(next(iter(m.values()))), self._steps) for m in metrics]
        return [
            Result(state, np.asarray(number), found)
            for state, number, found in zip(self._placement.fetch_each(states), steps, metrics)
        ]


@functools.lru_cache(maxsize=8)
def _parts(system: System, placement: Placement) -> tuple[Callable[..., Any], ...]:
    """Pick a step of a history, or one for each example; measure; predict without evidence.

    Apart from the adaptation, and shared, so that they compile once for all evaluations of a run.
    """

    def pick(history: Any, step: Any) -> Any:
        return jax.tree.map(lambda x: x[step], history)

    each = placement.each_device
    return each(pick), each(pick_each), each(system.evaluate), each(system.baseline)


def _worse(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Whether each example ended worse than it started; NaN where it has no label."""
    curve = metrics["curve"]
    ends = {"after": {name: rows[-1] for name, rows in curve.items()}}
    if len(next(iter(curve.values()))) == 1:
        return {}
    if "kept" in metrics:
        ends["kept"] = dict(metrics["kept"])
    return {
        f"worse {rule}": {
            name: np.where(np.isnan(value), np.nan, value > curve[name][0])
            for name, value in row.items()
        }
        for rule, row in ends.items()
    }


def _adaptation(system: System, steps: int) -> Callable[..., Adaptation]:
    def adapt(variables: Any, batch: Batch) -> Adaptation:
        if steps:
            # The adapted weights are not needed; left out, they need not be kept either.
            return dataclasses.replace(system.adapt(variables, batch, steps), variables=None)
        history = jax.tree.map(lambda x: x[None], system.predict(variables, batch))
        return Adaptation(None, history, jnp.full(1, jnp.nan))

    return adapt


def _groups(batches: Iterable[Batch], count: int) -> Iterable[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _add(sums: dict[Any, Any], metrics: Mapping[str, Any], valid: np.ndarray) -> None:
    """Adds the examples that are valid and labelled (not NaN), in float64."""
    for where, values in metrics.items():
        for name, array in values.items():
            array = np.asarray(array, np.float64)
            counts = valid & ~np.isnan(array)
            total, count = np.where(counts, array, 0.0).sum(-1), counts.sum(-1)
            before = sums.get((where, name), (0.0, 0))
            sums[where, name] = (before[0] + total, before[1] + count)


def _over_hosts(sums: dict[Any, Any]) -> dict[Any, Any]:
    flat = {}
    for (where, name), (total, count) in sums.items():
        for i, (t, c) in enumerate(zip(np.atleast_1d(total), np.atleast_1d(count))):
            flat[f"{where}/{name}/{i:04d}/total"] = float(t)
            flat[f"{where}/{name}/{i:04d}/count"] = float(c)
    flat = sum_over_hosts(flat)
    result = {}
    for (where, name), (total, _) in sums.items():
        shape = np.shape(total)
        columns = [
            np.array(
                [flat[f"{where}/{name}/{i:04d}/{kind}"] for i in range(np.size(total))]
            ).reshape(shape)
            for kind in ("total", "count")
        ]
        result[where, name] = tuple(columns)
    return result


def _json_row(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
