"""Split a table into training, validation and test rows, by time where there is one."""

from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short

MAX_COUNTED = 50  # more different whole numbers than this are a quantity, not classes
MAX_CLASSES = 200  # more different words than this are an identifier, not classes
MIN_ROWS = 20


@result
class Split(Result):
    """Hold the three parts of a table; `table` has one row a part."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    target: str
    quantity: bool  # the target is one, not a choice of classes; by all rows, for `Encoder.fit`
    how: str

    def facts(self) -> dict[str, str]:
        """Return the rows of each part and how they were drawn."""
        parts = {part: short(len(getattr(self, part))) for part in ("train", "validation", "test")}
        return {**parts, "split": self.how}


def split(
    frame: pd.DataFrame,
    *,
    target: str,
    time: str | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
) -> Split:
    """Split a table; the test rows are the latest where `time` is given, else drawn at random.

    A model is asked about days that it has not seen: a random split of dated rows would let it
    learn each day from its neighbours, and promise a score that it does not keep.

    Args:
        frame: the whole table; it stays as it is.
        target: the column to predict; rows without it are left out and counted.
        time: the column to order by, dates or numbers; rows of one time stay in one part, rows
            without one are for training.
        validation: fraction of rows to choose by, such as when to stop.
        test: fraction of rows to judge by, once.
        seed: of the random split; classes keep their shares.

    Returns:
        The three parts, with rows and the target's mean or commonest class of each.

    Raises:
        ValueError: target or time unknown, target constant, empty or with a class of one or two
            rows, fewer than 20 rows, no other column, a time that is text, or a part without rows.
    """
    _check_fractions(validation, test)
    check_target(frame, target)
    whole = frame[frame[target].notna()]
    quantity = is_quantity(whole[target])
    if time is None:
        strata = np.zeros(len(whole), int) if quantity else pd.factorize(whole[target])[0]
        part, how = _at_random(strata, validation, test, seed), f"at random, seed {seed}"
    else:
        _check_time(whole, time)
        part, how = _by_time(whole[time], validation, test), f"by time ({time})"
    _check_parts(part, validation, test)
    parts = {name: whole[part == i] for i, name in enumerate(("train", "validation", "test"))}
    dropped = len(frame) - len(whole)
    how += f"; {dropped:,} rows without {target} left out" if dropped else ""
    as_mean = quantity or pd.api.types.is_bool_dtype(whole[target])
    table = pd.DataFrame(
        [_summary(name, rows, target, time, as_mean) for name, rows in parts.items()]
    )
    return Split(table=table, target=target, quantity=quantity, how=how, **parts)


def is_quantity(target: pd.Series) -> bool:
    """Tell whether a target is a quantity (regression) rather than a choice of classes."""
    if pd.api.types.is_bool_dtype(target) or not pd.api.types.is_numeric_dtype(target):
        return False
    values = target.dropna()
    whole = bool((values % 1 == 0).all())
    return not (whole and values.nunique() <= min(MAX_COUNTED, max(2, len(values) // 10)))


def check_target(frame: pd.DataFrame, target: str) -> None:
    """Refuse a target that nothing can be learned about; the message says how to go on.

    Raises:
        ValueError: unknown, all missing, constant, infinite, lists, too many classes, or a class
            of one row; or the table has no other column, names twice or fewer than 20 rows.
    """
    where = "data.split"
    if not target:
        names = [str(name) for name in frame.columns]
        raise checks.bad_value(
            where,
            expected="the name of the column to predict",
            got=checks.Described("none"),
            remedy=f"Pass target={names[-1]!r}, or another of: {checks.listed(names)} "
            f"(in a report: -p target={names[-1]}).",
        )
    if target not in frame:
        raise checks.unknown_name(where, "column", got=target, known=frame.columns)
    if frame.shape[1] < 2:
        raise _bad_target(
            target, "a column beside the target", "a table of one column", "Add a column"
        )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()]
        raise checks.bad_value(
            where,
            expected="column names that differ",
            got=checks.Described(checks.listed([repr(name) for name in twice]) + " more than once"),
            remedy="Rename them.",
        )
    values = frame[target].dropna()
    if values.empty:
        raise _bad_target(target, "values", "nothing but missing cells", "Choose another target")
    if len(values) < MIN_ROWS:
        got = f"{len(values)} rows that have it"
        raise _bad_target(target, f"at least {MIN_ROWS} rows", got, "Bring more rows")
    try:
        n_distinct = values.nunique()
    except TypeError:  # lists and objects from JSON lines cannot be counted
        got = f"cells such as {values.iloc[0]!r}"
        raise _bad_target(target, "single values", got, "Choose another target") from None
    if n_distinct == 1:
        got = f"{_plain(values.iloc[0])!r} in every row"
        raise _bad_target(target, "two values or more", got, "Choose another target")
    if is_quantity(values):
        _check_finite(values, target)
        return
    if n_distinct > MAX_CLASSES:
        got = f"{n_distinct:,} different words"
        raise _bad_target(target, f"at most {MAX_CLASSES} classes", got, "Group them")
    counts = values.value_counts()
    if counts.min() < 3:
        rare = _plain(counts.index[-1])
        got = f"{counts.min()} of {rare!r}"
        remedy = f"Merge or drop it: frame[frame[{target!r}] != {rare!r}]"
        raise _bad_target(target, "at least 3 rows of each class", got, remedy)


def _check_finite(values: pd.Series, target: str) -> None:
    n_infinite = int(np.isinf(values.to_numpy(dtype=float)).sum())
    if n_infinite:
        raise _bad_target(target, "finite numbers", f"{n_infinite} infinities", "Replace them")


def _bad_target(target: str, expected: str, got: str, remedy: str) -> ValueError:
    return checks.bad_value(
        "data.split",
        expected=f"{expected} in the target {target!r}" if "column" not in expected else expected,
        got=checks.Described(got),
        remedy=f"{remedy}.",
    )


def _plain(value: Any) -> Any:
    """Return a NumPy number as Python's, which is shown as it would be typed."""
    return value.item() if hasattr(value, "item") else value


