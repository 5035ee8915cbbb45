"""Plant fifteen kinds of dirt in a table, with the truth beside it, so that cleaning can be scored.

| kind | what is planted | if no column fits, in a new one |
|---|---|---|
| number marks | 1,234 for 1234 | visits |
| sentinels | -999 for numbers | points |
| impossible values | numbers turned negative, or a thousand times too large | height |
| units | " mi" behind numbers | trip |
| currency | "$12.50", "$ 12.50" for 12.5 | fare, always |
| percent | "45%" for 0.45 | load, always |
| date notations | 31/12/2013 and 31 Dec 2013 for 2013-12-31 | booked, always |
| case | "ua" for "UA" | colour |
| blanks | " UA", "UA  ", "UA" and a no-break space | team |
| null words | "NA", "n/a", "NULL", "?" for values | branch |
| near duplicates | "BOEING CO", "BOEIN" for "BOEING" | maker, always |
| yes/no variants | yes, Y, TRUE, no, N, FALSE in one column | member |
| leading zeros | 2134 for 02134, as spreadsheets do | zip, always |
| constant columns | one column of one value, and one of none | source, remarks, always |
| duplicated rows | copies of rows, put in anywhere | |
"""

from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.data.dirt import SPECS, as_text

KINDS = (
    "number marks",
    "sentinels",
    "impossible values",
    "units",
    "currency",
    "percent",
    "date notations",
    "case",
    "blanks",
    "null words",
    "near duplicates",
    "yes/no variants",
    "leading zeros",
    "constant columns",
    "duplicated rows",
)
STAY_NUMBERS = ("sentinels", "impossible values")
MIN_ROWS = 100


@result
class Soiled(Result):
    """Hold a dirty table and the truth: `table` has a row a planted cell, row or column."""

    frame: pd.DataFrame
    clean: pd.DataFrame  # the same before it was soiled, with the columns that were added
    rows: np.ndarray  # for each row of `frame` the row of `clean` that it is

    def facts(self) -> dict[str, str]:
        """Return rows, columns, and how much of how many kinds was planted."""
        return {
            "rows": short(len(self.frame)),
            "columns": short(self.frame.shape[1]),
            "kinds": short(self.table["kind"].nunique()),
            "planted": short(len(self.table)),
        }


def soil(frame: pd.DataFrame, *, seed: int = 0, frac: float = 0.02) -> Soiled:
    """Plant 15 kinds of dirt in a copy of a table; the module's first lines list them.

    Each kind takes the first column that fits and is still clean, or brings one of its own. A
    column whose dirt is text becomes text, as in a file.

    Args:
        frame: a table of 100 rows or more; it stays as it is.
        seed: of the cells that are taken.
        frac: of the cells of a column, and of rows to double, above 0 and up to 0.2.

    Returns:
        The dirty table, the clean one, and a row for each thing planted.

    Raises:
        ValueError: too few rows, a fraction out of range, or a column that soil would add.
    """
    _check(frame, frac)
    rng = np.random.default_rng(seed)
    clean, dirty, planted = frame.reset_index(drop=True), {}, []
    for kind in KINDS[:-2]:
        spec = SPECS[kind]
        name = next((n for n in clean.columns if n not in dirty and spec.fits(clean[n])), None)
        if name is None:
            name, make = spec.stand_in
            clean[name] = make(len(clean), rng)
        column = clean[name]
        able = np.flatnonzero(spec.suits(column).fillna(False).astype(bool))
        rows = np.sort(rng.choice(able, min(len(able), max(4, round(frac * len(able)))), False))
        # wide enough for a number a thousand times as large
        dirty[name] = column.astype("Int64") if kind in STAY_NUMBERS else as_text(column)
        made = spec.dirty(column.iloc[rows], rng)
        dirty[name].iloc[rows] = pd.array(list(made), dtype=dirty[name].dtype)
        planted.append(_truth(kind, name, rows, dirty[name].iloc[rows], column.iloc[rows]))
    soiled = clean.assign(source="export 7", remarks=pd.Series(pd.NA, clean.index, "str"))
    for name, column in dirty.items():
        soiled[name] = column
    planted.append(pd.DataFrame({"kind": "constant columns", "column": ["source", "remarks"]}))
    rows = np.arange(len(clean))
    again = rng.choice(rows, max(1, round(frac * len(rows))), False)
    rows = np.insert(rows, np.sort(rng.integers(0, len(rows) + 1, len(again))), again)
    return _soiled(soiled, clean, rows, pd.concat(planted, ignore_index=True))


def _soiled(
    soiled: pd.DataFrame, clean: pd.DataFrame, rows: np.ndarray, planted: pd.DataFrame
) -> Soiled:
    """Double the rows, and tell the truth by the rows of the table that comes out."""
    is_copy = pd.Series(rows).duplicated().to_numpy()
    copies = pd.DataFrame({"kind": "duplicated rows", "row": np.flatnonzero(is_copy)})
    first = np.empty(len(clean), np.int64)
    first[rows[~is_copy]] = np.flatnonzero(~is_copy)
    planted["row"] = planted["row"].map(lambda row: first[int(row)], na_action="ignore")
    table = pd.concat([planted, copies], ignore_index=True)
    return Soiled(
        table=table.astype({"row": "Int64"})[["kind", "column", "row", "dirty", "clean"]],
        frame=soiled.iloc[rows].reset_index(drop=True),
        clean=clean,
        rows=rows,
    )


def _truth(
    kind: str, name: Any, rows: np.ndarray, dirty: pd.Series, clean: pd.Series
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": kind,
            "column": name,
            "row": rows,
            "dirty": dirty.astype(object).to_numpy(),
            "clean": clean.astype(object).to_numpy(),
        }
    )


def _check(frame: pd.DataFrame, frac: float) -> None:
    if not 0 < frac <= 0.2:
        raise checks.bad_value(
            "data.soil", expected="0 < frac <= 0.2", got=frac, remedy="Pass frac=0.02."
        )
    if len(frame) < MIN_ROWS:
        raise checks.bad_value(
            "data.soil",
            expected=f"at least {MIN_ROWS} rows",
            got=frame,
            remedy="Pass more: pd.concat([frame] * 10).",
        )
    new = {"source", "remarks"} | {spec.stand_in[0] for spec in SPECS.values()}
    taken = sorted(new & set(map(str, frame.columns)))
    if taken:
        raise checks.bad_value(
            "data.soil",
            expected=f"a table without the columns that are added ({checks.listed(sorted(new))})",
            got=checks.Described(f"one with {checks.listed(taken)}"),
            remedy=f"Rename it: frame.rename(columns={{{taken[0]!r}: '{taken[0]}_1'}}).",
        )
