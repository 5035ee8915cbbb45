"""Split a table into training, validation and test rows, by time where there is one."""

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short

MAX_CLASSES = 50  # more distinct numbers than this are a quantity; more words are an identifier
MIN_ROWS = 20


@result
class Split(Result):
    """Hold the three parts of a table; `table` has one row a part."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    target: str
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
        time: the column to order by; rows of one time stay in one part.
        validation: fraction of rows to choose by, such as when to stop.
        test: fraction of rows to judge by, once.
        seed: of the random split; classes keep their shares.

    Returns:
        The three parts, with rows and the target's mean or commonest class of each.

    Raises:
        ValueError: target or time unknown, target constant, empty or with a class of one row,
            fewer than 20 rows, no other column, or fractions that leave nothing to train on.
    """
    _check_fractions(validation, test)
    check_target(frame, target)
    if time is not None and time not in frame:
        raise checks.unknown_name("data.split", "column", got=time, known=frame.columns)
    whole = frame[frame[target].notna()]
    if time is None:
        part, how = _at_random(whole[target], validation, test, seed), f"at random, seed {seed}"
    else:
        part, how = _by_time(whole[time], validation, test), f"by time ({time})"
    parts = {name: whole[part == i] for i, name in enumerate(("train", "validation", "test"))}
    dropped = len(frame) - len(whole)
    how += f"; {dropped:,} rows without {target} left out" if dropped else ""
    table = pd.DataFrame([_summary(name, rows, target, time) for name, rows in parts.items()])
    return Split(table=table, target=target, how=how, **parts)


def is_quantity(target: pd.Series) -> bool:
    """Tell whether a target is a quantity (regression) rather than a choice of classes."""
    if pd.api.types.is_bool_dtype(target) or not pd.api.types.is_numeric_dtype(target):
        return False
    values = target.dropna()
    whole = bool((values % 1 == 0).all())
    return not (whole and values.nunique() <= min(MAX_CLASSES, max(2, len(values) // 10)))


def check_target(frame: pd.DataFrame, target: str) -> None:
    """Refuse a target that nothing can be learned about; the message says how to go on.

    Raises:
        ValueError: unknown, all missing, constant, infinite, too many classes, or a class of one
            row; or the table has no other column or fewer than 20 rows.
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
    values = frame[target].dropna()
    if values.empty:
        raise _bad_target(target, "values", "nothing but missing cells", "Choose another target")
    if len(values) < MIN_ROWS:
        got = f"{len(values)} rows that have it"
        raise _bad_target(target, f"at least {MIN_ROWS} rows", got, "Bring more rows")
    counts = values.value_counts()
    if len(counts) == 1:
        got = f"{counts.index[0]!r} in every row"
        raise _bad_target(target, "two values or more", got, "Choose another target")
    if is_quantity(values):
        _check_finite(values, target)
    elif len(counts) > MAX_CLASSES:
        got = f"{len(counts):,} different words"
        raise _bad_target(target, f"at most {MAX_CLASSES} classes", got, "Group them")
    elif counts.min() < 3:
        rare = counts.index[-1]
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


def _at_random(target: pd.Series, validation: float, test: float, seed: int) -> np.ndarray:
    """Give every row its part, 0 train, 1 validation, 2 test, classes in equal shares."""
    rng = np.random.default_rng(seed)
    noise = rng.random(len(target))
    strata = np.zeros(len(target), int) if is_quantity(target) else pd.factorize(target)[0]
    order = np.lexsort((noise, strata))
    # shuffled inside each class, the classes one after another: equal steps give equal shares
    sizes = np.bincount(strata)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    quantile = (rank + 0.5) / np.repeat(sizes, sizes)
    part = np.empty(len(target), int)
    part[order] = np.digitize(quantile, [1 - validation - test, 1 - test])
    return part


def _by_time(time: pd.Series, validation: float, test: float) -> np.ndarray:
    """Give every row its part; a time falls whole into one part."""
    rank = time.rank(method="max", pct=True, na_option="top").to_numpy()
    part = np.digitize(rank, [1 - validation - test, 1 - test], right=True)
    if len(np.unique(part)) < 3:
        raise checks.bad_value(
            "data.split",
            expected="a time column that tells enough moments apart",
            got=checks.Described(f"{time.nunique()} different values in {time.name!r}"),
            remedy="Pass time=None for a random split.",
        )
    return part


def _summary(name: str, rows: pd.DataFrame, target: str, time: str | None) -> dict:
    row = {"part": name, "rows": len(rows)}
    if pd.api.types.is_bool_dtype(rows[target]) or is_quantity(rows[target]):
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
