"""Take any table in: a path or a frame of any library, refused in one line where it is none."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd

from kit import data
from kit.base import checks


def take(frame: Any, where: str) -> nw.DataFrame | nw.LazyFrame:
    """Wrap a frame, or read a path.

    Raises:
        TypeError: it is no table.
        ValueError: names that are not text or not unique; a file that cannot be read.
    """
    if isinstance(frame, str | Path):
        frame = data.read(frame).frame
    if isinstance(frame, pd.DataFrame):
        _check_names(list(frame.columns), where)
    elif hasattr(frame, "column_names"):  # PyArrow allows names twice, and Narwhals does not
        _check_names(list(frame.column_names), where)
    try:
        return wrapped(frame)
    except TypeError:
        raise checks.bad_type(
            where,
            expected="a path, or a table of pandas, PyArrow, Polars, DuckDB, Dask or PySpark",
            got=frame,
            remedy="Pass pd.DataFrame(…).",
        ) from None


def wrapped(frame: Any) -> nw.DataFrame | nw.LazyFrame:
    """Wrap the frame of a library, as Narwhals does, which for Dask warns each time.

    It announces that its part for Dask will become a package of its own, `narwhals-dask`, which is
    not published yet: there is nothing that a user could do about it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        return nw.from_native(frame)


def collected(frame: nw.DataFrame | nw.LazyFrame) -> nw.DataFrame:
    """Run a query; a frame is returned as it is."""
    if isinstance(frame, nw.DataFrame):
        return frame
    # Dask hands its index over to Arrow as a column
    return frame.collect(backend="pandas" if frame.implementation.is_dask() else "pyarrow")


def _check_names(names: list[Any], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    other = [name for name in names if not isinstance(name, str)]
    if twice:
        raise _bad(where, "column names that differ", f"{_listed(twice)} more than once")
    if other:
        raise _bad(where, "column names that are text", _listed(other))


def _bad(where: str, expected: str, got: str) -> ValueError:
    remedy = "Rename them: frame.columns = ['a', 'b', …]."
    return checks.bad_value(where, expected=expected, got=checks.Described(got), remedy=remedy)


def _listed(names: list[Any]) -> str:
    return checks.listed([repr(name) for name in names], most=5)
