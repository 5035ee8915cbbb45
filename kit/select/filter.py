"""Rank features by what each alone tells of the target, and ask what chance would have told."""

from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks, progress
from kit.data.split import is_quantity
from kit.select.inputs import check_count, numbers, targets
from kit.select.selection import Selection, made


def mutual(
    X: pd.DataFrame,
    y: Any,
    *,
    n: int | None = None,
    bins: int = 10,
    permutations: int = 200,
    level: float = 0.05,
    seed: int = 0,
) -> Selection:
    """Choose the features whose mutual information with the target is beyond chance.

    Quantities are cut into bins of equal counts. Counted information is never nought, and larger
    for more bins: so it is held against that of shuffled targets. A feature is chosen when chance
    alone would so much as once among all features reach it with a probability of at most `level`.

    Args:
        X: one column of numbers a feature.
        y: a quantity, yes/no or classes.
        n: how many to choose, the furthest beyond chance first; None goes by `level`.
        bins: of a quantity.
        permutations: how often the target is shuffled, at least 1 / level - 1.
        level: chance of one false choice or more, 0 < level < 1.
        seed: of the shuffles.

    Returns:
        The table has the information in nats; `details` the mean of the shuffles, the distance
        from it in their standard deviations (z), p of the feature alone and of all together.

    Raises:
        ValueError: words, gaps, or settings out of range.

    Source: Westfall, Young (1993), Resampling-Based Multiple Testing, single-step maximum.
    """
    where = "select.mutual"
    rows = numbers(where, X)
    questions, _ = targets(where, y, len(rows))
    check_count(where, n, X.shape[1])
    _check(where, bins, permutations, level)
    cells = _Cells(rows, _codes_of(questions, bins), bins)
    found = cells.information(cells.y)
    rng = np.random.default_rng(seed)
    null = np.stack(
        [
            cells.information(rng.permutation(cells.y))
            for _ in progress.track(range(permutations), label="shuffles")
        ]
    )
    mean, spread = null.mean(axis=0), null.std(axis=0, ddof=1)
    # a constant column tells nothing, always
    spread[spread < 1e-12] = np.inf
    z, z_null = (found - mean) / spread, (null - mean) / spread
    p = (1 + (null >= found).sum(axis=0)) / (1 + permutations)
    p_all = (1 + (z_null.max(axis=1)[:, None] >= z).sum(axis=0)) / (1 + permutations)
    order = np.argsort(-z, kind="stable")
    chosen = order[:n] if n else order[p_all[order] <= level]
    names = [str(name) for name in X.columns]
    details = pd.DataFrame(
        {"feature": names, "nats": found, "by_chance": mean, "z": z, "p": p, "p_all": p_all}
    )
    return made("mutual", names, found, chosen.tolist(), details.iloc[order].reset_index(drop=True))


class _Cells:
    """Count rows by the bin of each feature and of the target, for all features at once."""

    def __init__(self, rows: np.ndarray, y: np.ndarray, bins: int) -> None:
        codes = [_binned(pd.Series(column), bins) for column in rows.T]
        sizes = np.array([code.max() + 1 for code in codes])
        starts = np.cumsum(sizes) - sizes
        self.y, self.n_y = y, int(y.max()) + 1
        self.n_rows, self.n_bins = len(y), int(sizes.sum())
        self.base = (np.stack(codes, axis=1) + starts) * self.n_y  # (N, F)
        self.starts = starts

    def information(self, y: np.ndarray) -> np.ndarray:
        """Return the mutual information of each feature with y, in nats."""
        cell = (self.base + y[:, None]).ravel()
        counts = np.bincount(cell, minlength=self.n_bins * self.n_y)
        shares = counts.reshape(self.n_bins, self.n_y) / self.n_rows
        both = np.add.reduceat(_plogp(shares).sum(axis=1), self.starts)
        own = np.add.reduceat(_plogp(shares.sum(axis=1)), self.starts)
        target = _plogp(np.bincount(y, minlength=self.n_y) / self.n_rows).sum()
        return np.maximum(both - own - target, 0)


def _plogp(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1))


def _binned(column: pd.Series, bins: int) -> np.ndarray:
    """Return a code for each value: its bin of equal counts, or itself where there are few."""
    if column.nunique() <= bins:
        return pd.factorize(column, sort=True)[0]
    # not pd.qcut: of a column that is nearly all nought it would make one bin
    edges = np.unique(column.quantile(np.arange(1, bins) / bins))
    return np.searchsorted(edges, column)


def _codes_of(questions: np.ndarray, bins: int) -> np.ndarray:
    if len(questions) > 1:
        return questions.argmax(axis=0)
    answer = pd.Series(questions[0])
    return _binned(answer, bins) if is_quantity(answer) else answer.to_numpy(int)


def _check(where: str, bins: int, permutations: int, level: float) -> None:
    if bins < 2:
        raise checks.bad_value(where, expected="bins >= 2", got=bins, remedy="Pass bins=10.")
    if not 0 < level < 1 or permutations < round(1 / level) - 1:
        raise checks.bad_value(
            where,
            expected="0 < level < 1 and at least 1 / level - 1 permutations",
            got=checks.Described(f"level={level}, permutations={permutations}"),
            remedy="Pass level=0.05, permutations=200.",
        )
