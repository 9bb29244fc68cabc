"""jaxrecon: 3D from little evidence, in JAX.

The public doors are `fit`, `load` and the classes they return; everything else is reached
through its room (`jaxrecon.geometry`, `jaxrecon.bodies`, ...).
"""

from pathlib import Path as _Path

_checkout = _Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "datasets_builders").is_dir():
    # In a checkout `configs/` and `datasets_builders/` stand beside the package; a wheel holds
    # them inside it. Either way they are `jaxrecon.configs` and `jaxrecon.datasets_builders`.
    __path__.append(str(_checkout))

__version__ = "0.1.0"
