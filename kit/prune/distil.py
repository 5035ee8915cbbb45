"""Teach a smaller model what a larger one answers: no labels are needed."""

import math
from collections.abc import Mapping
from itertools import pairwise

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.base import checks, progress
from kit.base.modes import evaluating
from kit.base.results import Result, result, short
from kit.prune import inputs

WHERE = "prune.distil"
BATCH = 16


@result
class Distilled(Result):
    """Hold the course of a distillation; `table` has step and loss of up to twenty stretches."""

    steps: int
    loss: float  # of the last stretch

    def facts(self) -> dict[str, str]:
        """Return the steps and the last loss."""
        return {"steps": f"{self.steps:,}", "loss": short(self.loss)}


def distil(
    student: nn.Module,
    teacher: nn.Module,
    rows: Tensor | Mapping[str, Tensor],
    *,
    steps: int,
    lr: float = 1e-3,
    batch: int = BATCH,
    temperature: float | None = None,
    seed: int = 0,
) -> Distilled:
    """Train a student in place until it answers as its teacher does.

    AdamW, the rate warmed up over a tenth of the steps and then lowered to nought along a cosine;
    gradients are clipped at 1. At Ctrl-C the student stays as far as it came.

    Args:
        student: the model that learns.
        teacher: the model that it learns from; it is not changed.
        rows: what both are asked, without labels.
        steps: of the optimizer.
        lr: the highest learning rate.
        batch: rows a step.
        temperature: a number compares distributions over the last axis (KL divergence, of logits
            divided by it); None compares the outputs themselves (squared error, by the variance of
            the teacher's).
        seed: of the order of the rows.

    Raises:
        ValueError: steps, lr, batch or temperature out of range; rows that `prune.shrink` would
            refuse; outputs of another shape than the teacher's.

    Source:
        Hinton et al.: Distilling the Knowledge in a Neural Network, 2015.
    """
    inputs.check(WHERE, student, rows)
    inputs.check(WHERE, teacher, rows)
    _check(steps=steps, lr=lr, batch=batch, temperature=1 if temperature is None else temperature)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    if not weights:
        raise checks.bad_value(
            WHERE,
            expected="a student with weights that learn",
            got=checks.Described("none with requires_grad"),
            remedy="Let them: student.requires_grad_(True).",
        )
    opt = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    modes = [(part, part.training) for part in student.modules()]
    losses: list[float] = []
    try:
        student.train()
        drawn = _order(inputs.count(rows), steps, batch, seed)
        for step, places in enumerate(progress.track(drawn, label="step")):
            part = inputs.take(rows, places)
            for group in opt.param_groups:
                group["lr"] = lr * _share(step, steps)
            losses.append(_learn(student, teacher, part, opt, weights, temperature))
    except KeyboardInterrupt:
        pass  # what was learnt stays
    finally:
        opt.zero_grad()
        for module, training in modes:
            module.training = training
    return _told(losses)


def _learn(
    student: nn.Module,
    teacher: nn.Module,
    part: inputs.Rows,
    opt: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    temperature: float | None,
) -> float:
    with evaluating(teacher):
        wanted = inputs.call(teacher, part)
    given = inputs.call(student, part)
    if given.shape != wanted.shape:
        raise checks.bad_value(
            WHERE,
            expected=f"a student whose outputs have the teacher's shape, {tuple(wanted.shape)}",
            got=given,
            remedy="Give it as many outputs.",
        )
    loss = _apart(given.float(), wanted.float(), temperature)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    opt.step()
    return float(loss.detach())


def _apart(given: Tensor, wanted: Tensor, temperature: float | None) -> Tensor:
    if temperature is None:
        return F.mse_loss(given, wanted) / wanted.var(correction=0).clamp_min(1e-12)
    ours, theirs = ((x / temperature).log_softmax(-1).flatten(0, -2) for x in (given, wanted))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2


def _order(n: int, steps: int, batch: int, seed: int) -> list[Tensor]:
    """Return which rows each step is given: all of them, in another order each time round."""
    chance = torch.Generator().manual_seed(seed)
    rounds = math.ceil(steps * batch / n)
    places = torch.cat([torch.randperm(n, generator=chance) for _ in range(rounds)])
    return list(places[: steps * batch].view(steps, batch))


def _share(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _told(losses: list[float]) -> Distilled:
    edges = sorted({round(i * len(losses) / 20) for i in range(21)})
    rows = [{"step": b, "loss": sum(losses[a:b]) / (b - a)} for a, b in pairwise(edges)]
    table = pd.DataFrame(rows, columns=["step", "loss"])
    last = float(table["loss"].iloc[-1]) if len(table) else math.nan
    return Distilled(table=table, steps=len(losses), loss=last)


def _check(*, steps: int, lr: float, batch: int, temperature: float) -> None:
    given = {"steps": steps, "lr": lr, "batch": batch, "temperature": temperature}
    typical = {"steps": "60", "lr": "1e-3", "batch": "16", "temperature": "2.0"}
    for name, value in given.items():
        kind = int if name in ("steps", "batch") else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
            raise checks.bad_value(
                WHERE,
                expected=f"{name} above 0" + (", a whole number" if kind is int else ""),
                got=value,
                remedy=f"Pass {name}={typical[name]}.",
            )
