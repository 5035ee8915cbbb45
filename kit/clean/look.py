"""Look at a table: what its columns really hold, what is wrong with it, and how sure that is."""

from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from kit.base.results import Result, result, short
from kit.clean import amounts, categories, columns, values
from kit.clean import table as tables
from kit.clean.columns import GAP, Encoded
from kit.clean.plan import Doubt, Step
from kit.clean.rules import BLANKS
from kit.data.read import NULL_TOKENS

HEAD = 100_000  # rows of a query that are looked at
MORE_NULLS = ("-", "--", ".", "n.a.", "N.A.", "<NA>", "#NA", "#VALUE!", "#REF!", "#DIV/0!", "\\N")
# they mean "missing" among numbers and dates; among words they may be a category of their own
PERHAPS_NULLS = (*MORE_NULLS[:3], "?", "None", "none", "missing", "unknown", "Missing", "Unknown")
BY_CHANCE = 1e-3  # expected pairs of equal rows below which duplicates cannot be chance
SHOWN = 3
ABOUT = ["column", "stored", "holds", "missing", "distinct", "key"]


@result
class Audit(Result):
    """Hold what was found: `table` has a row a finding, `columns` a row a column."""

    columns: pd.DataFrame
    steps: tuple[Step, ...]  # repairs that are sure
    doubts: tuple[Doubt, ...]
    n_rows: int
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Return rows, columns, and how many findings can be repaired or are left in doubt."""
        sure = (self.table["action"] == "repair").sum()
        return {
            "rows": short(self.n_rows),
            "columns": short(len(self.columns)),
            "to repair": short(int(sure)),
            "in doubt": short(len(self.table) - int(sure)),
        }


class _Found:
    """Collect findings, steps and doubts of one table."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[Step] = []
        self.doubts: list[Doubt] = []
        self.columns: list[dict[str, Any]] = []

    def add(
        self, column: str | None, kind: str, cells: Any, examples: Iterable, **more: Any
    ) -> None:
        shown = ", ".join(repr(each) for each, _ in zip(examples, range(SHOWN), strict=False))
        row = {"column": column, "finding": kind, "cells": int(cells), "examples": shown}
        self.rows.append(row | {"action": "repair", "why": ""} | more)

    def doubt(self, doubt: Doubt) -> None:
        examples = doubt.values or ()
        more = {"action": "flag", "why": doubt.why}
        self.add(doubt.column, doubt.kind, doubt.rows, examples, **more)
        self.doubts.append(doubt)


def look(frame: Any) -> Audit:
    """Look at every column of a table: what it holds, what is wrong, what may be wrong.

    Distinct values are looked at, not rows. What is certain becomes a step of `clean.plan`; what
    may as well be right is a doubt, and left alone until a person accepts it.

    Args:
        frame: a path, or a table of pandas, PyArrow, Polars, DuckDB, Dask or PySpark; of a query
            the first 100,000 rows are looked at.

    Returns:
        A row a finding with cells and examples, a row a column, and what the plan is made of.

    Raises:
        TypeError: it is no table.
        ValueError: names that are not text or not unique; a file that cannot be read.

    Example:
        >>> frame = pd.DataFrame({"fare": ["$1,200", "950", "NA", "$80"]})
        >>> look(frame).table["finding"].tolist()
        ['null words', 'number marks', 'currency']
    """
    taken, notes = tables.take(frame, "clean.look"), ()
    if isinstance(taken, nw.LazyFrame):
        taken = tables.collected(taken.head(HEAD))
        notes = (f"A query: its first {HEAD:,} rows were looked at.",) * (len(taken) == HEAD)
    found, codes = _Found(), {}
    for name in taken.columns:
        coded = columns.encode(taken[name])
        if coded is not None:
            codes[name] = coded
        _column(found, name, str(taken.schema[name]), coded, len(taken))
    _duplicates(found, codes, taken)
    names = ["column", "finding", "cells", "examples", "action", "why"]
    return Audit(
        table=pd.DataFrame(found.rows, columns=names),
        columns=pd.DataFrame(found.columns, columns=ABOUT),
        steps=tuple(found.steps),
        doubts=tuple(found.doubts),
        n_rows=len(taken),
        notes=notes,
    )


