"""From a config (`configs/metahmr.py`) to the fields of `MetaHMR`."""

import dataclasses
from typing import Any

from jaxrecon.errors import UserError
from jaxrecon.systems.meta_hmr.losses import LossWeights
from jaxrecon.systems.meta_hmr.system import AdaptSettings, MetaHMR

KEEP = ("last", "probable")


def system_settings(config: Any) -> dict[str, Any]:
    """Keyword arguments of `MetaHMR` from the groups `system`, `tto` and `body`.

    `system.schedule_steps` = -1 is the length of the training.

    Raises:
        UserError: a field that `MetaHMR` does not have.
    """
    fields = dict(config["system"])
    fields.pop("name", None)
    weights = _only_known("system.weights", dict(fields.pop("weights", {})), LossWeights)
    test_time = dict(config["tto"])
    test_time.pop("steps", None)
    if (keep := test_time.pop("keep", "last")) not in KEEP:
        raise UserError(f"tto.keep={keep!r} is not one of {', '.join(KEEP)}")
    fields = _only_known("system", fields, MetaHMR)
    if "image_size" in fields:
        height, width = fields["image_size"]
        fields["image_size"] = (int(height), int(width))
    if fields.get("schedule_steps") == -1:
        fields["schedule_steps"] = config["training"]["steps"]
    return {
        **fields,
        "weights": LossWeights(**weights),
        "test_time": AdaptSettings(**_only_known("tto", test_time, AdaptSettings)),
        "body": config["body"]["path"] or None,
    }


def _only_known(group: str, values: dict[str, Any], of: type) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(of)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"config field {group}.{unknown[0]} means nothing to {of.__name__}")
    return values
