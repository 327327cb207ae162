"""Times of several contenders that take turns, so that all meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Times", "interleaved"]


class Times(NamedTuple):
    """Seconds per call.

    Attributes:
      median: over all rounds.
      p10: tenth percentile, which other work on the machine disturbs least.
    """

    median: float
    p10: float


def _seconds(run: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 0.5,
    block: float = 1e-3,
    rounds: tuple[int, int] = (15, 200),
) -> dict[str, Times]:
    """Lets each contender run a warmed-up block of calls per round.

    Args:
      contenders: functions that return when their work is done.
      seconds: time to spend on each contender.
      block: seconds that a timed block lasts at least.
      rounds: least and largest number of rounds.

    Example:
      >>> times = interleaved({"sum": lambda: sum(range(99))}, seconds=0.01)
      >>> times["sum"].p10 <= times["sum"].median
      True
    """
    calls = {}
    for name, run in contenders.items():
        _seconds(run, 3)
        once = max(statistics.median(_seconds(run, 1) for _ in range(5)), 1e-7)
        calls[name] = (max(1, round(block / once)), max(1, round(block / 2 / once)))
        seconds = max(seconds, once)
    least, most = rounds
    collected = {name: [] for name in contenders}
    total = time.perf_counter() + seconds * len(contenders)
    for index in range(most):
        if index >= least and time.perf_counter() > total:
            break
        for name, run in contenders.items():
            timed, warm = calls[name]
            _seconds(run, warm)
            collected[name].append(_seconds(run, timed))
    return {
        name: Times(statistics.median(times), sorted(times)[len(times) // 10])
        for name, times in collected.items()
    }
