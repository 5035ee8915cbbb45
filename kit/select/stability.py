"""Choose what is chosen again and again on halves of the rows; few of those are chance."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import lars_path

from kit.base import checks, progress
from kit.select.inputs import numbers, targets
from kit.select.selection import Selection, made

Base = Callable[[np.ndarray, np.ndarray, int], Sequence[int]]


def first_in(X: np.ndarray, y: np.ndarray, q: int) -> Sequence[int]:
    """Return the first features that enter the lasso, at most q, whichever question lets them in.

    Args:
        X: (rows, features).
        y: (questions, rows): a quantity, yes/no as 1 and 0, or one question a class.
        q: how many.
    """
    spread = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)
    entry = np.zeros(X.shape[1])
    for answer in y:
        alphas, _, path = lars_path(Z, answer - answer.mean(), method="lasso", max_iter=q)
        inside = path != 0  # (F, steps); what is in at a step came in at the penalty before
        first = np.maximum(inside.argmax(axis=1) - 1, 0)
        entry = np.maximum(entry, np.where(inside.any(axis=1), alphas[first], 0))
    order = np.argsort(-entry, kind="stable")[:q]
    return [int(j) for j in order if entry[j] > 0]


def stability(
    X: pd.DataFrame,
    y: Any,
    *,
    threshold: float = 0.75,
    false: float = 1.0,
    draws: int = 100,
    base: Base = first_in,
    seed: int = 0,
) -> Selection:
    """Choose the features that a simple method picks on most halves of the rows.

    If `base` chose by chance no less often than by merit, at most q² / ((2 threshold - 1) F)
    chosen features would be false on average, with q those that it picks a time and F all: q is set
    so that this is `false`, and the bound is told with the q that was seen.

    Args:
        X: one column of numbers a feature.
        y: a quantity, yes/no or classes.
        threshold: fraction of the halves that must pick a feature, above 0.5.
        false: false choices to put up with, on average.
        draws: halves, drawn in pairs that share no row.
        base: picks features of one half: (X, y, q) -> positions.
        seed: of the halves.

    Returns:
        The table has how often each feature was picked; `details` also the bound.

    Raises:
        ValueError: words, gaps, or settings out of range.

    Source: Meinshausen, Bühlmann (2010), Stability selection, theorem 1; pairs of halves after
        Shah, Samworth (2013).
    """
    where = "select.stability"
    rows = numbers(where, X)
    questions, _ = targets(where, y, len(rows))
    _check(where, threshold, false, draws)
    n_features = X.shape[1]
    q = max(1, min(n_features, int(np.sqrt(false * (2 * threshold - 1) * n_features))))
    rng = np.random.default_rng(seed)
    times = np.zeros(n_features)
    for half in progress.track(_halves(len(rows), draws, rng), label="halves", total=draws):
        times[list(base(rows[half], questions[:, half], q))] += 1
    often = times / draws
    seen = times.sum() / draws
    bound = seen**2 / ((2 * threshold - 1) * n_features)
    order = np.argsort(-often, kind="stable")
    chosen = [int(j) for j in order if often[j] >= threshold]
    names = [str(name) for name in X.columns]
    details = pd.DataFrame({"feature": names, "picked_frac": often}).iloc[order]
    note = f"at most {bound:.2g} of {len(chosen)} false on average"
    details = details.assign(chosen=details["picked_frac"] >= threshold, false_bound=bound)
    return made("stability", names, often, chosen, details.reset_index(drop=True), note)


def _halves(n_rows: int, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    half = n_rows // 2
    found = []
    for _ in range((draws + 1) // 2):
        order = rng.permutation(n_rows)
        found += [order[:half], order[half : 2 * half]]
    return found[:draws]


def _check(where: str, threshold: float, false: float, draws: int) -> None:
    if not 0.5 < threshold <= 1:
        raise checks.bad_value(
            where, expected="0.5 < threshold <= 1", got=threshold, remedy="Pass threshold=0.75."
        )
    if not false > 0:
        raise checks.bad_value(where, expected="false > 0", got=false, remedy="Pass false=1.0.")
    if draws < 10:
        raise checks.bad_value(where, expected="draws >= 10", got=draws, remedy="Pass draws=100.")
