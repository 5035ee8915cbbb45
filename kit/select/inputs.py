"""Check what the methods of selection take: a table of numbers and a target for each row."""

from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.data.split import is_quantity


def check_table(where: str, X: Any) -> None:
    """Refuse what has no named columns."""
    if not isinstance(X, pd.DataFrame):
        raise checks.bad_type(
            where,
            expected="a DataFrame, one column a feature",
            got=X,
            remedy="Name its columns: pd.DataFrame(X, columns=[…]).",
        )


def numbers(where: str, X: Any) -> np.ndarray:
    """Return the table as float64 (rows, features), or refuse what no method could use.

    Args:
        where: the public function, for the message.
        X: one column a feature.

    Raises:
        TypeError: not a DataFrame.
        ValueError: no rows or columns, names twice, words, or gaps.
    """
    check_table(where, X)
    if X.empty or len(X) < 4:
        raise checks.bad_value(
            where, expected="at least 4 rows and a column", got=X, remedy="Pass the training rows."
        )
    if not X.columns.is_unique:
        raise checks.bad_value(
            where,
            expected="column names that differ",
            got=checks.Described(f"{X.columns[X.columns.duplicated()][0]!r} more than once"),
            remedy="Rename them.",
        )
    for name, kind in zip(X.columns, X.dtypes, strict=True):
        if not pd.api.types.is_numeric_dtype(kind):
            raise checks.bad_value(
                where,
                expected="columns of numbers",
                got=checks.Described(f"{name!r} of type {kind}"),
                remedy="Encode it: pd.get_dummies(X), or encoder.X(frame) of data.Encoder.",
            )
    rows = X.to_numpy(np.float64, na_value=np.nan)
    n_bad = (~np.isfinite(rows)).sum(axis=0)
    if n_bad.any():
        name = X.columns[int(n_bad.argmax())]
        raise checks.bad_value(
            where,
            expected="finite numbers",
            got=checks.Described(f"{n_bad.max():,} missing or infinite in {name!r}"),
            remedy=f"Fill them: X[{name!r}].fillna(X[{name!r}].median()).",
        )
    return rows


def targets(where: str, y: Any, n_rows: int, *, several: bool = True) -> tuple[np.ndarray, bool]:
    """Return the target as float64 (questions, rows), and whether it is a quantity.

    Args:
        where: the public function, for the message.
        y: a quantity, yes/no, or classes: Series, array or tensor.
        n_rows: how many it must have.
        several: whether more than two classes will do, each asked for on its own; where not,
            numbers of more than two values are a quantity, however few.

    Raises:
        ValueError: another length, gaps, one value alone, or too many classes.
    """
    values = pd.Series(np.asarray(y.detach().cpu() if hasattr(y, "detach") else y))
    if len(values) != n_rows or values.isna().any():
        raise checks.bad_value(
            where,
            expected=f"a target for each of {n_rows:,} rows",
            got=checks.Described(f"{int(values.notna().sum()):,}"),
            remedy="Pass X and y of the same rows, those without a target left out.",
        )
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if is_number and not several and values.nunique() > 2:
        return values.to_numpy(np.float64)[None], True
    codes, classes = pd.factorize(values, sort=True)
    if len(classes) < 2:
        raise checks.bad_value(
            where,
            expected="a target of two values or more",
            got=checks.Described("one"),
            remedy="Choose another target.",
        )
    if is_quantity(values):
        return values.to_numpy(np.float64)[None], True
    if len(classes) == 2:
        return (codes == 1).astype(np.float64)[None], False
    if not several:
        raise checks.bad_value(
            where,
            expected="a quantity or yes/no",
            got=checks.Described(f"{len(classes)} classes"),
            remedy=f"Ask for one at a time: y == {classes.tolist()[0]!r}.",
        )
    return (codes == np.arange(len(classes))[:, None]).astype(np.float64), False


def check_count(where: str, n: int | None, n_features: int) -> None:
    """Refuse a number of features that there are not."""
    if n is not None and not 1 <= n <= n_features:
        raise checks.bad_value(
            where,
            expected=f"1 <= n <= {n_features}",
            got=n,
            remedy="Pass n=None to let the method decide.",
        )
