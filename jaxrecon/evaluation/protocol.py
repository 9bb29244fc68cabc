"""Evaluation before and after test-time optimisation, with the protocol beside the numbers."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_text
from jaxrecon.systems.base import Batch, System
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
      examples: how many were measured.
      labelled: metric -> how many of these have a label for it.
      protocol: how it was measured, in words.
    """

    curve: list[dict[str, float]]
    baseline: dict[str, float]
    examples: int
    labelled: dict[str, int]
    protocol: dict[str, Any]

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
        rows += [("before" if i == 0 else f"{i} steps", self.curve[i]) for i in shown]
        for label, row in rows:
            lines.append(f"{label:<12}" + "".join(f"{row[name]:>16.2f}" for name in names))
        return "\n".join(lines)


class Evaluator:
    """Measures a system over batches; compiled once, used at every evaluation of a run.

    Every device works on batches of its own, so the unit of adaptation is the batch on any
    number of devices.

    Args:
      system: what to measure.
      steps: steps of test-time optimisation; 0 predicts only.
      placement: devices; all local ones by default.
      baseline: also measure the prediction without evidence.
    """

    def __init__(
        self,
        system: System,
        steps: int = 0,
        placement: Placement | None = None,
        baseline: bool = True,
    ) -> None:
        if steps < 0:
            raise UserError(f"steps of test-time optimisation: {steps}; it must be 0 or more")
        self._system, self._steps = system, steps
        self._placement = placement or Placement()
        self._measure = self._placement.each_device(_measurement(system, steps, baseline))

    def __call__(
        self,
        variables: Mapping[str, Any],
        batches: Iterable[Batch],
        protocol: Mapping[str, Any] | None = None,
        say: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Means over all batches of this and the other hosts.

        Args:
          variables: of one device.
          batches: of one size; `valid` (B,) marks the examples that count (all without it).
          protocol: facts about data and run to name beside the system's own.
          say: called with the number of examples done, for progress.

        Raises:
          UserError: there are no examples.
        """
        on_device = self._placement.replicate(dict(variables))
        sums: dict[tuple[str, str], Any] = {}
        done = 0
        for group in _groups(batches, len(self._placement.devices)):
            measured = self._run(on_device, group)
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
        return Evaluation(
            curve=[
                {name: float(means["curve", name][i]) for name in names}
                for i in range(self._steps + 1)
            ],
            baseline={
                name: float(means["baseline", name]) for where, name in means if where == "baseline"
            },
            examples=int(sum_over_hosts({"examples": float(done)})["examples"]),
            labelled={name: int(sums["curve", name][1][0]) for name in names},
            protocol={
                **self._system.protocol(),
                "adaptation_steps": self._steps,
                **(protocol or {}),
            },
        )

    def _run(self, variables: Any, group: list[Batch]) -> list[dict[str, Any]]:
        """Metrics of each batch of a group, one batch for each device."""
        inputs = [{k: v for k, v in b.items() if k not in _STEERING} for b in group]
        if not self._placement.mapped:
            batch = self._placement.put_batch(inputs[0])
            return [jax.device_get(self._measure(variables, batch))]
        # A device without a batch of its own repeats the last one; its result is left out.
        inputs += [inputs[-1]] * (len(self._placement.devices) - len(inputs))
        measured = self._measure(variables, self._placement.put_stacked(inputs))
        host = jax.tree.map(lambda x: np.stack([s.data[0] for s in x.addressable_shards]), measured)
        return [jax.tree.map(lambda x: x[i], host) for i in range(len(group))]  # noqa: B023


def _measurement(system: System, steps: int, baseline: bool) -> Callable[..., Any]:
    """(variables, batch) -> {"curve": {name: (steps + 1, B)}, "baseline": {name: (B,)}}."""

    def measure(variables: Any, batch: Batch) -> dict[str, Any]:
        if steps:
            history = system.adapt(variables, batch, steps).history
        else:
            history = jax.tree.map(lambda x: x[None], system.predict(variables, batch))
        # One step after the other: the meshes of all steps at once would fill the memory.
        result = {"curve": jax.lax.map(lambda p: system.evaluate(variables, p, batch), history)}
        plain = system.baseline(variables, batch) if baseline else None
        if plain is not None:
            result["baseline"] = system.evaluate(variables, plain, batch)
        return result

    return measure


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
