"""The tables of an attribution: its features over all rows, and those of one row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kit.explain.attribution import Attribution


def overall(
    values: np.ndarray,
    error_std: np.ndarray | None,
    *,
    names: list[str],
    data: np.ndarray,
    lengths: Sequence[int] | None,
) -> pd.DataFrame:
    """Average over rows and outputs; for texts, over every place where a token stands.

    Args:
        values: contributions, (rows, features) or (rows, features, outputs).
        error_std: of each value, or None.
        names: one a feature.
        data: for texts, their tokens.
        lengths: for texts, how many features of each row are not padding.

    Returns:
        A row a feature, the strongest first.
    """
    N, F = values.shape[:2]
    columns = {"mean_abs_value": np.abs(values), "mean_error_std": error_std}
    sizes = {
        name: array.reshape(N, F, -1).mean(2)
        for name, array in columns.items()
        if array is not None
    }
    if lengths is None:
        found = pd.DataFrame({"feature": names} | {k: v.mean(0) for k, v in sizes.items()})
    else:
        real = np.arange(F) < np.asarray(lengths)[:, None]  # (N, F)
        long = pd.DataFrame({"feature": data[real]} | {k: v[real] for k, v in sizes.items()})
        found = long.groupby("feature", as_index=False, sort=False).mean()
    return found.sort_values("mean_abs_value", ascending=False, kind="stable", ignore_index=True)


def strongest(attribution: "Attribution", row: int, *, n: int, output: int) -> pd.DataFrame:
    """Return the `n` features that moved the prediction of one row most."""
    one = attribution.one(output)
    n_real = len(one.names) if one.lengths is None else one.lengths[row]
    values = one.values[row, :n_real]
    order = np.argsort(-np.abs(values), kind="stable")[:n]
    names = one.names if one.lengths is None else one.data[row]
    found = pd.DataFrame(
        {
            "feature": [str(names[j]) for j in order],
            "data": one.data[row, order],
            "value": values[order],
        }
    )
    if one.error_std is not None:
        found["error_std"] = one.error_std[row, order]
    return found
