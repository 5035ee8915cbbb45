"""The record that every operation returns: data first, readable as text and as a card."""

from dataclasses import dataclass
from html import escape
from typing import dataclass_transform

import pandas as pd

from kit.base.numbers import short as short


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
def result(cls: type) -> type:
    """Make `cls` a frozen record that keeps the text form of `Result`."""
    # eq=False: the generated == would compare tables, and a table has no single truth value
    return dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)


@result
class Result:
    """Hold what an operation found; subclasses add fields and say which few facts lead."""

    table: pd.DataFrame  # one row per thing measured; units live in the column names

    def facts(self) -> dict[str, str]:
        """Return label -> formatted value, three to five of them, the most important first."""
        raise NotImplementedError

    def __str__(self) -> str:
        facts = ", ".join(f"{label} {value}" for label, value in self.facts().items())
        return f"{type(self).__name__}({facts}; table of {len(self.table)} rows)"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<td><small>{escape(label)}</small><br><b>{escape(value)}</b></td>"
            for label, value in self.facts().items()
        )
        rows = self.table.to_html(max_rows=8, float_format=short, na_rep="–")
        return f"<table><tr>{cells}</tr></table>{rows}"
