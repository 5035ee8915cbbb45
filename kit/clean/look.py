"""Look at a table: what its columns really hold, what is wrong with it, and how sure that is."""

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from kit.base.results import Result, result, short
from kit.clean import columns
from kit.clean import table as tables
from kit.clean.columns import GAP, Encoded
from kit.clean.findings import Found, look_at_numbers, look_at_text
from kit.clean.plan import Doubt
from kit.clean.steps import Step

HEAD = 100_000  # rows of a query that are looked at
BY_CHANCE = 1e-3  # expected pairs of equal rows below which duplicates cannot be chance
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
    taken = tables.take(frame, "clean.look")
    notes: tuple[str, ...] = ()
    if isinstance(taken, nw.LazyFrame):
        taken = tables.collected(taken.head(HEAD))
        notes = (f"A query: its first {HEAD:,} rows were looked at.",) * (len(taken) == HEAD)
    found, codes = Found(), {}
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


def _column(found: Found, name: str, stored: str, coded: Encoded | None, n_rows: int) -> None:
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
        found.columns[-1]["holds"] = look_at_text(found, name, coded)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        plain = coded.values.to_numpy(zero_copy_only=False)
        look_at_numbers(found, name, plain, counts, plain)
    if len(counts) == 1 and not coded.n_missing and n_rows > 1:
        step = Step(name, "drop_column", why="one value in every row", rows=n_rows)
        only = (coded.values[0].as_py(),)
        found.doubt(Doubt(name, "constant column", only, "tells no rows apart", n_rows, step))


def _duplicates(found: Found, codes: dict[str, Encoded], frame: nw.DataFrame) -> None:
    n_rows = len(frame)
    if n_rows < 2 or len(codes) < len(frame.columns) or not codes:
        return
    left = columns.first_rows([coded.codes for coded in codes.values()], n_rows)
    n_twice = n_rows - len(left)
    if not n_twice:
        return
    step = Step(None, "drop_duplicates", why="equal in every column", rows=n_twice)
    if _chance(codes, left) < BY_CHANCE:
        found.add(None, "duplicated rows", n_twice, ())
        found.steps.append(step)
        return
    why = "equal in every column, which may be chance in a table of few different values"
    found.doubt(Doubt(None, "duplicated rows", (), why, n_twice, step))


def _chance(codes: dict[str, Encoded], left: np.ndarray) -> float:
    """Return how many pairs of the rows that are left would be equal by chance.

    Columns that go together make more: so it is reckoned as if each had a twin.
    """
    n_pairs, equal = max(len(left) * (len(left) - 1) / 2, 1), 1.0
    for coded in codes.values():
        rows = np.bincount(coded.codes[left] - GAP)
        equal *= (float((rows * (rows - 1.0)).sum()) / 2 + 1) / (n_pairs + 1)
    return n_pairs * equal**0.5