def _column(found: _Found, name: str, stored: str, coded: Encoded | None, n_rows: int) -> None:
    about = {
        "column": name,
        "stored": stored,
        "holds": stored,
        "missing": 0,
        "distinct": 0,
        "key": False,
    }
    found.columns.append(about)
    if coded is None:
        about["holds"] = "several kinds"
        return
    counts = coded.counts
    about |= {"missing": coded.n_missing, "distinct": len(counts)}
    found.columns[-1] = about | {"key": len(counts) == n_rows and n_rows > 1}
    if n_rows and not len(counts):
        found.add(name, "empty column", n_rows, ())
        found.steps.append(Step(name, "drop_column", why="nothing but missing", rows=n_rows))
        return
    kind = coded.values.type
    if pa.types.is_string(kind):
        found.columns[-1]["holds"] = _text(found, name, coded)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = coded.values.to_numpy(zero_copy_only=False)
        _amounts(found, name, numbers, counts, numbers)
    if len(counts) == 1 and not coded.n_missing and n_rows > 1:
        step = Step(name, "drop_column", why="one value in every row", rows=n_rows)
        only = (coded.values[0].as_py(),)
        found.doubt(Doubt(name, "constant column", only, "tells no rows apart", n_rows, step))


def _text(found: _Found, name: str, coded: Encoded) -> str:
    """Look at a text column; return what it really holds."""
    words = pd.Series(coded.values.to_pandas(), dtype="str")
    counts = coded.counts
    bare = words.str.strip(BLANKS)
    _blanks(found, name, words, bare, counts)
    merged = pd.Series(counts).groupby(bare.array).sum()
    is_null = merged.index.isin([*NULL_TOKENS, *MORE_NULLS, *PERHAPS_NULLS])
    present = pd.Series(merged.index[~is_null].array, dtype="str")
    rows = merged[~is_null].to_numpy()
    reading = values.read(present)
    nulls = merged[is_null]
    if reading.rule:
        _nulls(found, name, nulls)
        for kind, odd in reading.odd.items():
            found.add(name, kind, rows[odd.to_numpy()].sum(), present[odd])
        why = ", ".join(reading.odd) or f"{reading.kind} written as text"
        found.steps.append(Step(name, reading.rule, reading.arguments, why, int(rows.sum())))
        if reading.kind == "numbers":
            _as_numbers(found, name, reading, present, rows)
        return reading.kind
    sure, unsure = _null_words(nulls, present)
    _nulls(found, name, sure)
    if len(unsure):
        step = Step(
            name, "missing", {"values": list(unsure.index)}, "null words", int(unsure.sum())
        )
        why = "may mean missing, or be a category of its own"
        found.doubt(Doubt(name, "null words", tuple(unsure.index), why, int(unsure.sum()), step))
    if reading.doubt:
        kind, why, odd = reading.doubt
        cells = int(rows[odd.to_numpy()].sum())
        found.doubt(Doubt(name, kind, tuple(present[odd]), why, cells))
    _zeros(found, name, present, rows)
    _categories(found, name, present, rows)
    return "text"


def _blanks(
    found: _Found, name: str, words: pd.Series, bare: pd.Series, counts: np.ndarray
) -> None:
    odd = (words != bare).to_numpy()
    if not odd.any():
        return
    cells = int(counts[odd].sum())
    if words.str.contains("\n").any():
        why = "texts of several lines, whose blanks may be meant"
        step = Step(name, "strip", {}, "blanks around texts", cells)
        found.doubt(Doubt(name, "blanks", tuple(words[odd]), why, cells, step))
        return
    found.add(name, "blanks", cells, words[odd])
    found.steps.append(Step(name, "strip", {}, "blanks around words", cells))


