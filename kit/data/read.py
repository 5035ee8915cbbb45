"""Read a user's own table: encoding and delimiter found, every conversion on the record."""

import csv
import difflib
import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short

# read as text first: which words mean "missing" differs by library, so the list is ours
NULL_TOKENS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "#N/A", "?")
DELIMITERS = (",", "\t", ";", "|")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|Inf|infinity|Infinity)"
LEADING_ZERO = r"[+-]?0\d.*"  # 007 and 02134 name things; as numbers they would lose their zeros
MAX_DIGITS = 15  # longer numbers are identifiers, and a float would change their last digits
DATE = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"


@result
class Table(Result):
    """Hold a table and what is known of its columns: `table` has one row a column."""

    frame: pd.DataFrame
    source: str
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Return rows, columns, share of missing cells and the source."""
        missing = self.frame.isna().to_numpy().mean()
        return {
            "rows": short(len(self.frame)),
            "columns": short(self.frame.shape[1]),
            "missing_frac": short(float(missing)),
            "source": self.source,
        }


def read(path: str | Path, *, encoding: str | None = None) -> Table:
    """Read CSV, TSV, Parquet or JSON lines; what each column was read as is on the record.

    A text column becomes numbers, dates or true/false only if every value that is there fits
    without loss: leading zeros and identifiers of more than 15 digits stay text.

    Args:
        path: the file; .gz is unpacked on the way.
        encoding: of a text file; None finds it (byte-order mark, UTF-8, then a guess, noted).

    Returns:
        The frame, one row a column on how it was read, and notes on what was found.

    Raises:
        ValueError: no such file, a folder, nothing in it, binary, ragged, or names twice.
    """
    path = Path(path).expanduser()
    raw = _bytes(path)
    if raw[:4] == b"PAR1":
        frame, how, notes = _parquet(path), None, ()
    else:
        text, notes = _decode(raw, path.name, encoding)
        frame = _json_lines(text, path.name) if text.lstrip()[:1] in "{[" else _csv(text, path.name)
        frame, how = typed(frame)
    _check_shape(frame, path.name)
    return Table(table=describe(frame, how), frame=frame, source=path.name, notes=tuple(notes))


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
                "example": str(present.iloc[0]) if len(present) else "",
            }
        )
        if read_as is not None:
            rows[-1]["read_as"] = read_as.get(str(name), "as stored")
    return pd.DataFrame(rows)


def _distinct(present: pd.Series) -> int:
    try:
        return int(present.nunique())
    except TypeError:  # lists and objects from JSON lines cannot be hashed
        return int(present.astype(str).nunique())


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
        if not pd.api.types.is_string_dtype(column):
            out[name] = column
            continue
        stripped = column.str.strip()
        is_null = stripped.isin(NULL_TOKENS)
        words = Counter(stripped[is_null])
        out[name], kind = _convert(stripped.mask(is_null), column.mask(is_null))
        nulls = ", ".join(f"{word!r} {count:,}" for word, count in words.most_common())
        how[str(name)] = f"{kind}; missing: {nulls}" if nulls else kind
    return pd.DataFrame(out, index=frame.index), how


def _convert(stripped: pd.Series, column: pd.Series) -> tuple[pd.Series, str]:
    """Return the column with the type that all its values share, and the type's name."""
    distinct = pd.Series(stripped.dropna().unique(), dtype="str")
    if distinct.empty:
        return column, "nothing but missing"
    if distinct.str.lower().isin(["true", "false"]).all():
        return (stripped.str.lower() == "true").astype("boolean").mask(stripped.isna()), "true/false"
    if distinct.str.fullmatch(NUMBER).all():
        if distinct.str.fullmatch(LEADING_ZERO).any():
            return column, "text"
        if distinct.str.count(r"\d").max() <= MAX_DIGITS or distinct.str.contains(r"[.eE]").any():
            return _numbers(stripped, distinct)
        return column, "text (identifiers of more than 15 digits)"
    if distinct.str.fullmatch(DATE).all():
        dates = pd.to_datetime(stripped, format="ISO8601", errors="coerce", utc=True)
        if dates.notna().sum() == stripped.notna().sum():
            return dates, "dates"
    return column, "text"


def _numbers(stripped: pd.Series, distinct: pd.Series) -> tuple[pd.Series, str]:
    if distinct.str.fullmatch(r"[+-]?\d+").all():
        return pd.to_numeric(stripped).astype("Int64"), "whole numbers"
    return pd.to_numeric(stripped).astype("float64"), "numbers"


def _bytes(path: Path) -> bytes:
    where = "data.read"
    if path.is_dir():
        remedy = f"Name the file in it, such as {next(_tables_in(path), path / 'table.csv')}."
        raise checks.bad_value(where, expected="a file", got=_quoted(path, "a folder"), remedy=remedy)
    if not path.exists():
        names = [p.name for p in _tables_in(path.parent)]
        near = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else "Check the path."
        got = _quoted(path, "no such file")
        raise checks.bad_value(where, expected="a file", got=got, remedy=remedy)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            got = _quoted(path, f"damaged: {error}")
            raise checks.bad_value(
                where, expected="a whole .gz file", got=got, remedy="Copy it again."
            ) from None
    if not raw.strip():
        raise checks.bad_value(
            where,
            expected="a table",
            got=_quoted(path, "an empty file"),
            remedy="Write a header line and at least one row into it.",
        )
    return raw


