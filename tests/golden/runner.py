"""Parity cases: how a folder of golden files is found, run and judged."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import SHARED

Runner = Callable[["Case"], list["Check"]]
_KINDS: dict[str, dict[str, Runner]] = {}

# Files of a folder that serve other cases and are no case themselves.
SUPPORT = re.compile(r"^(synthetic_|overrides|golden_inputs)")


class NotYet(Exception):
    """Raised by a kind that cannot run a case yet; the reason is shown in the listing."""


@dataclass(frozen=True)
class Check:
    """One comparison; passes if |got - want| <= atol + rtol * max|want| everywhere."""

    label: str
    got: Any
    want: Any
    rtol: float = 0.0
    atol: float = 0.0

    def outcome(self) -> tuple[float, float]:
        """(largest error, allowed error); a wrong shape or a NaN gives an infinite error."""
        got = np.asarray(self.got, np.float64)
        want = np.asarray(self.want, np.float64)
        if got.shape != want.shape:
            return float("inf"), 0.0
        if want.size == 0:
            return 0.0, 0.0
        same_nan = np.isnan(got) & np.isnan(want)
        error = np.where(same_nan, 0.0, np.abs(got - want))
        scale = np.where(np.isnan(want), 0.0, np.abs(want)).max()
        worst = float("inf") if np.isnan(error).any() else float(error.max())
        return worst, self.atol + self.rtol * float(scale)


@dataclass(frozen=True)
class Case:
    """A golden case: `<name>.npz` with what lies beside it."""

    system: str
    directory: Path
    name: str
    kind: str

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.directory / f"{self.name}.npz", allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    @property
    def words(self) -> list[str]:
        """The words of the name after its kind."""
        rest = re.sub("^h_", "", self.name)[len(self.kind) :]
        return [word for word in rest.split("_") if word]

    @property
    def manifest(self) -> dict[str, list[int]] | None:
        path = self.directory / f"{self.name}.manifest.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def support(self, filename: str) -> Path:
        """A file that the case needs, beside it or in the shared folder of its system."""
        places = [self.directory, self.directory.parent]
        if SHARED is not None:
            places += [SHARED / "golden" / self.system, SHARED / "golden"]
        places.append(Path(__file__).parent / "support")
        for place in places:
            if (place / filename).is_file():
                return place / filename
        raise FileNotFoundError(f"{self.name} needs {filename}, which is in none of {places}")


def kind(system: str, name: str) -> Callable[[Runner], Runner]:
    """Register the function that runs all cases whose name starts with `name`."""

    def register(run: Runner) -> Runner:
        _KINDS.setdefault(system, {})[name] = run
        return run

    return register


def find_kind(system: str, name: str) -> str | None:
    """The longest known kind that the name starts with (a leading `h_` is ignored)."""
    plain = re.sub("^h_", "", name)
    known = [k for k in _KINDS.get(system, {}) if plain.startswith(k)]
    return max(known, key=len) if known else None


def cases(system: str, directory: Path) -> list[Case]:
    """All cases of a folder, those of unknown kind included (their kind is "")."""
    names = sorted(
        {p.name[: -len(".npz")] for p in directory.glob("*.npz")}
        # A case may also be one JSON file, if a kind of its very name is known.
        | {p.stem for p in directory.glob("*.json") if _is_json_kind(system, p.stem)}
    )
    return [
        Case(system, directory, name, find_kind(system, name) or "")
        for name in names
        if not SUPPORT.match(name)
    ]


def _is_json_kind(system: str, name: str) -> bool:
    kind = find_kind(system, name)
    return kind is not None and "." not in name and name not in ("scales", "overrides")


def run(case: Case) -> list[Check]:
    return _KINDS[case.system][case.kind](case)
