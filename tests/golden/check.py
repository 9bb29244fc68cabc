"""Parity runner: `python -m tests.golden.check SYSTEM DIR [--only PREFIX]`.

Runs every golden case found in DIR through the public path of SYSTEM and prints a line for
each: name, largest error, tolerance, pass or fail. Exit status 1 if any fails.
"""

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from pathlib import Path

from tests.golden import kinds, runner


def load_kinds(system: str) -> None:
    """Import the modules that know the kinds of this system."""
    for module in pkgutil.iter_modules(kinds.__path__):
        if module.name.startswith(system):
            importlib.import_module(f"{kinds.__name__}.{module.name}")


def judge(case: runner.Case) -> tuple[str, bool]:
    """(the line to print, whether the case passed)."""
    if not case.kind:
        return f"{case.name:42s} unknown kind  FAIL", False
    start = time.perf_counter()
    try:
        checks = runner.run(case)
    except runner.NotYet as reason:
        return f"{case.name:42s} not yet run: {reason}", True
    except Exception as error:
        traceback.print_exc()
        return f"{case.name:42s} {type(error).__name__}: {error}  FAIL", False
    if not checks:
        return f"{case.name:42s} made no comparison  FAIL", False
    # The worst check is the one nearest to, or furthest beyond, its own tolerance.
    rows = [(check.label, *check.outcome()) for check in checks]
    label, error, allowed = max(
        rows, key=lambda r: (r[1] / r[2]) if r[2] else (float("inf") if r[1] else 0.0)
    )
    good = all(row[1] <= row[2] for row in rows)
    line = (
        f"{case.name:42s} error {error:9.3g}  tolerance {allowed:9.3g}  "
        f"{'pass' if good else 'FAIL'}  ({len(rows)} checks, worst {label}, "
        f"{time.perf_counter() - start:.1f} s)"
    )
    if not good:
        bad = [row for row in rows if not row[1] <= row[2]]
        line += "".join(f"\n    {r[0]}: error {r[1]:.3g} > {r[2]:.3g}" for r in bad[:12])
    return line, good


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.check", description=__doc__)
    parser.add_argument("system")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", default="", help="run the cases whose name starts with this")
    options = parser.parse_args(argv)
    if not options.directory.is_dir():
        print(f"{options.directory}: no such folder")
        return 2
    load_kinds(options.system)
    found = [
        case
        for case in runner.cases(options.system, options.directory)
        if case.name.removeprefix("h_").startswith(options.only)
    ]
    if not found:
        print(f"{options.directory}: no golden case (*.npz) found")
        return 2
    failed = 0
    for case in found:
        line, good = judge(case)
        failed += not good
        print(line, flush=True)
    print(f"{len(found) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
