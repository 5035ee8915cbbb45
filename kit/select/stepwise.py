"""Add or drop one feature at a time, judged by cross-validated linear models, without fitting any.

A linear model needs of its rows only their Gram matrix (`kit/select/gram.py`): what a feature would
add is then arithmetic on the numbers there, for all features and all folds at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.select.gram import Folds, Grams, diagonal, fold_of, grams
from kit.select.inputs import check_count, numbers, targets
from kit.select.selection import Selection, made

# of a column's variance: with less left beside the chosen ones, it is a combination of them
COLLINEAR = 1e-10
SCORES = ("r2", "mse")


def forward(
    X: pd.DataFrame,
    y: Any,
    *,
    n: int | None = None,
    folds: Folds = 5,
    alpha: float = 0.0,
    score: str = "r2",
) -> Selection:
    """Add the feature that helps a linear model most, again and again.

    The choice is that of scikit-learn's SequentialFeatureSelector with LinearRegression (or Ridge)
    and the same folds; yes and no are 1 and 0. Columns of very different units are no trouble here;
    scikit-learn's LinearRegression leaves out one that is a millionth of another.

    Args:
        X: one column of numbers a feature; they need no scaling.
        y: a quantity, as are numbers of more than two values, or yes/no.
        n: how many to choose; None stops where the score is highest, which may be before the
            first: then nothing is chosen.
        folds: how many, each of rows that follow one another, as scikit-learn's KFold cuts them;
            or the number of its fold for every row.
        alpha: of the ridge penalty; 0 is plain least squares.
        score: "r2" or "mse", mean over folds.

    Returns:
        The features in the order in which they came in; the table has what each added to the score.

    Raises:
        ValueError: words, gaps, more than two classes, or settings out of range.

    Example:
        >>> X = pd.DataFrame({"a": [0, 1, 2, 3, 4, 5.0], "b": [1, 0, 1, 1, 0, 1.0]})
        >>> forward(X, 3 * X["a"] + 0.5, n=1, folds=2).chosen
        ('a',)
    """
    where = "select.forward"
    folded = _prepared(where, X, y, n, folds, alpha, score)
    n_features = X.shape[1]
    train, test = folded.train.copy(), folded.test.copy()
    least = COLLINEAR * diagonal(train)
    order: list[int] = []
    scores = [float(folded.score(test[:, -1, -1]))]
    for _ in range(n or n_features):
        reached = folded.score(_errors_with(train, test, least)[:, :n_features])
        reached[order] = -np.inf
        best = int(reached.argmax())
        _take_out(train, test, best, least)
        order.append(best)
        scores.append(float(reached[best]))
    if n is None:
        order = order[: int(np.argmax(scores))]
    gains = np.full(n_features, np.nan)
    gains[order] = np.diff(scores)[: len(order)]
    names = _names(X)
    details = pd.DataFrame(
        {
            "step": np.arange(len(order)) + 1,
            "feature": [names[i] for i in order],
            score: scores[1 : len(order) + 1],
        }
    )
    return made("forward", names, gains, order, details)


def backward(
    X: pd.DataFrame,
    y: Any,
    *,
    n: int | None = None,
    folds: Folds = 5,
    alpha: float = 0.0,
    score: str = "r2",
) -> Selection:
    """Drop the feature that a linear model misses least, again and again.

    The choice is that of scikit-learn's SequentialFeatureSelector going backward.

    Args:
        X: one column of numbers a feature, none a combination of others unless alpha is above 0.
        y: a quantity, as are numbers of more than two values, or yes/no.
        n: how many to keep; None stops where the score is highest, be it where nothing is left.
        folds: as in `forward`.
        alpha: of the ridge penalty; 0 is plain least squares.
        score: "r2" or "mse", mean over folds.

    Returns:
        The features that stay, the most missed first; the table has what the score lost, or would
        lose, when each went.

    Raises:
        ValueError: as `forward`, or columns that are combinations of others.
    """
    where = "select.backward"
    folded = _prepared(where, X, y, n, folds, alpha, score)
    _check_independent(where, X, folded)
    state = _Full.of(folded)
    left = list(range(X.shape[1]))
    losses = np.empty(len(left))
    kept_losses, dropped, scores = [losses], [], [float(folded.score(state.squared))]
    while True:
        without = folded.score(state.errors_without())
        losses[left] = scores[-1] - without
        kept_losses.append(losses.copy())
        if len(left) == (n or 0):
            break
        worst = int(without.argmax())
        scores.append(float(without[worst]))
        dropped.append(left.pop(worst))
        state.drop(worst)
    # of equal scores, the fewest features
    n_dropped = len(dropped) if n else len(scores) - 1 - int(np.argmax(scores[::-1]))
    losses = kept_losses[n_dropped + 1]
    stay = sorted(left + dropped[n_dropped:], key=lambda j: -losses[j])
    details = pd.DataFrame(
        {
            "step": np.arange(n_dropped) + 1,
            "dropped": [str(X.columns[j]) for j in dropped[:n_dropped]],
            score: scores[1 : n_dropped + 1],
        }
    )
    return made("backward", _names(X), losses, stay, details)


def _prepared(
    where: str,
    X: pd.DataFrame,
    y: Any,
    n: int | None,
    folds: Folds,
    alpha: float,
    score: str,
) -> Grams:
    rows = numbers(where, X)
    (answer,), _ = targets(where, y, len(rows), several=False)
    check_count(where, n, X.shape[1])
    if score not in SCORES:
        raise checks.unknown_name(where, "score", got=score, known=SCORES)
    if not alpha >= 0:
        raise checks.bad_value(
            where, expected="alpha >= 0", got=alpha, remedy="Pass alpha=0.0 for least squares."
        )
    fold = fold_of(where, folds, len(rows))
    return grams(np.column_stack([rows, answer]), fold, alpha, score)


def _errors_with(train: np.ndarray, test: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the squared test errors, (K, F + 1), were each column added."""
    left = diagonal(train)
    slope = np.where(left > least, train[:, :, -1] / np.where(left > least, left, 1), 0)
    return test[:, -1:, -1] - 2 * slope * test[:, :, -1] + slope**2 * diagonal(test)


