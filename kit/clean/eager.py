"""Carry steps out on a frame in memory: each distinct value once, however many rows hold it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kit.clean import columns
from kit.clean.columns import GAP, Encoded
from kit.clean.rules import RULES, Rule
from kit.clean.steps import Step

NOTHING = "nothing to do"


@dataclass(frozen=True)
class Change:
    """What one step did: old and new values with their rows, once they are asked for."""

    step: Step
    status: str
    cells: int | None = 0  # or rows, where rows were dropped; None is not counted yet
    pairs: Callable[[], pd.DataFrame] | None = None  # columns old, new, rows


class Eager:
    """Carry steps out at once.

    A strict one refuses a step that would lose values; Dask's parts, like any query, cannot.
    """

    def __init__(self, frame: nw.DataFrame, *, strict: bool = True) -> None:
        self.frame, self.strict, self.n_rows = frame, strict, len(frame)
        self.kept: np.ndarray | None = None  # positions of the rows that are left, None for all
        self.coded: dict[str, Encoded | None] = {}
        self.changed: set[str] = set()
        self.names = list(frame.columns)

    def run(self, step: Step) -> Change:
        """Carry one step out; one that fails leaves everything as it was."""
        if step.rule == "drop_duplicates":
            return self._drop_duplicates(step)
        if step.column not in self.names:
            return Change(step, f"{NOTHING}: no such column any more")
        if step.rule == "drop_column":
            self.names.remove(step.column)
            return Change(step, "done", self.n_rows, lambda: dropped(self.n_rows))
        return self._change(step, step.column)

    def result(self) -> nw.DataFrame:
        """Return the frame with all changes; it can be asked for once."""
        same = [name for name in self.names if name not in self.changed]
        # only what stays is taken over: a copy of a column that is replaced would be for nothing
        frame = self.frame.select(same)
        frame = frame if self.kept is None or not same else _rows(frame, self.kept)
        return columns.put(frame, self._made(), self._index()).select(self.names)

    def _made(self) -> Iterator[tuple[str, pa.Array]]:
        for name in self.names:
            coded = self.coded.pop(name, None)  # no longer needed, and large
            if coded is not None and name in self.changed:
                yield name, coded.decoded()

    def _index(self) -> pd.Index | None:
        native = self.frame.to_native()
        if not isinstance(native, pd.DataFrame):
            return None
        return native.index if self.kept is None else native.index[self.kept]

    def _change(self, step: Step, name: str) -> Change:
        coded, rule = self._code(name), RULES[step.rule]
        kind = "other" if coded is None else _kind_of(coded.values.type)
        if coded is None or not is_for(rule, kind):
            return Change(step, f"{NOTHING}: the column is no {rule.on}")
        old, counts = coded.values, coded.counts
        new = columns.run(rule.build(nw.col("x"), **fitting(step, kind)), old)
        new = new.cast(pa.int64()) if step.arguments.get("whole") else new
        gone = _mask(pc.and_(pc.is_valid(old), pc.is_null(new)))
        if self.strict and gone.any() and not rule.loses:
            such = ", ".join(map(repr, old.filter(pa.array(gone))[:3].to_pylist()))
            lost = f"{counts[gone].sum():,} cells such as {such}"
            return Change(step, f"refused: it cannot read {lost}, and would lose them")
        differs = _mask(pc.and_(pc.is_valid(old), _differs(old, new, rule, step)))
        if new.type != old.type or differs.any():
            self.coded[name] = Encoded(new, _without(coded.codes, gone), may_repeat=True)
            self.changed.add(name)
        these = pa.array(differs)
        old, new, rows = old.filter(these), new.filter(these), counts[differs]
        return Change(step, "done", int(rows.sum()), lambda: pairs(old, new, rows))

    def _drop_duplicates(self, step: Step) -> Change:
        n_rows = self.n_rows if self.kept is None else len(self.kept)
        keys: list[np.ndarray] = []
        for name in self.names:
            coded = self.coded.get(name)
            found = [coded.keys()] if coded else columns.keys(self._column(name))
            if found is None:
                return Change(step, f"failed: cells of {name!r} cannot be compared")
            keys += found
        left = columns.first_rows(keys, n_rows)
        n_gone = n_rows - len(left)
        if n_gone:
            self.kept = left if self.kept is None else self.kept[left]
            self.coded = {
                name: coded and replace(coded, codes=coded.codes[left])
                for name, coded in self.coded.items()
            }
        return Change(step, "done", n_gone, lambda: dropped(n_gone))

    def _code(self, name: str) -> Encoded | None:
        if name not in self.coded:
            self.coded[name] = columns.encode(self._column(name))
        return self.coded[name]

    def _column(self, name: str) -> nw.Series:
        frame = self.frame.select(name)
        return (frame if self.kept is None else _rows(frame, self.kept))[name]


def is_for(rule: Rule, kind: str) -> bool:
    """Tell whether a rule is for columns of a kind: "text", "number" or "other"."""
    return kind != "other" and rule.on in (kind, "text or number")


def fitting(step: Step, kind: str) -> dict[str, Any]:
    """Return the arguments for a column of a kind: words are not missing among numbers."""
    if step.rule != "missing":
        return step.arguments
    wanted = str if kind == "text" else (int, float)
    return {"values": [v for v in step.arguments["values"] if isinstance(v, wanted)]}


def pairs(old: Any, new: Any, rows: Any) -> pd.DataFrame:
    """Return old values beside new ones, with the rows that had them."""
    return pd.DataFrame(
        {
            "old": pd.Series(old.to_pylist(), dtype=object),
            "new": pd.Series(new.to_pylist(), dtype=object),
            "rows": np.asarray(rows, np.int64),
        }
    )


def dropped(n_rows: int) -> pd.DataFrame:
    """Return the ledger's line of rows, or of a column with that many, that were dropped."""
    return pairs(pa.nulls(1), pa.nulls(1), [n_rows])


def problem(error: Exception) -> str:
    """Return the first line of what went wrong, as the status of a step."""
    lines = str(error).splitlines() or [type(error).__name__]
    return f"failed: {lines[0]}"


def _differs(old: pa.Array, new: pa.Array, rule: Rule, step: Step) -> pa.Array:
    """Tell which values a repair changed: a number that only became one is not changed."""
    if not rule.plain:
        return pc.fill_null(pc.not_equal(old, new), True)
    known = pc.match_substring_regex(old, rule.plain(step.arguments))
    return pc.or_(pc.invert(known), pc.is_null(new))


def _mask(array: pa.Array) -> np.ndarray:
    return pc.fill_null(array, False).to_numpy(zero_copy_only=False)


def _without(codes: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Give cells whose value is gone the code of missing ones."""
    if not gone.any():
        return codes
    new = np.append(np.where(gone, GAP, np.arange(len(gone))), GAP)
    return new.astype(codes.dtype)[codes]


def _kind_of(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "text"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "other"


def _rows(frame: nw.DataFrame, positions: np.ndarray) -> nw.DataFrame:
    native = frame.to_native()
    if isinstance(native, pd.DataFrame):
        return nw.from_native(native.iloc[positions], eager_only=True)
    if isinstance(native, pa.Table):
        return nw.from_native(native.take(pa.array(positions)), eager_only=True)
    return frame[positions, :]
