"""Small models that ship with the package, as one compressed file each.

    python -m jaxrecon.training.pretrained RUN_FOLDER OUTPUT.npz [--config=NAME]

packs the newest checkpoint of a run, with the run's config or another one that the model is to
be used with. Kernels are kept in half precision, everything else as it
is. A run trained without an auxiliary network is packed alone: the reader gives both networks
its weights, as the published training starts both from one regressor.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import atomic_path

_FOLDER = Path(__file__).resolve().parent.parent / "pretrained"
_RECORD = "record"


def pretrained_names() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.npz"))


def pretrained_file(name: str | Path) -> Path | None:
    """The file of a shipped model, or None if no model has this name."""
    return _FOLDER / f"{name}.npz" if str(name) in pretrained_names() else None


def read_pretrained(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params and batch_stats in float32, {"step", "config"}) of a packed model.

    Raises:
      UserError: the file is not a packed model.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            record = json.loads(str(data[_RECORD]))
            flat = {name: data[name] for name in data.files if name != _RECORD}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a packed model: {error}; pack it again") from error
    tree = traverse_util.unflatten_dict(
        {tuple(name.split("/")): array.astype(np.float32) for name, array in flat.items()}
    )
    for collection in tree.values():
        collection.setdefault("aux", collection["main"])
    return tree, record


def pack(run: str | Path, output: str | Path, config_name: str = "") -> Path:
    """Writes the newest checkpoint of a run as one file.

    Args:
      run: the run folder.
      output: the `.npz` file to write.
      config_name: a config to keep with the weights instead of the run's own, as `load_config`
        takes it.
    """
    from jaxrecon.config import load_config
    from jaxrecon.training.checkpoints import load_variables

    variables, record = load_variables(run)
    config = record.config
    alone = not config["system"]["inner_steps"]
    if alone:
        config["system"]["aux_backbone"] = config["system"]["backbone"]
        config["system"]["aux_iterations"] = config["system"]["main_iterations"]
        config["system"]["inner_steps"] = 1
    if config_name:
        config = load_config(config_name).to_dict()
    arrays: dict[str, np.ndarray] = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        if alone and path[1] == "aux":
            continue
        array = np.asarray(leaf)
        arrays["/".join(path)] = array.astype(np.float16) if array.ndim > 1 else array
    text = json.dumps({"step": record.step, "config": config})
    target = Path(output)
    with atomic_path(target) as scratch:
        np.savez_compressed(scratch, **arrays, **{_RECORD: np.array(text)})  # type: ignore[arg-type]
    return target


def main() -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", default="", help="such as metahmr; default: the run's own")
    options = parser.parse_args()
    path = pack(options.run, options.output, options.config)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
