"""From the bytes of a file to a frame of text cells: encoding, delimiter, rows of one width."""

import csv
import difflib
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from kit.base import checks

DELIMITERS = (",", "\t", ";", "|")
# the longer marks first: that of UTF-32 begins with that of UTF-16
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
MAX_CONTROL_FRAC = 0.01  # of characters; text has next to none, binary data a tenth and more
SAMPLE_CHARS = 100_000  # looked at to find the delimiter
WHOLE_TYPES = (
    *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()),
    *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype()),
)


def load(path: Path, *, encoding: str | None) -> tuple[pd.DataFrame, tuple[str, ...], bool]:
    """Load a file as it is: cells of text files stay text.

    Args:
        path: CSV, TSV, JSON lines or Parquet, also as .gz.
        encoding: of a text file; None finds it.

    Returns:
        The frame, notes on what was guessed, and whether it came from text.

    Raises:
        ValueError: as `data.read`.
    """
    raw = _bytes(path)
    if raw[:4] == b"PAR1":
        frame = _parquet(raw, path)
        _check_shape(frame, path.name)
        return frame, (), False
    text, notes = _decode(raw, path.name, encoding)
    if not text.strip():
        raise _empty(path)
    frame = _json(text, path.name) if _is_json(text) else _csv(text, path.name)
    _check_shape(frame, path.name)
    return frame, notes, True


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        remedy = f"Name the file in it, such as {next(_tables_in(path), path / 'table.csv')}."
        raise _bad(_quoted(path, "a folder"), remedy, expected="a file")
    if not path.exists():
        names = [p.name for p in _tables_in(path.parent)]
        near = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else "Check the path."
        raise _bad(_quoted(path, "no such file"), remedy, expected="a file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        got = _quoted(path, str(error.strerror))
        raise _bad(got, "Check who may read it.", expected="a file that can be read") from None
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            got = _quoted(path, f"damaged: {error}")
            raise _bad(got, "Copy it again.", expected="a whole .gz file") from None
    if not raw.strip():
        raise _empty(path)
    return raw


def _decode(raw: bytes, name: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the text and a note where the encoding was guessed."""
    marked = next((codec for mark, codec in MARKS.items() if raw.startswith(mark)), None)
    known = encoding or marked
    notes: tuple[str, ...] = ()
    try:
        text = raw.decode(known or "utf-8").removeprefix("\ufeff")
    except LookupError:
        raise checks.bad_value(
            "data.read",
            expected="an encoding that Python knows",
            got=encoding,
            remedy="Pass encoding='utf-8', or leave it out to have it found.",
        ) from None
    except UnicodeError as error:
        if known:
            at = getattr(error, "start", 0)
            raise _not_text(name, f"bytes that are not {known} at offset {at}") from None
        text, notes = _guessed(raw, name)
    n_control = len(CONTROL.findall(text[:SAMPLE_CHARS]))
    if "\0" in text or n_control > MAX_CONTROL_FRAC * len(text[:SAMPLE_CHARS]):
        raise _not_text(name, "binary data")
    return text, notes


def _guessed(raw: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    from charset_normalizer import from_bytes  # only the rare file that is not UTF-8 needs it

    matches = from_bytes(raw[:200_000])
    best = matches.best()
    if best is None:
        raise _not_text(name, "binary data")
    # many code pages fit a western text equally well: then the one that most software writes
    western = [match for match in matches if "cp1252" in match.could_be_from_charset]
    codec = "cp1252" if western and western[0].chaos <= best.chaos else best.encoding
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError:
        raise _not_text(name, f"bytes of mixed encodings, mostly {codec}") from None
    word = re.search(r"\w*[^\x00-\x7f]\w*", text)
    such = f", such as {word[0]!r}" if word else ""
    return text, (f"Not UTF-8: read as {codec}{such}; pass encoding=… if that looks wrong.",)


def _csv(text: str, name: str) -> pd.DataFrame:
    """Read delimited text, every cell as text; a row of another width than the header is refused.

    Arrow refuses rows that are too short or too long, where pandas fills and cuts. It forgives a
    quote that is never closed, which would swallow rows: so quotes are checked by `csv` as well.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    end = text.find("\n", SAMPLE_CHARS)
    first_lines = text if end < 0 else text[:end]
    delimiter = _delimiter(first_lines)
    header = next(row for row in _rows(first_lines, delimiter) if row)
    names = [column.strip() or f"column_{i}" for i, column in enumerate(header, start=1)]
    _check_names(names, name)
    if '"' in text:
        _check_rows(text, delimiter, len(names), name)
    raw = text.encode()
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(raw),
            # one block: Arrow loses its place where a quoted line break straddles two
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(raw) + 1),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        _check_rows(text, delimiter, len(names), name)
        raise _bad_row(name, len(names), str(error).splitlines()[0]) from None
    return table.slice(1).to_pandas()


def _rows(text: str, delimiter: str, *, strict: bool = False) -> Any:
    csv.field_size_limit(2**31 - 1)  # its default refuses cells over 128 KiB
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _check_rows(text: str, delimiter: str, n_fields: int, name: str) -> None:
    """Find the first line with a broken quote or another number of fields."""
    line, rows = 1, _rows(text, delimiter, strict=True)
    try:
        for row in rows:
            if len(row) not in (0, n_fields):
                raise _bad_row(name, n_fields, f"{len(row)} in line {line}")
            line = rows.line_num + 1
    except csv.Error:
        raise _bad_row(name, n_fields, f"a quote that is not closed in line {line}") from None


def _delimiter(first_lines: str) -> str:
    """Return the delimiter that splits the first lines into the most fields, equally many."""

    def score(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in islice(filter(None, _rows(first_lines, delimiter)), 100)]
        if widths[0] == 1:
            return (0.0, 1)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0])

    return max(DELIMITERS, key=score)


