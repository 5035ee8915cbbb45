"""Find a learning rate: raise it step by step, and see where the loss falls and where it flies."""

import copy
import math
from collections.abc import Callable, Iterable
from itertools import cycle, islice

import pandas as pd
import torch
from torch import Tensor, nn

from kit.base import checks, device, progress
from kit.base.results import Result, result, short
from kit.train.losses import Loss, loss_for

WHERE = "tune.lr_range"
SMOOTH = 0.9  # of the running mean of the loss, corrected for its start
FLIES = 4.0  # it has diverged once its loss is this many times the best; Smith (2017), fast.ai

Batches = Iterable[tuple[Tensor, Tensor]]


@result
class LrRange(Result):
    """Hold a test of learning rates; `table` has one row a step: lr, loss, smoothed."""

    lr: float  # where the smoothed loss falls fastest: a good first choice
    lr_at_lowest: float  # where it was lowest: already too much
    diverged_at: float  # NaN where it never did

    def facts(self) -> dict[str, str]:
        """Return the suggestion, and where it is too much."""
        return {
            "lr": f"{self.lr:.2g}",
            "lr_at_lowest": f"{self.lr_at_lowest:.2g}",
            "diverged_at": "–" if math.isnan(self.diverged_at) else f"{self.diverged_at:.2g}",
            "lowest": short(float(self.table["smoothed"].min())),
        }


def lr_range(
    model: nn.Module,
    batches: Batches,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    loss: Loss | None = None,
) -> LrRange:
    """Train a copy of `model` while lr grows from `low` to `high`, until its loss flies off.

    Args:
        model: any module; a copy is trained.
        batches: inputs and targets, as `train.batches` yields them; taken again from the start
            where there are fewer than `steps`.
        low: the first learning rate.
        high: the last one, unless it diverges before.
        steps: gradient steps, 10 or more.
        optimizer: takes the parameters and lr, such as torch.optim.AdamW.
        loss: of outputs and targets; None goes by the type of the targets.

    Returns:
        The loss at every lr, and the lr at which it falls fastest.

    Raises:
        ValueError: a range or steps out of bounds, no batches, or a loss that is never finite.
    """
    if not 0 < low < high < math.inf:
        raise _bad("0 < low < high", checks.Described(f"{low} and {high}"), "Pass low=1e-6.")
    if steps < 10:
        raise _bad("steps >= 10", steps, "Pass steps=100.")
    given = list(islice(batches, steps))
    if not given:
        raise _bad("one batch at least", checks.Described("none"), "Pass train.batches(X, y, …).")
    model, where = copy.deepcopy(model).train(), device.of(model)
    opt = optimizer(model.parameters(), lr=low)
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    losses: list[float] = []
    for lr, (xb, yb) in zip(progress.track(rates, label="lr"), cycle(given), strict=False):
        for group in opt.param_groups:
            group["lr"] = lr
        value = (loss or loss_for(yb))(model(xb.to(where)), yb.to(where))
        losses.append(float(value.detach()))
        if not losses[-1] <= FLIES * max(min(losses), 1e-12):  # NaN is not, either
            break
        opt.zero_grad()
        value.backward()
        opt.step()
    return _record(rates[: len(losses)], losses, flew=len(losses) < steps)


def _record(rates: list[float], losses: list[float], *, flew: bool) -> LrRange:
    table = pd.DataFrame({"lr": rates, "loss": losses})
    # pandas divides by the sum of the weights, so that the mean is right from the first step on
    table["smoothed"] = table["loss"].ewm(alpha=1 - SMOOTH).mean()
    calm = table.iloc[:-1] if flew else table
    if len(calm) < 2 or not math.isfinite(calm["loss"].iloc[0]):
        raise _bad("a finite loss at the lowest lr", losses[0], "Pass a lower low=, such as 1e-8.")
    slopes = calm["smoothed"].diff()[: calm["smoothed"].idxmin() + 1]
    fastest = slopes.idxmin() if slopes.notna().any() else 0
    return LrRange(
        table=table,
        lr=float(calm["lr"][fastest]),
        lr_at_lowest=float(calm["lr"][calm["smoothed"].idxmin()]),
        diverged_at=rates[-1] if flew else math.nan,
    )


def _bad(expected: str, got: object, remedy: str) -> ValueError:
    return checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
