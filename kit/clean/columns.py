"""Columns of any eager frame as distinct values and codes, so that each value is cleaned once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kit.data.files import WHOLE_TYPES

SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, of random bits: sums of different rows differ
GAP = -1  # the code of a missing value
# by default whole numbers with gaps would become floats, and long ones lose digits
NULLABLE = {getattr(pa, kind.name.lower())(): kind for kind in WHOLE_TYPES} | {
    pa.bool_(): pd.BooleanDtype()
}


@dataclass(frozen=True)
class Encoded:
    """A column as `values[codes]`; codes of missing cells are `GAP`."""

    values: pa.Array  # distinct when encoded; a repair may make some of them equal or missing
    codes: np.ndarray
    may_repeat: bool = False

    @property
    def counts(self) -> np.ndarray:
        """Count the rows of each value."""
        return np.bincount(self.codes[self.codes != GAP], minlength=len(self.values))

    @property
    def n_missing(self) -> int:
        """Count the rows without a value."""
        return int((self.codes == GAP).sum())

    def keys(self) -> np.ndarray:
        """Return a number a row that is equal where the values are."""
        if not self.may_repeat:
            return self.codes
        same = self.values.dictionary_encode().indices.fill_null(GAP)
        return np.append(same.to_numpy(zero_copy_only=False), GAP)[self.codes]

    def decoded(self) -> pa.Array:
        """Return the column row by row."""
        codes = pa.array(self.codes, mask=self.codes == GAP)
        return self.values.take(codes)


def encode(series: nw.Series) -> Encoded | None:
    """Find the distinct values of a column; None where they cannot be compared, such as lists."""
    array = _arrow(series.to_native())
    if array is None or pa.types.is_nested(array.type) or _is_foreign(array.type):
        return None
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
        if array.type != pa.float16():  # Arrow cannot add those
            array = pc.add(array, pa.scalar(0.0, array.type))  # -0.0 is 0.0
    if pa.types.is_null(array.type):
        return Encoded(array[:0], np.full(len(array), GAP, np.int32))
    coded = array.dictionary_encode()
    codes = coded.indices.fill_null(GAP).to_numpy(zero_copy_only=False)
    values = coded.dictionary
    # only now: a cast of all rows would copy them
    return Encoded(
        values.cast(pa.string()) if pa.types.is_large_string(values.type) else values, codes
    )


def _arrow(native: Any) -> pa.Array | None:
    if isinstance(native, pd.Series):
        try:
            array = pa.array(native, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            return None  # objects of several kinds: nobody knows what they mean
    else:
        array = nw.from_native(native, series_only=True).to_arrow()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _is_foreign(kind: pa.DataType) -> bool:
    """Tell whether Arrow only stores a type for others, such as pandas' periods and intervals."""
    return isinstance(kind, pa.BaseExtensionType)


def keys(series: nw.Series) -> list[np.ndarray] | None:
    """Return numbers a row that are all equal where the cells are; None as `encode` does.

    Whole numbers and times are their own keys, which is cheaper than to look for distinct ones.
    """
    array = _arrow(series.to_native())
    if array is None or not (pa.types.is_integer(array.type) or pa.types.is_timestamp(array.type)):
        coded = encode(series)
        return None if coded is None else [coded.codes]
    bits = array.view(f"int{array.type.bit_width}")
    there = [] if not array.null_count else [array.is_valid().to_numpy(zero_copy_only=False)]
    return [bits.fill_null(0).to_numpy(zero_copy_only=False), *there]


def run(expression: nw.Expr, values: pa.Array) -> pa.Array:
    """Compute an expression of the column "x" on values alone."""
    table = nw.from_native(pa.table({"x": values}), eager_only=True)
    return table.select(x=expression).to_native()["x"].combine_chunks()


def put(
    frame: nw.DataFrame, made: Iterator[tuple[str, pa.Array]], index: pd.Index | None
) -> nw.DataFrame:
    """Put columns into a frame, in the types that its library has for them.

    Args:
        frame: what stays, of all rows that stay.
        made: name and cells of what is new, one after another: two forms of all columns at once
            would be the peak of the memory.
        index: of the rows, where the library has one: a frame of no columns has lost it.
    """
    series = []
    for name, cells in made:
        if index is None:
            native = nw.from_arrow(pa.table({name: cells}), backend=frame.implementation)
            series.append(native[name])
        else:
            column = cells.to_pandas(types_mapper=NULLABLE.get).set_axis(index).rename(name)
            series.append(nw.from_native(column, series_only=True))
    if frame.columns:
        return frame.with_columns(*series)
    return series[0].to_frame().with_columns(*series) if series else frame


def first_rows(columns: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
    """Return the positions of the rows that no earlier row equals.

    Rows are compared by one number that is made of all codes, and those that look alike once more
    exactly: no row is lost to a collision.

    Args:
        columns: for each column a code per row, equal where the cells are.
        n_rows: how many rows there are.
    """
    sums = np.zeros(n_rows, np.uint64)
    for codes in columns:
        sums *= SPREAD
        sums += codes.astype(np.int64, copy=False).view(np.uint64)
    groups, _ = pd.factorize(sums)
    first = np.empty(groups.max(initial=-1) + 1, np.int64)
    first[groups[::-1]] = np.arange(n_rows)[::-1]  # the last to be written is the first row
    later = np.flatnonzero(first[groups] != np.arange(n_rows))
    before = first[groups[later]]
    equal = np.ones(len(later), bool)
    for codes in columns:
        equal &= codes[later] == codes[before]
    keep = np.ones(n_rows, bool)
    keep[later[equal]] = False
    return np.flatnonzero(keep)
