"""Take from a table the columns and rows that a report was asked for."""

import pandas as pd

from kit.base import checks
from kit.data.split import check_target


def pick(
    frame: pd.DataFrame,
    *,
    target: str,
    time: str = "",
    columns: str = "",
    rows: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Take columns by name and a random sample of rows, in the order of the table.

    Args:
        frame: the whole table; it stays as it is.
        target: the column to predict; it is always taken.
        time: the column to split by, if any; it is always taken.
        columns: names with commas between; empty takes all.
        rows: most rows to take; 0 takes all.
        seed: of the sample.

    Raises:
        ValueError: an unknown column, or a target that nothing can be learned about.

    Example:
        >>> frame = pd.DataFrame({"a": range(40), "b": 1.5, "late": [True, False] * 20})
        >>> pick(frame, target="late", columns="a", rows=30).shape
        (30, 2)
    """
    names = [name.strip() for name in columns.split(",") if name.strip()]
    for name in [*names, time]:
        if name and name not in frame:
            raise checks.unknown_name("data.pick", "column", got=name, known=frame.columns)
    check_target(frame, target)
    if names:
        kept = {*names, target, time}
        frame = frame[[name for name in frame.columns if name in kept]]
    if 0 < rows < len(frame):
        frame = frame.sample(rows, random_state=seed).sort_index()
    return frame
