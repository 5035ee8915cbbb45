"""What new rows of a table have in common: which columns are quantities, and how they are kept."""

from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.data import Split
from kit.data.split import is_quantity

IQR_OF_NORMAL = 1.349  # in standard deviations


def quantities(parts: Split) -> list[Any]:
    """Return the columns that hold quantities among all training rows: no codes, no yes/no."""
    inputs = parts.train.columns.drop(parts.target)
    return [name for name in inputs if is_quantity(parts.train[name])]


def floats(column: pd.Series) -> np.ndarray:
    """Return the numbers of a column of any dtype, NaN for gaps."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def spread(values: np.ndarray) -> float:
    """Return the standard deviation as the quartiles have it, or where they are equal, itself."""
    values = np.where(np.isfinite(values), values, np.nan)
    low, high = np.nanquantile(values, [0.25, 0.75])
    return float((high - low) / IQR_OF_NORMAL or np.nanstd(values))


def as_dtype(values: np.ndarray, column: pd.Series) -> pd.Series:
    """Return values as the column holds them: whole numbers stay whole, and its gaps gaps."""
    if not pd.api.types.is_float_dtype(column):
        values = np.rint(values)
    filled = pd.Series(np.where(np.isnan(values), 0, values), index=column.index).astype(
        column.dtype
    )
    return filled.where(column.notna(), column)


def between(one: pd.Series, two: pd.Series, step: np.ndarray) -> pd.Series:
    """Return the points `step` of the way from one to two; one, where either is not finite."""
    start, end = floats(one), floats(two)
    way = np.zeros_like(start)
    np.subtract(end, start, out=way, where=np.isfinite(start) & np.isfinite(end))
    return as_dtype(start + step * way, one)


def check_positive(where: str, **numbers: float) -> None:
    """Refuse settings that are not above nought."""
    for name, value in numbers.items():
        if not value > 0:
            raise checks.bad_value(
                where, expected=f"{name} above 0", got=value, remedy=f"Leave {name} out."
            )


def check_classes(where: str, parts: Split) -> None:
    """Refuse a target that is a quantity."""
    if parts.quantity:
        raise checks.bad_value(
            where,
            expected="a target of classes",
            got=checks.Described(f"the quantity {parts.target!r}"),
            remedy="Use augment.noise or augment.mixup.",
        )
