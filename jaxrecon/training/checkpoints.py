"""Checkpoints of a run, written beside the training and taken up again exactly.

    <workdir>/checkpoints/<step>/variables   params and batch_stats (all that `load` needs)
                                 optimizer   opt_state and rng
                                 run         JSON: step, config, data position, pending metrics

Constants (a body model, which may be licensed) are never in them. Orbax writes a checkpoint
under another name and renames it when whole, so a killed run leaves none that is half-written.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxrecon.errors import UserError
from jaxrecon.training.pretrained import pretrained_file, pretrained_names, read_pretrained
from jaxrecon.training.state import TrainState

FOLDER = "checkpoints"
FORMAT = "jaxrecon-1"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a checkpoint knows beside arrays.

    Attributes:
      step: steps done.
      config: the resolved config, as a dictionary.
      data: position of the data iterator after that step (JSON values or bytes).
      pending: metrics of the steps since the last row of the log, oldest first.
    """

    step: int
    config: dict[str, Any]
    data: Any
    pending: list[dict[str, float]]


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      workdir: the run folder; its sub-folder `checkpoints` is made if missing.
      keep: how many of the newest stay; the best one stays as well.
      best_metric: the metric (smaller is better) of `save(metrics=...)` that says which is best.
    """

    def __init__(self, workdir: Path, keep: int = 2, best_metric: str | None = None) -> None:
        self.folder = Path(workdir).resolve() / FOLDER
        policies: list[Any] = [LatestN(keep)]
        if best_metric is not None:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: _score(metrics, best_metric),
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
            item_names=("variables", "optimizer", "run"),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, record: RunRecord, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts to write a checkpoint; the arrays are copied first, so they may be donated."""
        if record.step in self._manager.all_steps():
            return
        self._manager.save(
            record.step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(
                    {"params": state.params, "batch_stats": state.batch_stats}
                ),
                optimizer=ocp.args.StandardSave({"opt_state": state.opt_state, "rng": state.rng}),
                run=ocp.args.JsonSave(_record_to_json(record)),
            ),
            metrics=None if metrics is None else dict(metrics),
        )

    def read_record(self, step: int) -> RunRecord:
        """The JSON part of a checkpoint.

        Raises:
          UserError: the checkpoint is damaged or not one of this project.
        """
        return _read_record(self.folder / str(step))

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of a checkpoint.

        Args:
          step: one of this folder's.
          like: a state of the same shapes (arrays or shape structs).

        Raises:
          UserError: the checkpoint is damaged, or of a network with other shapes.
        """
        path = self.folder / str(step)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        variables = {"params": abstract.params, "batch_stats": abstract.batch_stats}
        optimizer = {"opt_state": abstract.opt_state, "rng": abstract.rng}
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardRestore(variables),
                    optimizer=ocp.args.StandardRestore(optimizer),
                ),
            )
        except Exception as error:  # orbax and tensorstore raise many kinds for one fault
            raise _damaged(path, error) from error
        check_shapes(path, {**variables, **optimizer}, {**restored.variables, **restored.optimizer})
        return TrainState(
            step=np.asarray(step, np.int32),
            params=restored.variables["params"],
            batch_stats=restored.variables["batch_stats"],
            opt_state=restored.optimizer["opt_state"],
            rng=restored.optimizer["rng"],
        )

    def wait(self) -> None:
        """Until the checkpoint that is being written is whole."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def load_variables(path: str | Path) -> tuple[dict[str, Any], RunRecord]:
    """Trained variables for use, without their optimiser.

    Args:
      path: a run folder (its newest checkpoint; the best, if evaluated, is a sub-folder of its
        own), its `checkpoints` folder, one checkpoint, or the name of a model that ships with
        the package.

    Returns:
      {"params", "batch_stats"} as NumPy arrays, and the record, with the resolved config.

    Raises:
      UserError: there is no checkpoint at `path`, or it is damaged or foreign.
    """
    shipped = pretrained_file(path)
    if shipped is not None:
        variables, known = read_pretrained(shipped)
        return variables, RunRecord(known["step"], known["config"], None, [])
    folder = find_checkpoint(path)
    record = _read_record(folder)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler("variables")) as reader:
            args = ocp.args.Composite(variables=ocp.args.StandardRestore())
            restored = jax.device_get(reader.restore(folder, args=args).variables)
    except Exception as error:
        raise _damaged(folder, error) from error
    return {"params": restored["params"], "batch_stats": restored.get("batch_stats", {})}, record


