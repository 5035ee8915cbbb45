"""Find what tells a model its test answers: rows on both sides, columns that know, later rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from kit.base import checks
from kit.base.results import Result, result, short
from kit.data import near
from kit.data.split import MAX_CLASSES, MAX_COUNTED, is_quantity

N_FOLDS = 5  # in which the share of a category is learned apart from the row that it is used for
WHERE = "clean.leaks"


@result
class Leaks(Result):
    """Hold what leaks from test to training; `table` has one row a kind or column at fault."""

    exact: pd.DataFrame  # a row a test row with a double: test, train (labels), similarity
    near: pd.DataFrame  # the same for nearly equal texts, all pairs, or equal keys
    columns: pd.DataFrame  # column, auc, by: how well each column alone tells the target
    n_test: int

    def facts(self) -> dict[str, str]:
        """Return the test rows that training knows, the columns that know too much, the verdict."""
        counts = self.table.groupby("kind")["rows"].sum()
        return {
            "exact": f"{self.exact['test'].nunique():,} of {self.n_test:,} test rows",
            "near": f"{self.near['test'].nunique():,}",
            "telling columns": short(
                self.table.loc[self.table["kind"] == "target", "where"].nunique()
            ),
            "training rows later than the test": short(int(counts.get("time", 0))),
        }


def leaks(
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    target: str = "",
    time: str = "",
    text: str = "",
    keys: Sequence[str] = (),
    threshold: float = 0.9,
    auc: float = 0.95,
) -> Leaks:
    """Search a split for what would make the test score a promise that is not kept.

    Exact duplicates are rows that are equal in every column but the target, or in `text` alone,
    once case, spaces and punctuation are gone. Near duplicates are texts of nearly the same
    letters, or rows with equal `keys`. A column that alone orders the training rows almost
    perfectly was probably written down after the answer; numbers of few different values are
    judged by their order and as categories, whichever tells more.

    Args:
        train: training rows; they stay as they are.
        test: test rows with the same columns.
        target: the column to predict; without it no column is judged.
        time: a column of dates or numbers; training rows after the first test row are counted.
        text: the column of texts to compare; without it whole rows are compared.
        keys: columns that together name one thing, such as a plane or a patient.
        threshold: least cosine of near-duplicate texts, see `near.pairs`.
        auc: area under the ROC curve from which a single column is reported, above 0.5.

    Returns:
        The pairs, the AUC of every column, and a table of what was found.

    Raises:
        ValueError: no rows, unknown columns, columns that the two sides do not share, a target of
            too many classes, a time that cannot be ordered, or thresholds out of range.
    """
    _check(train, test, target, time, text, keys)
    if not 0.5 < auc <= 1:
        raise checks.bad_value(WHERE, expected="0.5 < auc <= 1", got=auc, remedy="Pass auc=0.95.")
    compared = [text] if text else [name for name in train.columns if name != target]
    exact = _equal(train, test, compared) if compared else _no_pairs()
    alike = _near_texts(train, test, text, threshold) if text else _no_pairs()
    if keys:
        alike = pd.concat([alike, _equal(train, test, keys)]).drop_duplicates(["train", "test"])
    alike = alike[~alike["test"].isin(exact["test"])].reset_index(drop=True)
    told = _telling(train, target, [name for name in train.columns if name not in (target, text)])
    rows = [
        *_pair_rows("exact", exact, ", ".join(map(str, compared)), train, text),
        *_pair_rows("near", alike, text or ", ".join(keys), train, text),
        *_target_rows(told[told["auc"] >= auc], len(train)),
        *(_time_rows(train[time], test[time]) if time else []),
    ]
    table = pd.DataFrame(rows, columns=["kind", "where", "rows", "worst", "example"])
    return Leaks(table=table, exact=exact, near=alike, columns=told, n_test=len(test))


def _equal(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[Any]) -> pd.DataFrame:
    """Pair each test row with the first equal training row; rows that hold nothing equal none."""
    both = pd.concat([train[list(columns)], test[list(columns)]], ignore_index=True)
    ids = near.keys(both, columns)
    ids = ids.where(ids >= 0)
    left = pd.DataFrame({"id": ids[: len(train)].to_numpy(), "train": train.index.to_numpy()})
    right = pd.DataFrame({"id": ids[len(train) :].to_numpy(), "test": test.index.to_numpy()})
    # the first only: a plane of 100 flights on each side would make 10,000 pairs
    found = right.dropna().merge(left.drop_duplicates("id"), on="id")
    return found[["test", "train"]].assign(similarity=1.0)


def _near_texts(
    train: pd.DataFrame, test: pd.DataFrame, text: str, threshold: float
) -> pd.DataFrame:
    # the first of equal texts stands for all: a thousand on each side would make a million pairs
    first = np.flatnonzero(~near.normalise(train[text]).duplicated())
    found = near.pairs(train[text].iloc[first], test[text], threshold=threshold)
    return pd.DataFrame(
        {
            "test": test.index.to_numpy()[found["right"]],
            "train": train.index.to_numpy()[first[found["left"]]],
            "similarity": found["similarity"],
        }
    )


def _no_pairs() -> pd.DataFrame:
    return pd.DataFrame({"test": [], "train": [], "similarity": []})


def _telling(train: pd.DataFrame, target: str, columns: Sequence[Any]) -> pd.DataFrame:
    """Return how well each column alone, by its values or by its gaps, tells the target."""
    rows: list[tuple[Any, float, str]] = []
    if target:
        known = train[train[target].notna()]
        classes = _classes(known[target])
        for name in columns:
            rows += _of_column(name, known[name], classes)
    table = pd.DataFrame(rows, columns=["column", "auc", "by"])
    return table.sort_values("auc", ascending=False, ignore_index=True)


def _of_column(name: Any, column: pd.Series, classes: np.ndarray) -> list[tuple[Any, float, str]]:
    gaps = column.isna().to_numpy()
    found = []
    if gaps.any() and not gaps.all():
        found.append((name, _by_order(gaps.astype(float), classes), "gaps"))
    if gaps.all():
        return found
    there, seen = column[~gaps], classes[~gaps]
    if pd.api.types.is_datetime64_any_dtype(there):
        there = there.astype("int64")
    told = {}
    if pd.api.types.is_numeric_dtype(there) and not pd.api.types.is_bool_dtype(there):
        told["values"] = _by_order(there.to_numpy(float), seen)
    # numbers may be codes: one in the middle can tell all, and its rank nothing
    if not told or there.nunique() <= MAX_COUNTED:
        # as words first: a cell may hold a list, which has no hash
        codes = pd.factorize(there if told else there.astype(str))[0]
        told["categories"] = _by_category(codes, seen)
    by = max(told, key=lambda each: told[each])
    return [*found, (name, told[by], by)]


def _classes(target: pd.Series) -> np.ndarray:
    """Return the class of each row as a number; of a quantity, whether it is above the median."""
    if is_quantity(target):
        return (target > target.median()).to_numpy(int)
    codes, classes = pd.factorize(target)
    if len(classes) > MAX_CLASSES:
        raise checks.bad_value(
            WHERE,
            expected=f"at most {MAX_CLASSES} classes in the target {target.name!r}",
            got=checks.Described(f"{len(classes):,} different words"),
            remedy="Group them.",
        )
    return codes


def _shares(codes: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """Return the share of yes among the rows of the same category in other folds."""
    fold = np.random.default_rng(0).permutation(len(codes)) % N_FOLDS
    n_codes = codes.max() + 1
    cell = fold * n_codes + codes
    size = N_FOLDS * n_codes
    n_yes = np.bincount(cell, yes, size).reshape(N_FOLDS, n_codes)
    n_all = np.bincount(cell, minlength=size).reshape(N_FOLDS, n_codes)
    # one row's worth of the overall share: a category that no other fold has knows nothing
    shares = (n_yes.sum(0) - n_yes + yes.mean()) / (n_all.sum(0) - n_all + 1)
    return shares[fold, codes]


def _by_order(values: np.ndarray, classes: np.ndarray) -> float:
    """Return the largest AUC of any class against the rest, whether it lies high or low."""
    return float(0.5 + np.abs(_aucs(values, classes) - 0.5).max(initial=0))


def _by_category(codes: np.ndarray, classes: np.ndarray) -> float:
    """Return the largest AUC of any class against the rest, by its share in each category."""
    present = np.unique(classes)
    # of two classes, what tells the one tells the other
    asked = present[:1] if len(present) == 2 else present
    answers = (classes == each for each in asked)
    return float(max((_aucs(_shares(codes, yes), yes)[-1] for yes in answers), default=0.5))


def _aucs(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the chance that a row of each class has the higher value, ties half (Mann–Whitney)."""
    n_yes = np.bincount(classes)
    n_no = len(classes) - n_yes
    above = np.bincount(classes, rankdata(values)) - n_yes * (n_yes + 1) / 2
    both = n_yes * n_no
    return np.where(both > 0, above / np.maximum(both, 1), 0.5)


