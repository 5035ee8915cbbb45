"""The limits of this machine, measured: how fast it moves bytes and multiplies matrices."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from kit.base.results import Result, result, short
from kit.base.timing import measure as timed
from kit.infer.layout import Packed

COPY_MIB = {"cpu": 128, "cuda": 1024}  # far more than caches hold
SIDE = {"cpu": 1024, "cuda": 8192}  # of square matrices, large enough to be busy with
KINDS = ("float32", "bfloat16", "int8")  # of numbers that matrices are multiplied in
KINDS_OF = {torch.bfloat16: "bfloat16", torch.float16: "bfloat16", torch.qint8: "int8"}
REPEATS = 5
GIGA = 1e9


@result
class Roofline(Result):
    """Hold what a device can do at most: bytes moved and operations done a second.

    A byte that is copied is read and written: it counts twice.
    """

    device: str
    threads: int
    copy_gb_per_s: float
    gflop_per_s: dict[str, float]  # by the type of numbers; NaN where the device cannot

    def facts(self) -> dict[str, str]:
        """Return bandwidth and matrix rates."""
        rates = {f"{name}_gflop_per_s": short(rate) for name, rate in self.gflop_per_s.items()}
        return {"copy_gb_per_s": short(self.copy_gb_per_s), **rates}

    def decode_ceiling(self, model: nn.Module, *, batch: int, context: int) -> float:
        """Return the tokens a second that `batch` texts of `context` tokens cannot exceed.

        Every step reads all weights once and the keys and values of every text, and does two
        operations a weight for each text. Where all of it fits a CPU's caches, memory is no limit,
        and a model may be faster than this. So may one with tables that are only looked up in: they
        count as if they were multiplied with, as that of models.GPT is on the way out.
        """
        _, weight_bytes, _ = weights(model)
        moved = weight_bytes + batch * context * cache_bytes(model)
        memory_s = moved / (GIGA * self.copy_gb_per_s)
        return batch / max(memory_s, batch / self.prefill_ceiling(model))

    def prefill_ceiling(self, model: nn.Module) -> float:
        """Return the tokens a second that cannot be exceeded where all of a prompt is there."""
        n, _, kind = weights(model)
        return GIGA * self.gflop_per_s[kind] / (2 * n)


def roofline(device: torch.device | None = None) -> Roofline:
    """Measure what a device can do: bytes copied a second, and products of matrices by type.

    Args:
        device: None is the CPU, with as many threads as torch uses now.

    Returns:
        GB a second of memory (each copied byte counts twice) and GFLOP a second.
    """
    where = device or torch.device("cpu")
    rows = [_copy(where)]
    rows += [_product(where, kind) for kind in KINDS]
    table = pd.DataFrame(rows, columns=["what", "size", "median_ms", "rate", "unit"])
    return Roofline(
        table=table,
        device=str(where),
        threads=torch.get_num_threads(),
        copy_gb_per_s=float(table["rate"][0]),
        gflop_per_s=dict(zip(table["what"][1:], table["rate"][1:], strict=True)),
    )


def weights(model: nn.Module) -> tuple[int, int, str]:
    """Return how many weights a model has, their bytes, and the type of most of them."""
    held = list(model.parameters())
    for part in model.modules():
        packed: Any = getattr(part, "weight", None)
        if callable(packed):  # of the int8 layers of torch.ao, which are no parameters
            held.append(packed())
    n_of = dict.fromkeys(KINDS, 0)
    for each in held:
        n_of[KINDS_OF.get(each.dtype, "float32")] += each.numel()
    n_bytes = sum(each.numel() * each.element_size() for each in held)
    return sum(n_of.values()), n_bytes, max(KINDS, key=lambda kind: n_of[kind])


def cache_bytes(model: Any) -> int:
    """Return the bytes of keys and values of one token; 0 where a model has no cache."""
    return model.cache(1, room=1).nbytes if callable(getattr(model, "cache", None)) else 0


def _copy(where: torch.device) -> tuple[str, str, float, float, str]:
    mib = COPY_MIB.get(where.type, COPY_MIB["cpu"])
    source = torch.ones(mib * 2**18, device=where)  # four bytes each
    target = torch.empty_like(source)
    ms = timed(lambda: target.copy_(source), device=where, repeats=REPEATS).median_ms
    return "copy", f"{mib} MiB", ms, 2 * source.nbytes / (ms / 1e3) / GIGA, "GB/s"


def _product(where: torch.device, kind: str) -> tuple[str, str, float, float, str]:
    side = SIDE.get(where.type, SIDE["cpu"])
    a, b = (torch.ones(side, side, device=where).to(getattr(torch, kind)) for _ in range(2))
    try:
        ms = min(timed(way, device=where, repeats=REPEATS).median_ms for way in _ways(a, b))
    except (RuntimeError, NotImplementedError):  # this device has no such product
        ms = math.nan
    rate = 2 * side**3 / (ms / 1e3) / GIGA
    return kind, f"{side} x {side}", ms, rate, "GFLOP/s"


def _ways(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    """Return the ways to multiply two matrices; the fastest tells what the device can do."""
    if a.dtype == torch.int8:
        return [lambda: torch._int_mm(a, b)]
    ways = [lambda: torch.mm(a, b)]
    if a.dtype == torch.float32 and a.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # generate computes with it: without it, reading a prompt would go through the roof
        packed = Packed(nn.Linear(len(b), len(b), bias=False))
        ways.append(lambda: packed(a))
    return ways