def _decode(raw: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the text and a note where the encoding was guessed."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    marked = next((codec for mark, codec in marks.items() if raw.startswith(mark)), None)
    if encoding is None and marked is None and b"\0" in raw[:65536]:
        raise _not_text(name, "binary data")
    try:
        return raw.decode(encoding or marked or "utf-8"), ()
    except LookupError:
        raise checks.bad_value(
            "data.read",
            expected="an encoding that Python knows",
            got=encoding,
            remedy="Pass encoding='utf-8', or leave it out to have it found.",
        ) from None
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise _not_text(name, f"bytes that are not {encoding} at offset {error.start}") from None
    from charset_normalizer import from_bytes  # only the rare file that is not UTF-8 needs it

    guess = from_bytes(raw[:200_000]).best()
    if guess is None or sum(byte < 9 for byte in raw[:65536]) > 0:
        raise _not_text(name, "binary data")
    try:
        text = raw.decode(guess.encoding)
    except UnicodeDecodeError:
        raise _not_text(name, f"bytes of mixed encodings, mostly {guess.encoding}") from None
    return text, (f"Not UTF-8: read as {guess.encoding}; pass encoding=… if accents look wrong.",)


def _csv(text: str, name: str) -> pd.DataFrame:
    delimiter = _delimiter(text)
    header = next(csv.reader(io.StringIO(text), delimiter=delimiter))
    names = [column.strip() or f"column_{i}" for i, column in enumerate(header, start=1)]
    _check_names(names, name)
    try:
        return pd.read_csv(
            io.StringIO(text),
            sep=delimiter,
            header=0,
            names=names,
            dtype=str,
            na_filter=False,
            index_col=False,
            on_bad_lines="error",
        )
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("Error tokenizing data. C error: ")
        raise checks.bad_value(
            "data.read",
            expected=f"{len(names)} fields in every row",
            got=checks.Described(f"{name}: {reason}"),
            remedy="Repair that line: often a delimiter or a quote inside an unquoted field.",
        ) from None


def _delimiter(text: str) -> str:
    """Return the delimiter that splits the first lines into the most fields, equally many."""
    lines = text[:100_000].splitlines()[:100]

    def score(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        if not widths or widths[0] == 1:
            return (0.0, 1)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0])

    return max(DELIMITERS, key=score)


def _json_lines(text: str, name: str) -> pd.DataFrame:
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            lines = text.splitlines()
            rows = []
            for line in filter(str.strip, lines):
                rows.append(json.loads(line))  # a loop: the error below needs how far it came
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}" if text.lstrip().startswith("[") else f"row {len(rows) + 1}"
        raise checks.bad_value(
            "data.read",
            expected="one JSON object a line",
            got=checks.Described(f"{name}: {error.msg} at {at}"),
            remedy="Repair that line.",
        ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise checks.bad_value(
            "data.read",
            expected="one JSON object a line",
            got=checks.Described(f"{name}: rows that are not objects"),
            remedy='Write each row as {"column": value, …}.',
        )
    return pd.DataFrame(rows)


def _parquet(path: Path) -> pd.DataFrame:
    from pyarrow.lib import ArrowException

    try:
        return pd.read_parquet(path)
    except (ArrowException, OSError, ValueError) as error:
        got = _quoted(path, str(error).splitlines()[0])
        raise checks.bad_value(
            "data.read", expected="a whole Parquet file", got=got, remedy="Copy it again."
        ) from None


def _check_shape(frame: pd.DataFrame, name: str) -> None:
    _check_names([str(column) for column in frame.columns], name)
    if len(frame) == 0:
        got = checks.Described(f"{name}: a header with {frame.shape[1]} columns and no rows")
        raise checks.bad_value(
            "data.read", expected="at least one row", got=got, remedy="Add rows below the header."
        )


def _check_names(names: list[str], file: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise checks.bad_value(
            "data.read",
            expected="column names that differ",
            got=checks.Described(f"{file}: {', '.join(map(repr, twice[:5]))} more than once"),
            remedy="Rename them in the header line.",
        )


def _tables_in(folder: Path):
    wanted = re.compile(r"\.(csv|tsv|txt|parquet|jsonl|ndjson|json)(\.gz)?$")
    return (p for p in sorted(folder.glob("*")) if wanted.search(p.name)) if folder.is_dir() else iter(())


def _not_text(name: str, what: str) -> ValueError:
    return checks.bad_value(
        "data.read",
        expected="CSV, TSV, JSON lines or Parquet",
        got=checks.Described(f"{name}: {what}"),
        remedy="Export the table as CSV in UTF-8, or pass encoding=….",
    )


def _quoted(path: Path, what: str) -> checks.Described:
    return checks.Described(f"'{path}' ({what})")
