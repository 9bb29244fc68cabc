"""Does training for test-time optimisation help it? Meta-HMR's claim, on embedded photographs.

    python -m jaxrecon.experiments.meta_against_plain --output=runs/experiment [--steps=300] \
        [--seeds=0,1,2] [--page=README.md]

Both arms start from the shipped small model and see the same number of images; they differ in
`system.inner_steps` alone: 0 trains the network as it predicts, 1 trains it as it is after a step
of adaptation. Both are then adapted with equal steps: the plain network with 2D keypoints alone
(Adam on the whole network, as EFT does) and with the dual step, the meta-trained one with the
dual step it was trained for. Keypoints are the annotated ones, and such with noise. A command
that was interrupted continues where it was.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_text

ARMS: dict[str, dict[str, Any]] = {
    "plain": {"system.inner_steps": 0, "system.aux_lr": 0.0},
    "meta": {"system.inner_steps": 1},
}
# Row of the table -> (arm, how it is adapted).
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain + 2D steps": ("plain", {"tto.dual_step": False}),
    "plain + dual step": ("plain", {"tto.dual_step": True}),
    "meta + dual step": ("meta", {"tto.dual_step": True}),
}
NOISES = {"annotated": 0.0, "noisy": 0.03}
METRICS = ("mpjpe", "pa_mpjpe", "pve")
PLACES = ("before", "after", "kept")


def run(
    output: Path, steps: int, seeds: Sequence[int], examples: int, tto_steps: int
) -> dict[str, Any]:
    """All arms, seeds and evaluations; what is in `output` already is not done again.

    Returns:
      {row: {noise: {seed: evaluation}}}, evaluations as in `evaluation.json`.
    """
    found: dict[str, Any] = {row: {noise: {} for noise in NOISES} for row in ROWS}
    for seed in seeds:
        for arm in ARMS:
            folder = output / f"{arm}-{seed}"
            for row, (of_arm, changes) in ROWS.items():
                if of_arm != arm:
                    continue
                for noise, share in NOISES.items():
                    file = folder / f"{'-'.join(row.split(' ')[::2])}-{noise}.json"
                    if not file.is_file():
                        measured = _measure(
                            folder, arm, steps, seed, examples, tto_steps, share, changes
                        )
                        write_text(file, json.dumps(measured, indent=1) + "\n")
                    found[row][noise][seed] = json.loads(file.read_text())
    return found


def _measure(
    folder: Path,
    arm: str,
    steps: int,
    seed: int,
    examples: int,
    tto_steps: int,
    share: float,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    from jaxrecon import api, runs

    training = {
        **ARMS[arm],
        "data.datasets": ("open_body/medium",),
        "training.steps": steps,
        "training.seed": seed,
    }
    # Does nothing but read where the run has ended.
    runs.train_run(api.load_config("metahmr", training), folder)
    measuring = {
        **changes,
        "evaluation.keypoint_noise": share,
        "evaluation.dataset": "open_body/medium",
        "evaluation.examples": examples,
    }
    return api.load_reconstructor(folder, **measuring).evaluate(tto_steps).to_dict()


def table(found: Mapping[str, Any]) -> str:
    """Markdown: mean and deviation over the seeds, mm."""
    columns = [f"{metric} {place}" for metric in METRICS for place in PLACES]
    lines = [
        "| network + adaptation | keypoints | " + " | ".join(columns) + " | worse than before |",
        "| --- | --- |" + " ---: |" * (len(columns) + 1),
    ]
    for row, by_noise in found.items():
        for noise, by_seed in by_noise.items():
            runs = list(by_seed.values())
            cells = [
                _spread([run[place][metric] for run in runs])
                for metric in METRICS
                for place in PLACES
            ]
            shares = [
                100 * statistics.mean(run["worse_than_before"][place]["pa_mpjpe"] for run in runs)
                for place in ("after", "kept")
            ]
            cells.append("{:.0f} %, {:.0f} %".format(*shares))
            lines.append(f"| {row} | {noise} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def differences(found: Mapping[str, Any]) -> list[str]:
    """For every metric, how much lower the meta-trained network ends than each plain one.

    Seeds are paired: the same seed saw the same images in the same order.
    """
    lines = []
    ours = found["meta + dual step"]
    for row in ("plain + 2D steps", "plain + dual step"):
        for noise in NOISES:
            parts = []
            for metric in METRICS:
                gains = [
                    found[row][noise][seed]["after"][metric] - run["after"][metric]
                    for seed, run in ours[noise].items()
                ]
                parts.append(f"{metric} {_spread(gains)}")
            lines.append(f"meta-trained below {row}, {noise} keypoints, mm: " + ", ".join(parts))
    return lines


PAGE = """\
# Meta-trained against plain, both adapted at test time

Written by `{command}`; no figure was typed by hand.

{doc}
- training: {steps} steps of batch 32 on `open_body/medium`, from `metahmr-small`, for either arm
- test: the first {examples} held-out photographs of `open_body/medium`, {tto_steps} steps, batches
  of 20 as the unit of adaptation; body: the open body (not comparable with published figures)
- noisy: Gaussian, {noise:g} % of the crop's height in x and in y
- mm, mean ± standard deviation over the seeds {seeds}; "kept" is each image's most probable state,
  "worse than before" the share of images whose PA-MPJPE rose, for "after" and for "kept"

{table}

{differences}
"""


def page(found: Mapping[str, Any], command: str, steps: int, examples: int, tto_steps: int) -> str:
    """The page of the experiment, Markdown."""
    seeds = list(found["meta + dual step"]["annotated"])
    doc = (__doc__ or "").split("\n\n")[2]
    return PAGE.format(
        command=command, doc=doc, steps=steps, examples=examples, tto_steps=tto_steps,
        noise=100 * NOISES["noisy"], seeds=", ".join(map(str, seeds)), table=table(found),
        differences="\n".join(f"- {line}" for line in differences(found)),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = list(sys.argv if argv is None else argv)
    values = flags.FlagValues()
    flags.DEFINE_string("output", "runs/experiment", "folder", flag_values=values)
    flags.DEFINE_string("page", None, "where to write the page", flag_values=values)
    flags.DEFINE_integer("steps", 300, "training steps", flag_values=values)
    flags.DEFINE_integer("examples", 300, "test photographs", flag_values=values)
    flags.DEFINE_integer("tto_steps", 14, "steps of adaptation", flag_values=values)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds", flag_values=values)
    try:
        values(arguments)
        seeds = [int(seed) for seed in values.seeds]
        found = run(Path(values.output), values.steps, seeds, values.examples, values.tto_steps)
        shown = ["python -m jaxrecon.experiments.meta_against_plain", *arguments[1:]]
        text = page(found, " ".join(shown), values.steps, values.examples, values.tto_steps)
        target = Path(values.page) if values.page else Path(values.output) / "README.md"
        write_text(target, text)
    except (UserError, flags.Error, ValueError) as error:
        print(f"jaxrecon: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table(found), *differences(found), f"written to {target}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
