"""What is wrong in one column: what is sure becomes a step, and what is not a doubt."""

from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from kit.clean import amounts, categories, columns, values
from kit.clean.columns import Encoded
from kit.clean.plan import Doubt
from kit.clean.rules import BLANKS, RULES
from kit.clean.steps import Step
from kit.data.read import NULL_TOKENS

MORE_NULLS = ("-", "--", ".", "n.a.", "N.A.", "<NA>", "#NA", "#VALUE!", "#REF!", "#DIV/0!", "\\N")
# they mean "missing" among numbers and dates; among words they may be a category of their own
PERHAPS_NULLS = (*MORE_NULLS[:3], "?", "None", "none", "missing", "unknown", "Missing", "Unknown")
SHOWN = 3  # examples of a finding


class Found:
    """Collect findings, steps and doubts of one table."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[Step] = []
        self.doubts: list[Doubt] = []
        self.columns: list[dict[str, Any]] = []

    def add(
        self, column: str | None, kind: str, cells: Any, examples: Iterable, **more: Any
    ) -> None:
        """Note what will be repaired."""
        shown = ", ".join(repr(each) for each, _ in zip(examples, range(SHOWN), strict=False))
        row = {"column": column, "finding": kind, "cells": int(cells), "examples": shown}
        self.rows.append(row | {"action": "repair", "why": ""} | more)

    def doubt(self, doubt: Doubt) -> None:
        """Note what is left to a person."""
        examples = doubt.values or ()
        more = {"action": "flag", "why": doubt.why}
        self.add(doubt.column, doubt.kind, doubt.rows, examples, **more)
        self.doubts.append(doubt)


def look_at_text(found: Found, name: str, coded: Encoded) -> str:
    """Look at a text column; return what it really holds."""
    words = pd.Series(coded.values.to_pandas(), dtype="str")
    counts = coded.counts
    bare = words.str.strip(BLANKS)
    _blanks(found, name, words, bare, counts)
    merged = pd.Series(counts, index=bare)
    if (bare != words).any():
        merged = merged.groupby(level=0).sum()
    is_null = merged.index.isin([*NULL_TOKENS, *MORE_NULLS, *PERHAPS_NULLS])
    present = pd.Series(merged.index[~is_null].array, dtype="str")
    rows = merged[~is_null].to_numpy()
    reading = values.read(present)
    numbers = _read_numbers(reading, present)
    lost = np.isnan(numbers)
    if lost.any():
        why = "numbers, but for these that cannot be read"
        reading = values.Reading("text", doubt=("number marks", why, pd.Series(lost)))
    nulls = merged[is_null]
    if reading.rule:
        _nulls(found, name, nulls)
        for kind, odd in reading.odd.items():
            found.add(name, kind, rows[odd.to_numpy()].sum(), present[odd])
        why = ", ".join(reading.odd) or f"{reading.kind} written as text"
        found.steps.append(Step(name, reading.rule, reading.arguments, why, int(rows.sum())))
        if reading.kind == "numbers":
            look_at_numbers(found, name, numbers, rows, present.to_numpy())
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


def _blanks(found: Found, name: str, words: pd.Series, bare: pd.Series, counts: np.ndarray) -> None:
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


def _nulls(found: Found, name: str, nulls: pd.Series) -> None:
    if len(nulls):
        found.add(name, "null words", nulls.sum(), nulls.index)
        step = Step(name, "missing", {"values": list(nulls.index)}, "null words", int(nulls.sum()))
        found.steps.append(step)


def _read_numbers(reading: values.Reading, words: pd.Series) -> np.ndarray:
    """Return the numbers that words will be, NaN for one that the rule cannot read."""
    if reading.kind != "numbers":
        return np.empty(0)
    expression = RULES["number"].build(nw.col("x"), **reading.arguments)
    return columns.run(expression, pa.array(words)).to_numpy(zero_copy_only=False)


def look_at_numbers(
    found: Found, name: str, numbers: np.ndarray, rows: np.ndarray, shown: np.ndarray
) -> None:
    """Look for sentinels and impossible values.

    Args:
        found: what is added to.
        name: of the column.
        numbers: distinct.
        rows: of each number.
        shown: how each number is written.
    """
    is_there = np.isfinite(numbers.astype("float64"))
    order = np.argsort(numbers[is_there], kind="stable")
    numbers, rows, shown = (array[is_there][order] for array in (numbers, rows, shown))
    if len(numbers) < 3:
        return
    sure, unsure = amounts.sentinels(numbers, rows)
    if sure:
        cells = int(rows[np.isin(numbers, sure)].sum())
        found.add(name, "sentinels", cells, sure)
        found.steps.append(Step(name, "missing", {"values": sure}, "sentinels", cells))
    if unsure:
        odd = np.isin(numbers, unsure)
        cells, these = int(rows[odd].sum()), tuple(shown[odd].tolist())
        step = Step(name, "missing", {"values": unsure}, "sentinels", cells)
        found.doubt(Doubt(name, "sentinels", these, "may stand for missing", cells, step))
    left = ~np.isin(numbers, [*sure, *unsure])
    _impossible(found, name, numbers[left], rows[left], shown[left])


def _impossible(
    found: Found, name: str, numbers: np.ndarray, rows: np.ndarray, shown: np.ndarray
) -> None:
    odd, why = amounts.impossible(name, numbers, rows)
    if not odd.any():
        return
    fine, cells, these = numbers[~odd], int(rows[odd].sum()), tuple(shown[odd].tolist())
    limits = {"low": fine[0].item(), "high": fine[-1].item()} if len(fine) else {}
    step = Step(name, "limits", limits, why, cells) if limits else None
    found.doubt(Doubt(name, "impossible values", these, why, cells, step))


def _zeros(found: Found, name: str, words: pd.Series, rows: np.ndarray) -> None:
    """Look for names of digits that lost their leading zeros."""
    if len(words) < 2 or not words.str.fullmatch("[0-9]+").all():
        return
    if not words.str.contains("^0[0-9]").any():
        return
    length = words.str.len()
    width = int(length.mode().iloc[0])
    short_ones = (length < width).to_numpy()
    if not short_ones.any() or (length > width).any():
        return
    cells = int(rows[short_ones].sum())
    step = Step(name, "pad", {"width": width}, "leading zeros", cells)
    why = f"shorter than the {width} digits of the others: zeros may be lost"
    found.doubt(Doubt(name, "leading zeros", tuple(words[short_ones]), why, cells, step))


def _categories(found: Found, name: str, words: pd.Series, rows: np.ndarray) -> None:
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
