"""Where data sets and what was downloaded by hand are kept, for all who need to know."""

import os
from pathlib import Path

DATA_VARIABLE = "JAXRECON_DATA"
MANUAL_VARIABLE = "JAXRECON_MANUAL"


def data_folder() -> Path:
    """Where prepared data sets are: $JAXRECON_DATA, or ~/.cache/jaxrecon/datasets."""
    chosen = os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache/jaxrecon/datasets"


def manual_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where licensed files are put: $JAXRECON_MANUAL, or `downloads/manual` below the data.

    A data set has a sub-folder of its name, SMPL's files are in `smpl`, weights in `weights`.

    Args:
      data_dir: the folder of prepared data sets, if not the usual one.
    """
    chosen = os.environ.get(MANUAL_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(data_dir or data_folder()).expanduser() / "downloads" / "manual"
