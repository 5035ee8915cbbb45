"""Score a cleaning against planted dirt: what was repaired, flagged, missed, and harmed."""

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result
from kit.clean.apply import Cleaned
from kit.data.soil import Soiled

WHERE = "clean.score"
# values of which a doubt is no list: rows and columns are meant themselves
BY_NAME = {"constant columns": ("constant column", "empty column"), "duplicated rows": ()}


@result
class Score(Result):
    """Hold how each planted kind fared; `table` has a row a kind."""

    n_harmed: int  # healthy cells, rows or columns that were changed or lost
    harmed: pd.DataFrame

    def facts(self) -> dict[str, str]:
        """Return how many kinds were repaired or flagged whole, and how much was harmed."""
        whole = self.table["missed"] == 0
        repaired = self.table["repaired"] == self.table["planted"]
        return {
            "kinds repaired or flagged": f"{whole.sum()} of {len(self.table)}",
            "repaired": f"{repaired.sum()}",
            "healthy values changed": f"{self.n_harmed:,}",
        }


def score(cleaned: Cleaned, truth: Soiled) -> Score:
    """Hold a cleaned table against what was planted in it.

    A cell is repaired if it is what it was; a sentinel or a null word, whose value is lost, if it
    is missing. It is flagged if a doubt of the plan names its column and value. All other cells
    must be what they were: a type may change, its meaning may not.

    Args:
        cleaned: of a frame in memory, as `clean.apply` returned it.
        truth: as `data.soil` returned it.

    Returns:
        Planted, repaired, flagged and missed by kind, and the healthy cells that were harmed.

    Raises:
        ValueError: a query, whose rows have no order, or another table.
    """
    if cleaned.kept is None:
        raise checks.bad_value(
            WHERE,
            expected="a cleaned frame in memory",
            got=checks.Described("a query"),
            remedy="Pass clean.apply(truth.frame, plan).",
        )
    frame = _pandas(cleaned.frame)
    if len(_pandas(cleaned.original)) != len(truth.frame):
        raise checks.bad_value(
            WHERE,
            expected=f"the table of this truth, {len(truth.frame):,} rows",
            got=checks.Described(f"one of {len(_pandas(cleaned.original)):,}"),
            remedy="Pass clean.apply(truth.frame, plan).",
        )
    position = np.full(len(truth.frame), -1)
    position[cleaned.kept] = np.arange(len(frame))
    rows = [
        _judged(kind, planted, frame, position, cleaned)
        for kind, planted in truth.table.groupby("kind", sort=False)
    ]
    harmed = _harmed(frame, position, truth)
    return Score(table=pd.DataFrame(rows), n_harmed=len(harmed), harmed=harmed)


def _judged(
    kind: Any, planted: pd.DataFrame, frame: pd.DataFrame, position: np.ndarray, cleaned: Cleaned
) -> dict[str, Any]:
    doubts = cleaned.plan.doubts
    if kind == "duplicated rows":
        good = position[planted["row"].to_numpy(dtype=np.int64)] < 0
        flagged = np.full(len(planted), any(d.kind == "duplicated rows" for d in doubts))
    elif kind == "constant columns":
        good = ~planted["column"].isin(frame.columns).to_numpy()
        flagged = planted["column"].isin([d.column for d in doubts]).to_numpy()
    else:
        good = _repaired(kind, planted, frame, position)
        named = {(d.column, value) for d in doubts for value in d.values}
        cells = zip(planted["column"], planted["dirty"], strict=True)
        flagged = np.array([cell in named for cell in cells])
    return {
        "kind": kind,
        "planted": len(planted),
        "repaired": int(good.sum()),
        "flagged": int((flagged & ~good).sum()),
        "missed": int((~flagged & ~good).sum()),
    }


def _repaired(
    kind: Any, planted: pd.DataFrame, frame: pd.DataFrame, position: np.ndarray
) -> np.ndarray:
    name = planted["column"].iloc[0]
    at = position[planted["row"].to_numpy(dtype=np.int64)]
    if name not in frame or (at < 0).any():
        return np.zeros(len(planted), bool)
    now = frame[name].iloc[at]
    if kind in ("sentinels", "null words"):
        return now.isna().to_numpy()
    return _same(now, planted["clean"])


def _harmed(frame: pd.DataFrame, position: np.ndarray, truth: Soiled) -> pd.DataFrame:
    """List the healthy cells that are not what they were."""
    copies = truth.table.loc[truth.table["kind"] == "duplicated rows", "row"]
    healthy = np.ones(len(position), bool)
    healthy[copies.to_numpy(dtype=np.int64)] = False
    lost = np.flatnonzero(healthy & (position < 0))
    parts = [pd.DataFrame({"column": None, "row": lost})]
    planted = truth.table.groupby("column")["row"]
    planted_rows = {name: rows.dropna().to_numpy(dtype=np.int64) for name, rows in planted}
    there = np.flatnonzero(healthy & (position >= 0))
    for name, before in truth.clean.items():
        if name not in frame:
            parts.append(pd.DataFrame({"column": [name]}))
            continue
        rows = np.setdiff1d(there, planted_rows.get(name, []))
        same = _same(frame[name].iloc[position[rows]], before.iloc[truth.rows[rows]])
        parts.append(pd.DataFrame({"column": name, "row": rows[~same]}))
    return pd.concat(parts, ignore_index=True)


def _same(now: pd.Series, before: pd.Series) -> np.ndarray:
    """Compare by meaning: 5 is 5.0 and "5", and a date is one whatever its unit."""
    now, before = now.reset_index(drop=True), before.reset_index(drop=True).infer_objects()
    if isinstance(now.dtype, pd.StringDtype):
        now = _read_as(now, before)
    missing = now.isna().to_numpy() & before.isna().to_numpy()
    equal = (now.astype(object) == before.astype(object)).fillna(False).to_numpy(dtype=bool)
    return missing | equal


def _read_as(words: pd.Series, like: pd.Series) -> pd.Series:
    """Read text as the type of another column, in the one notation that it has by default."""
    if pd.api.types.is_bool_dtype(like):
        return words.map({"True": True, "False": False})
    if pd.api.types.is_numeric_dtype(like):
        return pd.to_numeric(words, errors="coerce")
    if pd.api.types.is_datetime64_any_dtype(like):
        return pd.to_datetime(words, format="%Y-%m-%d", errors="coerce")
    return words


def _pandas(frame: Any) -> pd.DataFrame:
    return nw.from_native(frame, eager_only=True).to_pandas()
