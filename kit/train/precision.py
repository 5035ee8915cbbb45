"""In which numbers to compute, and by which products: what a short probe says is faster."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks, device
from kit.base import seed as seeds
from kit.base.modes import evaluating

PAYS = 1.1  # another precision is taken where a step is so many times as fast
ONEDNN = "float32 by oneDNN"  # the same numbers, multiplied by another library on the CPU
SIDE = 256  # rows and columns of a matrix from which oneDNN may be the faster one
NEAR = 1e-5  # error of a product by the largest value: float32 has 4e-7, bfloat16 2e-3


def casts(where: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a model computes in `precision`."""
    if precision == "bfloat16":
        return torch.autocast(where.type, dtype=torch.bfloat16)
    return nullcontext()


def has_bfloat16(where: torch.device) -> bool:
    """Say whether a device computes in bfloat16: others refuse, or go on in float32 and warn."""
    some = torch.ones(1, 1, device=where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with casts(where, "bfloat16"):
                return (some @ some).dtype == torch.bfloat16
        except RuntimeError:
            return False


def check_bfloat16(caller: str, where: torch.device) -> None:
    """Refuse a device that does not compute in bfloat16."""
    if not has_bfloat16(where):
        raise checks.bad_value(
            caller,
            expected="a device that computes in bfloat16",
            got=checks.Described(str(where)),
            remedy='Pass precision="float32".',
        )


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Let oneDNN multiply matrices on the CPU inside the block where `precision` says so.

    The setting belongs to the whole process; it is put back whatever happens in the block.
    """
    if precision != ONEDNN:
        yield
        return
    settings = _settings()
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "bf16"  # by its name; `is_exact` tells what it does here
        yield
    finally:
        settings.fp32_precision = before


@cache
def is_exact() -> bool:
    """Say whether oneDNN keeps to float32 here: where the CPU has AMX it may round to bfloat16."""
    if not hasattr(_settings(), "fp32_precision"):
        return False  # before torch 2.9
    draw = torch.randn(
        2, SIDE, SIDE, generator=seeds.generator(0), dtype=torch.float64, device="cpu"
    )
    a, b = draw.float()
    exact = a.double() @ b.double()
    with products(ONEDNN):
        error = (a @ b - exact).abs().max() / exact.abs().max()
    return float(error) < NEAR


def possible(precision: str) -> str:
    """Return the precision that a checkpoint was computed in, or what this machine has for it."""
    return "float32" if precision == ONEDNN and not is_exact() else precision


def is_wide(model: nn.Module) -> bool:
    """Say whether a model has a float32 matrix of at least SIDE rows and columns."""
    return any(
        weight.ndim == 2 and min(weight.shape) >= SIDE and weight.dtype == torch.float32
        for weight in model.parameters()
    )


def probed(loss: Callable[[], Tensor], model: nn.Module, other: str = "bfloat16") -> str:
    """Return the precision, float32 or `other`, that a loss of `model` is faster in.

    The model is as before after it, without gradients, and so are torch's global numbers.
    """
    where = device.of(model)
    try:
        # in eval mode and from numbers of its own, so that training starts as without a probe
        with seeds.drawing(0, where=where), evaluating(model), torch.enable_grad():
            seconds = {name: min(_passes(loss, where, name)) for name in ("float32", other)}
    finally:
        model.zero_grad()
    return other if seconds["float32"] > PAYS * seconds[other] else "float32"


def _passes(loss: Callable[[], Tensor], where: torch.device, precision: str) -> Iterator[float]:
    for _ in range(3):
        device.wait_for(where)
        start = time.perf_counter()
        with products(precision), casts(where, precision):
            loss().backward()
        device.wait_for(where)
        yield time.perf_counter() - start


def _settings() -> Any:
    # not torch.set_float32_matmul_precision, which would leave traces in three settings
    return getattr(torch.backends.mkldnn, "matmul", None)
