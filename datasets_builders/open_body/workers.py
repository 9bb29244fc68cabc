"""Make chunks of photographs in worker processes, in order, and the same whatever their number.

A worker is `python -m jaxrecon.datasets_builders.open_body.workers`: it gets its orders as
arguments and writes pickled chunks to its standard output. It is not a `multiprocessing` child,
so the calling script needs no `if __name__ == "__main__"` and may itself have JAX running on any
device; each worker runs JAX on one CPU thread, set up before its first import.
"""

import argparse
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxrecon.datasets_builders.open_body.scenes import CHUNK, USUAL, Variety

_ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_AHEAD = 2  # chunks that a worker may have waiting


def available_processes() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jobs(sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    """(split, chunk, records in it) of all chunks, in order."""
    return [
        (split, chunk, min(CHUNK, count - chunk * CHUNK))
        for split, count in sizes.items()
        for chunk in range(-(-count // CHUNK))
    ]


def generate(
    seed: int,
    sizes: dict[str, int],
    longer_side: int,
    processes: int | None = None,
    variety: Variety = USUAL,
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(split, index, record) of all splits, in order.

    Args:
        seed: what every draw is seeded with, beside the record's split and index.
        sizes: number of records of each split.
        longer_side: longer side of the images, pixels.
        processes: number of workers; None for one a core. It does not change any record.
        variety: how much the photographs differ.

    Raises:
        RuntimeError: a worker ended early, with what it said.
    """
    jobs = _jobs(sizes)
    orders = json.dumps(
        {"seed": seed, "sizes": sizes, "longer_side": longer_side, **asdict(variety)}
    )
    workers = max(1, min(processes or available_processes(), len(jobs)))
    pool: list[_Worker] = []
    try:
        for first in range(workers):
            pool.append(_Worker(orders, first, workers))
        for number, (split, chunk, _) in enumerate(jobs):
            for i, record in enumerate(pool[number % workers].next_chunk()):
                yield split, chunk * CHUNK + i, record
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """One process that does the jobs first, first + step, ..."""

    def __init__(self, orders: str, first: int, step: int) -> None:
        command = [sys.executable, "-m", __name__, orders, str(first), str(step)]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=_environment()
        )
        self._chunks: queue.Queue = queue.Queue(maxsize=_AHEAD)
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        chunk: list | None
        while True:
            try:
                chunk = pickle.load(self._process.stdout)
            except (EOFError, pickle.UnpicklingError, OSError, ValueError):
                chunk = None  # the worker has ended
            while not self._stopped.is_set():
                try:
                    self._chunks.put(chunk, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if chunk is None or self._stopped.is_set():
                return

    def next_chunk(self) -> list[dict[str, Any]]:
        chunk = self._chunks.get()
        if chunk is None:
            code = self._process.wait()
            self._stderr.seek(0)
            message = self._stderr.read().decode(errors="replace").strip()
            raise RuntimeError(
                f"a process that makes photographs ended with status {code}: {message[-2000:]}"
            )
        return chunk

    def stop(self) -> None:
        self._stopped.set()
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()


def _environment() -> dict[str, str]:
    """The parent's environment, one thread, and a path on which the worker finds the package."""
    import jaxrecon

    environment = dict(os.environ, **_ONE_THREAD)
    root = str(Path(jaxrecon.__file__).resolve().parent.parent)
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = root if not known else os.pathsep.join([root, known])
    return environment


def main() -> None:
    """What a worker process runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("orders", type=json.loads)
    parser.add_argument("first", type=int)
    parser.add_argument("step", type=int)
    given = parser.parse_args()
    orders = given.orders
    variety = Variety(orders["frontal"], orders["cut"])

    # Whatever prints to standard output must not end up between the chunks.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import cv2
    from jaxrecon.datasets_builders.open_body.photograph import photographs

    cv2.setNumThreads(1)
    for split, chunk, count in _jobs(orders["sizes"])[given.first :: given.step]:
        records = photographs(orders["seed"], split, chunk, orders["longer_side"], count, variety)
        pickle.dump(records, pipe, protocol=pickle.HIGHEST_PROTOCOL)
        pipe.flush()
    pipe.close()


if __name__ == "__main__":
    main()
