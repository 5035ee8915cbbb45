"""Outputs of a model for any number of rows, in batches that are fast and fit."""

import os
import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from kit.base import checks, device, machine
from kit.base.memory import halved
from kit.base.modes import evaluating
from kit.infer.inputs import check_alike, check_model, check_outputs, check_rows, is_count

FIRST = 64  # rows with which "auto" begins
BETTER = 1.05  # times as many rows per second that make a batch twice as large worth its memory


def predict(
    model: nn.Module, X: Shaped[Tensor, "rows ..."], *, batch: int | str = "auto"
) -> Shaped[Tensor, "rows ..."]:
    """Run `model` over rows in batches, in eval mode and without gradients.

    Args:
        model: any module that takes a batch of `X` and returns one tensor, rows first; it stays
            on its device, and its training mode is put back.
        X: inputs, on any device; they are moved batch by batch.
        batch: rows at once. "auto" begins with 64 and doubles while that gives more rows per
            second and memory is left; nothing is computed twice. A batch that memory does not
            hold is halved, with a warning.

    Returns:
        The outputs, on the CPU, for they may outgrow a GPU; no lower in precision than float32.

    Raises:
        ValueError: `batch` below 1, or outputs that are not one row for each of `X`.
        TypeError: what is no module, no tensor, or does not return one.
        RuntimeError: a single row is too much for memory.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> predict(model, torch.zeros(100, 2)).shape
        torch.Size([100, 1])
    """
    check_model("infer.predict", model)
    check_rows("infer.predict", X)
    _check_batch(batch)
    where, start = device.of(model), 0
    pace = _Pace(at_once=FIRST if batch == "auto" else int(batch), settled=batch != "auto")
    outputs = None
    with evaluating(model):
        while outputs is None or start < len(X):
            begun = time.perf_counter()
            asked = max(1, min(pace.at_once, len(X) - start))
            part, held = halved(partial(_part, model, X, start, where), asked, where)
            if held < asked:
                _tell(asked, held)
                pace.at_once, pace.settled = held, True
            pace.note(len(part), time.perf_counter() - begun, where)
            if outputs is None:
                outputs = part.new_empty(len(X), *part.shape[1:])
            check_alike("infer.predict", part, outputs)
            outputs[start : start + len(part)] = part
            start += len(part)
    return outputs


@dataclass
class _Pace:
    """The batch of "auto": it doubles while that pays."""

    at_once: int
    settled: bool
    best: int = 0  # the batch with most rows per second
    rows_per_s: float = 0.0
    misses: int = 0
    held_mib: float = field(default_factory=lambda: machine.peak_mib(os.getpid()) or 0.0)

    def note(self, rows: int, seconds: float, where: torch.device) -> None:
        """Choose the next batch after one of so many rows."""
        if self.settled or rows < self.at_once:
            return
        if rows > BETTER * self.rows_per_s * seconds:
            self.best, self.rows_per_s, self.misses = rows, rows / seconds, 0
        else:
            self.misses += 1
        # one miss may be bad luck on a busy machine
        self.settled = self.misses == 2 or not self._has_room(where)
        self.at_once = self.best if self.settled else 2 * rows

    def _has_room(self, where: torch.device) -> bool:
        """Tell whether twice the memory is there; only a GPU says by itself that it is full."""
        if where.type != "cpu":
            return True
        taken_mib = (machine.peak_mib(os.getpid()) or 0.0) - self.held_mib
        return 2 * taken_mib * machine.MIB < psutil.virtual_memory().available


def _part(model: nn.Module, X: Tensor, start: int, where: torch.device, rows: int) -> Tensor:
    """Return the outputs of some rows on the CPU."""
    xb = X[start : start + rows]
    outputs = model(xb.to(where))
    check_outputs("infer.predict", outputs, len(xb))
    if outputs.is_floating_point():
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return outputs.cpu()


def _tell(wanted: int, held: int) -> None:
    warnings.warn(
        f"infer.predict: {wanted:,} rows at once ran out of memory, {held:,} did not. "
        f"Pass batch={held} to silence this.",
        stacklevel=3,  # this, the public function, its caller
    )


def _check_batch(batch: Any) -> None:
    if batch != "auto" and not is_count(batch):
        raise checks.bad_value(
            "infer.predict", expected='batch >= 1 or "auto"', got=batch, remedy="Pass batch=1024."
        )
