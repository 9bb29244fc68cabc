"""From a config to a run: what to read, where to start, when it is the same run."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrecon.config import (
    CONFIG_FILE,
    config_from_dict,
    field_names,
    load_config,
    save_config,
    with_new_fields,
)
from jaxrecon.data.pipeline import DataConfig, eval_batches, open_sources, train_batches
from jaxrecon.errors import UserError
from jaxrecon.evaluation.outputs import OutputSettings, overlays
from jaxrecon.evaluation.protocol import Evaluator, Result
from jaxrecon.requirements import check_files
from jaxrecon.systems import create_system
from jaxrecon.systems.base import System
from jaxrecon.training.checkpoints import has_checkpoint, load_optimizer, load_variables
from jaxrecon.training.loop import TrainResult, train
from jaxrecon.training.parallel import Placement, host_count, host_index, main_process

# What may differ between two parts of one run; anything else makes it another run.
_MAY_CHANGE = (
    "training.steps",
    "training.epochs",
    "training.log_every",
    "training.eval_every",
    "training.checkpoint_every",
    "training.eval_epochs",
    "training.checkpoint_epochs",
    "training.keep_checkpoints",
    "training.time_limit_minutes",
    "training.tensorboard",
    "data.workers",
    "data.threads",
    "data.cache_mb",
    "data.data_dir",
    "evaluation.",
    "tto.",
)


def train_run(
    config: Any, workdir: str | Path, stream: Any = None
) -> tuple[Any, System, TrainResult]:
    """Trains as a resolved config says; continues where the run in `workdir` stopped.

    Args:
      config: resolved (see `config.load_config`).
      workdir: the run folder.
      stream: the text stream that progress goes to; standard error by default.

    Returns:
      the config with every number filled in, the system, and how the training ended.

    Raises:
      UserError: wrong settings, missing data, a loss that is not finite, or a run of other
        settings in `workdir`.
    """
    folder = Path(workdir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the workdir {workdir} is a file; name a folder for the run")
    # Wrong settings are told before any data set is built.
    create_system(config)
    OutputSettings.from_config(config)
    check_files(config, continues=has_checkpoint(folder))
    check_same_run(config, folder)
    initial = _initial_weights(config, folder)
    placement = Placement()
    placement.host_batch_size(config.training.batch_size)
    batches = train_batches(
        training_data(config),
        config.training.batch_size,
        config.training.seed,
        process_index=host_index(),
        process_count=host_count(),
    )
    config = _with_epochs(config, batches)
    system = create_system(config)
    if main_process():
        save_config(config, folder)
    try:
        result = train(
            config,
            system,
            batches,
            folder,
            evaluate=_evaluation_in_training(config, system, placement),
            placement=placement,
            stream=stream,
            initial=initial,
            initial_optimizer=_initial_optimizer(config),
        )
    finally:
        batches.close()
    return config, system, result


def training_data(config: Any) -> DataConfig:
    """What to train on."""
    height, width = config.system.image_size
    return DataConfig.from_config({**config.data.to_dict(), "height": height, "width": width})


def evaluation_data(config: Any, dataset: str = "", split: str = "") -> DataConfig:
    """What to evaluate on: one data set without augmentation, the config's by default."""
    height, width = config.system.image_size
    fields = config.data.to_dict() | {
        "datasets": (dataset or config.evaluation.dataset,),
        "split": split or config.evaluation.split,
        "mixture": "lengths",
        "weights": (),
        "occlusion": (),
        "augment": False,
        "height": height,
        "width": width,
    }
    return DataConfig.from_config(fields)


@dataclasses.dataclass(frozen=True)
class First:
    """The first `count` records of a source; all of them for 0, or where there are fewer."""

    source: Any
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.source)) if self.count else len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


def evaluation_source(data: DataConfig, examples: int) -> First:
    """The first `examples` records (0: all) of what to evaluate on."""
    return First(open_sources(data)[0], examples)


def evaluation_batches(config: Any, data: DataConfig, source: First) -> Any:
    """One pass over them, this host's share, in batches of `evaluation.batch_size`."""
    return eval_batches(
        data,
        config.evaluation.batch_size * host_count(),
        process_index=host_index(),
        process_count=host_count(),
        sources=[source],
    )


