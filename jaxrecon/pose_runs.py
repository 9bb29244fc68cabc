"""Runs of systems that lift 2D poses (MHR-Net): from a config to a trained network and its page.

What `runs` and `api` are for photographs; the command line chooses by `config.system.name`.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.config import config_from_dict, load_config, save_config
from jaxrecon.data.lifting import PoseSet, hide_keypoints
from jaxrecon.data.pose_sources import open_pose_sets
from jaxrecon.errors import UserError
from jaxrecon.evaluation.lifting import Scores, measure, measure_sequence, rigid_shape
from jaxrecon.io.atomic import write_text
from jaxrecon.io.torch_files import read_checkpoint, write_checkpoint
from jaxrecon.report.lifting import write_lifting_page
from jaxrecon.runs import check_same_run
from jaxrecon.systems.mhr_net import MHRNet, published
from jaxrecon.systems.mhr_net.likelihood import fit_views
from jaxrecon.training.checkpoints import (
    Checkpoints,
    RunRecord,
    has_checkpoint,
    load_variables,
    save_variables,
)
from jaxrecon.training.epochs import EpochResult, steps_per_epoch, train_epochs
from jaxrecon.training.logging import read_metrics
from jaxrecon.training.state import TrainState, create_state, state_shapes

SYSTEMS = ("mhr_net",)  # the names in `config.system.name` that are run here
_TORCH = (".bin", ".pt", ".pth")
_MISSING = (0.0, 0.1, 0.2, 0.3, 0.4)  # shares that a run with missing keypoints is measured at


@dataclasses.dataclass(frozen=True)
class PoseRun:
    """A trained run: resolved config, system, variables (baseline included), data and result."""

    config: Any
    system: MHRNet
    variables: dict[str, Any]
    train_set: PoseSet
    test_set: PoseSet
    result: EpochResult | None = None


def prepare(config: Any) -> PoseRun:
    """Data and system of a resolved config, before any training.

    Raises:
      UserError: wrong settings, missing or unsuitable data.
    """
    if config.system.joints:
        MHRNet.from_config(config)  # wrong settings are told before any data are made
    train_set, test_set = open_pose_sets(config)
    joints = train_set.joints
    if config.system.joints not in (0, joints) or test_set.joints != joints:
        raise UserError(
            f"the data have {joints} joints (test set: {test_set.joints}), config.system.joints "
            f"is {config.system.joints}; set it to 0 to take what the data have"
        )
    if (train_set.visible is not None) != config.system.see_visibility:
        needed = train_set.visible is not None
        config = load_config(config, {"system.see_visibility": needed})
    # The factor belongs to the run: its checkpoint knows it from the config.
    config = load_config(config, {"system.joints": joints, "data.factor": train_set.factor})
    settings = config.training
    steps = steps_per_epoch(len(train_set), settings.batch_size, settings.keep_partial)
    system = dataclasses.replace(MHRNet.from_config(config), steps_per_epoch=steps)
    shape = rigid_shape(train_set, test_set)
    constants = {} if shape is None else {"rigid_shape": shape}
    return PoseRun(config, system, {"constants": constants}, train_set, test_set)


def _whole_poses(poses: PoseSet) -> np.ndarray:
    """The normalised 2D poses of a set of which no joint is missing."""
    arrays = poses.arrays()
    keypoints2d = np.asarray(arrays["keypoints2d"])
    seen = arrays.get("visible")
    return keypoints2d if seen is None else keypoints2d[np.asarray(seen).all(axis=1)]


def train_run(config: Any, workdir: str | Path, stream: Any = None) -> PoseRun:
    """Trains as a resolved config says; continues where the run in `workdir` stopped.

    Raises:
      UserError: wrong settings, missing data, a loss that is not finite, or a run of other
        settings in `workdir`.
    """
    folder = Path(workdir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the workdir {workdir} is a file; name a folder for the run")
    run = prepare(config)
    check_same_run(run.config, folder)
    initial, first = _initial(run, folder)
    save_config(run.config, folder)
    system = run.system

    def flags(epoch: int) -> dict[str, Any]:
        return {
            "align": jnp.asarray(epoch <= system.align_until),
            "procrust": jnp.asarray(epoch >= system.procrust_from, jnp.float32),
        }

    def evaluate(variables: dict[str, Any]) -> dict[str, float]:
        whole = {**variables, "constants": run.variables["constants"]}
        return scores_of(dataclasses.replace(run, variables=whole)).own

    constants = run.variables["constants"]
    if system.w_likely > 0:
        views = fit_views(_whole_poses(run.train_set), run.config.training.seed)
        constants = constants if views is None else {**constants, "views": views}
    result = train_epochs(
        run.config,
        system,
        run.train_set.arrays(),
        folder,
        flags,
        evaluate if run.config.training.eval_every > 0 else None,
        initial=initial,
        first_epoch=first,
        constants=constants,
        stream=stream,
    )
    variables = {**result.variables, "constants": run.variables["constants"]}
    return dataclasses.replace(run, variables=variables, result=result)


def scores_of(run: PoseRun, baseline: bool = False) -> Scores:
    """The scores of a run on its test set; with `baseline` also those of the rigid shape."""
    size = run.config.evaluation.batch_size
    sequence = run.config.data.source == "sequence"
    if sequence and run.test_set.joints3d is not None:
        return measure_sequence(run.system, run.variables, run.test_set, baseline)
    scores = measure(run.system, run.variables, run.test_set, size, baseline)
    if baseline and run.config.data.missing:
        return dataclasses.replace(scores, groups={**scores.groups, **_with_missing(run)})
    return scores


def _with_missing(run: PoseRun) -> dict[str, dict[str, float]]:
    """Scores on the test set with less and more of its keypoints hidden than in training."""
    whole = {"data.missing": 0.0, "data.poses": 2}  # the training set is not needed here
    _, complete = open_pose_sets(load_config(run.config, whole))
    found = {}
    for share in _MISSING:
        hidden = hide_keypoints(complete, share, run.config.training.seed + 2)
        size = run.config.evaluation.batch_size
        scores = measure(run.system, run.variables, hidden, size, False)
        found[f"MHR-Net, {100 * share:.0f} % missing"] = scores.own
    return found


def finish(run: PoseRun, workdir: str | Path) -> Scores:
    """The end of a training: scores beside the rigid baseline's, and the page with pictures."""
    folder = Path(workdir)
    scores = scores_of(run, baseline=True)
    found = scores.to_dict()
    if run.result is not None and run.result.best:
        found["best_epoch"] = run.result.best
    found["normalisation_factor"] = run.train_set.factor
    write_text(folder / "evaluation.json", json.dumps(found, indent=2) + "\n")
    print(scores.table(), flush=True)
    page = write_lifting_page(
        folder,
        run.system,
        run.variables,
        run.test_set,
        found,
        read_metrics(folder),
        run.config,
        f"python -m jaxrecon.main --config={folder}/config.json --workdir={folder}",
    )
    print(f"look at {page}", file=sys.stderr, flush=True)
    return scores