def load_optimizer(path: str | Path, like: Any) -> Any:
    """The state of the optimiser in a checkpoint, to train on from there with its moments.

    Args:
      path: as for `load_variables`, but a checkpoint that a training wrote.
      like: a state of the same optimiser for the same network.

    Raises:
      UserError: there is none, or that of another network or optimiser.
    """
    remedy = "train on without it: config.training.init_optimizer=false"
    if pretrained_file(path) is not None:
        raise UserError(f"{path} holds weights alone, without an optimiser; {remedy}")
    folder = find_checkpoint(path)
    if not (folder / "optimizer").is_dir():
        raise UserError(f"{folder} holds weights alone, without an optimiser; {remedy}")
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    abstract = {"opt_state": jax.tree.map(ocp.utils.to_shape_dtype_struct, like), "rng": key}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler("optimizer")) as reader:
            args = ocp.args.Composite(optimizer=ocp.args.StandardRestore(abstract))
            restored = reader.restore(folder, args=args).optimizer["opt_state"]
    except Exception as error:
        raise UserError(
            f"the optimiser in {folder} cannot be read as that of this run: it is of another "
            f"network or optimiser, or damaged ({type(error).__name__}); {remedy}"
        ) from error
    check_shapes(folder, {"opt_state": like}, {"opt_state": restored})
    return restored


def save_variables(path: str | Path, variables: Mapping[str, Any], record: RunRecord) -> Path:
    """Writes variables without an optimiser as a checkpoint that `load_variables` reads.

    Args:
      path: the folder of the checkpoint; one that is a checkpoint already is replaced.
      variables: `constants` are left out, as always.

    Raises:
      UserError: `path` is a file, or a folder that holds something else.
    """
    folder = Path(path).resolve()
    if folder.is_file():
        raise UserError(f"cannot write the checkpoint {path}: it is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "run").is_dir():
        raise UserError(f"cannot write the checkpoint {path}: that folder holds other things")
    arrays = jax.device_get({name: variables[name] for name in ("params", "batch_stats")})
    handler = ocp.CompositeCheckpointHandler("variables", "run")
    with ocp.Checkpointer(handler) as writer:
        writer.save(
            folder,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(arrays),
                run=ocp.args.JsonSave(_record_to_json(record)),
            ),
            force=True,
        )
    return folder


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a run folder has a whole checkpoint."""
    return any(p.is_dir() and p.name.isdigit() for p in (Path(workdir) / FOLDER).glob("*"))


def find_checkpoint(path: str | Path) -> Path:
    """The folder of one checkpoint that `path` means (see `load_variables`).

    Raises:
      UserError: there is none.
    """
    given = Path(path).resolve()
    if given.is_file():
        raise UserError(f"{path} is a file; a checkpoint is a folder (a run folder will do)")
    if not given.is_dir():
        shipped = ", ".join(pretrained_names()) or "none"
        raise UserError(
            f"no checkpoint at {path}: there is no such folder; train one first, or name a model "
            f"that ships with the package ({shipped})"
        )
    for folder in (given / FOLDER, given):
        steps = [int(p.name) for p in folder.glob("*") if p.is_dir() and p.name.isdigit()]
        if steps:
            return folder / str(max(steps))
    if any((given / name).exists() for name in ("run", "variables", "_CHECKPOINT_METADATA")):
        return given
    raise UserError(f"no checkpoint in {path}; give a run folder whose training has saved one")


def _read_record(folder: Path) -> RunRecord:
    path = folder / "run" / "metadata"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a whole checkpoint of jaxrecon (it has no {path.relative_to(folder)})"
            "; delete this folder, or give an older one"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise UserError(
                f"{folder} has the format {record['format']!r}, but this version reads {FORMAT!r}"
            )
        return RunRecord(
            step=record["step"],
            config=record["config"],
            data=_from_json(record["data"]),
            pending=record["pending"],
        )
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def _record_to_json(record: RunRecord) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": record.step,
        "config": record.config,
        "data": _to_json(record.data),
        "pending": record.pending,
    }


def _to_json(value: Any) -> Any:
    """JSON for the position of a data iterator: plain values, or bytes."""
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__bytes__"}:
            return base64.b64decode(value["__bytes__"])
        return {key: _from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value


def _score(metrics: Any, name: str) -> float:
    value = metrics.get(name)
    return float("inf") if value is None else float(value)


def check_shapes(path: str | Path, want: Any, got: Any) -> None:
    """Compares two trees of the same structure, leaf by leaf.

    Raises:
      UserError: names `path`, the first leaf that differs, and both shapes.
    """
    structures: list[Any] = [jax.tree.structure(tree) for tree in (want, got)]
    if structures[0] != structures[1]:
        raise UserError(
            f"{path} was trained with other settings: its weights have other names than those of "
            "this config; use the config of that run"
        )
    wanted = jax.tree_util.tree_leaves_with_path(want)
    for (key, leaf), value in zip(wanted, jax.tree.leaves(got), strict=True):
        if tuple(leaf.shape) != tuple(np.shape(value)):
            raise UserError(
                f"{path} was trained with other settings: {jax.tree_util.keystr(key)} is "
                f"{tuple(np.shape(value))} there and {tuple(leaf.shape)} here; "
                "use another --workdir or the config of that run"
            )


def _damaged(path: Path, error: Exception) -> UserError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if len(reason) > 160:
        reason = reason[:157] + "..."
    return UserError(
        f"the checkpoint {path} cannot be read ({type(error).__name__}: {reason}); it is damaged "
        "or of other settings: delete that folder to continue from an older one, or use another "
        "--workdir"
    )
