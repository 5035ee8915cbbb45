"""How each kind of dirt looks, and in which columns it can be: what `data.soil` plants."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

NULL_WORDS = ("NA", "n/a", "NULL", "?")
Texts = np.ndarray  # of str, (N,)


@dataclass(frozen=True)
class Kind:
    """How one kind is planted: in which columns, or in a new one, and by what."""

    fits: Callable[[pd.Series], bool]
    dirty: Callable[[pd.Series, np.random.Generator], Texts | pd.Series]
    stand_in: tuple[str, Callable[[int, np.random.Generator], pd.Series]]
    suits: Callable[[pd.Series], pd.Series] = lambda column: column.notna()


def as_text(column: pd.Series) -> pd.Series:
    """Write a column as a file would hold it."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.strftime("%Y-%m-%d").astype("str")
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna())


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_whole(column: pd.Series) -> bool:
    there = column.dropna()
    return _is_number(column) and len(there) > 0 and bool((there % 1 == 0).all())


def _is_large(column: pd.Series) -> bool:
    # a good part of a thousand and more, so that 1,234 is seen to be no 1.234
    return _is_whole(column) and bool(column.min() >= 0 and (column >= 1000).mean() > 0.3)


def _is_measure(column: pd.Series) -> bool:
    return _is_whole(column) and bool(column.min() >= 0) and column.nunique() > 20


def _is_positive(column: pd.Series) -> bool:
    return _is_measure(column) and bool(column.median() >= 10)


def _is_signed(column: pd.Series) -> bool:
    return _is_whole(column) and column.nunique() > 20 and bool(column.min() > -500)


def _is_category(column: pd.Series) -> bool:
    is_category = isinstance(column.dtype, pd.CategoricalDtype)
    words = column.dtype.categories if is_category else column
    is_text = isinstance(words.dtype, pd.StringDtype)
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
    column = column.astype("Int64")  # a small integer has no room for a thousand times itself
    return _either(rng, -column - 1, column * 1000 + 1000)


def _around(column: pd.Series, rng: np.random.Generator) -> Texts:
    return _either(rng, " " + column, column + "  ", column + "\u00a0")


def _near(column: pd.Series, rng: np.random.Generator) -> Texts:
    return _either(rng, column + " CO", column.str[:-1])


def _of(choices: list, weights: list[float] | None = None) -> Callable:
    return lambda n, rng: pd.Series(rng.choice(choices, n, p=weights))


MAKERS = ["BOEING", "AIRBUS", "EMBRAER", "BOMBARDIER", "CESSNA"]
SPECS: dict[str, Kind] = {
    "number marks": Kind(
        _is_large,
        lambda column, rng: column.map("{:,.0f}".format),
        ("visits", lambda n, rng: pd.Series(rng.integers(0, 9_000, n))),
        suits=lambda column: column >= 1000,
    ),
    "sentinels": Kind(
        _is_signed,
        lambda column, rng: pd.Series(-999, column.index),
        ("points", lambda n, rng: pd.Series(rng.integers(0, 100, n))),
    ),
    "impossible values": Kind(
        _is_positive,
        _out_of_bounds,
        ("height", lambda n, rng: pd.Series(rng.integers(140, 200, n))),
        suits=lambda column: column >= column.median(),
    ),
    "units": Kind(
        _is_measure,
        lambda column, rng: as_text(column) + " mi",
        ("trip", lambda n, rng: pd.Series(rng.integers(10, 3_000, n))),
    ),
    "currency": Kind(
        _never,
        lambda column, rng: _either(rng, "$" + as_text(column), "$ " + as_text(column)),
        ("fare", lambda n, rng: pd.Series(rng.integers(3_900, 60_000, n) / 100)),
    ),
    "percent": Kind(
        _never,
        lambda column, rng: (column * 100).round().astype("int64").astype("str") + "%",
        ("load", lambda n, rng: pd.Series(rng.integers(30, 100, n) / 100)),
    ),
    "date notations": Kind(
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
    "case": Kind(
        _is_upper,
        lambda column, rng: column.str.lower(),
        ("colour", _of(["RED", "GREEN", "BLUE"])),
        suits=_frequent,
    ),
    "blanks": Kind(
        _is_category,
        lambda column, rng: _around(as_text(column), rng),
        ("team", _of(["north", "south", "east"])),
    ),
    "null words": Kind(
        _is_category,
        lambda column, rng: rng.choice(NULL_WORDS, len(column)).astype(object),
        ("branch", _of(["harbour", "station", "market"])),
    ),
    "near duplicates": Kind(_never, _near, ("maker", _of(MAKERS, [0.4, 0.3, 0.1, 0.1, 0.1]))),
    "yes/no variants": Kind(
        lambda column: pd.api.types.is_bool_dtype(column),
        lambda column, rng: np.where(
            column,
            rng.choice(["yes", "Y", "TRUE"], len(column)),
            rng.choice(["no", "N", "FALSE"], len(column)),
        ),
        ("member", _of([True, False])),
    ),
    "leading zeros": Kind(
        _never,
        lambda column, rng: column.str.lstrip("0"),
        (
            "zip",
            lambda n, rng: pd.Series(rng.integers(1_000, 20_000, n)).astype("str").str.zfill(5),
        ),
        suits=lambda column: column.str.startswith("0"),
    ),
}
