"""The space that LIME perturbs in: each column cut into its quartiles, each category by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import ndtr, ndtri

LEVELS = 2048  # equally likely values that stand for a column's distribution


@dataclass(frozen=True)
class Space:
    """Equally likely values of each column, the bin of each of them, and how to find a row's bins.

    Bins are numbered through all columns, so that one number says column and bin.
    """

    values: Float64[np.ndarray, "levels columns"]
    bins: Int64[np.ndarray, "levels columns"]
    edges: list[np.ndarray]  # of each column: its inner boundaries, or its categories
    categorical: frozenset[int]
    starts: Int64[np.ndarray, " columns"]  # number of each column's first bin
    labels: list[str]  # one a bin: "0.21 < radius <= 0.5"

    def find(self, X: Float64[np.ndarray, "rows columns"]) -> Int64[np.ndarray, "rows columns"]:
        """Return the bin of each cell; -1 for a category that training never had."""
        found = np.empty(X.shape, np.int64)
        for j, edges in enumerate(self.edges):
            within = np.searchsorted(edges, X[:, j])
            found[:, j] = within + self.starts[j]
            if j in self.categorical:
                known = edges[np.minimum(within, len(edges) - 1)] == X[:, j]
                found[~known, j] = -1
        return found


def space(
    train: Float64[np.ndarray, "rows columns"], *, names: Sequence[str], categorical: Sequence[int]
) -> Space:
    """Learn the bins, as lime_tabular does with discretize_continuous.

    A bin of a number is as likely as it is in training, and inside it values follow the normal
    distribution of its training values, cut off at its boundaries.

    Args:
        train: the rows that perturbations resemble.
        names: one a column, for the labels.
        categorical: columns whose every value is a bin of its own.
    """
    quantiles = (np.arange(LEVELS) + 0.5) / LEVELS
    quartiles = np.percentile(train, [25, 50, 75], axis=0)
    columns = [
        _category(train[:, j], quantiles, names[j])
        if j in categorical
        else _number(train[:, j], quartiles[:, j], quantiles, names[j])
        for j in range(train.shape[1])
    ]
    values, bins, edges, labels = zip(*columns, strict=True)
    starts = np.cumsum([0, *(len(each) for each in labels)])[:-1]
    return Space(
        values=np.stack(values, axis=1),
        bins=np.stack(bins, axis=1) + starts,
        edges=list(edges),
        categorical=frozenset(categorical),
        starts=starts,
        labels=[label for each in labels for label in each],
    )


_Column = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]  # values, bins, edges, labels


def _category(column: np.ndarray, quantiles: np.ndarray, name: str) -> _Column:
    known, counts = np.unique(column, return_counts=True)
    bins = _bins(counts, quantiles)
    return known[bins], bins, known, [f"{name} = {value:g}" for value in known]


def _number(column: np.ndarray, quartiles: np.ndarray, quantiles: np.ndarray, name: str) -> _Column:
    # boundaries that fall together leave one: the bin between them would be empty
    edges = np.unique(quartiles)
    own = np.searchsorted(edges, column)
    counts = np.bincount(own, minlength=len(edges) + 1)
    bins = _bins(counts, quantiles)
    means = np.bincount(own, column, len(counts)) / np.maximum(counts, 1)
    spreads = np.sqrt(
        np.bincount(own, (column - means[own]) ** 2, len(counts)) / np.maximum(counts, 1)
    )
    # a bin of one value has no spread; lime_tabular then perturbs to 0, whatever that value is
    safe = np.where(spreads > 1e-9 * np.abs(means) + 1e-300, spreads, np.inf)
    low = ndtr((np.append(column.min(), edges) - means) / safe)[bins]
    high = ndtr((np.append(edges, column.max()) - means) / safe)[bins]
    within = (quantiles - (np.cumsum(counts) - counts)[bins] / len(column)) / (
        counts[bins] / len(column)
    )
    scores = ndtri(low + (high - low) * np.clip(within, 0, 1))
    values = means[bins] + np.where(np.isfinite(safe), spreads, 0)[bins] * scores
    return values, bins, edges, _conditions(edges, name)


def _bins(counts: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the bin that each quantile falls into; bins are as likely as they are frequent."""
    return np.searchsorted(np.cumsum(counts) / counts.sum(), quantiles)


def _conditions(edges: np.ndarray, name: str) -> list[str]:
    inner = [f"{low:.3g} < {name} <= {high:.3g}" for low, high in pairwise(edges)]
    return [f"{name} <= {edges[0]:.3g}", *inner, f"{name} > {edges[-1]:.3g}"]
