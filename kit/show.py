"""Draw what the operations return: one look, direct labels, and a digest that tests can compare.

A function takes numbers and gives back the Axes; nothing here computes. `digest(ax)` ends a cell:
it shows the picture, and its text form, which nbval compares, is what the picture holds.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.base import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# blue, orange, green, violet, brown, grey: told apart by every common colour vision, and each at
# least 3:1 against both white and near-black (tests/test_show.py measures both)
PALETTE = ("#3377b1", "#d47907", "#65a169", "#7167ec", "#a2451c", "#616161")
INK, FAINT = "#222222", "#767676"
SIZE_IN = (6.4, 3.6)
DPI = 110
LETTERS_PER_IN = 8.5  # of a bold title, before it is broken into two lines
GAP_IN = 0.22  # between the names at the ends of two lines
STYLE: Any = {  # rcParams; their type lists every key as a literal
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Digest:
    """A picture whose text form says what it holds."""

    figure: "Figure"
    text: str
    alt: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            {"image/png": png(self.figure), "text/plain": self.text},
            {"image/png": {"alt": self.alt}},
        )


def axes(
    *, title: str = "", width: float = SIZE_IN[0], height: float = SIZE_IN[1], columns: int = 1
) -> Any:
    """Return empty Axes in the kit's look, for a plot of one's own; end the cell with `digest`.

    Args:
        title: what the reader is to see, as a finding; above the first of several Axes.
        width: of the figure, in inches.
        height: of the figure, in inches.
        columns: Axes side by side; from 2 on an array of them is returned.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # a Figure of its own, not pyplot's: nothing is drawn twice and nothing piles up
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        made = figure.subplots(1, columns)
    if title:
        headline(np.ravel(made)[0], title)
    return made


