"""Apply a plan: a new frame, what each step did, and a ledger that takes nothing for granted."""

from functools import cached_property
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.clean import table as tables
from kit.clean.eager import Change, Eager, problem
from kit.clean.lazy import Dask, Lazy
from kit.clean.plan import Plan
from kit.clean.steps import check

WHERE = "clean.apply"
LEDGER = ["step", "column", "rule", "old", "new", "rows"]


@result
class Cleaned(Result):
    """Hold the clean frame and the way back; `table` has a row a step."""

    frame: Any  # of the library that the original is of; a query where that was one
    plan: Plan
    kept: np.ndarray | None  # positions of the original rows that are left; None without an order
    original: Any
    changes: tuple[Change, ...]

    def facts(self) -> dict[str, str]:
        """Return how many steps were carried out, and how many cells they changed."""
        status = self.table["status"].str
        fine = status.startswith("done") | status.startswith("planned")
        cells = self.table["cells"]
        return {
            "steps carried out": f"{fine.sum()} of {len(self.table)}",
            "cells changed": "not counted yet" if cells.isna().any() else short(int(cells.sum())),
            "columns": short(len(self._columns())),
        }

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Every old value with its new one, by step: column, rule, old, new and rows.

        A query is run for it now, if the frame is one.
        """
        parts = []
        for i, change in enumerate(self.changes, start=1):
            if change.pairs is None:
                continue
            pairs = change.pairs()
            step = pd.DataFrame(
                {"step": i, "column": change.step.column, "rule": change.step.rule},
                index=pairs.index,
            )
            parts.append(pd.concat([step, pairs], axis=1))
        if not parts:
            return pd.DataFrame(columns=LEDGER)
        return pd.concat(parts, ignore_index=True)[LEDGER]

    def undo(self) -> Any:
        """Return the original: values, types, order, rows and columns are those it had."""
        return _view(self.original)

    def _columns(self) -> list[str]:
        return tables.wrapped(self.frame).collect_schema().names()


def apply(frame: Any, plan: Any) -> Cleaned:
    """Apply a plan to a table; the original stays as it is.

    A frame in memory is cleaned value by value, not row by row. A query (Polars lazy, DuckDB, Dask,
    PySpark) gets the steps written into it and stays one: nothing is computed. There, words that a
    rule cannot read become missing and stand in the ledger; in memory such a step is refused.

    Args:
        frame: a path, or a table of pandas, PyArrow, Polars, DuckDB, Dask or PySpark.
        plan: as `clean.plan` made it, or as a person edited it.

    Returns:
        The new frame, what each step did, the ledger, and `undo()`.

    Raises:
        TypeError: no table, or no plan.
        ValueError: a plan for another table, or one that makes no sense.

    Example:
        >>> from kit import clean
        >>> frame = pd.DataFrame({"fare": ["$1,200", "950", "NA", "$80"]})
        >>> apply(frame, clean.plan(clean.look(frame))).frame["fare"].tolist()
        [1200, 950, <NA>, 80]
    """
    if not isinstance(plan, Plan):
        remedy = "Pass clean.plan(clean.look(frame))."
        raise checks.bad_type(WHERE, expected="a plan", got=plan, remedy=remedy)
    check(plan.steps)
    taken = tables.take(frame, WHERE)
    _check_columns(plan, taken.collect_schema().names())
    engine = _engine(taken)
    changes = tuple(_carried_out(engine, plan))
    return Cleaned(
        table=_report(changes),
        frame=engine.result().to_native(),
        plan=plan,
        kept=_kept(engine, taken),
        original=_view(taken.to_native()),
        changes=changes,
    )


def _view(native: Any) -> Any:
    """Return a frame of the same cells, of which what becomes of the other is not seen."""
    if isinstance(native, pd.DataFrame) or nw.dependencies.is_dask_dataframe(native):
        return native.copy(deep=False)
    return native.clone() if nw.dependencies.is_polars_dataframe(native) else native


def _engine(taken: nw.DataFrame | nw.LazyFrame) -> Eager | Lazy:
    if isinstance(taken, nw.DataFrame):
        return Eager(taken)
    return Dask(taken) if taken.implementation.is_dask() else Lazy(taken)


def _carried_out(engine: Eager | Lazy, plan: Plan) -> list[Change]:
    changes = []
    for step in plan.steps:
        try:
            changes.append(engine.run(step))
        except Exception as error:  # whatever it is: the other steps are not to be lost
            changes.append(Change(step, problem(error)))
    return changes


def _report(changes: tuple[Change, ...]) -> pd.DataFrame:
    table = pd.DataFrame(
        [(c.step.column, c.step.rule, c.cells, c.status) for c in changes],
        columns=["column", "rule", "cells", "status"],
    )
    return table.astype({"cells": "Int64"})


def _kept(engine: Eager | Lazy, taken: nw.DataFrame | nw.LazyFrame) -> np.ndarray | None:
    if isinstance(taken, nw.LazyFrame):
        return None
    return np.arange(len(taken)) if engine.kept is None else engine.kept


def _check_columns(plan: Plan, names: list[str]) -> None:
    dropped = {step.column for step in plan.steps if step.rule == "drop_column"}
    wanted = dict.fromkeys(step.column for step in plan.steps if step.column is not None)
    gone = [repr(name) for name in wanted if name not in names and name not in dropped]
    if not gone:
        return
    new = [repr(name) for name in names if name not in plan.columns]
    beside = f", and with {checks.listed(new, most=5)} that it does not know" if new else ""
    raise checks.bad_value(
        WHERE,
        expected="the table that the plan was made for",
        got=checks.Described(f"one without {checks.listed(gone, most=5)}{beside}"),
        remedy=f"Look at this table and plan anew, or leave it out: plan.drop(column={gone[0]}).",
    )