def _at_random(strata: np.ndarray, validation: float, test: float, seed: int) -> np.ndarray:
    """Give every row its part, 0 train, 1 validation, 2 test, strata in equal shares."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(strata)), strata))
    # shuffled inside each stratum, the strata one after another: equal steps give equal shares
    sizes = np.bincount(strata)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # each begins its steps at random: else the third row of all small classes met the same part
    quantile = (rank + np.repeat(rng.random(len(sizes)), sizes)) / np.repeat(sizes, sizes)
    part = np.empty(len(strata), int)
    part[order] = np.digitize(quantile, [1 - validation - test, 1 - test])
    return part


def _by_time(time: pd.Series, validation: float, test: float) -> np.ndarray:
    """Give every row its part; a time falls whole into one part."""
    rank = time.rank(method="max", pct=True, na_option="top").to_numpy()
    return np.digitize(rank, [1 - validation - test, 1 - test], right=True)


def _check_time(frame: pd.DataFrame, time: str) -> None:
    if time not in frame:
        raise checks.unknown_name("data.split", "column", got=time, known=frame.columns)
    column = frame[time]
    is_date = pd.api.types.is_datetime64_any_dtype(column)
    if not (is_date or pd.api.types.is_numeric_dtype(column)):
        # in the order of the alphabet, 02/01/2014 comes before 03/01/2013
        raise checks.bad_value(
            "data.split",
            expected=f"dates or numbers in {time!r}",
            got=checks.Described(f"a column of type {column.dtype}"),
            remedy=f"Convert it: frame[{time!r}] = pd.to_datetime(frame[{time!r}], format=…).",
        )
    if column.nunique() < 3:
        raise checks.bad_value(
            "data.split",
            expected="a time column that tells enough moments apart",
            got=checks.Described(f"{column.nunique()} different values in {time!r}"),
            remedy="Pass time=None for a random split.",
        )


def _check_parts(part: np.ndarray, validation: float, test: float) -> None:
    sizes = np.bincount(part, minlength=3).tolist()
    if min(sizes) == 0:
        raise checks.bad_value(
            "data.split",
            expected="at least one row in each of training, validation and test",
            got=checks.Described(f"{sizes} with validation={validation}, test={test}"),
            remedy="Pass larger fractions, more rows, or time=None for a random split.",
        )


def _summary(
    name: str, rows: pd.DataFrame, target: str, time: str | None, as_mean: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"part": name, "rows": len(rows)}
    if as_mean:
        row[f"mean_{target}"] = float(rows[target].mean())
    else:
        row[f"commonest_{target}"] = str(rows[target].mode().iloc[0])
    if time is not None:
        row |= {"from": str(rows[time].min()), "to": str(rows[time].max())}
    return row


def _check_fractions(validation: float, test: float) -> None:
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise checks.bad_value(
            "data.split",
            expected="fractions between 0 and 1 that leave rows to train on",
            got=checks.Described(f"validation={validation}, test={test}"),
            remedy="Pass validation=0.15, test=0.15.",
        )