def _null_words(nulls: pd.Series, present: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Part the null words of a text column into sure and unsure ones."""
    unsure = nulls.index.isin(PERHAPS_NULLS)
    # NA is Namibia among the codes of countries, and sodium among the elements
    if len(present) and present.str.fullmatch("[A-Z]{2}").all():
        unsure |= nulls.index == "NA"
    return nulls[~unsure], nulls[unsure]


def _nulls(found: _Found, name: str, nulls: pd.Series) -> None:
    if len(nulls):
        found.add(name, "null words", nulls.sum(), nulls.index)
        step = Step(name, "missing", {"values": list(nulls.index)}, "null words", int(nulls.sum()))
        found.steps.append(step)


def _as_numbers(
    found: _Found, name: str, reading: values.Reading, words: pd.Series, rows: np.ndarray
) -> None:
    """Look at the numbers that words will be."""
    from kit.clean.rules import RULES

    expression = RULES["number"].build(nw.col("x"), **reading.arguments)
    read = columns.run(expression, pa.array(words)).to_numpy(zero_copy_only=False)
    _amounts(found, name, read, rows, words.to_numpy())


def _amounts(
    found: _Found, name: str, numbers: np.ndarray, rows: np.ndarray, shown: np.ndarray
) -> None:
    """Look for sentinels and impossible values; `shown` is how each number is written."""
    is_there = np.isfinite(numbers.astype("float64"))
    order = np.argsort(numbers[is_there], kind="stable")
    numbers, rows, shown = (array[is_there][order] for array in (numbers, rows, shown))
    if len(numbers) < 3:
        return
    sure, unsure = amounts.sentinels(numbers, rows)
    for these, is_sure in ((sure, True), (unsure, False)):
        odd = np.isin(numbers, these)
        if not odd.any():
            continue
        cells = int(rows[odd].sum())
        step = Step(name, "missing", {"values": these}, "sentinels", cells)
        if is_sure:
            found.add(name, "sentinels", cells, these)
            found.steps.append(step)
        else:
            why = "may stand for missing"
            found.doubt(Doubt(name, "sentinels", tuple(shown[odd].tolist()), why, cells, step))
    left = ~np.isin(numbers, [*sure, *unsure])
    numbers, rows, shown = numbers[left], rows[left], shown[left]
    odd, why = amounts.impossible(name, numbers, rows)
    if odd.any():
        fine = numbers[~odd]
        limits = {"low": fine[0].item(), "high": fine[-1].item()} if len(fine) else {}
        cells = int(rows[odd].sum())
        step = Step(name, "limits", limits, why, cells) if limits else None
        found.doubt(Doubt(name, "impossible values", tuple(shown[odd].tolist()), why, cells, step))


def _zeros(found: _Found, name: str, words: pd.Series, rows: np.ndarray) -> None:
    """Look for names of digits that lost their leading zeros."""
    if len(words) < 2 or not words.str.fullmatch("[0-9]+").all():
        return
    if not words.str.contains("^0[0-9]").any():
        return
    length = words.str.len()
    width = int(length.iloc[np.repeat(np.arange(len(rows)), 1)].mode().iloc[0])
    short_ones = (length < width).to_numpy()
    if not short_ones.any() or (length > width).any():
        return
    cells = int(rows[short_ones].sum())
    step = Step(name, "pad", {"width": width}, "leading zeros", cells)
    why = f"shorter than the {width} digits of the others: zeros may be lost"
    found.doubt(Doubt(name, "leading zeros", tuple(words[short_ones]), why, cells, step))


def _categories(found: _Found, name: str, words: pd.Series, rows: np.ndarray) -> None:
    if not categories.are_categories(words, rows):
        return
    by_word = dict(zip(words, rows.tolist(), strict=True))
    clear, unclear = categories.variants(words, rows)
    if clear:
        cells = sum(by_word[word] for word in clear)
        found.add(name, "spellings", cells, clear)
        found.steps.append(Step(name, "merge", {"values": clear}, "case and blanks", cells))
    left = ~words.isin([*clear, *unclear]).to_numpy()
    near = categories.near(words[left], rows[left])
    for kind, pairs, why in (
        ("spellings", unclear, "differ in case or blanks, and none is much more frequent"),
        ("near duplicates", near, "may be one thing"),
    ):
        if pairs:
            cells = sum(by_word[word] for word in pairs)
            step = Step(name, "merge", {"values": pairs}, kind, cells)
            found.doubt(Doubt(name, kind, tuple(pairs), why, cells, step))


def _duplicates(found: _Found, codes: dict[str, Encoded], frame: nw.DataFrame) -> None:
    n_rows = len(frame)
    if n_rows < 2 or len(codes) < len(frame.columns) or not codes:
        return
    left = columns.first_rows([coded.codes for coded in codes.values()], n_rows)
    n_twice = n_rows - len(left)
    if not n_twice:
        return
    step = Step(None, "drop_duplicates", why="equal in every column", rows=n_twice)
    if _chance(codes, n_rows) < BY_CHANCE:
        found.add(None, "duplicated rows", n_twice, ())
        found.steps.append(step)
        return
    why = "equal in every column, which may be chance in a table of few different values"
    found.doubt(Doubt(None, "duplicated rows", (), why, n_twice, step))


def _chance(codes: dict[str, Encoded], n_rows: int) -> float:
    """Return how many pairs of rows would be equal by chance.

    Columns that go together make more: so it is reckoned as if each had a twin.
    """
    equal = 1.0
    for coded in codes.values():
        shares = np.append(coded.counts, (coded.codes == GAP).sum()) / n_rows
        equal *= float((shares**2).sum())
    return n_rows * (n_rows - 1) / 2 * equal**0.5
