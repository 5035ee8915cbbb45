"""Plant fifteen kinds of dirt in a table, with the truth beside it, so that cleaning can be scored.

| kind | what is planted | where no column fits, a new one |
|---|---|---|
| null words | "NA", "n/a", "NULL", "?" for values | |
| sentinels | -999 for numbers | |
| impossible values | numbers turned negative, or a thousand times too large | |
| units | " mi" behind numbers of a column in miles | trip |
| number marks | 1,234 for 1234 | |
| currency | "$12.50", "USD 12.50" | fare |
| percent | "45%" for 0.45 | load |
| date notations | 31/12/2013 and 31 Dec 2013 for 2013-12-31 | booked |
| case | "ua" for "UA" | |
| blanks | " UA", "UA", no-break spaces | |
| near duplicates | "BOEING CO", "BOEIN" for "BOEING" | maker |
| yes/no variants | yes, Y, TRUE, no, N, FALSE in one column | member |
| leading zeros | 2134 for 02134, as spreadsheets do | zip |
| constant columns | one column of one value, and one of none | source, remarks |
| duplicated rows | copies of rows, put in anywhere | |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short

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
NULL_WORDS = ("NA", "n/a", "NULL", "?")
MIN_ROWS = 100
Texts = np.ndarray  # of str, (N,)


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


@dataclass(frozen=True)
class _Kind:
    """How one kind is planted: in which columns, or in a new one, and by what."""

    fits: Callable[[pd.Series], bool]
    dirty: Callable[[pd.Series, np.random.Generator], Texts | pd.Series]
    stand_in: tuple[str, Callable[[int, np.random.Generator], pd.Series]] | None = None
    suits: Callable[[pd.Series], pd.Series] = lambda column: column.notna()


def soil(frame: pd.DataFrame, *, seed: int = 0, frac: float = 0.02) -> Soiled:
    """Plant 15 kinds of dirt in a copy of a table; the module's first lines list them.

    Each kind takes the first column that fits and is still clean; some bring a column of their own
    where none does. A column whose dirt is text becomes text, as in a file.

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
        if name is None and spec.stand_in:
            name, make = spec.stand_in
            clean[name] = make(len(clean), rng)
        if name is None:
            continue
        column = clean[name]
        able = np.flatnonzero(spec.suits(column).fillna(False).astype(bool))
        rows = np.sort(rng.choice(able, min(len(able), max(4, round(frac * len(able)))), False))
        dirty[name] = column.copy() if kind in ("sentinels", "impossible values") else _text(column)
        dirty[name].iloc[rows] = spec.dirty(column.iloc[rows], rng)
        planted.append(_truth(kind, name, rows, dirty[name].iloc[rows], column.iloc[rows]))
    soiled = clean.assign(**dirty, source="export 7", remarks=pd.Series(pd.NA, clean.index, "str"))
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
    kind: str, name: str, rows: np.ndarray, dirty: pd.Series, clean: pd.Series
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


