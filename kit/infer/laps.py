"""Forms timed in turns: a busy machine slows a lap, not a form."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from kit.base.device import wait_for

SECONDS = 2.0  # for all laps of one contest
LAPS = 3, 40  # at least and at most
BLOCK_S = 1e-3  # calls of one form in a row: a shorter block would be mostly clock
LONG_S = 0.05  # of a call that is never worth repeating
SLOW = 1.5  # times the first form's time, from which the least laps are enough


def laps_ms(
    calls: Mapping[str, Callable[[], object]],
    where: torch.device,
    *,
    seconds: float = SECONDS,
) -> dict[str, np.ndarray]:
    """Time calls in turns, each lap in another order.

    Args:
        calls: name -> what to time; each has been called before. The first one is the measure:
            what is far slower drops out early.
        where: the device that each call waits for.
        seconds: after which no further lap begins, once each call has had three.

    Returns:
        Name -> milliseconds of one call in each lap; fewer laps for what dropped out.
    """
    first = next(iter(calls))
    times: dict[str, list[float]] = {name: [] for name in calls}
    counts = {name: _count(call, where) for name, call in calls.items()}
    running, begun = list(calls), time.perf_counter()
    for lap in range(LAPS[1]):
        shift = lap % len(running)
        for name in running[shift:] + running[:shift]:
            n = counts[name]
            times[name].append(1e3 * _block_s(calls[name], n, where) / n)
        if lap + 1 < LAPS[0]:
            continue
        limit = SLOW * np.median(times[first])
        running = [name for name in running if np.median(times[name]) < limit]
        if time.perf_counter() - begun > seconds:
            break
    return {name: np.array(each) for name, each in times.items()}


def _count(call: Callable[[], object], where: torch.device) -> int:
    """Return how many calls make a block, by the quickest of three: one may be disturbed."""
    quickest = _block_s(call, 1, where)
    if quickest < LONG_S:
        quickest = min(quickest, _block_s(call, 1, where), _block_s(call, 1, where))
    return max(1, round(BLOCK_S / quickest))


def _block_s(call: Callable[[], object], n: int, where: torch.device) -> float:
    clock = _clock(where)
    wait_for(where)
    start = clock()
    for _ in range(n):
        call()
        wait_for(where)  # who calls for a few rows waits for them
    return clock() - start


def _clock(where: torch.device) -> Callable[[], float]:
    """Return the clock on the wall, or where one thread does all the work, that thread's own."""
    is_fine = time.get_clock_info("thread_time").resolution <= 1e-6  # Windows has 16 ms
    alone = where.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone and is_fine else time.perf_counter
