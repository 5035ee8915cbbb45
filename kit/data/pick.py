"""Take from a table the columns and rows that a report was asked for."""

from collections.abc import Collection

import pandas as pd

from kit.base import checks
from kit.data.split import check_target


def pick(
    frame: pd.DataFrame,
    *,
    target: str,
    time: str = "",
    columns: Collection[str] = (),
    rows: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Take columns by name and a random sample of rows, in the order of the table.

    Args:
        frame: the whole table; it stays as it is.
        target: the column to predict; it is always taken.
        time: the column to split by, if any; it is always taken.
        columns: names; empty takes all.
        rows: most rows to take; 0 takes all.
        seed: of the sample.

    Raises:
        ValueError: an unknown column, or a target that nothing can be learned about.

    Example:
        >>> frame = pd.DataFrame({"a": range(40), "b": 1.5, "late": [True, False] * 20})
        >>> pick(frame, target="late", columns=["a"], rows=30).shape
        (30, 2)
    """
    for name in [*columns, *([time] if time else [])]:
        if name not in frame:
            raise checks.unknown_name("data.pick", "column", got=name, known=frame.columns)
    check_target(frame, target)
    if columns:
        kept = {*columns, target, time}
        frame = frame[[name for name in frame.columns if name in kept]]
    if 0 < rows < len(frame):
        kept = pd.Series(range(len(frame))).sample(rows, random_state=seed)
        frame = frame.iloc[kept.sort_values()]
    return frame
