"""Read a user's own table: encoding and delimiter found, every conversion on the record."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.data import files

MAX_COLUMNS = 2_000  # at some milliseconds each to read; more are a matrix, not a table
# read as text first: which words mean "missing" differs by library, so the list is ours
NULL_TOKENS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "#N/A", "?")
WHOLE = r"-?[0-9]+"
NUMBER = r"(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity))"
# 007 and +4420 name things; as numbers they would lose their zeros and their sign
NAME_OF_DIGITS = r"(?:[+-]?0[0-9].*|\+[0-9]+)"
MAX_DIGITS = 15  # longer numbers are identifiers, and a float would change their last digits
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?"
ZONE = r"(?:Z|[+-][0-9]{2}:?[0-9]{2})"


@result
class Table(Result):
    """Hold a table and what is known of its columns: `table` has one row a column."""

    frame: pd.DataFrame
    source: str
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Return rows, columns, share of missing cells and the source."""
        return {
            "rows": short(len(self.frame)),
            "columns": short(self.frame.shape[1]),
            "missing_frac": short(float(self.table["missing_frac"].mean())),
            "source": self.source,
        }


def read(path: str | Path, *, encoding: str | None = None, columns: Collection[str] = ()) -> Table:
    """Read CSV, TSV, Parquet or JSON lines; what each column was read as is on the record.

    A text column becomes numbers, dates or true/false only if every value that is there fits
    without loss: leading zeros and identifiers of more than 15 digits stay text.

    Args:
        path: the file; .gz is unpacked on the way.
        encoding: of a text file; None finds it (byte-order mark, UTF-8, then a guess, noted).
        columns: the ones to take, in the order of the file; none takes all, 2,000 at the most.

    Returns:
        The frame, one row a column on how it was read, and notes on what was found.

    Raises:
        ValueError: no such file, a folder, nothing in it, binary, ragged, names twice, an unknown
            column, or too many of them.
    """
    path = Path(path).expanduser()
    frame, notes, is_text = files.load(path, encoding=encoding)
    frame = _chosen(frame, columns)
    frame, how = typed(frame) if is_text else (frame, None)
    return Table(table=describe(frame, how), frame=frame, source=path.name, notes=notes)


def _chosen(frame: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    for name in columns:
        if name not in frame:
            raise checks.unknown_name("data.read", "column", got=name, known=frame.columns)
    if columns:
        frame = frame[[name for name in frame.columns if name in columns]]
    if frame.shape[1] > MAX_COLUMNS:
        raise checks.bad_value(
            "data.read",
            expected=f"at most {MAX_COLUMNS:,} columns",
            got=checks.Described(f"{frame.shape[1]:,}"),
            remedy="Pass the ones that matter: columns=['a', 'b'] (in a report: -p columns=a,b).",
        )
    return frame


def describe(frame: pd.DataFrame, read_as: dict[str, str] | None = None) -> pd.DataFrame:
    """List the columns of a frame: type, missing cells, distinct values, an example.

    Args:
        frame: any table.
        read_as: column -> how its text was understood, where it came from text.
    """
    rows = []
    for name, column in frame.items():
        present = column.dropna()
        rows.append(
            {
                "column": name,
                "type": str(column.dtype),
                "missing": int(column.isna().sum()),
                "missing_frac": float(column.isna().mean()),
                "distinct": _distinct(present),
                "example": _example(present),
            }
        )
        if read_as is not None:
            rows[-1]["read_as"] = read_as.get(str(name), "as stored")
    return pd.DataFrame(rows)


def typed(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Give text columns the type that all their values have; say how each was understood.

    Args:
        frame: a table; only its text columns are looked at.

    Returns:
        A new frame, and column -> how it was read, null words counted.

    Example:
        >>> typed(pd.DataFrame({"zip": ["02134", "10001"], "n": ["7", "NA"]}))[1]
        {'zip': 'text', 'n': "whole numbers; missing: 'NA' 1"}
    """
    out, how = {}, {}
    for name, column in frame.items():
        out[name] = column
        if isinstance(column.dtype, pd.StringDtype):
            out[name], how[str(name)] = _typed_column(column)
    return pd.DataFrame(out, index=frame.index), how


def _typed_column(column: pd.Series) -> tuple[pd.Series, str]:
    # each distinct text is looked at once, however many rows hold it
    codes, distinct = pd.factorize(column)
    words = pd.Series(distinct, dtype="str").str.strip()
    is_null = words.isin(NULL_TOKENS)
    values, kind = _convert(words[~is_null])
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    nulls: Counter[str] = Counter()
    for i in np.flatnonzero(is_null):
        nulls[words[i]] += int(counts[i])
    if nulls:
        shown = ", ".join(f"{word!r} {count:,}" for word, count in nulls.most_common())
        kind = f"{kind}; missing: {shown}"
    if values is None:
        return column.mask(is_null.reindex(codes, fill_value=True).to_numpy()), kind
    array = values.reindex(words.index).array.take(codes, allow_fill=True)
    return pd.Series(array, index=column.index), kind


def _convert(words: pd.Series) -> tuple[pd.Series | None, str]:
    """Return the distinct words as the type that all of them are, or None where they stay text."""
    if words.empty:
        return None, "nothing but missing"
    if words.str.lower().isin(["true", "false"]).all():
        return (words.str.lower() == "true").astype("boolean"), "true/false"
    if words.str.fullmatch(NUMBER, case=False).all():
        return _numbers(words)
    if words.str.fullmatch(TIME).all():
        return _dates(words, "dates")
    if words.str.fullmatch(TIME + ZONE).all():
        return _dates(words, "dates, turned to UTC")
    return None, "text"


def _numbers(words: pd.Series) -> tuple[pd.Series | None, str]:
    if words.str.fullmatch(NAME_OF_DIGITS).any():
        return None, "text"
    is_whole = words.str.fullmatch(WHOLE)
    if (words[is_whole].str.lstrip("-").str.len() > MAX_DIGITS).any():
        return None, f"text (identifiers of more than {MAX_DIGITS} digits)"
    if is_whole.all():
        return words.astype("int64").astype("Int64"), "whole numbers"
    values = words.astype("float64")
    # 1e999 is a number, but none that a float can hold
    if (np.isinf(values) & ~words.str.contains("inf", case=False)).any():
        return None, "text"
    return values, "numbers"


def _dates(words: pd.Series, kind: str) -> tuple[pd.Series | None, str]:
    utc = kind != "dates"
    dates = pd.to_datetime(words, format="ISO8601", errors="coerce", utc=utc)
    return (dates, kind) if dates.notna().all() else (None, "text")


def _example(present: pd.Series) -> str:
    if present.empty:
        return ""
    first = present.iloc[0]
    return f"{first:.6g}" if isinstance(first, float) else str(first)


def _distinct(present: pd.Series) -> int:
    try:
        return int(present.nunique())
    except TypeError:  # lists and objects from JSON lines cannot be hashed
        return int(present.astype(str).nunique())
