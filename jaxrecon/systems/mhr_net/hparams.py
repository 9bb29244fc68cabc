"""The published settings: hyper-parameter string, two-stage schedule (spec 5)."""

import hashlib
from collections.abc import Mapping
from typing import Any

from jaxrecon.errors import UserError

# Their names -> ours, in `MHRNet`.
FIELDS = {
    "projection_type": "projection",
    "w_shape_final": "w_final",
    "w_shape_mean": "w_mean",
    "n_keypoints": "joints",
    "weight_init_std": "init_std",
    "n_fully_connected": "width",
    "n_layers": "blocks",
    "dict_basis_size": "bases",
    "w_procrust": "w_procrust",
    "procrust_samples": "pairs",
    "align_margin": "margin",
}


def parse_hparams(text: str) -> dict[str, Any]:
    """`name=value,...` by the published rules of type, which leave `.5` and `-1` as text.

    Raises:
        ValueError: an item that is no `name=value`, or a number with two points.
    """
    values: dict[str, Any] = {}
    for item in text.strip().split(","):
        name, value = item.split("=")
        if value.find(".") >= 1:
            values[name] = float(value)
        elif value.isdigit():
            values[name] = int(value)
        else:
            values[name] = value
    return values


def settings_of(hparams: str | Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `MHRNet` from the published string or dictionary; numbers in any notation.

    Raises:
        UserError: not of that form, or a name that there is not.
    """
    try:
        given = parse_hparams(hparams) if isinstance(hparams, str) else dict(hparams)
    except ValueError as error:
        raise UserError(f"hyper-parameters {hparams!r} are not name=value,...: {error}") from error
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise UserError(
            f"hyper-parameter {unknown[0]!r} is unknown; there are: {', '.join(FIELDS)}"
        )
    whole = {"n_keypoints", "n_fully_connected", "n_layers", "dict_basis_size", "procrust_samples"}
    settings = {}
    for name, value in given.items():
        try:
            kind = str if name == "projection_type" else int if name in whole else float
            settings[FIELDS[name]] = kind(value)
        except ValueError as error:
            raise UserError(f"hyper-parameter {name}={value!r} is not a number") from error
    return settings


def stage_of(epoch: int, procrust_from: int = 10, align_until: int = 15) -> tuple[bool, bool]:
    """(with the Procrustean loss?, shapes root-centred in the canonicalisation?).

    Args:
        epoch: from 1.
    """
    return epoch >= procrust_from, epoch <= align_until


def learning_rate(epoch: int, rate: float = 1e-3, decay: float = 0.5, every: int = 15) -> float:
    """The rate in force in an epoch (from 1): times `decay` after each `every` epochs."""
    return rate * decay ** ((epoch - 1) // every)


def saves(epoch: int, epochs: int = 50, every: int = 3) -> bool:
    """Whether the published script keeps a numbered checkpoint of this epoch."""
    return epoch % every == 0 or epoch == epochs


def hashed_choice(low: int, high: int, data: str) -> int:
    """A number in [low, high] from a hash: the start of a clip's part for `subset` (spec 7.4)."""
    digest = hashlib.sha256(data.encode()).digest()
    share = int.from_bytes(digest[:4], "little") / (2**32 - 1)
    return int(share * (high - low)) + low