def _take_out(train: np.ndarray, test: np.ndarray, j: int, least: np.ndarray) -> None:
    """Replace, in place, all columns by what column j does not tell of them."""
    left = train[:, j, j]
    usable = left > least[:, j]
    slopes = np.where(usable[:, None], train[:, j] / np.where(usable, left, 1)[:, None], 0)
    train -= slopes[:, :, None] * train[:, j][:, None, :]
    row, own = test[:, j].copy(), test[:, j, j].copy()
    cross = slopes[:, :, None] * row[:, None, :]
    test -= cross + cross.transpose(0, 2, 1)
    test += own[:, None, None] * slopes[:, :, None] * slopes[:, None, :]


@dataclass
class _Full:
    """A model of all that is left: what is needed to drop any column without solving again."""

    inverse: np.ndarray  # P, of the training Gram matrix, (K, F, F)
    beta: np.ndarray  # (K, F)
    spread: np.ndarray  # P N P, N the test Gram matrix
    pull: np.ndarray  # P X'(y - X beta) over test rows, (K, F)
    squared: np.ndarray  # test error, (K,)

    @classmethod
    def of(cls, folded: Grams) -> "_Full":
        M, N = folded.train[:, :-1, :-1], folded.test[:, :-1, :-1]
        inverse = np.linalg.inv(M)
        beta = (inverse @ folded.train[:, :-1, -1:])[:, :, 0]
        residual = folded.test[:, :-1, -1] - (N @ beta[:, :, None])[:, :, 0]
        explained = (beta * (folded.test[:, :-1, -1] + residual)).sum(axis=1)
        return cls(
            inverse=inverse,
            beta=beta,
            spread=inverse @ N @ inverse,
            pull=(inverse @ residual[:, :, None])[:, :, 0],
            squared=folded.test[:, -1, -1] - explained,
        )

    def errors_without(self) -> np.ndarray:
        """Return the squared test errors, (K, F), were each column dropped."""
        step = self.beta / diagonal(self.inverse)
        return self.squared[:, None] + 2 * step * self.pull + step**2 * diagonal(self.spread)

    def drop(self, j: int) -> None:
        """Drop column j, in place."""
        self.squared = self.errors_without()[:, j]
        column = self.inverse[:, :, j]
        w = column / column[:, j : j + 1]
        step = self.beta[:, j : j + 1] / column[:, j : j + 1]
        pull = self.pull + self.spread[:, :, j] * step
        cross = w[:, :, None] * self.spread[:, j][:, None, :]
        own = self.spread[:, j, j][:, None, None]
        spread = self.spread - cross - cross.transpose(0, 2, 1)
        spread += own * w[:, :, None] * w[:, None, :]
        inverse = self.inverse - w[:, :, None] * column[:, None, :]
        self.beta = np.delete(self.beta - column * step, j, axis=1)
        self.pull = np.delete(pull - w * pull[:, j : j + 1], j, axis=1)
        self.spread = np.delete(np.delete(spread, j, axis=1), j, axis=2)
        self.inverse = np.delete(np.delete(inverse, j, axis=1), j, axis=2)


def _check_independent(where: str, X: pd.DataFrame, folded: Grams) -> None:
    train = folded.train.copy()
    least = COLLINEAR * diagonal(train)
    for j in range(X.shape[1]):
        if (train[:, j, j] <= least[:, j]).any():
            raise checks.bad_value(
                where,
                expected="columns of which none is a combination of others",
                got=checks.Described(f"{X.columns[j]!r}, which is, among the rows of some fold"),
                remedy="Drop it, or pass alpha=1.0, or use select.forward.",
            )
        train -= train[:, :, j, None] * train[:, None, j] / train[:, j, j][:, None, None]


def _names(X: pd.DataFrame) -> list[str]:
    return [str(name) for name in X.columns]
