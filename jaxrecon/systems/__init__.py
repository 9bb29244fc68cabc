"""Systems by name. Each is a folder of its own; none imports another."""

import difflib
import importlib
from typing import Any

from jaxrecon.errors import UserError
from jaxrecon.systems.base import System

# The name in `config.system.name`, the module of the system, and its class.
_SYSTEMS = {
    "meta_hmr": ("jaxrecon.systems.meta_hmr", "MetaHMR"),
    "mhr_net": ("jaxrecon.systems.mhr_net", "MHRNet"),
}


def create_system(config: Any) -> System:
    """The system that a resolved config asks for in `system.name`.

    Raises:
      UserError: unknown name, or settings that the system does not accept.
    """
    module, name = _SYSTEMS[_known(config)]
    return getattr(importlib.import_module(module), name).from_config(config)


def published_format(config: Any) -> Any:
    """The module that reads and writes the authors' own checkpoints of that system.

    It has `import_checkpoint(tree, variables)` and `export_checkpoint(variables)`.

    Raises:
      UserError: unknown name.
    """
    return importlib.import_module(f"{_SYSTEMS[_known(config)][0]}.published")


def _known(config: Any) -> str:
    name = config.system.name
    if name not in _SYSTEMS:
        near = difflib.get_close_matches(str(name), _SYSTEMS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"config.system.name={name!r} is not a system; there are: {', '.join(_SYSTEMS)}{hint}"
        )
    return name
