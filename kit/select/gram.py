"""Fold by fold, all that a linear model needs to know of its rows: their Gram matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.base import checks

Folds = int | np.integer | Sequence[int] | np.ndarray  # how many, or the number of each row's


@dataclass
class Grams:
    """Gram matrices of all folds, (K, F + 1, F + 1), the target last, centred by training means."""

    train: np.ndarray
    test: np.ndarray
    scale: np.ndarray  # (K,) a squared error divided by it, and the sign turned, is the score
    offset: float  # added to it: 1 for R²

    def score(self, squared: np.ndarray) -> np.ndarray:
        """Turn the squared errors of each fold, (K, ...), into mean scores, higher is better."""
        return np.asarray(self.offset - (squared.T / self.scale).mean(axis=-1))


def fold_of(where: str, folds: Folds, n_rows: int) -> np.ndarray:
    """Return the number of its fold for each row; a count cuts rows that follow one another."""
    got: object = checks.Described("folds that are not")
    if isinstance(folds, int | np.integer):
        got = folds
        fits = 2 <= folds <= n_rows // 2
        of_row = np.repeat(np.arange(folds), _sizes(n_rows, int(folds))) if fits else None
    else:
        of_row = np.unique(np.asarray(folds), return_inverse=True)[1].reshape(-1)
        fits = len(of_row) == n_rows and len(of_row) > 0 and np.bincount(of_row).min() >= 2
        fits = fits and bool(of_row.max())
    if not fits or of_row is None:
        raise checks.bad_value(
            where,
            expected="2 folds or more, of 2 rows or more each",
            got=got,
            remedy="Pass folds=5, or a fold number for every row.",
        )
    return of_row


def _sizes(n_rows: int, folds: int) -> np.ndarray:
    """Return the rows of each fold; the first ones take what does not divide."""
    return n_rows // folds + (np.arange(folds) < n_rows % folds)


def grams(Z: np.ndarray, fold: np.ndarray, alpha: float, score: str) -> Grams:
    """Make the Gram matrices of all folds from one pass over the rows.

    Args:
        Z: (rows, F + 1), the target last.
        fold: number of its fold for each row.
        alpha: of the ridge penalty, in the units of Z.
        score: "r2" or "mse".
    """
    # centred and of unit variance, so that squares neither swamp nor drown in rounding
    spread = Z.std(axis=0)
    spread[spread == 0] = 1
    Z = (Z - Z.mean(axis=0)) / spread
    blocks = [Z[fold == k] for k in range(fold.max() + 1)]
    n_test = np.array([len(block) for block in blocks])
    sums = np.stack([block.sum(axis=0) for block in blocks])  # (K, F + 1)
    test = np.stack([block.T @ block for block in blocks])  # (K, F + 1, F + 1)
    n_train = (len(Z) - n_test)[:, None, None]
    means = (sums.sum(axis=0) - sums)[:, :, None] / n_train
    train = test.sum(axis=0) - test - n_train * means * means.transpose(0, 2, 1)
    cross = sums[:, :, None] * means.transpose(0, 2, 1)
    apart = test[:, -1, -1] - sums[:, -1] ** 2 / n_test  # around the mean of the test rows
    test = test - cross - cross.transpose(0, 2, 1)
    test += n_test[:, None, None] * means * means.transpose(0, 2, 1)
    inputs = np.arange(Z.shape[1] - 1)
    train[:, inputs, inputs] += alpha / spread[:-1] ** 2
    if score == "r2":
        varies = apart > 0
        # in a fold of one value only, any error is a score of 0, as scikit-learn has it
        return Grams(train, test, np.where(varies, apart, np.inf), float(varies.mean()))
    return Grams(train, test, n_test / spread[-1] ** 2, 0.0)


def diagonal(matrices: np.ndarray) -> np.ndarray:
    """Return the diagonals of (K, F, F) as (K, F), to keep while the matrices change."""
    return np.diagonal(matrices, axis1=1, axis2=2).copy()