def _text(column: pd.Series) -> pd.Series:
    """Write a column as a file would hold it."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.strftime("%Y-%m-%d").astype("str")
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna())


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_whole(column: pd.Series) -> bool:
    return _is_number(column) and column.notna().any() and bool((column.dropna() % 1 == 0).all())


def _is_large(column: pd.Series) -> bool:
    # a good part of a thousand and more, so that 1,234 is seen to be no 1.234
    return _is_whole(column) and column.min() >= 0 and bool((column >= 1000).mean() > 0.3)


def _is_measure(column: pd.Series) -> bool:
    return _is_whole(column) and column.min() >= 0 and column.nunique() > 20


def _is_positive(column: pd.Series) -> bool:
    return _is_measure(column) and column.median() >= 10


def _is_signed(column: pd.Series) -> bool:
    return _is_whole(column) and column.nunique() > 20 and column.min() > -500


def _is_category(column: pd.Series) -> bool:
    is_text = isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype)
    return is_text and 2 <= column.nunique() <= len(column) // 20


def _is_upper(column: pd.Series) -> bool:
    return _is_category(column) and bool(column.dropna().str.fullmatch("[A-Z]+").all())


def _never(column: pd.Series) -> bool:
    return False


def _frequent(column: pd.Series) -> pd.Series:
    """Tell which cells hold a value that is frequent enough to be known as the usual one."""
    return column.map(column.value_counts(normalize=True)).astype(float).fillna(0) > 0.05


def _either(rng: np.random.Generator, *ways: pd.Series) -> Texts:
    """Take each cell from one of several columns, at random."""
    chosen = rng.integers(0, len(ways), len(ways[0]))
    return np.choose(chosen, [way.astype(object).to_numpy() for way in ways])


def _out_of_bounds(column: pd.Series, rng: np.random.Generator) -> Texts:
    return _either(rng, -column - 1, column * 1000 + 1000)


def _near(column: pd.Series, rng: np.random.Generator) -> Texts:
    return _either(rng, column + " CO", column.str[:-1])


def _of(choices: list, weights: list[float] | None = None) -> Callable:
    return lambda n, rng: pd.Series(rng.choice(choices, n, p=weights))


MAKERS = ["BOEING", "AIRBUS", "EMBRAER", "BOMBARDIER", "CESSNA"]
SPECS: dict[str, _Kind] = {
    "number marks": _Kind(
        _is_large,
        lambda column, rng: column.map("{:,.0f}".format),
        suits=lambda column: column >= 1000,
    ),
    "sentinels": _Kind(_is_signed, lambda column, rng: pd.Series(-999, column.index)),
    "impossible values": _Kind(
        _is_positive, _out_of_bounds, suits=lambda column: column >= column.median()
    ),
    "units": _Kind(_is_measure, lambda column, rng: _text(column) + " mi"),
    "currency": _Kind(
        _never,
        lambda column, rng: _either(rng, "$" + _text(column), "$ " + _text(column)),
        ("fare", lambda n, rng: pd.Series(rng.integers(3_900, 60_000, n) / 100)),
    ),
    "percent": _Kind(
        _never,
        lambda column, rng: (column * 100).round().astype("int64").astype("str") + "%",
        ("load", lambda n, rng: pd.Series(rng.integers(30, 100, n) / 100)),
    ),
    "date notations": _Kind(
        _never,
        lambda column, rng: _either(
            rng, column.dt.strftime("%d/%m/%Y"), column.dt.strftime("%d %b %Y")
        ),
        (
            "booked",
            lambda n, rng: (
                pd.Timestamp("2013-01-01")
                + pd.Series(pd.to_timedelta(rng.integers(0, 365, n), unit="D"))
            ),
        ),
    ),
    "case": _Kind(_is_upper, lambda column, rng: column.str.lower(), suits=_frequent),
    "blanks": _Kind(
        _is_category,
        lambda column, rng: _either(rng, " " + column, column + "  ", column + "\u00a0"),
    ),
    "null words": _Kind(
        _is_category, lambda column, rng: rng.choice(NULL_WORDS, len(column)).astype(object)
    ),
    "near duplicates": _Kind(_never, _near, ("maker", _of(MAKERS, [0.4, 0.3, 0.1, 0.1, 0.1]))),
    "yes/no variants": _Kind(
        lambda column: pd.api.types.is_bool_dtype(column),
        lambda column, rng: np.where(
            column,
            rng.choice(["yes", "Y", "TRUE"], len(column)),
            rng.choice(["no", "N", "FALSE"], len(column)),
        ),
        ("member", _of([True, False])),
    ),
    "leading zeros": _Kind(
        _never,
        lambda column, rng: column.str.lstrip("0"),
        (
            "zip",
            lambda n, rng: pd.Series(rng.integers(1_000, 20_000, n)).astype("str").str.zfill(5),
        ),
        suits=lambda column: column.str.startswith("0"),
    ),
}


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
    new = {"source", "remarks"} | {spec.stand_in[0] for spec in SPECS.values() if spec.stand_in}
    taken = sorted(new & set(map(str, frame.columns)))
    if taken:
        raise checks.bad_value(
            "data.soil",
            expected=f"a table without the columns that are added ({checks.listed(sorted(new))})",
            got=checks.Described(f"one with {checks.listed(taken)}"),
            remedy=f"Rename it: frame.rename(columns={{{taken[0]!r}: '{taken[0]}_1'}}).",
        )
