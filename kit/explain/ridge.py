"""Choose each row's strongest features, and fit a ridge regression of those, from moments alone."""

import numpy as np
from jaxtyping import Bool, Float64

from kit.explain.local import Moments, Near

NEIGHBOURS = 4999  # lime_tabular's perturbations beside the row: they say what its ridge weighs
RIDGE_TO_CHOOSE, RIDGE = 0.01, 1.0  # as in lime_tabular
DRAWS = 4  # pairs of imagined seeds behind `stability`


def fit(
    found: Moments,
    rows: Near,
    predictions: Float64[np.ndarray, "rows outputs"],
    *,
    num_features: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Choose the strongest features of each row, and fit the ridge regression of those alone.

    Returns:
        "values" and "error_std" (rows, columns, outputs); "base_values", "r2" and "stability"
        (rows, outputs).
    """
    weight = NEIGHBOURS * rows.mean_weight.numpy()[:, None, None]  # of all perturbations
    seen = rows.seen.numpy()[:, :, None]
    row_itself = weight / (weight + 1)
    beyond = predictions[:, None] - found.centre - found.mean  # (N, 1, K)
    gram, away = weight * seen * (1 - seen), 1 - seen
    right = weight * found.covariance + row_itself * beyond * away  # (N, F, K)

    def solve(kept: np.ndarray | bool, ridge: float) -> np.ndarray:
        # Sherman-Morrison: the row itself adds a matrix of rank one to the diagonal
        alone, row = kept * right / (gram + ridge), kept * away / (gram + ridge)
        pull = (away * alone).sum(1, keepdims=True) / (
            1 / row_itself + (away * row).sum(1, keepdims=True)
        )
        return alone - row * pull

    every, error_std = solve(True, RIDGE_TO_CHOOSE), weight * found.error_std / (gram + RIDGE)
    kept = _strongest(every, num_features)
    values = solve(kept, RIDGE)
    onto_row = (away * values).sum(1, keepdims=True)
    fitted = (values * (2 * right - gram * values)).sum(1, keepdims=True) - row_itself * onto_row**2
    variance = np.maximum(found.mean_square - found.mean**2, 0)
    total = weight * variance + row_itself * beyond**2
    middle = found.mean + (beyond - onto_row) / (weight + 1)  # less what features add on average
    base_values = found.centre + (middle - (values * seen).sum(1, keepdims=True))[:, 0]
    return {
        "values": values,
        "error_std": error_std * kept,
        "base_values": base_values,
        # a prediction that is the same everywhere is fitted by the base value alone
        "r2": np.divide(fitted, total, out=np.ones_like(total), where=total > 0)[:, 0],
        "stability": _stability(every, error_std, num_features, seed),
    }


def _strongest(
    values: Float64[np.ndarray, "... columns outputs"], n: int
) -> Bool[np.ndarray, "... columns outputs"]:
    """Mark the `n` largest in size of each row and output."""
    order = np.argpartition(-np.abs(values), n - 1, axis=-2)
    marks = np.zeros(values.shape, bool)
    np.put_along_axis(marks, order[..., :n, :], True, axis=-2)
    return marks


def _stability(
    values: Float64[np.ndarray, "rows columns outputs"],
    error_std: Float64[np.ndarray, "rows columns outputs"],
    n: int,
    seed: int,
) -> Float64[np.ndarray, "rows outputs"]:
    """Return the overlap (Jaccard) of the `n` strongest features to expect between two seeds.

    Other seeds are imagined: values moved by normal noise of their own standard errors.
    """
    rng = np.random.default_rng(seed)
    overlap = np.zeros((len(values), values.shape[2]))
    for _ in range(DRAWS):
        a, b = (
            _strongest(values + error_std * rng.standard_normal(values.shape), n) for _ in range(2)
        )
        overlap += (a & b).sum(1) / (a | b).sum(1) / DRAWS
    return overlap
