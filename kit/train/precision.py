"""In which numbers to compute: float32, or bfloat16 where a short probe says that it pays."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from kit.base import device

PAYS = 1.1  # bfloat16 is taken where a step is so many times as fast


def casts(where: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a model computes in `precision`."""
    if precision == "bfloat16":
        return torch.autocast(where.type, dtype=torch.bfloat16)
    return nullcontext()


def probed(loss: Callable[[], Tensor], where: torch.device) -> str:
    """Return the precision in which a loss and its gradients are computed faster."""
    seconds = {name: min(_passes(loss, where, name)) for name in ("float32", "bfloat16")}
    return "bfloat16" if seconds["float32"] > PAYS * seconds["bfloat16"] else "float32"


def _passes(loss: Callable[[], Tensor], where: torch.device, precision: str) -> Iterator[float]:
    for _ in range(3):
        device.wait_for(where)
        start = time.perf_counter()
        with casts(where, precision):
            loss().backward()
        device.wait_for(where)
        yield time.perf_counter() - start
