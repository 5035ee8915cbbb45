"""The same steps on two kinds of engine: at once on distinct values, or as a query to come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kit.clean import columns
from kit.clean.columns import GAP, Encoded
from kit.clean.plan import Step
from kit.clean.rules import RULES

NOTHING = "nothing to do"


@dataclass(frozen=True)
class Change:
    """What one step did: old and new values with their rows, once they are asked for."""

    step: Step
    status: str
    cells: int | None = 0  # or rows, where rows were dropped; None is not counted yet
    pairs: Callable[[], pd.DataFrame] | None = None  # columns old, new, rows


class Eager:
    """Carry steps out at once, on the distinct values of each column."""

    def __init__(self, frame: nw.DataFrame) -> None:
        self.frame, self.n_rows = frame, len(frame)
        self.kept: np.ndarray | None = None  # positions of the rows that are left, None for all
        self.coded: dict[str, Encoded | None] = {}
        self.changed: set[str] = set()
        self.names = list(frame.columns)

    def run(self, step: Step) -> Change:
        """Carry one step out; what fails leaves everything as it was."""
        if step.rule == "drop_duplicates":
            return self._drop_duplicates(step)
        if step.column not in self.names:
            return Change(step, f"{NOTHING}: no such column any more")
        if step.rule == "drop_column":
            self.names.remove(step.column)
            return Change(step, "done", self.n_rows, lambda: _dropped(self.n_rows))
        return self._change(step, step.column)

    def result(self) -> nw.DataFrame:
        """Return the frame with all changes."""
        frame = self.frame.select(self.names)
        if self.kept is not None:
            frame = _rows(frame, self.kept)
        new = {name: self._code(name) for name in self.names if name in self.changed}
        return columns.put(frame, {name: coded.decoded() for name, coded in new.items() if coded})

    def _change(self, step: Step, name: str) -> Change:
        coded, rule = self._code(name), RULES[step.rule]
        kind = "other" if coded is None else _kind_of(coded.values.type)
        if coded is None or (rule.on != kind and (rule.on != "both" or kind == "other")):
            return Change(step, f"{NOTHING}: the column is no {rule.on.replace('both', 'text')}")
        arguments = _fitting(step, kind)
        old, counts = coded.values, coded.counts
        new = _settled(columns.run(rule.build(nw.col("x"), **arguments), old), step, kind)
        old_there, gone = pc.is_valid(old), pc.and_(pc.is_valid(old), pc.is_null(new))
        if not rule.loses and pc.any(gone).as_py():
            words = old.filter(gone)
            such = ", ".join(repr(word) for word in words[:3].to_pylist())
            n_cells = int(counts[gone.to_numpy(zero_copy_only=False)].sum())
            return Change(step, f"refused: would lose {n_cells:,} cells such as {such}")
        differs = pc.fill_null(pc.and_(old_there, _differs(old, new, step, kind)), False)
        codes = coded.codes
        if pc.any(gone).as_py():
            lost = gone.to_numpy(zero_copy_only=False)
            codes = np.where(lost[codes] & (codes != GAP), GAP, codes).astype(codes.dtype)
        if new.type != old.type or pc.any(differs).as_py():
            self.coded[name] = Encoded(new, codes)
            self.changed.add(name)
        pairs = (old.filter(differs), new.filter(differs), counts[differs.to_numpy(False)])
        return Change(step, "done", int(pairs[2].sum()), lambda: _pairs(*pairs))

    def _drop_duplicates(self, step: Step) -> Change:
        n_rows = self.n_rows if self.kept is None else len(self.kept)
        keys = []
        for name in self.names:
            coded = self._code(name)
            if coded is None:
                return Change(step, f"failed: cells of {name!r} cannot be compared")
            # repaired values may have become equal
            again = coded.values.dictionary_encode().indices.fill_null(GAP).to_numpy(False)
            keys.append(np.append(again, GAP)[coded.codes])
        left = columns.first_rows(keys, n_rows)
        if len(left) < n_rows:
            self.kept = left if self.kept is None else self.kept[left]
            for name, coded in self.coded.items():
                self.coded[name] = coded and Encoded(coded.values, coded.codes[left])
        n_gone = n_rows - len(left)
        return Change(step, "done", n_gone, lambda: _dropped(n_gone))

    def _code(self, name: str) -> Encoded | None:
        if name not in self.coded:
            column = self.frame[name]
            self.coded[name] = columns.encode(
                column if self.kept is None else _rows(self.frame.select(name), self.kept)[name]
            )
        return self.coded[name]


class Lazy:
    """Write steps into a query; nothing is computed before the result or its ledger is asked for."""

    kept = None

    def __init__(self, frame: nw.LazyFrame) -> None:
        self.frame = frame
        self.schema = dict(frame.collect_schema())

    def run(self, step: Step) -> Change:
        """Add one step to the query."""
        before = self.frame
        if step.rule == "drop_duplicates":
            self.frame = before.unique(keep="any")
            after = self.frame
            count = lambda: _dropped(_height(before) - _height(after))  # noqa: E731
            return Change(step, "planned", None, count)
        if step.column not in self.schema:
            return Change(step, f"{NOTHING}: no such column any more")
        if step.rule == "drop_column":
            self.frame = before.drop(step.column)
            del self.schema[step.column]
            return Change(step, "planned", None, lambda: _dropped(_height(before)))
        return self._change(step, step.column)

    def result(self) -> nw.LazyFrame:
        """Return the query with all steps."""
        return self.frame

    def _change(self, step: Step, name: str) -> Change:
        rule, kind, before = RULES[step.rule], _kind_of_dtype(self.schema[name]), self.frame
        if rule.on != kind and (rule.on != "both" or kind == "other"):
            return Change(step, f"{NOTHING}: the column is no {rule.on.replace('both', 'text')}")
        new = rule.build(nw.col(name), **_fitting(step, kind))
        self.frame = before.with_columns(new.alias(name))
        self.schema[name] = rule.makes or self.schema[name]
        if step.arguments.get("whole"):
            self.frame = _as_whole(self.frame, name)
            self.schema[name] = nw.Int64()
        return Change(step, "planned", None, lambda: self._asked(before, step, new, kind))

    def _asked(self, before: nw.LazyFrame, step: Step, new: nw.Expr, kind: str) -> pd.DataFrame:
        pairs = before.select(old=nw.col(step.column or ""), new=new)
        pairs = pairs.filter(~nw.col("old").is_null())
        rule = RULES[step.rule]
        if rule.plain:
            known = nw.col("old").str.contains(rule.plain(step.arguments))
            pairs = pairs.filter(~known | nw.col("new").is_null())
        else:
            pairs = pairs.filter(nw.col("new").is_null() | (nw.col("old") != nw.col("new")))
        counted = pairs.group_by("old", "new").agg(rows=nw.len()).collect(backend="pyarrow")
        table = counted.to_native()
        new_values = _settled(table["new"].combine_chunks(), step, kind)
        return _pairs(table["old"].combine_chunks(), new_values, table["rows"].to_numpy())


def _fitting(step: Step, kind: str) -> dict[str, Any]:
    """Return the arguments for a column of this kind: words are not missing among numbers."""
    if step.rule != "missing":
        return step.arguments
    wanted = str if kind == "text" else (int, float)
    return {"values": [v for v in step.arguments["values"] if isinstance(v, wanted)]}


def _settled(new: pa.Array, step: Step, kind: str) -> pa.Array:
    if step.arguments.get("whole") and kind == "text":
        return new.cast(pa.int64())
    return new


def _differs(old: pa.Array, new: pa.Array, step: Step, kind: str) -> pa.Array:
    """Tell which old values a repair changed: a number that only became one is not changed."""
    plain = RULES[step.rule].plain
    if plain:
        return pc.invert(pc.match_substring_regex(old, plain(step.arguments)))
    return pc.fill_null(pc.not_equal(old, new), True)


def _kind_of(kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "other"


def _kind_of_dtype(dtype: nw.dtypes.DType) -> str:
    if isinstance(dtype, nw.String):
        return "text"
    return "number" if dtype.is_integer() or dtype.is_float() else "other"


def _as_whole(frame: nw.LazyFrame, name: str) -> nw.LazyFrame:
    if frame.implementation.is_dask():
        # its cast knows no gaps
        return nw.from_native(frame.to_native().astype({name: "Int64"}))
    return frame.with_columns(nw.col(name).cast(nw.Int64))


def _rows(frame: nw.DataFrame, positions: np.ndarray) -> nw.DataFrame:
    native = frame.to_native()
    if isinstance(native, pd.DataFrame):
        return nw.from_native(native.iloc[positions], eager_only=True)
    if isinstance(native, pa.Table):
        return nw.from_native(native.take(pa.array(positions)), eager_only=True)
    return frame[positions.tolist(), :]


def _height(frame: nw.LazyFrame) -> int:
    return int(frame.select(rows=nw.len()).collect(backend="pyarrow")["rows"][0])


def _pairs(old: pa.Array, new: pa.Array, rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "old": pd.Series(old.to_pylist(), dtype=object),
            "new": pd.Series(new.to_pylist(), dtype=object),
            "rows": rows.astype(np.int64),
        }
    )


def _dropped(n_rows: int) -> pd.DataFrame:
    return _pairs(pa.nulls(1), pa.nulls(1), np.array([n_rows]))


def problem(error: Exception) -> str:
    """Return the first line of what went wrong, as the status of a step."""
    lines: list[str] = str(error).splitlines() or [type(error).__name__]
    return f"failed: {lines[0]}"
