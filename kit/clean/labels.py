"""Find labels that are probably wrong, from what a model thinks of rows it did not train on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short

WHERE = "clean.labels"


@result
class Labels(Result):
    """Hold the suspects, the likeliest mistake first; `table` has one row a suspect."""

    joint: pd.DataFrame  # estimated rows of each given label (down) and true label (across)
    n_sure: int  # rows that the model is sure are of another class
    n_supported: int  # wrong labels that the estimate supports: the same, scaled to all rows
    n_rows: int

    def facts(self) -> dict[str, str]:
        """Return how many labels the estimate calls wrong, and the commonest mistake."""
        wrong = self.joint.to_numpy().copy()
        np.fill_diagonal(wrong, 0)
        given, true = np.unravel_index(wrong.argmax(), wrong.shape)
        names = self.joint.index
        return {
            "wrong labels": f"{self.n_sure:,} to {self.n_supported:,} of {self.n_rows:,}",
            "noise": f"{self.n_sure / self.n_rows:.1%} to {self.n_supported / self.n_rows:.1%}",
            "suspects": short(len(self.table)),
            "commonest": f"{names[true]} as {names[given]}" if wrong.any() else "none",
        }


def labels(probabilities: Any, y: Any, *, classes: Sequence[Any] = ()) -> Labels:
    """Rank the labels that a model has good reason to doubt (confident learning).

    A row counts as of class j when its probability of j reaches the mean that rows labelled j
    have: so a model that is unsure of a whole class does not accuse all of it. Counts of given
    against confident label, scaled to the rows of each label, estimate how many are wrong (too
    many rather than too few, where the model is unsure of much), and of each kind of mistake as
    many rows are named, those with the widest margin.

    Args:
        probabilities: (rows, classes), of rows that the model did not train on: out of fold.
        y: label of each row, as class numbers from 0, as bool, or as members of `classes`.
        classes: the classes in the order of the columns; empty numbers them.

    Returns:
        Suspects by position in `y`: given and suggested label, probability of the given one, and
        the margin by which the model prefers the other.

    Raises:
        ValueError: shapes that do not fit, NaN, no probabilities, unknown labels, one class, a
            class named twice, or one without rows.

    Source: Northcutt, Jiang, Chuang (2021), Confident Learning, section 3, "prune by noise rate".

    Example:
        >>> probs = np.array([[0.9, 0.1]] * 9 + [[0.1, 0.9]] * 10)
        >>> labels(probs, [0] * 10 + [1] * 9).table["row"].tolist()
        [9]
    """
    probs = np.asarray(_plain(probabilities), dtype=float)
    names = list(classes) or list(range(probs.shape[1] if probs.ndim == 2 else 0))
    _check_probabilities(probs, len(y), names)
    given = _codes(_plain(y), names)
    counts = _confident_counts(probs, given)
    # each class has a row at or above its own mean, so no sum is nought
    joint = counts / counts.sum(axis=1, keepdims=True) * np.bincount(given)[:, None]
    suspects = _suspects(probs, given, joint)
    axes = {"index": pd.Index(names, name="given"), "columns": pd.Index(names, name="true")}
    return Labels(
        table=_table(probs, given, suspects, names),
        joint=pd.DataFrame(joint, **axes),
        n_sure=int(counts.sum() - counts.trace()),
        n_supported=round(joint.sum() - joint.trace()),
        n_rows=len(given),
    )


def _confident_counts(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the rows of each given and each confident class, (K, K)."""
    n_classes = probs.shape[1]
    sizes = np.bincount(given, minlength=n_classes)
    own = probs[np.arange(len(given)), given]
    usual = np.bincount(given, own, n_classes) / sizes
    # rounding must not keep a class whose rows are all alike from reaching its own mean
    confident = np.where(probs >= usual - 1e-12, probs, -1.0)
    sure = confident.max(axis=1) >= 0
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (given[sure], confident[sure].argmax(axis=1)), 1)
    return counts


def _suspects(probs: np.ndarray, given: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Return, for each kind of mistake, as many rows as are estimated, widest margins first."""
    found: set[int] = set()
    for i, j in np.argwhere(joint > 0):
        if i == j:
            continue
        rows = np.flatnonzero(given == i)
        margin = probs[rows, j] - probs[rows, i]
        widest = np.argsort(-margin, kind="stable")[: round(joint[i, j])]
        # the estimate may ask for more rows than the model doubts
        found.update(rows[widest[margin[widest] > 0]].tolist())
    return np.array(sorted(found), dtype=int)


def _table(
    probs: np.ndarray, given: np.ndarray, suspects: np.ndarray, names: Sequence[Any]
) -> pd.DataFrame:
    own = probs[suspects, given[suspects]]
    best = probs[suspects].argmax(axis=1)
    table = pd.DataFrame(
        {
            "row": suspects,
            "given": [names[i] for i in given[suspects]],
            "suggested": [names[i] for i in best],
            "p_given": own,
            "margin": probs[suspects, best] - own,
        }
    )
    return table.sort_values(["margin", "row"], ascending=[False, True], ignore_index=True)


def _plain(values: Any) -> Any:
    """Take a tensor of any device, or what NumPy understands."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _codes(y: Any, names: Sequence[Any]) -> np.ndarray:
    values, known = pd.Series(np.asarray(y)), pd.Index(names, dtype=object)
    if not known.is_unique:
        raise checks.bad_value(
            WHERE,
            expected="classes that differ",
            got=checks.Described(f"{known[known.duplicated()][0]!r} more than once"),
            remedy="Name each column of the probabilities once.",
        )
    codes = known.get_indexer(values.astype(object))
    if (codes < 0).any():
        stranger = values[int((codes < 0).argmax())]
        raise checks.unknown_name(WHERE, "class", got=str(stranger), known=names)
    sizes = np.bincount(codes, minlength=len(names))
    if not sizes.all():
        raise checks.bad_value(
            WHERE,
            expected="at least one row of each class",
            got=checks.Described(f"none of {names[int(sizes.argmin())]!r}"),
            remedy="Leave out its column and divide each row by its sum.",
        )
    return codes


def _check_probabilities(probs: np.ndarray, n_rows: int, names: Sequence[Any]) -> None:
    if probs.ndim != 2 or probs.shape[1] < 2 or probs.shape != (n_rows, len(names)):
        raise checks.bad_value(
            WHERE,
            expected=f"probabilities of {n_rows:,} rows and {max(2, len(names))} classes",
            got=probs,
            remedy="Of P(yes) alone, make two columns: np.stack([1 - p, p], axis=1).",
        )
    off = np.abs(probs.sum(axis=1) - 1).max(initial=0.0)
    if not np.isfinite(probs).all() or probs.min(initial=0.0) < 0 or off > 1e-3:
        raise checks.bad_value(
            WHERE,
            expected="probabilities from 0 to 1 that sum to 1",
            got=checks.Described(f"values from {probs.min():.3g} to {probs.max():.3g}"),
            remedy="Of logits, make probabilities first: train.probabilities(logits).",
        )
