"""jaxrecon: 3D from little evidence, in JAX.

The public doors are `fit`, `load` and the classes they return; everything else is reached
through its room (`jaxrecon.geometry`, `jaxrecon.bodies`, ...).
"""

from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from jaxrecon.api import Reconstructor, fit, load
    from jaxrecon.reconstruction import Reconstruction
    from jaxrecon.sequence import SequenceReconstruction

_checkout = _Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "datasets_builders").is_dir():
    # In a checkout `configs/` and `datasets_builders/` stand beside the package; a wheel holds
    # them inside it. Either way they are `jaxrecon.configs` and `jaxrecon.datasets_builders`.
    __path__.append(str(_checkout))

__version__ = "0.1.0"

_PUBLIC = {
    "Reconstruction": "jaxrecon.reconstruction",
    "Reconstructor": "jaxrecon.api",
    "SequenceReconstruction": "jaxrecon.sequence",
    "fit": "jaxrecon.api",
    "load": "jaxrecon.api",
}

__all__ = ["Reconstruction", "Reconstructor", "SequenceReconstruction", "fit", "load"]


def __getattr__(name: str) -> object:
    # The doors open at first use, so that `import jaxrecon` loads no JAX.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxrecon' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
