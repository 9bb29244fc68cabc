"""Metrics on disk and progress on the screen.

`metrics.jsonl` is the record: one JSON object a line, {"step", "split", name: value, ...}, with
nothing in it that differs between two runs of the same seed. `train.csv`, `evaluation.csv`, ...
(one file a split) hold the same rows as tables. Times go to `timing.jsonl`.
"""

import contextlib
import csv
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_text
from jaxrecon.io.images import encode_image

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class MetricWriter:
    """Appends rows of metrics; opened again on a run folder, it continues from a step.

    Args:
      folder: the run folder; made if missing.
      start_step: rows after this step are cut off, for they belong to steps that will be done
        again (the last checkpoint is older than they are). 0 starts afresh.
      tensorboard: also write TensorBoard event files (needs the extra `tensorboard`).

    Raises:
      UserError: TensorBoard asked for but tensorboardX absent; a metrics file that is not one.
    """

    def __init__(self, folder: Path, start_step: int = 0, tensorboard: bool = False) -> None:
        self._folder = Path(folder)
        self._board = _tensorboard(self._folder, start_step) if tensorboard else None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tables: dict[str, list[dict[str, Any]]] = {}
        rows = [row for row in read_metrics(self._folder) if row["step"] <= start_step]
        if start_step == 0:
            rows = []
        for name in {*_csv_names(self._folder), *(_csv_name(row["split"]) for row in rows)}:
            (self._folder / name).unlink(missing_ok=True)
        write_text(self._folder / METRICS_FILE, "".join(_json_line(row) for row in rows))
        for row in rows:
            self._append_csv(row)
        _cut_timing(self._folder / TIMING_FILE, start_step)
        self._metrics = open(self._folder / METRICS_FILE, "a", encoding="utf-8")  # noqa: SIM115
        self._timing = open(self._folder / TIMING_FILE, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """One row, on disk (as far as the operating system goes) when this returns."""
        row = {"step": int(step), "split": split}
        row.update((name, _number(metrics[name])) for name in sorted(metrics))
        self._metrics.write(_json_line(row))
        self._metrics.flush()
        self._append_csv(row)
        if self._board is not None:
            for name in sorted(metrics):
                self._board.add_scalar(f"{split}/{name}", float(metrics[name]), step)

    def picture(self, split: str, name: str, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """An RGB picture for TensorBoard; nothing where that is not asked for."""
        if self._board is None:
            return
        from tensorboardX.proto.summary_pb2 import Summary

        height, width = image.shape[:2]
        # Its own `add_image` would need Pillow.
        encoded = Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=encode_image(image, ".png"),
        )
        value = Summary.Value(tag=f"{split}/{name}", image=encoded)
        self._board.file_writer.add_summary(Summary(value=[value]), step)

    def time(self, step: int, **seconds: float) -> None:
        """One row of times, which no two runs share."""
        self._timing.write(_json_line({"step": int(step), **seconds}))
        self._timing.flush()

    def sync(self) -> None:
        """Waits until the rows are on the disk itself; called before a checkpoint."""
        for stream in (self._metrics, self._timing):
            stream.flush()
            os.fsync(stream.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.sync()
        self._metrics.close()
        self._timing.close()
        if self._board is not None:
            self._board.close()

    def _append_csv(self, row: dict[str, Any]) -> None:
        split = row["split"]
        values = {name: value for name, value in row.items() if name != "split"}
        table = self._tables.setdefault(split, [])
        table.append(values)
        path = self._folder / _csv_name(split)
        if len(table) > 1 and set(values) <= set(table[0]):
            with open(path, "a", encoding="utf-8", newline="") as stream:
                _csv_writer(stream, list(table[0])).writerow(values)
            return
        # The first row, or one with new columns: write the table again with all of them.
        columns = list(dict.fromkeys(name for line in table for name in line))
        table[0] = {name: table[0].get(name, "") for name in columns}
        text = io.StringIO()
        writer = _csv_writer(text, columns)
        writer.writeheader()
        writer.writerows(table)
        write_text(path, text.getvalue())


class SilentWriter:
    """The writer of the hosts that write nothing."""

    def write(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def picture(self, split: str, name: str, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        pass

    def time(self, step: int, **seconds: float) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The rows of a run folder, in order; [] if there are none.

    A last line that was cut short (the process died in it) is left out.

    Raises:
      UserError: another line is not a row of metrics.
    """
    path = Path(folder) / METRICS_FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"], row["split"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: line {number} is not a row of metrics; "
                "move the file away or use another --workdir"
            ) from error
        rows.append(row)
    return [row for row in rows if split is None or row["split"] == split]


class Progress:
    """The line that says how far a run is: loss, images a second, time left.

    On a terminal one line that rewrites itself; elsewhere a plain line at each report.

    Args:
      total: last step.
      start: steps done before.
      batch_size: images of one step, over all devices.
      stream: the text stream to write to; standard error by default.
    """

    def __init__(self, total: int, start: int, batch_size: int, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._total, self._batch_size = total, batch_size
        self._done, self._elapsed = 0, 0.0
        self._since: float | None = None
        self._bar: Any = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total, initial=start, unit="step", file=self._stream, dynamic_ncols=True
            )

    @property
    def images_per_second(self) -> float:
        """Over the steps since the first one, which compiles; NaN before the second."""
        return self._done * self._batch_size / self._elapsed if self._elapsed > 0 else math.nan

    def advance(self) -> None:
        """One step is done."""
        now = time.monotonic()
        if self._since is not None:
            self._elapsed += now - self._since
            self._done += 1
        self._since = now
        if self._bar is not None:
            self._bar.update(1)

    def pause(self) -> None:
        """Time until the next step (an evaluation, a checkpoint) is not the steps' time."""
        self._since = None

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the loss and the speed."""
        loss = metrics.get("loss", math.nan)
        speed = self.images_per_second
        words = [f"loss {loss:.4g}"]
        if speed > 0:
            words.append(f"{speed:.1f} images/s")
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(words), refresh=True)
            return
        if speed > 0:
            words.append(f"left {_duration((self._total - step) * self._batch_size / speed)}")
        self.say("  ".join([f"step {step}/{self._total}", *words]))

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
            return
        with contextlib.suppress(BrokenPipeError):
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _number(value: float) -> float | None:
    # JSON has no NaN; a metric without a value (no label for it) is null.
    value = float(value)
    return value if math.isfinite(value) else None


def _json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _csv_name(split: str) -> str:
    return f"{split}.csv"


def _csv_names(folder: Path) -> list[str]:
    return [_csv_name(split) for split in {row["split"] for row in read_metrics(folder)}]


def _csv_writer(stream: Any, columns: list[str]) -> csv.DictWriter:
    return csv.DictWriter(stream, columns, restval="", lineterminator="\n")


def _cut_timing(path: Path, start_step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if start_step and json.loads(line)["step"] <= start_step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))


def _tensorboard(folder: Path, start_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "config.training.tensorboard needs tensorboardX: pip install 'jaxrecon[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