def curve(
    frame: pd.DataFrame,
    *,
    y: str | Sequence[str],
    x: str | None = None,
    title: str,
    xlabel: str | None = None,
    ylabel: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw one or more columns over another, each named at its right end.

    Args:
        frame: a row a point, in the order to join them.
        y: column or columns to draw.
        x: column along the axis; None takes the index.
        title: what the reader is to see, as a finding.
        xlabel: with its unit; None takes the column's name.
        ylabel: with its unit; None takes the column's name where there is one.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis.
        ax: Axes to draw on; None makes new ones.
    """
    names = [y] if isinstance(y, str) else list(y)
    _known(frame, [*names, *([x] if x else [])], "show.curve")
    ax = ax if ax is not None else axes()
    along = frame[x] if x else frame.index.to_series()
    for name, colour in zip(names, _colours(len(names)), strict=True):
        ax.plot(along, frame[name], color=colour, label=name)
    ax.set(
        xlabel=xlabel or x or str(frame.index.name or ""),
        ylabel=ylabel or (names[0] if len(names) == 1 else ""),
    )
    # only where asked: setting "linear" anew would drop the axis of dates or of words
    if log_x:
        ax.set_xscale("log")
    if log_y:
        ax.set_yscale("log")
    _label_ends(ax, names if len(names) > 1 else [])
    headline(ax, title)
    return ax


def bars(
    values: Mapping[str, float] | pd.Series,
    *,
    title: str,
    xlabel: str,
    highlight: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw horizontal bars with their values written at their ends.

    Args:
        values: name -> length, drawn from the top down.
        title: what the reader is to see, as a finding.
        xlabel: the quantity, with its unit.
        highlight: name of the bar to colour; the others are grey.
        ax: Axes to draw on; None makes new ones.
    """
    series = pd.Series(values, dtype=float)
    ax = ax if ax is not None else axes(height=0.9 + 0.34 * len(series))
    names = [str(name) for name in series.index]
    if highlight is not None and highlight not in names:
        raise checks.unknown_name("show.bars", "bar", got=highlight, known=names)
    colours = [PALETTE[0] if highlight in (None, name) else PALETTE[5] for name in names]
    drawn = ax.barh(names, series.to_numpy(), color=colours, height=0.7)
    ax.bar_label(drawn, labels=[f"{value:.3g}" for value in series], padding=4)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.margins(x=0.12)
    headline(ax, title)
    ax.set(xlabel=xlabel)
    return ax


def calibration(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, *, title: str, ax: "Axes | None" = None
) -> "Axes":
    """Draw what happened over what was predicted; a perfectly calibrated model is the diagonal.

    Args:
        tables: a calibration table of `train.evaluate`, or name -> table to compare several.
        title: what the reader is to see, as a finding.
        ax: Axes to draw on; None makes new ones.
    """
    named = {"model": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    ax = ax if ax is not None else axes(width=5.4, height=4.2)
    points = np.concatenate(
        [frame[["predicted", "observed"]].to_numpy() for frame in named.values()]
    )
    low, high = float(points.min()), float(points.max())
    ax.plot([low, high], [low, high], color=FAINT, linewidth=1, linestyle="--", label="perfect")
    for (name, frame), colour in zip(named.items(), _colours(len(named)), strict=True):
        ax.plot(frame["predicted"], frame["observed"], marker="o", color=colour, label=name)
    _label_ends(ax, ["perfect", *named])
    headline(ax, title)
    ax.set(xlabel="predicted", ylabel="observed")
    return ax


def missing(frame: pd.DataFrame, *, title: str, most: int = 20, ax: "Axes | None" = None) -> "Axes":
    """Draw the share of missing cells of the columns that have any, the worst first.

    Args:
        frame: any table.
        title: what the reader is to see, as a finding.
        most: columns drawn at the most.
        ax: Axes to draw on; None makes new ones.
    """
    shares = frame.isna().mean().sort_values(ascending=False, kind="stable")
    shares = shares[shares > 0].head(most)
    if shares.empty:
        shares = pd.Series({"every column": 0.0})
    return bars(shares, title=title, xlabel="fraction of cells missing", ax=ax)


def headline(ax: "Axes", title: str) -> None:
    """Write the finding above the Axes, in the kit's look, broken where it would run out.

    Args:
        ax: where the figure has been drawn already.
        title: what the reader is to see.
    """
    from matplotlib.ticker import MaxNLocator

    grid = ax.get_subplotspec()
    n_columns = grid.get_gridspec().ncols if grid else 1
    n_letters = int(LETTERS_PER_IN * _size_in(ax)[0] / n_columns)
    ax.set_title(textwrap.fill(title, n_letters), loc="left", fontsize=11, fontweight="bold")
    ticks = ax.xaxis.get_major_locator()
    if isinstance(ticks, MaxNLocator) and _whole(ax):
        ticks.set_params(integer=True)


def digest(ax: "Axes | Sequence[Axes] | np.ndarray") -> Digest:
    """Show the figure of `ax`; as text, say what it holds: titles, labels, lines, bars, points.

    A test compares texts, not pictures: with this text stored, a changed plot is noticed.

    Args:
        ax: the Axes, or several of one figure.

    Returns:
        The last value of a cell: a picture for a person, its digest for nbval.
    """
    every = list(np.ravel(np.asarray(ax, dtype=object)))
    text = "\n".join(_digest_of(each) for each in every)
    alt = "; ".join(map(_title, every))
    return Digest(figure=every[0].figure, text=text, alt=alt)


def png(figure: "Figure") -> bytes:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _digest_of(ax: "Axes") -> str:
    x, y = (f"{axis.get_label_text() or '–'} ({axis.get_scale()})" for axis in (ax.xaxis, ax.yaxis))
    rows = [f"figure: {_title(ax)}", f"  x {x}, y {y}"]
    for line in ax.lines:
        name = str(line.get_label()).removeprefix("_child")
        rows.append(f"  line {name} {_numbers(line.get_ydata(orig=False))}")
    rows += [f"  points {_numbers(_heights(group))}" for group in ax.collections]
    if ax.patches:
        rows.append(f"  bars {_numbers(_lengths(ax))}")
    rows += [
        f"  names {checks.listed(words)}" for words in map(_words, (ax.xaxis, ax.yaxis)) if words
    ]
    for image in ax.images:
        rows.append(f"  image {_numbers(np.asarray(image.get_array()).ravel())}")
    return "\n".join(rows)


def _words(axis: "Axis") -> list[str]:
    """Return the names along an axis of names; an axis of numbers has none."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter

    if isinstance(axis.get_major_formatter(), StrCategoryFormatter | FixedFormatter):
        return [label.get_text() for label in axis.get_ticklabels()]
    return []


def _title(ax: "Axes") -> str:
    return " ".join((ax.get_title(loc="left") or ax.get_title()).split())


def _heights(group: "Collection") -> np.ndarray:
    """Return where points lie, or the corners of an area that has no points."""
    paths = group.get_paths()
    offsets = np.asarray(group.get_offsets())
    if len(offsets) > 1 or not paths:
        return offsets[:, 1]
    return np.concatenate([path.vertices for path in paths])[:, 1]


def _lengths(ax: "Axes") -> list[float]:
    """Return the bars' lengths: the side that differs from bar to bar is the one that counts."""
    boxes = [patch.get_bbox() for patch in ax.patches if hasattr(patch, "get_bbox")]
    if not boxes:
        return []
    widths, heights = [box.width for box in boxes], [box.height for box in boxes]
    return widths if np.ptp(widths) >= np.ptp(heights) else heights


def _numbers(values: Any) -> str:
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    if not array.size:
        return "n=0"
    mean = array.mean()
    if abs(mean) < 1e-13 * np.abs(array).max():  # nothing but rounding, other on other machines
        mean = 0.0
    # + 0.0: a minus before nought is another text on other machines
    low, mean, high = (f"{v + 0.0:.3g}" for v in (array.min(), mean, array.max()))
    return f"n={array.size} min={low} mean={mean} max={high}"


def _size_in(ax: "Axes") -> tuple[float, float]:
    figure: Any = ax.get_figure(root=True)
    return figure.get_figwidth(), figure.get_figheight()


def _whole(ax: "Axes") -> bool:
    """Tell whether every line has whole numbers along x, such as epochs."""
    xs = [np.asarray(line.get_xdata(orig=False), dtype=float) for line in ax.lines]
    return bool(xs) and all((x % 1 == 0).all() for x in xs)


def _colours(n: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(n)]


def _label_ends(ax: "Axes", names: Sequence[str]) -> None:
    """Write the name of each line at its right end, moved apart where ends are close."""
    lines = [line for line in ax.lines if line.get_label() in names and len(_finite(line))]
    if not lines:
        return
    ax.autoscale_view()
    # heights as fractions of the axis: a gap then looks the same on a logarithmic one
    to_axes = ax.transScale + ax.transLimits
    ends = np.array([_finite(line)[-1] for line in lines])
    heights = _apart(to_axes.transform(ends)[:, 1], gap=GAP_IN / _size_in(ax)[1])
    for line, (x, _), height in zip(lines, ends, heights, strict=True):
        ax.annotate(
            str(line.get_label()),
            xy=(x, to_axes.inverted().transform((0, height))[1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            annotation_clip=False,
        )


def _finite(line: "Line2D") -> np.ndarray:
    """Return the points of a line that are drawn, (n, 2): a diverged training ends in NaN."""
    points = np.asarray(line.get_xydata(), dtype=float)
    return points[np.isfinite(points).all(axis=1)]


def _apart(heights: np.ndarray, *, gap: float) -> np.ndarray:
    """Move heights (fractions of an axis) so that neighbours are a gap apart, below the top."""
    order = np.argsort(heights, kind="stable")
    moved = heights[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1] = min(moved[-1], max(1 - gap, heights.max()))
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    out = np.empty_like(moved)
    out[order] = moved
    return out


def _known(frame: pd.DataFrame, names: Sequence[str], where: str) -> None:
    for name in names:
        if name not in frame:
            raise checks.unknown_name(where, "column", got=name, known=frame.columns)
