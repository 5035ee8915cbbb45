"""Hold an explanation against what it promises, and against what it has to be good for."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from kit.base import checks
from kit.base.results import Result, result
from kit.explain.attribution import Attribution

WHERE = "explain.check"
SLACK = 1e-5  # of the largest value: what rounding may do
ERRORS = 4  # standard errors that an estimate may be off
ALIKE = 0.7  # rank correlation above which two explanations say the same
ORDERS, STAND_INS = 8, 20  # random orders to beat, and background rows to fill gaps from
Formula = Callable[[Callable, Any], Any]  # of a model f and rows x
Row = tuple[str, float, float, str]


@result
class Checks(Result):
    """Hold what was checked; `table` has a row a check.

    `curves` has the mean score after 0, 1, … features were added to the background ("insertion")
    or taken from the rows ("deletion"), those that raise the score most first, and at random.
    """

    curves: pd.DataFrame | None  # None where a player is not a column of the model

    def facts(self) -> dict[str, str]:
        """Return how many checks hold, and which do not."""
        failed = self.table.loc[~self.table["holds"], "check"]
        return {
            "hold": f"{len(self.table) - len(failed)} of {len(self.table)}",
            "do not": ", ".join(failed) or "none",
        }


def check(attribution: Attribution, *, n_rows: int = 20, seed: int = 0) -> Checks:
    """Check the axioms that Shapley values promise, faithfulness, and sanity.

    Axioms are checked by explaining models made for it, with the attribution's own settings: sums
    and multiples of its model, one that is kept from seeing a feature, and one that treats two
    alike. What makes no sense is left out: axioms of LIME, ignored columns of texts or of groups,
    shuffled weights of a function.

    Args:
        attribution: as `shap`, `lime` or `text` returned it.
        n_rows: rows of a table to check on, the first ones; texts are all taken.
        seed: of random orders and weights.

    Returns:
        A row a check: whether it holds, what was measured, its limit, and what it means; and the
        curves behind insertion and deletion.

    Raises:
        ValueError: the attribution does not know the model that it explains, or no rows.

    Example:
        >>> from kit.explain.shapley import shap
        >>> rows = np.random.default_rng(0).normal(size=(30, 3))
        >>> print(check(shap(lambda X: X[:, 0] * X[:, 1] + X[:, 2], rows, background=rows)))
        Checks(hold 7 of 7, do not none; table of 7 rows)
    """
    if n_rows < 1:
        raise checks.bad_value(WHERE, expected="n_rows >= 1", got=n_rows, remedy="Pass n_rows=20.")
    if attribution.rerun is None:
        raise checks.bad_value(
            WHERE,
            expected="an attribution that can explain other models",
            got=checks.Described(f"one made by {attribution.method}"),
            remedy="Pass what explain.shap, explain.lime or explain.text returned.",
        )
    again = _Again(attribution, n_rows)
    found = [] if attribution.method.startswith("LIME") else [_efficiency(attribution)]
    if attribution.method.startswith("Shapley"):
        found += [_additivity(again), _linearity(again)]
        found += [_dummy(again), _symmetry(again)] if again.plain else []
    curves = _curves(attribution, n_rows, np.random.default_rng(seed)) if again.plain else None
    if curves is not None:
        found += _faithfulness(attribution, n_rows, curves)
    if isinstance(attribution.model, nn.Module) and len(attribution.names) > 1:
        found += [_sanity(again, seed)]
    table = pd.DataFrame(found, columns=["check", "measured", "limit", "meaning"])
    # a comparison with NaN is False: what could not be measured does not hold
    table.insert(1, "holds", table["measured"] <= table["limit"])
    return Checks(table=table, curves=curves)


class _Again:
    """Explains variants of an attribution's model, on the first of its rows."""

    def __init__(self, attribution: Attribution, n_rows: int) -> None:
        assert attribution.rerun is not None
        self.attribution, self.rerun = attribution, attribution.rerun
        rows = attribution.rows
        # of groups and tokens, a player is not a column of the model
        self.plain = rows is not None and rows.shape[1] == len(attribution.names)
        self.rows = {} if rows is None else {"X": rows.iloc[:n_rows]}

    def __call__(self, formula: Formula, **changes: Any) -> Attribution:
        model = self.attribution.model
        is_module = isinstance(model, nn.Module)
        variant = _Variant(model, formula) if is_module else partial(formula, model)
        return self.rerun(variant, **(self.rows | changes))


class _Variant(nn.Module):
    """A formula of a module; it is a module, too, so that it runs where the model lives."""

    def __init__(self, model: nn.Module, formula: Formula) -> None:
        super().__init__()
        self.model, self.formula = model, formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self.model, x)


def _efficiency(found: Attribution) -> Row:
    gap = found.values.sum(1) + found.base_values - found.predictions
    size = max(_size(found.predictions - found.base_values), np.finfo(float).tiny)
    meaning = "values add up to prediction minus base value"
    return "efficiency", _size(gap) / size, SLACK, meaning


