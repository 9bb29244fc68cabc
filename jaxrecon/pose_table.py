"""The table of short sequences: every `.mat` of a folder fitted and scored by the same preset.

    python -m jaxrecon.pose_table FOLDER --workdir=runs/nrsfm [--config.training.epochs=500]
    python -m jaxrecon.pose_table FOLDER --fit-only       # the classical fit, without a network

Prints a table in Markdown, and writes it to `table.md` in the workdir, beside a run folder for
each sequence.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.config import load_config
from jaxrecon.data.nrsfm import read_sequence
from jaxrecon.data.pose_sources import with_depth
from jaxrecon.errors import UserError
from jaxrecon.evaluation.lifting import ORACLE, RIGID, Scores
from jaxrecon.io.atomic import write_text
from jaxrecon.pose_runs import finish, train_run
from jaxrecon.systems.mhr_net import metrics

_SCORE, _TURNED = "normalised_3d_error", "after_rotation"
_HEAD = (
    "| sequence | frames | points | rigid, posed by its 2D | rigid, posed by the truth "
    "| classical fit | MHR-Net | MHR-Net, each frame turned to fit |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit status."""
    try:
        if "--fit-only" in arguments:
            folder, _, _ = _parsed([word for word in arguments if word != "--fit-only"])
            print(table_of_fits(folder))
        else:
            print(table_of(*_parsed(arguments)))
    except UserError as error:
        print(f"jaxrecon: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def table_of(folder: Path, workdir: Path, overrides: Mapping[str, Any]) -> str:
    """The table; a sequence whose run is finished in `workdir` is only scored again.

    Raises:
      UserError: no sequence in the folder; what a run raises.
    """
    lines = [_HEAD]
    for file in _sequences(folder):
        config = load_config("mhrnet:sequence", {**overrides, "data.path": str(file)})
        run = train_run(config, workdir / file.stem)
        if run.result is not None and run.result.stopped:
            raise UserError(f"stopped in {file.stem}; the same command continues")
        scores = finish(run, workdir / file.stem)
        lines.append(_line(file.stem, len(run.test_set), run.test_set.joints, scores))
    text = "\n".join(lines)
    write_text(workdir / "table.md", text + "\n")
    return text


def table_of_fits(folder: Path) -> str:
    """The table of the classical fit alone (`optimization.nonrigid`).

    Raises:
      UserError: no sequence in the folder, or one without 3D to score with.
    """
    lines = ["| sequence | frames | points | method | fit | each frame turned to fit |"]
    lines.append("| --- | ---: | ---: | --- | ---: | ---: |")
    for file in _sequences(folder):
        poses = with_depth(read_sequence(file), "orthographic")
        if poses.joints3d is None or poses.depth is None:
            raise UserError(f"{file} has no 3D to score with")
        points = np.concatenate([poses.keypoints2d, poses.depth[..., None]], -1) / poses.factor
        found = metrics.sequence_errors(points.astype(np.float32), poses.joints3d)
        cells = [file.stem, f"{len(poses):,}", str(poses.joints), poses.depth_method]
        cells += [f"{float(found.reflected):.4f}", f"{float(found.aligned):.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sequences(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.mat"), key=lambda file: file.stem.lower())
    if not files:
        raise UserError(f"{folder} holds no .mat sequence")
    return files


def _line(name: str, frames: int, points: int, scores: Scores) -> str:
    fit = next((row for label, row in scores.others.items() if label.startswith("classical")), {})
    values = [scores.others.get(label, {}).get(_SCORE) for label in (RIGID, ORACLE)]
    values += [fit.get(_SCORE), scores.own.get(_SCORE), scores.own.get(_TURNED)]
    cells = [name, f"{frames:,}", str(points), *("" if v is None else f"{v:.4f}" for v in values)]
    return "| " + " | ".join(cells) + " |"


def _parsed(arguments: Sequence[str]) -> tuple[Path, Path, dict[str, Any]]:
    folders, workdir, overrides = [], Path("runs/nrsfm"), {}
    for word in arguments:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            folders.append(Path(word))
        elif name == "--workdir" and equals:
            workdir = Path(value)
        elif name.startswith("--config.") and equals:
            overrides[name.removeprefix("--config.")] = value
        else:
            raise UserError(f"{word} means nothing here; see python -m pydoc jaxrecon.pose_table")
    if len(folders) != 1 or not folders[0].is_dir():
        raise UserError("name one folder of .mat sequences")
    return folders[0], workdir, overrides


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
