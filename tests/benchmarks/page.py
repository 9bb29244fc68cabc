"""Run the benchmarks and write their figures into README.md beside this file.

python -m tests.benchmarks.page                 # run everything, write the page
python -m tests.benchmarks.page results.json    # write the page from an earlier run's JSON
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMAND = "python -m pytest tests/benchmarks --benchmark-only --benchmark-json={path}"

PAGE = """\
# Benchmarks

Written by `python -m tests.benchmarks.page`; no figure here was typed by hand. Each row is one
process's measurement of ours and of the alternative, in turns (ours, other, ours, other, ...)
after one run of each to compile. The ratio is the median over the rounds of ours / other; times
are medians, with the minimum in brackets.

- when: {when}
- machine: {machine}
- versions: {versions}
- load average of the machine while measuring: {load} ({cores} cores; more than the number of
  cores means that other work ran beside)
- command: `{command}`

| what | ours, ms | against | other, ms | ratio | times as fast | rounds | target | met |
| --- | ---: | --- | ---: | ---: | ---: | ---: | --- | --- |
{rows}
"""


def row(benchmark: dict[str, Any]) -> str:
    """One line of the table from one benchmark of pytest-benchmark's JSON."""
    info = benchmark["extra_info"]
    cells = [
        info["what"],
        f"{info['ours_ms']:.1f} ({info['ours_min_ms']:.1f})",
        info["against"],
        f"{info['other_ms']:.1f} ({info['other_min_ms']:.1f})",
        f"{info['ratio']:.2f}",
        f"{1 / info['ratio']:.2f}",
        str(info["rounds"]),
        info["target"] or "none",
        ("yes" if info["met"] else "NO") if info["target"] else "",
    ]
    return "| " + " | ".join(cells) + " |"


def page(results: dict[str, Any]) -> str:
    """The whole page from pytest-benchmark's JSON."""
    races = [b for b in results["benchmarks"] if "ratio" in b["extra_info"]]
    if not races:
        raise SystemExit("the results hold no benchmark with a ratio; did the run fail?")
    machine = results["machine_info"]
    cpu = machine.get("cpu", {})
    loads = [b["extra_info"]["load"] for b in races]
    names = ("jax", "jaxlib", "flax", "numpy", "torch")
    return PAGE.format(
        when=results["datetime"][:16].replace("T", " ") + " UTC",
        machine=f"{cpu.get('brand_raw', machine['machine'])}, {cpu.get('count', '?')} cores, "
        f"{machine['system']}, Python {machine['python_version']}",
        versions=", ".join(f"{name} {version(name)}" for name in names),
        load=f"{min(loads):.1f} to {max(loads):.1f}",
        cores=cpu.get("count", os.cpu_count()),
        command=COMMAND.format(path="results.json"),
        rows="\n".join(row(b) for b in races),
    )


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def measure() -> tuple[dict[str, Any], int]:
    """Run the benchmarks; their JSON and pytest's exit status (1: a target was missed)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = COMMAND.format(path=path).split()[1:]
        # -s shows the ratios as they come.
        status = subprocess.run([sys.executable, *command, "-q", "-s"], cwd=HERE.parents[1])
        if not path.is_file():
            raise SystemExit(f"the benchmarks wrote no results (pytest said {status.returncode})")
        return json.loads(path.read_text()), status.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, help="JSON of an earlier run")
    arguments = parser.parse_args()
    status = 0
    if arguments.results:
        results = json.loads(arguments.results.read_text())
    else:
        print(f"measuring on {platform.processor() or platform.machine()} ...", flush=True)
        results, status = measure()
    target = HERE / "README.md"
    partial = target.with_suffix(".partial")
    partial.write_text(page(results))
    partial.replace(target)
    print(f"wrote {target.relative_to(HERE.parents[1])}")
    return status


if __name__ == "__main__":
    sys.exit(main())