def _additivity(again: _Again) -> Row:
    formulas: list[Formula] = [
        lambda f, x: f(x),
        lambda f, x: _squash(f(x)),
        lambda f, x: f(x) + _squash(f(x)),
    ]
    one, other, both = (again(formula, output="raw") for formula in formulas)
    off = both.values - one.values - other.values
    return _row("additivity", off, [both, one, other], "values of f + g are those of f and of g")


def _linearity(again: _Again) -> Row:
    one = again(lambda f, x: f(x), output="raw")
    scaled = again(lambda f, x: 3 * f(x) - 1, output="raw")
    off = scaled.values - 3 * one.values
    return _row("linearity", off, [scaled, one], "values of 3 f - 1 are 3 times those of f")


def _dummy(again: _Again) -> Row:
    a = again.attribution
    j = a.names.index(a.table["feature"].iloc[0])

    def blind(f: Callable, x: Any) -> Any:
        x = x + 0  # a copy, of an array or of a tensor
        x[:, j] = 0
        return f(x)

    worst = _size(again(blind).values[:, j])
    return "dummy", worst, 0.0, "a feature that the model is kept from seeing gets 0"


def _symmetry(again: _Again) -> Row:
    rows, back = again.rows["X"].to_numpy(copy=True), np.array(again.attribution.background)
    i, j = 0, rows.shape[1] - 1
    rows[:, j], back[:, j] = rows[:, i], back[:, i]
    order = np.arange(rows.shape[1])
    order[[i, j]] = j, i

    def even(f: Callable, x: Any) -> Any:
        return f(x) + f(x[:, order])

    names = again.rows["X"].columns
    found = again(even, X=pd.DataFrame(rows, columns=names), background=back, output="raw")
    off = found.values[:, i] - found.values[:, j]
    return _row("symmetry", off, [found], "features that are used alike get the same")


def _curves(a: Attribution, n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Add and remove features, from the one that raises the score most, and at random."""
    values, best = _leading(a, n_rows)
    ours = _walked(a, values, best)
    others = [_walked(a, rng.random(values.shape), best) for _ in range(ORDERS)]
    columns = [*ours, *np.mean(others, axis=0)]
    names = ["insertion", "deletion", "insertion_at_random", "deletion_at_random"]
    curves = pd.DataFrame(dict(zip(names, columns, strict=True)))
    return curves.rename_axis("n_features").reset_index()


def _faithfulness(a: Attribution, n_rows: int, curves: pd.DataFrame) -> list[Row]:
    """Compare the areas under the curves: is it faster than at random?"""
    size = max(float(np.abs(_leading(a, n_rows)[0].sum(1)).mean()), np.finfo(float).tiny)
    area = curves.mean()
    added = float(area["insertion_at_random"] - area["insertion"]) / size
    removed = float(area["deletion"] - area["deletion_at_random"]) / size
    return [
        ("insertion", added, SLACK, "raising features first beat a random order"),
        ("deletion", removed, SLACK, "without raising features the score is lower"),
    ]


def _leading(a: Attribution, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (n, F) of each row's leading output, and its number."""
    values = a.values[:n_rows].reshape(len(a.values[:n_rows]), len(a.names), -1)
    best = a.predictions[:n_rows].reshape(len(values), -1).argmax(1)
    return values[np.arange(len(values)), :, best], best


def _walked(a: Attribution, values: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the mean scores (2, F + 1) while features are added and removed, by `values`."""
    assert a.ask is not None
    assert a.background is not None
    assert a.rows is not None
    n, F = values.shape
    own, back = a.rows.to_numpy()[:n, None, None], a.background[:STAND_INS]
    place = np.argsort(np.argsort(-values, axis=1), axis=1)  # (n, F): 0 for the largest
    first = place[:, None] < np.arange(F + 1)[:, None]  # (n, F + 1, F)
    found = []
    for known in (first, ~first):
        rows = np.where(known[:, :, None], own, back)  # (n, F + 1, B, F)
        scores = a.ask(rows.reshape(-1, F)).reshape(n, F + 1, len(back), -1)
        found.append(scores[np.arange(n), :, :, best].mean((0, 2)))
    return np.array(found)


def _sanity(again: _Again, seed: int) -> Row:
    """Shuffle every tensor of weights: an explanation that stays the same is not of the model."""
    shuffled = copy.deepcopy(again.attribution.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in shuffled.parameters():
            order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))
    before, after = again(lambda f, x: f(x)).values, again.rerun(shuffled, **again.rows).values
    pairs = zip(
        np.abs(before).reshape(len(before), -1), np.abs(after).reshape(len(after), -1), strict=True
    )
    alike = [stats.spearmanr(one, other).statistic for one, other in pairs]
    meaning = "shuffled weights change the ranks of features"
    return "sanity", float(np.nanmean(alike)), ALIKE, meaning


def _row(name: str, off: np.ndarray, runs: list[Attribution], meaning: str) -> Row:
    """Return the largest deviation, against what errors and rounding allow."""
    size = max(_size(runs[0].values), np.finfo(float).tiny)
    errors = [run.error_std for run in runs if run.error_std is not None]
    allowed = ERRORS * float(np.sqrt(sum(error.max() ** 2 for error in errors)))
    return name, _size(off) / size, max(SLACK, allowed / size), meaning


def _size(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))


def _squash(z: Any) -> Any:
    return z / (1 + abs(z))
