"""New rows and where they come from: of the training part alone, each with its parent's label."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.data import Split


@result
class GrownSplit(Split):
    """Hold a split that knows its made rows: none may be judged by, mixed ones not grown again."""

    made: pd.Index  # labels of the training rows that were made
    mixed: bool  # some of them have soft labels, which only their own `Augmented` holds


@result
class Augmented(Result):
    """Hold a split whose training part has grown; `table` has one row a class."""

    split: GrownSplit  # training rows, then the new ones; validation and test as they were
    parents: pd.DataFrame  # label of each new row -> labels of its parent and partner, if any
    soft: pd.DataFrame | None  # of each new row the share of each class, where classes are mixed
    how: str

    def facts(self) -> dict[str, str]:
        """Return how many rows were made, and how."""
        return {
            "new rows": short(len(self.parents)),
            "training rows": short(len(self.split.train)),
            "made by": self.how,
        }

    @property
    def rows(self) -> pd.DataFrame:
        """Return the new rows alone."""
        return self.split.train.loc[self.parents.index]

    def weighted(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the training rows and a weight for each, for models that take no soft labels.

        A row that is 70 % of one class and 30 % of another comes twice, once of each class with
        the weights 0.7 and 0.3: its log loss is the same.
        """
        train = self.split.train
        if self.soft is None:
            return train, np.ones(len(train))
        shares = self.soft.to_numpy()
        row, column = np.nonzero(shares)
        mixed = self.rows.iloc[row].copy()
        classes = pd.Series(self.soft.columns.to_numpy()[column], index=mixed.index)
        mixed[self.split.target] = classes.astype(train[self.split.target].dtype)
        plain = train.drop(index=self.parents.index)
        return pd.concat([plain, mixed]), np.r_[np.ones(len(plain)), shares[row, column]]


def of_training(where: str, parts: Any, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the rows to grow from, or refuse: they must be training rows, unchanged.

    Args:
        where: the public function, for the message.
        parts: what should be a `data.Split`.
        rows: some of its training rows; None is all.

    Raises:
        TypeError: not a split.
        ValueError: as `check_split`; rows of another part, changed rows, rows with soft labels.
    """
    check_split(where, parts)
    if isinstance(parts, GrownSplit) and parts.mixed:
        raise checks.bad_value(
            where,
            expected="training rows of one class each",
            got=checks.Described("rows with soft labels, which would be lost"),
            remedy="Make mixtures last: augment.mixup(augment.noise(parts).split).",
        )
    if rows is None:
        return parts.train
    _check_rows(where, parts, rows)
    return rows


def check_split(where: str, parts: Any) -> None:
    """Refuse what is not a split whose rows can be told apart.

    Raises:
        TypeError: not a split: from a bare table nobody can tell which rows are for training.
        ValueError: row labels that name no row for certain.
    """
    if not isinstance(parts, Split):
        raise checks.bad_type(
            where,
            expected="a split, of which only the training rows grow",
            got=parts,
            remedy="Split first, and pass it whole: data.split(frame, target=…).",
        )
    labels = parts.train.index.append([parts.validation.index, parts.test.index])
    if labels.has_duplicates:
        raise checks.bad_value(
            where,
            expected="a label of its own for every row",
            got=checks.Described(f"{labels[labels.duplicated()][0]} more than once"),
            remedy="Number the rows before the split: frame.reset_index(drop=True).",
        )


def grown(
    parts: Split,
    new: pd.DataFrame,
    *,
    parent: pd.Index,
    partner: pd.Index | None = None,
    soft: np.ndarray | None = None,
    how: str,
) -> Augmented:
    """Join new rows to the training rows, under labels of their own.

    Args:
        parts: the split; it stays as it is.
        new: the new rows, columns as in training.
        parent: label of the row that each came from.
        partner: label of the second row that had a part in it.
        soft: share of each class, (new rows, classes), classes as `classes_of` has them.
        how: what was done, for people.
    """
    new = new.set_axis(_labels(parts, len(new)), axis=0)
    second = partner if partner is not None else pd.Index([None] * len(new), dtype=object)
    parents = pd.DataFrame({"parent": parent, "partner": second}, index=new.index)
    classes = [] if parts.quantity else classes_of(parts)
    shares = None if soft is None else pd.DataFrame(soft, index=new.index, columns=classes)
    train = pd.concat([parts.train, new])
    target = parts.train[parts.target]
    what = pd.Series("all rows", index=train.index) if parts.quantity else train[parts.target]
    before = what[: len(target)].value_counts(sort=False)
    table = pd.DataFrame({"before": before, "after": what.value_counts()}).reset_index()
    table.columns = pd.Index([parts.target, "before", "after"])
    split = changed(parts, f"{len(new):,} training rows made by {how}", train=train)
    known = {each.name: getattr(split, each.name) for each in fields(Split)}
    made = made_rows(parts).append(new.index)
    return Augmented(
        table=table,
        split=GrownSplit(**known, made=made, mixed=soft is not None),
        parents=parents,
        soft=shares,
        how=how,
    )


def changed(parts: Split, how: str, **rows: pd.DataFrame) -> Split:
    """Return the split with other rows in some of its parts, and with its table set right."""
    table, column = parts.table.copy(), parts.table.columns[2]
    for part, frame in rows.items():
        target, at = frame[parts.target], table["part"] == part
        is_mean = column.startswith("mean_")
        table.loc[at, "rows"] = len(frame)
        table.loc[at, column] = target.mean() if is_mean else str(target.mode().iloc[0])
    return replace(parts, table=table, how=f"{parts.how}; {how}", **rows)


def made_rows(parts: Split) -> pd.Index:
    """Return the labels of the training rows that were made, not measured."""
    return parts.made if isinstance(parts, GrownSplit) else parts.train.index[:0]


def classes_of(parts: Split) -> list[Any]:
    """Return the classes of the training rows, in order."""
    return sorted(parts.train[parts.target].unique(), key=lambda value: (str(type(value)), value))


def _labels(parts: Split, n: int) -> pd.Index:
    every = (parts.train.index, parts.validation.index, parts.test.index)
    if all(pd.api.types.is_integer_dtype(index.dtype) for index in every):
        start = 1 + max(index.max() for index in every)
        return pd.RangeIndex(start, start + n)
    start = len(parts.train)
    return pd.Index([f"new {i}" for i in range(start, start + n)], dtype=object)


def _check_rows(where: str, parts: Split, rows: pd.DataFrame) -> None:
    counts = {
        part: int(rows.index.isin(getattr(parts, part).index).sum())
        for part in ("validation", "test")
    }
    counts["no known part"] = len(rows) - int(rows.index.isin(parts.train.index).sum())
    counts["no known part"] -= counts["validation"] + counts["test"]
    strays = [f"{n:,} of {part}" for part, n in counts.items() if n]
    if strays:
        raise checks.bad_value(
            where,
            expected="training rows alone: what is judged by must stay unseen",
            got=checks.Described(" and ".join(strays)),
            remedy="Pass rows of parts.train, or leave rows out to take them all.",
        )
    known = parts.train.loc[rows.index]
    if rows.empty or list(rows.columns) != list(known.columns) or not rows.equals(known):
        # labels numbered anew would make a test row look like a training row
        raise checks.bad_value(
            where,
            expected="rows as they are in parts.train, at least one",
            got=checks.Described("none" if rows.empty else "others under the same labels"),
            remedy="Select them: rows=parts.train[parts.train[…] == …].",
        )