def convert(source: str | Path, target: str | Path, config: Any, strict: bool = True) -> str:
    """Between the authors' `.bin` checkpoints and ours; the direction follows from `source`.

    A run folder is written with its optimiser; a `.bin` gives a checkpoint to predict with. To
    train on from a `.bin`, optimiser included, name it in `training.init_from`.

    Raises:
      UserError: unreadable source, weights of another network, a target that cannot be written.
    """
    if Path(source).is_dir():
        write_checkpoint(target, _export(Path(source)))
        return f"{source} written as {target}"
    tree = read_checkpoint(source)
    config = load_config(config, {f"system.{k}": v for k, v in _shape_of(tree).items()})
    system = MHRNet.from_config(config)
    template = system.init(jax.random.PRNGKey(0), system.example())
    variables, report = published.import_checkpoint(tree, template, strict)
    record = RunRecord(0, config.to_dict(), None, [])
    save_variables(Path(target), variables, record)
    return f"{source} written as {target}\n{report}"


def _shape_of(tree: Any) -> dict[str, int]:
    return published.network_settings(tree)


def _export(folder: Path) -> dict[str, Any]:
    """The published tree of a run folder, with its momentum where it is one."""
    variables, record = load_variables(folder)
    system = MHRNet.from_config(config_from_dict(record.config))
    checkpoints = Checkpoints(folder) if has_checkpoint(folder) else None
    if checkpoints is None or not record.data:
        return published.export_checkpoint(variables, system)
    try:
        system = dataclasses.replace(system, steps_per_epoch=record.step // record.data["epoch"])
        shapes = state_shapes(system, system.optimizer(), system.example())
        state = checkpoints.restore(record.step, shapes)
    finally:
        checkpoints.close()
    return published.export_checkpoint(
        variables, system, state.opt_state, record.data["epoch"], record.step
    )


def _initial(run: PoseRun, folder: Path) -> tuple[TrainState | None, int]:
    """The state that `training.init_from` says, and the epochs that it has behind it."""
    source = run.config.training.init_from
    if not source or has_checkpoint(folder):
        return None, 0
    system, optimizer = run.system, run.system.optimizer()
    fresh = create_state(system, optimizer, system.example(), run.config.training.seed)
    if Path(source).suffix not in _TORCH:
        variables, _ = load_variables(source)
        given = {name: variables[name] for name in ("params", "batch_stats")}
        return dataclasses.replace(fresh, **given, opt_state=optimizer.init(given["params"])), 0
    template = {"params": fresh.params, "batch_stats": fresh.batch_stats}
    found = published.read_published(read_checkpoint(source), template)
    state = dataclasses.replace(
        fresh,
        step=jnp.asarray(found.epoch * system.steps_per_epoch, jnp.int32),
        params=jax.tree.map(jnp.asarray, found.params),
        batch_stats=jax.tree.map(jnp.asarray, found.batch_stats),
        opt_state=published.optimizer_state(system, found),
    )
    return state, found.epoch


def command_train(config: Any, workdir: str | Path) -> int:
    """`--mode=train`: the exit status."""
    run = train_run(config, workdir)
    stopped = run.result.stopped if run.result else None
    if stopped is not None:
        return 0 if stopped == "time limit" else 143
    finish(run, workdir)
    return 0


def is_pose_run(config: Any) -> bool:
    """Whether a config is one of these."""
    return config.system.name in SYSTEMS


def is_published_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a checkpoint file of the authors (and not a folder of ours)."""
    return Path(path).suffix in _TORCH and Path(path).is_file()


def saved_pose_run(path: str | os.PathLike[str]) -> bool:
    """Whether a run, a checkpoint or a published file is one of these; False without any."""
    if is_published_file(path):
        tree = read_checkpoint(path, skip_unknown=True)
        return isinstance(tree, dict) and "model_pos" in tree
    try:
        _, record = load_variables(Path(path))
    except UserError:
        return False
    return record.config.get("system", {}).get("name") in SYSTEMS
