"""Timings that do not fool their reader: warm-up, device sync, spread."""

import time
from collections.abc import Callable

import pandas as pd
import torch

from kit.base import checks
from kit.base.device import wait_for
from kit.base.results import Result, result, short


@result
class Timing(Result):
    """Hold the time of every repeat of one call."""

    median_ms: float
    p90_ms: float
    device: str

    def facts(self) -> dict[str, str]:
        """Return median, 90th percentile and device."""
        return {
            "median_ms": short(self.median_ms),
            "p90_ms": short(self.p90_ms),
            "device": self.device,
        }


def measure(
    call: Callable[[], object],
    *,
    device: torch.device | None = None,
    repeats: int = 20,
    warmup: int = 3,
) -> Timing:
    """Time `call()`; the clock stops only when the device has finished.

    Args:
        call: what to time, without arguments.
        device: where it computes; None is the CPU.
        repeats: timed calls, at least 1.
        warmup: calls before the clock starts: they pay for caches and lazy set-up.

    Returns:
        Milliseconds of every repeat, their median and 90th percentile.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise checks.bad_value(
            "timing.measure", expected="repeats >= 1", got=repeats, remedy="Pass repeats=20."
        )
    device = device or torch.device("cpu")
    for _ in range(warmup):
        call()
    times_ms = [_once_ms(call, device) for _ in range(repeats)]
    table = pd.DataFrame({"time_ms": times_ms})
    median, p90 = table["time_ms"].quantile([0.5, 0.9])
    return Timing(table=table, median_ms=float(median), p90_ms=float(p90), device=str(device))


def _once_ms(call: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return 1e3 * (time.perf_counter() - start)