def data_protocol(config: Any, data: DataConfig) -> dict[str, Any]:
    """The facts about data and crops that belong beside a result."""
    return {
        "dataset": data.datasets[0],
        "split": data.split,
        "crop": list(config.system.image_size),
        "box": {
            "keypoints": "around the annotated keypoints, 1.2 times their extent",
            "file": "the box of the record",
        }.get(data.box, data.box),
        "batch_size": config.evaluation.batch_size,
        "keypoint_noise": f"{100 * config.evaluation.get('keypoint_noise', 0.0):g} % of the crop's "
        "height, Gaussian, on what adaptation sees",
    }


def _evaluation_in_training(
    config: Any, system: System, placement: Placement
) -> Callable[[dict[str, Any]], Mapping[str, Any]] | None:
    """variables -> scores, on part of the evaluation data; data and code are made once.

    Scores of `evaluation.others` carry the data set's name, as "h36m-p2/mpjpe". For TensorBoard
    there are pictures of the first examples among them.
    """
    if config.training.eval_every <= 0:
        return None
    settings = config.evaluation
    steps = settings.tto_steps_in_training
    evaluator = Evaluator(system, steps, placement, baseline=False)
    # Opened now: missing evaluation data should not end a run that has trained for hours.
    opened = {}
    for name in ("", *settings.get("others", ())):
        data = evaluation_data(config, name)
        opened[name] = data, evaluation_source(data, settings.examples_in_training)

    def evaluate(variables: dict[str, Any]) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        pictures: dict[str, Any] = {}

        def show(batch: Any, result: Result) -> None:
            if not pictures:
                data, source = opened[""]
                pictures.update(overlays(config, source, data.box, batch, result))

        for dataset, (data, source) in opened.items():
            batches = evaluation_batches(config, data, source)
            try:
                shows = config.training.tensorboard and main_process() and not dataset
                found = evaluator(variables, batches, each=show if shows else None)
            finally:
                batches.close()
            adapted = {f"adapted_{name}": value for name, value in found.after.items() if steps}
            prefix = f"{dataset}/" if dataset else ""
            scores |= {prefix + name: value for name, value in {**found.before, **adapted}.items()}
        return scores | pictures

    return evaluate


def _with_epochs(config: Any, batches: Any) -> Any:
    """What is given in epochs as steps, for the loop and for schedules that span the training."""
    changed = {}
    for epochs, steps in (
        ("epochs", "steps"),
        ("eval_epochs", "eval_every"),
        ("checkpoint_epochs", "checkpoint_every"),
    ):
        count = config.training.get(epochs, 0)
        if count > 0:
            changed[f"training.{steps}"] = count * batches.batches_per_epoch
    return load_config(config, changed)


def _initial_weights(config: Any, folder: Path) -> dict[str, Any] | None:
    """Weights of `training.init_from`, unless the run has a checkpoint of its own already."""
    if not config.training.init_from or has_checkpoint(folder):
        return None
    return load_variables(config.training.init_from)[0]


def _initial_optimizer(config: Any) -> Callable[[Any], Any] | None:
    """Of `training.init_from` as well, where `training.init_optimizer` asks for it."""
    if not config.training.get("init_optimizer", False):
        return None
    if not config.training.init_from:
        raise UserError(
            "training.init_optimizer needs a checkpoint to take it from: training.init_from"
        )
    return functools.partial(load_optimizer, config.training.init_from)


def check_same_run(config: Any, folder: Path) -> None:
    """Refuses a folder that holds a run with other settings.

    Raises:
      UserError: it does; the message has the field.
    """
    if not has_checkpoint(folder) or not (folder / CONFIG_FILE).is_file():
        return
    # A run that is older than a setting has it at its default.
    before = with_new_fields(load_config(str(folder / CONFIG_FILE)))
    now = with_new_fields(config_from_dict(config.to_dict()))
    for name in sorted({*field_names(before), *field_names(now)}):
        if name.startswith(_MAY_CHANGE):
            continue
        old, new = _value(before, name), _value(now, name)
        if old != new:
            raise UserError(
                f"{folder} holds a run with other settings: config.{name} is {old!r} there and "
                f"{new!r} here; use another --workdir, or the settings of that run"
            )


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        if part not in config:
            return None
        config = config[part]
    return config
