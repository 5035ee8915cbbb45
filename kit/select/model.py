"""Rank features by what a trained model makes of them: shuffled away, or by handed-in values."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks, progress
from kit.select.inputs import check_count, check_table
from kit.select.selection import Selection, made

SURE = 2.0  # standard errors that a loss must be above nought


def permutation(
    score: Callable[[pd.DataFrame], float],
    X: pd.DataFrame,
    *,
    n: int | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> Selection:
    """Choose the features whose shuffling costs a trained model some of its score.

    Take rows that the model was not trained on. Of two features that say the same, each can stand
    in for the other, and both may look idle.

    Args:
        score: of the model on a table like `X`, higher is better, such as
            `lambda X: model.score(X, y)`.
        X: rows; any columns that `score` takes. They stay as they are.
        n: how many to choose; None takes those whose mean loss is 2 standard errors above nought.
        repeats: shuffles of each column, 2 or more.
        seed: of the shuffles.

    Returns:
        The table has the mean loss of score; `details` also its standard error.

    Raises:
        ValueError: no rows, fewer than 2 repeats, too large an n, or a score that is no number.

    Source: Breiman (2001), Random Forests, section 10.
    """
    where = "select.permutation"
    check_table(where, X)
    check_count(where, n, X.shape[1])
    if X.empty or repeats < 2:
        raise checks.bad_value(
            where,
            expected="rows, and repeats of 2 or more",
            got=checks.Described(f"{len(X)} rows, repeats={repeats}"),
            remedy="Pass the validation rows, and repeats=10.",
        )
    rng = np.random.default_rng(seed)
    whole, shuffled = _score(where, score, X), X.copy()
    losses = np.empty((X.shape[1], repeats))
    for j in progress.track(range(X.shape[1]), label="features"):
        for k in range(repeats):
            shuffled.isetitem(j, X.iloc[rng.permutation(len(X)), j].set_axis(X.index))
            losses[j, k] = whole - _score(where, score, shuffled)
        shuffled.isetitem(j, X.iloc[:, j])
    mean, error = losses.mean(axis=1), losses.std(axis=1, ddof=1) / np.sqrt(repeats)
    order = np.argsort(-mean, kind="stable")
    chosen = order[:n] if n else order[mean[order] > SURE * error[order]]
    names = [str(name) for name in X.columns]
    details = pd.DataFrame({"feature": names, "loss": mean, "standard_error": error}).iloc[order]
    return made("permutation", names, mean, chosen.tolist(), details.reset_index(drop=True))


def attributions(
    values: Any, *, names: Sequence[str], n: int | None = None, share: float = 0.95
) -> Selection:
    """Choose the features that carry most of what a model's decisions are attributed to.

    Args:
        values: of Shapley or any other attribution, (rows, features) or (rows, features, outputs),
            as `explain.shap(…).values` has them.
        names: of the features.
        n: how many to choose; None takes the fewest that carry `share` of the total.
        share: of the summed mean sizes, 0 < share <= 1.

    Returns:
        The table has the mean size of each feature's values; `details` also its share.

    Raises:
        ValueError: a shape that does not fit the names, NaN, or settings out of range.

    Example:
        >>> attributions(np.array([[3.0, -0.1], [-2.0, 0.1]]), names=["a", "b"]).chosen
        ('a',)
    """
    where = "select.attributions"
    found = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    if found.ndim not in (2, 3) or found.shape[1] != len(names) or not found.size:
        raise checks.bad_value(
            where,
            expected=f"values of shape (rows, {len(names)}) or (rows, {len(names)}, outputs)",
            got=found,
            remedy="Pass the values and the names of the same features.",
        )
    if not np.isfinite(found).all():
        raise checks.bad_value(
            where,
            expected="finite values",
            got=checks.Described(f"{int((~np.isfinite(found)).sum())} NaN or infinite"),
            remedy="Leave out the rows that could not be explained.",
        )
    check_count(where, n, len(names))
    if not 0 < share <= 1:
        raise checks.bad_value(
            where, expected="0 < share <= 1", got=share, remedy="Pass share=0.95."
        )
    size = np.abs(found).mean(axis=tuple(axis for axis in range(found.ndim) if axis != 1))
    order = np.argsort(-size, kind="stable")
    shares = size / max(size.sum(), np.finfo(float).tiny)
    # rounding must not ask for one more
    fewest = 1 + int((shares[order].cumsum() < share - 1e-12).sum())
    chosen = [int(j) for j in order[: n or fewest] if size[j] > 0]
    details = pd.DataFrame({"feature": list(names), "size": size, "share": shares}).iloc[order]
    return made("attributions", list(names), size, chosen, details.reset_index(drop=True))


def _score(where: str, score: Callable[[pd.DataFrame], float], X: pd.DataFrame) -> float:
    value = float(score(X))
    if not np.isfinite(value):
        raise checks.bad_value(
            where,
            expected="a finite score",
            got=value,
            remedy="Return a number, higher is better: lambda X: model.score(X, y).",
        )
    return value