def _is_json(text: str) -> bool:
    # a header such as [id],[name] begins with a bracket, too
    return re.match(r"\s*(?:\{|\[\s*[{\]])", text) is not None


def _json(text: str, name: str) -> pd.DataFrame:
    """Read one object a line, or one list of objects."""
    at_line = 0
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = []
            for line in text.split("\n"):
                at_line += 1
                if line.strip():
                    rows.append(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
        at_line = at_line or getattr(error, "lineno", 1)
        raise _bad_json(f"{name}: {what} in line {at_line}", "Repair that line.") from None
    if not all(isinstance(row, dict) for row in rows):
        raise _bad_json(f"{name}: rows that are none", 'Write each as {"column": value, …}.')
    names = dict.fromkeys(key for row in rows for key in row)
    return pd.DataFrame({key: _json_column([row.get(key) for row in rows]) for key in names})


def _json_column(values: list[Any]) -> pd.Series:
    """Keep every value as it is: pandas alone would turn whole numbers with gaps into floats."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and _all_below(values, 2**63):
        return pd.Series(values, dtype="Int64")
    if kinds == {float} or (kinds == {int, float} and _all_below(values, 2**53)):
        return pd.Series(values, dtype="float64")
    if kinds == {str}:
        return pd.Series(values, dtype="str")
    return pd.Series(values, dtype="object")


def _all_below(values: list[Any], limit: int) -> bool:
    return all(-limit < value < limit for value in values if isinstance(value, int))


def _parquet(raw: bytes, path: Path) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(raw))
        _check_names(table.column_names, path.name)
        # by default whole numbers with gaps would become floats, and long ones lose digits
        nullable = {getattr(pa, d.name.lower())(): d for d in WHOLE_TYPES}
        nullable[pa.bool_()] = pd.BooleanDtype()
        frame = table.to_pandas(types_mapper=nullable.get, date_as_object=False)
    except (pa.ArrowException, OSError) as error:
        got = _quoted(path, f"damaged: {str(error).splitlines()[0]}")
        raise _bad(got, "Copy it again.", expected="a whole Parquet file") from None
    return frame.reset_index(drop=frame.index.names == [None])  # what it was filtered from is gone


def _check_shape(frame: pd.DataFrame, name: str) -> None:
    _check_names([str(column) for column in frame.columns], name)
    if len(frame) == 0:
        got = checks.Described(f"{name}: a header with {frame.shape[1]} columns and no rows")
        raise _bad(got, "Add rows below the header.", expected="at least one row")


def _check_names(names: Iterable[str], file: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        got = checks.Described(f"{file}: {', '.join(map(repr, twice[:5]))} more than once")
        raise _bad(got, "Rename them in the header line.", expected="column names that differ")


def _tables_in(folder: Path) -> Iterator[Path]:
    wanted = re.compile(r"\.(csv|tsv|txt|parquet|jsonl|ndjson|json)(\.gz)?$")
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return (file for file in files if wanted.search(file.name))


def _bad(got: checks.Described, remedy: str, *, expected: str) -> ValueError:
    return checks.bad_value("data.read", expected=expected, got=got, remedy=remedy)


def _bad_row(name: str, n_fields: int, what: str) -> ValueError:
    remedy = "Repair that line: often a delimiter or a quote inside an unquoted field."
    got = checks.Described(f"{name}: {what}")
    return _bad(got, remedy, expected=f"{n_fields} fields in every row")


def _bad_json(what: str, remedy: str) -> ValueError:
    return _bad(checks.Described(what), remedy, expected="one JSON object a line")


def _empty(path: Path) -> ValueError:
    remedy = "Write a header line and at least one row into it."
    return _bad(_quoted(path, "an empty file"), remedy, expected="a table")


def _not_text(name: str, what: str) -> ValueError:
    remedy = "Export the table as CSV in UTF-8, or pass encoding=…."
    got = checks.Described(f"{name}: {what}")
    return _bad(got, remedy, expected="CSV, TSV, JSON lines or Parquet")


def _quoted(path: Path, what: str) -> checks.Described:
    return checks.Described(f"'{path}' ({what})")
