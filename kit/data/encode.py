"""Turn the columns of a table into the one tensor that a model takes, learned on training rows."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kit.base import checks
from kit.data.read import MAX_COLUMNS
from kit.data.split import is_quantity

MAX_LEVELS = 250  # of a category; the rest share code 0 with what was never seen
MIN_MISSING_FRAC = 0.01  # of the rows, for a column that flags the gaps of another
MIN_COUNT = 10  # rows that a level needs to get a code of its own; 1 % in smaller tables, or 2
MAX_SIGMA = 1e6  # an input further out is an error in the file; it must not become infinite
NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}  # in object columns


@dataclass(frozen=True)
class Encoder:
    """Column rules learned from training rows: the same for every later row.

    `X` holds the numeric columns first, standardised, then flags for what was missing, then one
    column of codes for each category; code 0 is "missing, rare or never seen".
    """

    target: str
    classes: tuple[Any, ...]  # in the order of the logits; empty for a quantity
    numbers: Mapping[str, tuple[float, float, float]]  # column -> median, mean, standard deviation
    flags: tuple[str, ...]  # numeric columns whose gaps get a column; one for equal patterns
    levels: Mapping[str, tuple[str, ...]]  # category -> its words; code = position + 1
    dates: Mapping[str, str]  # column that gives way to hour and weekday -> time zone, or ""
    dropped: Mapping[str, str]  # column -> why it is not used

    @classmethod
    def fit(cls, frame: pd.DataFrame, *, target: str, quantity: bool | None = None) -> "Encoder":
        """Learn the rules from the training rows, and from nothing else.

        Args:
            frame: the training rows, the target among the columns.
            target: the column to predict.
            quantity: whether the target is one; pass `split.quantity`, as the training rows
                alone may look otherwise than the whole table did. None decides by them.

        Raises:
            ValueError: unknown target, names twice, infinities, more than 2,000 columns, nothing
                left to use.
        """
        if target not in frame:
            raise checks.unknown_name("data.Encoder", "column", got=target, known=frame.columns)
        if frame.shape[1] > MAX_COLUMNS:
            raise checks.bad_value(
                "data.Encoder",
                expected=f"at most {MAX_COLUMNS:,} columns",
                got=checks.Described(f"{frame.shape[1]:,}"),
                remedy="Pass the ones that matter: frame[[…]] (in a report: -p columns=a,b,c).",
            )
        dates = {
            str(name): str(column.dt.tz or "")
            for name, column in frame.drop(columns=target).items()
            if pd.api.types.is_datetime64_any_dtype(column)
        }
        quantity = is_quantity(frame[target]) if quantity is None else quantity
        rules = _Rules({}, {}, {}, {})
        for name, column in _features(frame, target, dates).items():
            rules.add(name, column)
        if not rules.numbers and not rules.flags and not rules.levels:
            raise checks.bad_value(
                "data.Encoder",
                expected="a column that varies",
                got=checks.Described(f"none of {checks.listed(list(rules.dropped))}"),
                remedy="Add a column that can tell rows apart.",
            )
        return cls(
            target=target,
            classes=() if quantity else _classes(frame[target]),
            numbers=rules.numbers,
            flags=tuple(rules.flags.values()),
            levels=rules.levels,
            dates=dates,
            dropped=rules.dropped,
        )

    @property
    def names(self) -> list[str]:
        """Return the name of every column of `X`, in order."""
        return [*self.numbers, *(f"{name} missing" for name in self.flags), *self.levels]

    @property
    def n_numeric(self) -> int:
        """Return how many columns of `X` are numbers; the categories follow them."""
        return len(self.numbers) + len(self.flags)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Return the number of codes of each category, code 0 included."""
        return tuple(len(words) + 1 for words in self.levels.values())

    @property
    def n_outputs(self) -> int:
        """Return how many outputs a model of this target needs: 1, or one a class from 3 on."""
        return len(self.classes) if len(self.classes) > 2 else 1

    def X(self, frame: pd.DataFrame) -> Float[Tensor, "rows columns"]:
        """Encode rows for a model.

        Args:
            frame: rows with the columns of the training rows; further ones are not looked at.

        Returns:
            One float32 row each, columns as in `names`.

        Raises:
            ValueError: a column is missing or holds infinities.
        """
        features = _features(frame, self.target, self.dates)
        for name in [*self.numbers, *self.flags, *self.levels]:
            if name not in features:
                raise _no_column(name, features)
        out = np.empty((len(frame), len(self.names)), np.float32)
        for j, (name, (median, mean, std)) in enumerate(self.numbers.items()):
            values = np.nan_to_num(_floats(features[name]), nan=median)
            with np.errstate(over="ignore"):
                out[:, j] = np.clip((values - mean) / std, -MAX_SIGMA, MAX_SIGMA)
        for j, name in enumerate(self.flags, start=len(self.numbers)):
            out[:, j] = features[name].isna()
        for j, (name, words) in enumerate(self.levels.items(), start=self.n_numeric):
            # a missing cell has index -1, as an unknown word has: both become code 0
            out[:, j] = pd.Index(words).get_indexer(_words(features[name])) + 1
        return torch.from_numpy(out)

    def y(self, frame: pd.DataFrame) -> Shaped[Tensor, " rows"]:
        """Encode the target: bool for two classes, int64 for more, float32 for a quantity.

        Args:
            frame: rows with the target.

        Raises:
            ValueError: a row without target, or with a class that training did not have.
        """
        if self.target not in frame:
            raise _no_column(self.target, frame)
        column = frame[self.target]
        if column.isna().any():
            raise checks.bad_value(
                "data.Encoder",
                expected=f"a value of {self.target!r} in every row",
                got=checks.Described(f"{int(column.isna().sum()):,} rows without"),
                remedy=f"Leave them out: frame.dropna(subset={self.target!r}).",
            )
        if not self.classes:
            return torch.from_numpy(_floats(column).astype(np.float32))
        codes = pd.Index(self.classes, dtype=object).get_indexer(column.astype(object))
        if (codes < 0).any():
            stranger = column.iloc[int((codes < 0).argmax())]
            raise checks.unknown_name("data.Encoder", "class", got=stranger, known=self.classes)
        return torch.from_numpy(codes == 1 if len(self.classes) == 2 else codes.astype(np.int64))

    def state(self) -> dict[str, Any]:
        """Return the rules as plain lists and numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Encoder":
        """Rebuild an encoder from what `state` returned, also after a way through JSON."""
        return cls(
            target=state["target"],
            classes=tuple(state["classes"]),
            numbers={name: tuple(rule) for name, rule in state["numbers"].items()},
            flags=tuple(state["flags"]),
            levels={name: tuple(words) for name, words in state["levels"].items()},
            dates=dict(state["dates"]),
            dropped=dict(state["dropped"]),
        )


@dataclass(frozen=True)
class _Rules:
    """The rules while they are collected, one column at a time."""

    numbers: dict[str, tuple[float, float, float]]
    flags: dict[bytes, str]  # pattern of gaps -> the first column that has it
    levels: dict[str, tuple[str, ...]]
    dropped: dict[str, str]

    def add(self, name: str, column: pd.Series) -> None:
        if column.isna().all():
            self.dropped[name] = "nothing but missing cells"
        elif _is_number(column):
            self._add_number(name, column)
        else:
            self._add_category(name, column)

    def _add_number(self, name: str, column: pd.Series) -> None:
        values = _floats(column)
        gaps = np.isnan(values)
        is_constant = np.nanmin(values) == np.nanmax(values)
        has_flag = gaps.mean() >= MIN_MISSING_FRAC
        if is_constant and not has_flag:
            self.dropped[name] = "one value in every row"
            return
        with np.errstate(over="ignore"):
            mean, std = float(np.nanmean(values)), float(np.nanstd(values))
        if not np.isfinite(std):
            self.dropped[name] = "numbers too large to square"
            return
        if not is_constant:  # of one value and gaps, the gaps say all there is
            self.numbers[name] = (float(np.nanmedian(values)), mean, std or 1.0)
        if has_flag:
            self.flags.setdefault(np.packbits(gaps).tobytes(), name)

    def _add_category(self, name: str, column: pd.Series) -> None:
        counts = _words(column).value_counts()
        if len(counts) == 1 and not column.isna().any():
            self.dropped[name] = "one value in every row"
            return
        kept = counts[counts >= min(MIN_COUNT, max(2, len(column) // 100))][:MAX_LEVELS]
        if kept.empty:
            self.dropped[name] = f"{len(counts):,} different words, hardly one twice"
            return
        self.levels[name] = tuple(sorted(kept.index))


def _features(frame: pd.DataFrame, target: str, dates: Mapping[str, str]) -> dict[str, pd.Series]:
    """Return the input columns; a date gives way to hour and weekday: it will not come again."""
    columns = {str(name): column for name, column in frame.items() if name != target}
    counts = Counter(str(name) for name in frame.columns if name != target)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise checks.bad_value(
            "data.Encoder",
            expected="column names that differ",
            got=checks.Described(checks.listed(twice)),
            remedy="Rename those that come twice.",
        )
    for name, zone in dates.items():
        if name not in columns:
            raise _no_column(name, columns)
        times = _times(columns.pop(name), zone).dt
        columns.setdefault(f"{name} hour", times.hour + times.minute / 60)
        columns.setdefault(f"{name} weekday", times.day_name())
    return columns


def _times(column: pd.Series, zone: str) -> pd.Series:
    """Return dates in the time zone of the training rows: an hour means nothing without it."""
    if column.isna().all():
        return pd.to_datetime(column)
    is_date = pd.api.types.is_datetime64_any_dtype(column)
    if not is_date or bool(zone) != (column.dt.tz is not None):
        kind = f"dates of the time zone {zone}" if zone else "dates without a time zone"
        fix = f"pd.to_datetime(frame[{column.name!r}])"
        if is_date:
            fix = f"frame[{column.name!r}].dt.tz_localize({zone or None!r})"
        raise checks.bad_value(
            "data.Encoder",
            expected=f"{kind if is_date else 'dates'} in {column.name!r}, as in the training rows",
            got=checks.Described(f"a column of type {column.dtype}"),
            remedy=f"Convert it: {fix}.",
        )
    return column.dt.tz_convert(zone) if zone else column


def _is_number(column: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(column):
        return True
    return column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) in NUMBERS


def _floats(column: pd.Series) -> np.ndarray:
    if not (_is_number(column) or column.isna().all()):
        raise checks.bad_value(
            "data.Encoder",
            expected=f"numbers in {column.name!r}, as in the training rows",
            got=checks.Described(f"a column of type {column.dtype}"),
            remedy=f"Convert it: pd.to_numeric(frame[{column.name!r}]).",
        )
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    n_infinite = int(np.isinf(values).sum())
    if n_infinite:
        raise checks.bad_value(
            "data.Encoder",
            expected=f"finite numbers in {column.name!r}",
            got=checks.Described(f"{n_infinite} infinities"),
            remedy=f"Replace them: frame[{column.name!r}].replace([inf, -inf], nan).",
        )
    return values


def _words(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.isna(), column.astype(str))


def _classes(target: pd.Series) -> tuple[Any, ...]:
    values = [v.item() if hasattr(v, "item") else v for v in target.dropna().unique()]
    # words after numbers: a column of objects may hold both
    return tuple(sorted(values, key=lambda value: (isinstance(value, str), value)))


def _no_column(name: str, there: Iterable[Hashable]) -> ValueError:
    return checks.bad_value(
        "data.Encoder",
        expected=f"the column {name!r} of the training rows",
        got=checks.Described(f"a table with {checks.listed([str(each) for each in there])}"),
        remedy=f"Add it, empty where it is not known: frame[{name!r}] = None.",
    )
