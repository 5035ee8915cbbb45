"""Where documents come from: installed packages, folders, patterns, lines of JSON, Parquet."""

import glob
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.base import checks

WHERE = "text.corpus"
CODE = ("networkx", "sympy")  # torch installs them: the same pins, the same bytes
LOOK = 8192  # bytes in which a file that is not text gives itself away
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Source:
    """One file, and how to walk through the documents in it."""

    name: str
    path: Path
    documents: Callable[[], Iterator[bytes]]


def find(source: str | Path, column: str) -> list[Source]:
    """Return the files that `source` stands for, in the order of their names.

    Args:
        source: "code", a folder, a pattern such as "books/*.txt", or a file.
        column: of .jsonl and .parquet, the one with the text.

    Raises:
        ValueError: nothing there, or a file that cannot be read.
    """
    if source == "code":
        return [each for package in CODE for each in _package(package)]
    path = Path(source).expanduser()
    if path.is_dir():
        return [
            _source(each, path, column) for each in sorted(path.rglob("*")) if _counts(each, path)
        ]
    if path.is_file():
        return [_source(path, path.parent, column)]
    # not Path.glob, which takes no pattern that begins at the root
    found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    if not found:
        raise checks.bad_value(
            WHERE,
            expected='"code", a folder, a file or a pattern that fits files',
            got=str(source),
            remedy='Check the path, or pass "code".',
        )
    return [_source(each, path.parent, column) for each in found if each.is_file()]


def _package(name: str) -> list[Source]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise checks.bad_value(
            WHERE,
            expected=f"the package {name}, whose source is a part of the corpus",
            got=checks.Described("none installed"),
            remedy="Type: pip install -r requirements.lock",
        )
    root = Path(spec.origin).parent
    return [_source(each, root.parent, "") for each in sorted(root.rglob("*.py"))]


def _counts(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.is_file() and not hidden


def _source(path: Path, root: Path, column: str) -> Source:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    readers = {".jsonl": _lines_of_json, ".ndjson": _lines_of_json, ".parquet": _rows_of_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return Source(name, path, lambda: _whole(path))
    return Source(name, path, lambda: reader(path, column))


def _whole(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, or nothing where they are no text."""
    raw = path.read_bytes()
    if b"\0" not in raw[:LOOK]:
        yield raw.replace(b"\0", b"")


def _lines_of_json(path: Path, column: str) -> Iterator[bytes]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise _bad(path, "a JSON object a line", f"line {number} that is none") from None
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                raise _no_text(path, column, row if isinstance(row, dict) else {}, f"line {number}")
            yield _bytes(row[column])


def _rows_of_parquet(path: Path, column: str) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        raise _bad(path, "a Parquet file", "something else") from None
    kind = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    if column not in kind or not (
        pa.types.is_string(kind[column]) or pa.types.is_large_string(kind[column])
    ):
        raise _no_text(path, column, kind, "its schema")
    for part in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
        yield from (_bytes(text) for text in part.column(0).to_pylist() if text is not None)


def _bytes(text: str) -> bytes:
    # a lone surrogate, which JSON can hold, has no UTF-8
    return text.encode("utf-8", errors="replace").replace(b"\0", b"")


def _no_text(path: Path, column: str, row: object, where: str) -> ValueError:
    known = ", ".join(map(repr, row)) if row else "none"  # type: ignore[call-overload]
    return _bad(
        path,
        f"text in the column {column!r}",
        f"the columns {known} in {where}",
        remedy='Pass the name of the column: column="body".',
    )


def _bad(
    path: Path, expected: str, got: str, remedy: str = "Mend the file, or leave it out."
) -> ValueError:
    return checks.bad_value(
        WHERE, expected=f"{expected} in {path.name}", got=checks.Described(got), remedy=remedy
    )
