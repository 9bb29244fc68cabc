"""Batches in order from items by position, made ahead of their use; one number is the state.

The path of the data is grain's: MapDataset.range -> map (decode, crop, augment, occlude) -> batch
-> to_iter_dataset -> mp_prefetch. Where grain is not available (Intel macOS), threads do the same.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from jaxrecon.data.items import collate
from jaxrecon.errors import UserError

try:
    import grain
except ImportError:  # no wheel for this platform
    grain = None

Batch = dict[str, np.ndarray]
MakeItem = Callable[[int], dict[str, Any]]

# Training items after which even an endless stream ends (years at any speed).
_ENDLESS = 2**50
# Batches that are made ahead of their use.
_AHEAD = 4


class BatchIterator:
    """Batches in order, made ahead by threads or worker processes.

    `get_state` and `set_state` exchange a small JSON value; to resume costs nothing, because any
    position can be entered directly. A pass that has ended starts anew with the next `for`.
    `close` (or the end of the program) stops the workers.
    """

    def __init__(
        self,
        make_item: MakeItem,
        batch_size: int,
        batches: int | None,
        workers: int = 0,
        threads: int = 0,
    ):
        self._make_item, self._batch_size = make_item, batch_size
        self._workers = workers
        self._threads = threads or max(1, min(4, os.cpu_count() or 1))
        self._endless = batches is None
        self._stop = _ENDLESS // batch_size if batches is None else batches
        self._done = 0
        self._stream: list[Any] = []
        self._finalizer = weakref.finalize(self, _close, self._stream)

    def __iter__(self) -> Iterator[Batch]:
        if self._done >= self._stop:
            self._done = 0
        return self

    def __len__(self) -> int:
        """Batches of the whole pass (evaluation only)."""
        if self._endless:
            raise TypeError("training batches have no end")
        return self._stop

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch (training only)."""
        return self._make_item.batches_per_epoch  # type: ignore[attr-defined]

    def __next__(self) -> Batch:
        if self._done >= self._stop:
            self.close()
            raise StopIteration
        if not self._stream:
            self._stream.append(self._open(self._done))
        try:
            batch = next(self._stream[0])
        except BaseException:
            self.close()
            raise
        self._done += 1
        if self._workers:
            # These arrays lie in memory shared with a worker, which grain takes back: copy them.
            batch = {key: np.array(value) for key, value in batch.items()}
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the next batch lies: the number of batches given so far, and their size."""
        return {"batches": self._done, "batch_size": self._batch_size}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `get_state` gave (by examples, should the batch size differ)."""
        try:
            done, size = int(state["batches"]), int(state["batch_size"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the saved position of the data is damaged: {state!r}") from error
        self._done = done * size // self._batch_size
        self.close()

    def close(self) -> None:
        """Stop threads and workers; the next batch starts them again."""
        _close(self._stream)

    def _open(self, first: int) -> Any:
        # Several OpenCV threads for each of our own would only fight for the CPUs.
        cv2.setNumThreads(0)
        span = (first * self._batch_size, self._stop * self._batch_size)
        if grain is None:
            return _ThreadedBatches(self._make_item, span, self._batch_size, self._threads)
        dataset = (
            grain.MapDataset.range(*span)
            .map(self._make_item)
            .batch(self._batch_size, batch_fn=collate)
        )
        if self._workers == 0:
            options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=_AHEAD)
            return iter(dataset.to_iter_dataset(options))
        _allow_workers()
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        processes = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
        return iter(
            dataset.to_iter_dataset(options).mp_prefetch(processes, worker_init_fn=_start_worker)
        )


def _close(stream: list[Any]) -> None:
    while stream:
        stream.pop().close()


def _start_worker(index: int, count: int) -> None:
    cv2.setNumThreads(0)


def _allow_workers() -> None:
    """grain hands absl's flags to its workers, which fails where nobody has parsed any."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class _ThreadedBatches:
    """What grain does with threads, without grain."""

    def __init__(self, make_item: MakeItem, span: tuple[int, int], batch_size: int, threads: int):
        self._make_item, self._batch_size = make_item, batch_size
        self._next, self._end = span
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="data")
        self._futures: deque[Any] = deque()

    def __next__(self) -> Batch:
        while len(self._futures) < _AHEAD and self._next < self._end:
            self._futures.append(self._pool.submit(self._batch, self._next))
            self._next += self._batch_size
        if not self._futures:
            raise StopIteration
        return self._futures.popleft().result()

    def _batch(self, start: int) -> Batch:
        stop = min(start + self._batch_size, self._end)
        return collate([self._make_item(position) for position in range(start, stop)])

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
