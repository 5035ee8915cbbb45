"""What a model is worth at every size: by each method, dense, and trained at that size."""

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor, nn

from kit.base import checks, progress, timing
from kit.base import seed as seeds
from kit.base.modes import evaluating
from kit.base.results import Result, result, short
from kit.prune import choose, inputs
from kit.prune.layers import sample
from kit.prune.pruned import parameters
from kit.prune.shrink import WHAT, shrink
from kit.prune.stored import save

WHERE = "prune.curve"
DENSE, SCRATCH = "dense", "from scratch"
ROWS = 16  # that are timed together


@result
class Curve(Result):
    """Hold quality and size over what is kept.

    `table` has one row for each model: method ("dense" and "from scratch" among them), keep,
    quality, parameters, file_mb and latency_ms (of 16 rows together).
    """

    better: str  # "higher" or "lower" quality

    def facts(self) -> dict[str, str]:
        """Return the dense quality, and the smallest model of each method within 1 % of it."""
        dense = self.table[self.table["method"] == DENSE].iloc[0]
        facts = {"dense quality": short(dense["quality"])}
        for method, rows in self.table[self.table["method"] != DENSE].groupby("method", sort=False):
            near = rows[self._loss(rows["quality"], dense["quality"]) <= 0.01]
            facts[f"{method} within 1 %"] = (
                f"{short(near['parameters'].min())} parameters" if len(near) else "none"
            )
        return facts

    def knee(self, method: str = "obs", *, within: float = 0.01) -> float:
        """Return the smallest keep whose quality is within a fraction of the dense one's.

        Raises:
            ValueError: no row of that method, or none so near.
        """
        dense = self.table.loc[self.table["method"] == DENSE, "quality"].iloc[0]
        rows = self.table[self.table["method"] == method]
        near = rows[self._loss(rows["quality"], dense) <= within]
        if near.empty:
            raise checks.bad_value(
                "prune.Curve.knee",
                expected=f"a model of {method!r} within {within:g} of the dense quality",
                got=checks.Described("none"),
                remedy="Pass a larger within=, or trace a curve with larger keeps=.",
            )
        return float(near["keep"].min())

    def _loss(self, quality: pd.Series, dense: float) -> pd.Series:
        worse = dense - quality if self.better == "higher" else quality - dense
        return worse / max(abs(dense), 1e-12)


def curve(
    model: nn.Module,
    calibration: Tensor | Mapping[str, Tensor],
    evaluate: Callable[[nn.Module], float],
    *,
    scratch: Callable[[nn.Module], object],
    better: str = "higher",
    keeps: Sequence[float] = (0.75, 0.5, 0.25),
    methods: Sequence[str] = ("obs", "magnitude", "activation"),
    what: str = "neurons",
    seed: int = 0,
) -> Curve:
    """Shrink a model to several sizes by several methods, and judge each beside its rivals.

    The rivals are the dense model, and for every size one of that size, its weights drawn anew and
    trained by `scratch`: a pruned model that does not beat it was not worth its training.

    Args:
        model: any module; it is not changed.
        calibration: rows as for `shrink`.
        evaluate: returns the quality of a model, in eval mode and without gradients.
        scratch: trains a model in place, from weights drawn anew.
        better: "higher" or "lower" quality.
        keeps: fractions of the units, as for `shrink`.
        methods: of `shrink`.
        what: of `shrink`.
        seed: of the weights that are drawn anew.

    Raises:
        ValueError: no keeps, no methods, or what `shrink` refuses.
    """
    inputs.check(WHERE, model, calibration)
    _check(keeps, methods, what, better)
    rows = sample(calibration, ROWS)
    table = [_judged(DENSE, 1.0, model, evaluate, rows)]
    asked = list(product(sorted(keeps, reverse=True), methods))
    for keep, method in progress.track(asked, label="model"):
        smaller = shrink(model, calibration, keep=keep, what=what, method=method).model
        table.append(_judged(method, keep, smaller, evaluate, rows))
        if method == methods[-1]:
            fresh = renewed(smaller, seed=seed)
            scratch(fresh)
            table.append(_judged(SCRATCH, keep, fresh, evaluate, rows))
    return Curve(table=pd.DataFrame(table), better=better)


def renewed(model: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy with its weights drawn anew, as its layers draw them.

    Weights of modules that have no `reset_parameters` are drawn with the spread that they have.
    """
    fresh = copy.deepcopy(model)
    where = next(model.parameters()).device
    with seeds.drawing(seed, where=where), torch.no_grad():
        for part in fresh.modules():
            resets = ("reset_parameters", "_reset_parameters")
            reset = next((getattr(part, name) for name in resets if hasattr(part, name)), None)
            if reset is not None:
                reset()
                continue
            for weight in part.parameters(recurse=False):
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                weight.copy_(torch.randn_like(weight) * spread)
    return fresh


def _judged(
    method: str,
    keep: float,
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    rows: inputs.Rows,
) -> dict[str, object]:
    with evaluating(model):
        quality = float(evaluate(model))
        timed = timing.measure(
            lambda: inputs.call(model, rows), device=next(model.parameters()).device
        )
    return {
        "method": method,
        "keep": keep,
        "quality": quality,
        "parameters": parameters(model),
        "file_mb": _file_mb(model),
        "latency_ms": timed.median_ms,
    }


def _file_mb(model: nn.Module) -> float:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path, model)
        return path.stat().st_size / 1e6


def _check(keeps: Sequence[float], methods: Sequence[str], what: str, better: str) -> None:
    for name, values, typical in (
        ("keeps", keeps, "(0.75, 0.5)"),
        ("methods", methods, '("obs",)'),
    ):
        if isinstance(values, str) or not len(values):
            raise checks.bad_value(
                WHERE,
                expected=f"one or more {name}",
                got=values,
                remedy=f"Pass {name}={typical}.",
            )
    for keep in keeps:
        inputs.check_fraction(WHERE, "keep", keep, remedy="Pass keeps=(0.75, 0.5).")
    for method in methods:
        inputs.check_choice(WHERE, "method", method, choose.METHODS)
    inputs.check_choice(WHERE, "what", what, WHAT)
    inputs.check_choice(WHERE, "better", better, ("higher", "lower"))
