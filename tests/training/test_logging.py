"""Metric files: what is in them, and what a continued run cuts off."""

import csv
import io
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.images import decode_image
from jaxrecon.training.logging import MetricWriter, Progress, read_metrics


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_and_tables_agree(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write("train", 1, {"loss": 1 / 3, "a": 2.0})
    writer.write("evaluation", 1, {"pa_mpjpe": float("nan")})
    writer.write("train", 2, {"loss": 0.25})
    writer.write("train", 3, {"loss": 0.5, "new": 4.0})
    writer.close()
    rows = read_metrics(tmp_path, "train")
    assert rows[0] == {"step": 1, "split": "train", "loss": 1 / 3, "a": 2.0}
    assert read_metrics(tmp_path, "evaluation")[0]["pa_mpjpe"] is None
    assert table(tmp_path / "train.csv") == [
        {"step": "1", "a": "2.0", "loss": repr(1 / 3), "new": ""},
        {"step": "2", "a": "", "loss": "0.25", "new": ""},
        {"step": "3", "a": "", "loss": "0.5", "new": "4.0"},
    ]


def test_a_continued_run_cuts_what_it_will_do_again(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write("train", step, {"loss": step / 7})
        writer.time(step, seconds=1.0)
    writer.write("late", 3, {"x": 1.0})
    writer.close()
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    # The process died in the middle of a line.
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 4, "spl')

    writer = MetricWriter(tmp_path, start_step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    assert [row["step"] for row in table(tmp_path / "train.csv")] == ["1", "2"]
    assert not (tmp_path / "late.csv").exists()
    writer.write("train", 3, {"loss": 3 / 7})
    writer.time(3, seconds=1.0)
    writer.write("late", 3, {"x": 1.0})
    writer.close()
    assert whole == {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    MetricWriter(tmp_path, start_step=0).close()
    assert read_metrics(tmp_path) == []
    assert not (tmp_path / "train.csv").exists()


def test_times_stay_out_of_the_metrics(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.time(5, seconds=1.5, images_per_second=8.0)
    writer.close()
    assert read_metrics(tmp_path) == []
    line = json.loads((tmp_path / "timing.jsonl").read_text())
    assert line == {"step": 5, "seconds": 1.5, "images_per_second": 8.0}


def test_a_file_that_is_not_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\nhello\n')
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2"):
        MetricWriter(tmp_path, 1)


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"jaxrecon\[tensorboard\]"):
        MetricWriter(tmp_path, tensorboard=True)
    writer = MetricWriter(tmp_path)
    writer.picture("evaluation", "overlay_0", 1, np.zeros((4, 4, 3), np.uint8))
    writer.close()
    assert not (tmp_path / "tensorboard").exists()


def test_scalars_and_pictures_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the event files need tensorboardX")
    picture = np.random.RandomState(0).randint(0, 256, (12, 20, 3)).astype(np.uint8)
    writer = MetricWriter(tmp_path, tensorboard=True)
    writer.write("train", 1, {"loss": 1.5})
    writer.picture("evaluation", "overlay_0", 2, picture)
    writer.close()
    values = read_events(tmp_path / "tensorboard")
    assert values["train/loss"][0] == 1 and values["train/loss"][1].simple_value == 1.5
    step, value = values["evaluation/overlay_0"]
    assert step == 2 and (value.image.height, value.image.width) == (12, 20)
    found = decode_image(value.image.encoded_image_string, "the event")
    np.testing.assert_array_equal(found, picture)


def read_events(folder: Path) -> dict:
    """tag -> (step, value) of the only event file in a folder (TFRecords of protobufs)."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.iterdir()
    data, values = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        values |= {value.tag: (event.step, value) for value in event.summary.value}
    return values


def test_progress_on_a_terminal_and_beside_one() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        progress = Progress(total=10, start=0, batch_size=4, stream=stream)
        for _ in range(3):
            progress.advance()
        progress.report(3, {"loss": 0.5})
        progress.say("a line")
        progress.close()
        text = stream.getvalue()
        assert "loss 0.5" in text and "images/s" in text and "a line" in text
        assert "3/10" in text
