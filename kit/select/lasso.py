"""Rank features by how early they enter a model whose coefficients must be small (L1)."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LassoCV, LogisticRegression, lasso_path
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.svm import l1_min_c

from kit.base import checks
from kit.select.inputs import check_count, numbers, targets
from kit.select.selection import Selection, made

N_PENALTIES = 40
RANGE = 1e-3  # the weakest penalty, as a fraction of the one that lets nothing in


def lasso(
    X: pd.DataFrame, y: Any, *, n: int | None = None, folds: int = 5, seed: int = 0
) -> Selection:
    """Choose the features that a linear model keeps when every coefficient costs.

    For a quantity the lasso; for classes logistic regression with the same penalty, each class
    against the rest. Columns are standardised first, so that none is cheap by its unit.

    Args:
        X: one column of numbers a feature.
        y: a quantity, yes/no or classes.
        n: how many to choose, in the order in which they enter; None takes the ones kept at the
            penalty with the best cross-validated score.
        folds: of that cross-validation.
        seed: of its shuffle.

    Returns:
        The table has, for each feature, the penalty at which it enters as a fraction of the one
        that lets nothing in (0: never); `details` the whole path, a row a penalty.

    Raises:
        ValueError: words, gaps, a class of one row, or settings out of range.

    Source: Tibshirani (1996), Regression Shrinkage and Selection via the Lasso.
    """
    where = "select.lasso"
    rows = numbers(where, X)
    questions, quantity = targets(where, y, len(rows))
    if not quantity:
        _check_classes(where, questions)
    check_count(where, n, X.shape[1])
    if not 2 <= folds <= len(rows) // 2:
        raise checks.bad_value(
            where,
            expected=f"2 <= folds <= {len(rows) // 2}",
            got=folds,
            remedy="Pass folds=5.",
        )
    spread = rows.std(axis=0)
    Z = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    path_of, kept_of = (_lasso_path, _lasso_kept) if quantity else (_logit_path, _logit_kept)
    paths = np.stack([path_of(Z, answer) for answer in questions])  # (questions, penalties, F)
    size = np.abs(paths).max(axis=0)
    entry = np.where(size.any(axis=0), _fractions()[(size > 0).argmax(axis=0)], 0.0)
    # of those that enter at one penalty, the larger coefficient first
    order = np.lexsort((-size[(size > 0).argmax(axis=0), np.arange(len(entry))], -entry)).tolist()
    if n is not None:
        chosen = [j for j in order[:n] if entry[j] > 0]
    else:
        kept = np.any([kept_of(Z, answer, folds, seed) for answer in questions], axis=0)
        chosen = [j for j in order if kept[j]]
    names = [str(name) for name in X.columns]
    details = pd.DataFrame(size, columns=names)
    details.insert(0, "penalty", _fractions())
    return made("lasso", names, entry, chosen, details)


def _fractions() -> np.ndarray:
    return np.geomspace(1, RANGE, N_PENALTIES)


def _lasso_path(Z: np.ndarray, answer: np.ndarray) -> np.ndarray:
    centred = answer - answer.mean()
    largest = np.abs(Z.T @ centred).max() / len(Z)
    if largest == 0:
        return np.zeros((N_PENALTIES, Z.shape[1]))
    return lasso_path(Z, centred, alphas=largest * _fractions())[1].T


def _lasso_kept(Z: np.ndarray, answer: np.ndarray, folds: int, seed: int) -> np.ndarray:
    cut = KFold(folds, shuffle=True, random_state=seed)
    return LassoCV(cv=cut).fit(Z, answer).coef_ != 0


def _costs(Z: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return liblinear's C, the inverse of the penalty, from what lets nothing in."""
    return l1_min_c(Z, answer, loss="log", fit_intercept=False) / _fractions()


def _logit(Z: np.ndarray, answer: np.ndarray, cost: float) -> LogisticRegression:
    # liblinear's penalty also falls on the intercept, the less the larger intercept_scaling is
    model = LogisticRegression(
        C=cost, l1_ratio=1, solver="liblinear", intercept_scaling=100.0, random_state=0
    )
    return model.fit(Z, answer)


def _logit_path(Z: np.ndarray, answer: np.ndarray) -> np.ndarray:
    return np.stack([_logit(Z, answer, cost).coef_[0] for cost in _costs(Z, answer)])


def _logit_kept(Z: np.ndarray, answer: np.ndarray, folds: int, seed: int) -> np.ndarray:
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
    costs = _costs(Z, answer)[::2]
    losses = np.zeros(len(costs))
    for train, test in cut.split(Z, answer):
        models = [_logit(Z[train], answer[train], cost) for cost in costs]
        # a rare answer may be missing from the test rows: then they do not tell that there are two
        losses += [
            log_loss(answer[test], model.predict_proba(Z[test]), labels=[0, 1]) for model in models
        ]
    return _logit(Z, answer, costs[losses.argmin()]).coef_[0] != 0


def _check_classes(where: str, questions: np.ndarray) -> None:
    n_yes = questions.sum(axis=1)
    if min(n_yes.min(), (questions.shape[1] - n_yes).min()) < 2:
        # the folds that train without that row would know one class alone
        raise checks.bad_value(
            where,
            expected="at least 2 rows of each class",
            got=checks.Described("a class of 1"),
            remedy="Merge that class with another, or bring more rows.",
        )
