"""Configs: found by name or path, changed field by field, strictly.

A config is a Python file with `get_config(preset)` that returns an `ml_collections.ConfigDict`;
its docstring is its documentation. No field can be added or change its type from outside, and a
wrong name is answered with the nearest right one.
"""

import ast
import difflib
import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_text
from jaxrecon.io.files import existing_file

CONFIG_FILE = "config.json"


def load_config(config: Any, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """A locked config, with overrides applied.

    Args:
      config: "metahmr", "metahmr:tiny", "configs/metahmr.py:tiny", the path of a `.json` that a
        run has written, or a ConfigDict or dictionary (which is copied).
      overrides: full name ("data.path"), or a name that is the only one of its kind
        ("batch_size"; fields of `training` go first) -> value, or the value as text.

    Raises:
      UserError: no such config, preset or field; a value of another type.
    """
    resolved = _resolve(config)
    for name, value in (overrides or {}).items():
        set_field(resolved, name, value)
    return resolved.lock()


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Changes one field that exists, keeping its type.

    Text is read as the field's type: `true`/`false`, numbers, and for tuples `1,2` or `(1, 2)`.

    Raises:
      UserError: unknown or ambiguous name, with the nearest ones; a value of another type.
    """
    full = _full_name(config, name)
    *groups, last = full.split(".")
    holder = config
    for group in groups:
        holder = holder[group]
    old = holder[last]
    if isinstance(old, ConfigDict):
        if not isinstance(value, Mapping):
            fields = ", ".join(sorted(old))
            raise UserError(f"config.{full} is a group, not a field; its fields are: {fields}")
        for key, item in value.items():
            set_field(config, f"{full}.{key}", item)
        return
    with holder.unlocked():
        holder[last] = _convert(full, value, old)


def preset_of(presets: Mapping[str, Any], preset: str) -> Any:
    """The entry of a table of presets, for `get_config`.

    Raises:
      UserError: there is none of that name; names the valid ones.
    """
    if preset in presets:
        return presets[preset]
    raise UserError(
        f"unknown preset {preset!r}{_near(preset, presets)}; there are: "
        + ", ".join(repr(name) if name else "'' (default)" for name in presets)
    )


def save_config(config: ConfigDict, workdir: str | Path) -> Path:
    """Writes the resolved config as JSON into a run folder; returns the file."""
    path = Path(workdir) / CONFIG_FILE
    write_text(path, json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n")
    return path


def config_from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """A config from the dictionary of a JSON file or checkpoint; lists become tuples."""
    return ConfigDict(_tuples(values))


def with_new_fields(config: ConfigDict) -> ConfigDict:
    """A saved config with the fields that have been added since, at their defaults.

    So that an older run can be used with newer settings. The group `system` stays as it is: what
    it does not say has the defaults of the system, which are its own business.
    """
    filled = _resolve(config)
    for name in available_configs():
        default = _resolve(name)
        if default.system.name != filled.system.name:
            continue
        for group, fields in default.items():
            if group != "system" and group in filled:
                for field, value in fields.items():
                    if field not in filled[group]:
                        filled[group][field] = value
    return filled


def field_names(config: ConfigDict) -> list[str]:
    """The full names of all fields, "group.field", sorted."""
    return sorted(name for name, _ in _fields(config))


def _resolve(config: Any) -> ConfigDict:
    if isinstance(config, ConfigDict):
        return config.copy_and_resolve_references().unlock()
    if isinstance(config, Mapping):
        return config_from_dict(config)
    text = str(config)
    if text.endswith(".json"):
        path = existing_file(text, "config file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"the config {path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"the config {path} is not JSON of a config, with groups and fields")
        return config_from_dict(values)
    name, _, preset = text.partition(":")
    get_config = getattr(_load_module(name), "get_config", None)
    if get_config is None:
        raise UserError(f"the config {name} has no function get_config(preset)")
    result = get_config(preset)
    if not isinstance(result, ConfigDict):
        raise UserError(f"get_config of {name} returns no ml_collections.ConfigDict")
    return result


def _load_module(name: str) -> Any:
    """A config file: in the working directory if it is there, else one of the package's."""
    path = Path(name)
    stem = path.stem if path.suffix == ".py" else path.name
    if path.suffix == ".py" and path.is_file():
        packaged = _packaged_folder() / path.name
        if packaged.is_file() and packaged.samefile(path):
            return importlib.import_module(f"jaxrecon.configs.{stem}")
        return _load_file(path)
    known = available_configs()
    in_package = path.parent.as_posix() in (".", "configs", "jaxrecon/configs")
    if not in_package or stem not in known:
        raise UserError(
            f"no config {name!r}{_near(stem, known)}; it is neither a file here nor one of the "
            "package's: " + ", ".join(known)
        )
    return importlib.import_module(f"jaxrecon.configs.{stem}")


def available_configs() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(
        path.stem for path in _packaged_folder().glob("*.py") if not path.stem.startswith("_")
    )


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec("jaxrecon.configs")
    if spec is None or spec.origin is None:
        raise UserError("this installation of jaxrecon has no configs; install it again")
    return Path(spec.origin).parent


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"jaxrecon_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"the config {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"the config {path} fails: {type(error).__name__}: {error}") from error
    return module


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _full_name(config: ConfigDict, name: str) -> str:
    if _exists(config, name):
        return name
    names = field_names(config)
    same = [full for full in names if full.endswith("." + name)]
    if f"training.{name}" in same:
        return f"training.{name}"
    if len(same) == 1:
        return same[0]
    if same:
        raise UserError(f"config.{name} is ambiguous: " + ", ".join(f"config.{n}" for n in same))
    raise UserError(f"unknown config field {name!r}{_nearest_field(name, names)}")


def _exists(config: ConfigDict, name: str) -> bool:
    holder: Any = config
    for part in name.split("."):
        if not isinstance(holder, ConfigDict) or part not in holder:
            return False
        holder = holder[part]
    return True


def _nearest_field(name: str, names: list[str]) -> str:
    """The full name nearest to `name`, compared as a whole and by its last part."""
    last = name.rsplit(".", 1)[-1]
    score = {
        full: max(
            difflib.SequenceMatcher(None, name, full).ratio(),
            difflib.SequenceMatcher(None, last, full.rsplit(".", 1)[-1]).ratio(),
        )
        for full in names
    }
    best = max(score, key=lambda full: (score[full], full.startswith("training.")), default=None)
    if best is None or score[best] < 0.6:
        return "; the fields are: " + ", ".join(names)
    return f"; did you mean config.{best}?"


def _near(name: str, known: Any) -> str:
    match = difflib.get_close_matches(name, [k for k in known if k], n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _convert(name: str, value: Any, old: Any) -> Any:
    """`value` as the type of `old`."""
    wanted = type(old)
    if isinstance(value, str) and wanted is not str:
        value = _parse(name, value, wanted)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    if wanted is str and isinstance(value, Path):
        value = str(value)
    if type(value) is not wanted:
        raise UserError(
            f"config.{name} takes {_type_name(wanted)} (now {old!r}), "
            f"not {_type_name(type(value))}: {value!r}"
        )
    if wanted is tuple and old:
        value = tuple(_convert(f"{name}[{i}]", item, old[0]) for i, item in enumerate(value))
    return value


def _parse(name: str, text: str, wanted: type) -> Any:
    if wanted is bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.strip().lower() in known:
            return known[text.strip().lower()]
    elif wanted in (int, float):
        try:
            return wanted(text)
        except ValueError:
            pass
    elif wanted is tuple:
        try:
            parsed = ast.literal_eval(text.strip())
            return tuple(parsed) if isinstance(parsed, tuple | list) else (parsed,)
        except (ValueError, SyntaxError):
            return tuple(part.strip() for part in text.split(",") if part.strip())
    raise UserError(f"config.{name} takes {_type_name(wanted)}, not {text!r}")


def _type_name(kind: type) -> str:
    return {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        tuple: "a list such as 1,2",
    }.get(kind, kind.__name__)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    return value
