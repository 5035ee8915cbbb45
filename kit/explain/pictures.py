"""Static pictures of attributions in the kit's look: they survive every export of a notebook."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import show
from kit.base.numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kit.explain.attribution import Attribution

BINS, SPREAD = 60, 0.8  # of a beeswarm: along the axis, and the height of a row of points


def bar(attribution: "Attribution", *, n: int, output: int | None, ax: "Axes | None") -> "Axes":
    """Draw the mean size of the strongest features, over all rows and the outputs chosen."""
    chosen = attribution if output is None else attribution.one(output)
    table = chosen.table.head(n)
    sizes = dict(zip(table["feature"], table["mean_abs_value"], strict=True))
    return show.bars(
        sizes,
        title=f"{table['feature'].iloc[0]} moves predictions most",
        xlabel="mean |contribution| to the prediction",
        ax=ax,
    )


def waterfall(
    attribution: "Attribution", row: int, *, n: int, output: int, ax: "Axes | None"
) -> "Axes":
    """Draw the steps from the base value to the prediction of one row, the strongest on top."""
    one = attribution.one(output)
    top = one.top(row, n)
    steps = top["value"].to_numpy()
    labels = [
        name if one.lengths else f"{name} = {_shown(data)}"
        for name, data in zip(top["feature"], top["data"], strict=True)
    ]
    rest = one.values[row].sum() - steps.sum()
    if len(steps) < len(one.names):
        steps, labels = np.append(steps, rest), [*labels, "all others"]
    # from the bottom up the bars lead from the base value to the prediction
    ends = float(one.base_values[row]) + np.cumsum(steps[::-1])[::-1]
    ax = ax if ax is not None else show.axes(height=1.1 + 0.34 * len(steps))
    colours = [show.PALETTE[1] if step > 0 else show.PALETTE[0] for step in steps]
    drawn = ax.barh(range(len(steps)), steps, left=ends - steps, color=colours, height=0.7)
    ax.bar_label(drawn, labels=[f"{step:+.3g}" for step in steps], padding=4)
    ax.set_yticks(range(len(steps)), labels)
    ax.axvline(float(one.base_values[row]), color=show.FAINT, linewidth=1, linestyle="--")
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.use_sticky_edges = False  # bars that start off zero would leave no room for their labels
    ax.margins(x=0.18)
    ax.set(xlabel="prediction (dashed: the base value)")
    show.headline(ax, f"Row {row}: from {one.base_values[row]:.3g} to {one.predictions[row]:.3g}")
    return ax


def beeswarm(attribution: "Attribution", *, n: int, output: int, ax: "Axes | None") -> "Axes":
    """Draw every row's contribution of the strongest features, blue to orange by its value."""
    from matplotlib.colors import LinearSegmentedColormap

    one = attribution.one(output)
    order = np.argsort(-np.abs(one.values).mean(0), kind="stable")[:n]
    ax = ax if ax is not None else show.axes(height=1.1 + 0.42 * len(order))
    scale = LinearSegmentedColormap.from_list("low to high", [show.PALETTE[0], show.PALETTE[1]])
    for place, j in enumerate(order):
        heights = place + _jitter(one.values[:, j])
        ax.scatter(one.values[:, j], heights, c=_ranks(one.data[:, j]), cmap=scale, s=9)
    ax.axvline(0, color=show.FAINT, linewidth=1)
    ax.set_yticks(range(len(order)), [one.names[j] for j in order])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set(xlabel="contribution (blue: low value of the feature, orange: high)")
    show.headline(ax, f"{one.names[order[0]]} moves predictions most")
    return ax


def _jitter(values: np.ndarray) -> np.ndarray:
    """Return heights that keep points of like values apart, the same ones every time."""
    low, high = values.min(), values.max()
    bins = ((values - low) / max(high - low, np.finfo(float).tiny) * (BINS - 1)).astype(int)
    heights = np.empty(len(values))
    fullest = np.bincount(bins).max()
    for each in np.unique(bins):
        inside = np.flatnonzero(bins == each)
        heights[inside] = np.arange(len(inside)) - (len(inside) - 1) / 2
    return heights * SPREAD / max(fullest, 8)


def _ranks(data: np.ndarray) -> np.ndarray:
    """Return 0 for the lowest value and 1 for the highest; by rank, an outlier takes no colours."""
    places = np.maximum(pd.factorize(data, sort=True)[0], 0)  # a gap counts as low
    return places / max(places.max(), 1)


def _shown(cell: Any) -> str:
    return short(float(cell)) if isinstance(cell, float | np.floating) else str(cell)
