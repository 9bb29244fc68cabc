"""Ours against a named alternative, measured in turns in one process."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def race(
    benchmark: Any,
    ours: Callable[[], Any],
    other: Callable[[], Any],
    *,
    what: str,
    against: str,
    rounds: int,
    at_most: float | None = None,
    at_least_faster: float | None = None,
    strict: bool = True,
) -> float:
    """Run both `rounds` times, turn by turn, and report the ratio of their times.

    The ratio is the median of ours / other over the rounds, so that a load on the machine that
    comes and goes weighs on both. Both run once before, to be compiled.

    Args:
        benchmark: The fixture of pytest-benchmark; its own figures are those of `ours`.
        what, against: What is measured and the alternative, for the results page.
        at_most: Target for the ratio.
        at_least_faster: Target for its inverse.
        strict: Fail where the target is missed, rather than only say so.

    Returns:
        The ratio.
    """
    times: dict[str, list[float]] = {"ours": [], "other": []}

    def timed(name: str, run: Callable[[], Any]) -> None:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times[name].append(time.perf_counter() - start)

    def turn_of_the_other() -> None:
        timed("other", other)

    jax.block_until_ready(ours())
    jax.block_until_ready(other())
    load_before = os.getloadavg()[0]
    benchmark.pedantic(timed, ("ours", ours), setup=turn_of_the_other, rounds=rounds)
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["other"], strict=True))

    target, met = "", True
    if at_most is not None:
        target, met = f"ratio at most {at_most:g}", ratio <= at_most
    if at_least_faster is not None:
        target, met = f"at least {at_least_faster:g} times faster", 1 / ratio >= at_least_faster
    benchmark.extra_info.update(
        what=what,
        against=against,
        ours_ms=1e3 * statistics.median(times["ours"]),
        other_ms=1e3 * statistics.median(times["other"]),
        ours_min_ms=1e3 * min(times["ours"]),
        other_min_ms=1e3 * min(times["other"]),
        ratio=ratio,
        rounds=rounds,
        target=target,
        met=met,
        load=max(load_before, os.getloadavg()[0]),
    )
    print(
        f"\n{what}: {benchmark.extra_info['ours_ms']:.1f} ms, {against}: "
        f"{benchmark.extra_info['other_ms']:.1f} ms, ratio {ratio:.2f}, "
        f"{1 / ratio:.2f} times as fast{'; target ' + target if target else ''}"
    )
    assert met or not strict, f"{what}: ratio {ratio:.2f} to {against} misses the target, {target}"
    return ratio