def _pair_rows(
    kind: str, found: pd.DataFrame, where: str, train: pd.DataFrame, text: str
) -> list[tuple[str, str, int, float, str]]:
    if found.empty:
        return []
    label = found["train"].iloc[0]
    example = f"test row {found['test'].iloc[0]} is like training row {label}"
    if text:
        example += f": {str(train.loc[[label], text].iloc[0])[:60]!r}"
    n_rows = int(found["test"].nunique())
    return [(kind, where, n_rows, float(found["similarity"].max()), example)]


def _target_rows(told: pd.DataFrame, n_rows: int) -> list[tuple[str, str, int, float, str]]:
    return [
        ("target", str(row.column), n_rows, float(row.auc), f"AUC {row.auc:.3f} by its {row.by}")
        for row in told.itertuples()
    ]


def _time_rows(train: pd.Series, test: pd.Series) -> list[tuple[str, str, int, float, str]]:
    late = train > test.min()
    if not late.any():
        return []
    example = f"training to {train.max()}, test from {test.min()}"
    return [("time", str(train.name), int(late.sum()), float(late.mean()), example)]


def _check(
    train: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    time: str,
    text: str,
    keys: Sequence[str],
) -> None:
    for part, frame in (("training", train), ("test", test)):
        if frame.empty:
            raise checks.bad_value(
                WHERE,
                expected=f"at least one {part} row and column",
                got=frame,
                remedy="Split first: data.split(frame, target=…).",
            )
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise checks.bad_value(
                WHERE,
                expected="column names that differ",
                got=checks.Described(f"{twice!r} more than once"),
                remedy="Rename them.",
            )
        for name in filter(None, [target, time, text, *keys]):
            if name not in frame:
                raise checks.unknown_name(WHERE, "column", got=name, known=frame.columns)
    stray = train.columns.symmetric_difference(test.columns)
    if len(stray):
        raise checks.bad_value(
            WHERE,
            expected="the same columns on both sides",
            got=checks.Described(f"{checks.listed([repr(name) for name in stray])} on one only"),
            remedy="Take the common ones: train[test.columns].",
        )
    if time:
        _check_time(train[time], test[time])


def _check_time(train: pd.Series, test: pd.Series) -> None:
    numbers = [pd.api.types.is_numeric_dtype(side) for side in (train, test)]
    dates = [pd.api.types.is_datetime64_any_dtype(side) for side in (train, test)]
    zones = {getattr(side.dtype, "tz", None) is None for side in (train, test)}
    if not (all(numbers) or all(dates)) or len(zones) > 1:
        raise checks.bad_value(
            WHERE,
            expected=f"dates or numbers in {train.name!r}",
            got=checks.Described(f"columns of type {train.dtype} and {test.dtype}"),
            remedy=f"Convert both: pd.to_datetime(train[{train.name!r}]).",
        )
