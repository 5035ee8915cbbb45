"""Hold methods that trade time against error against each other, at equal error."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import common
import numpy as np
import pandas as pd
import torch

from kit import show
from kit.base import storage

OURS = "kit"
EXACT = 1e-3  # percent: at most this is exact, and has no place on a logarithmic axis
COLUMNS = """\
`ms`: milliseconds of CPU time. `error_percent`: root of the summed squared error over that of the
values. Both are medians over rounds, each with another seed. `times_kit`: how many times the time
of the kit a method takes at the error of that method, where the kit's efforts span it."""


@dataclass(frozen=True)
class Contestant:
    """A method at one effort: `run` takes a seed and returns values for `n_rows` rows."""

    method: str
    effort: str
    run: Callable[[int], np.ndarray]
    n_rows: int

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return f"{self.method}, {self.effort}"


def measure(
    contestants: Sequence[Contestant],
    *,
    reference: np.ndarray,
    rounds: int,
    unit: str = "row",
    where: torch.device | None = None,
) -> pd.DataFrame:
    """Race all contestants, and sum up their times and errors.

    Args:
        contestants: those of the method "kit" are ours.
        reference: what is true, for at least as many rows as the error is to be taken over.
        rounds: timed rounds; one of warm-up comes before.
        unit: what `n_rows` counts.
        where: the device that computes; on a GPU the clock on the wall counts, else CPU time.

    Returns:
        One row a contestant: method, effort, ms_per_<unit>, error_percent, times_kit.
    """
    variants = {each.name: partial(_prepare, each.run) for each in contestants}
    judge = partial(error, reference=reference)
    timed = common.race(variants, rounds=rounds, judge=judge, where=where)
    clock = "wall_s" if where and where.type != "cpu" else "cpu_s"
    medians = timed.groupby("variant")[[clock, "score"]].median()
    rows = [
        (
            each.method,
            each.effort,
            1e3 * medians.loc[each.name, clock] / each.n_rows,
            100 * medians.loc[each.name, "score"],
        )
        for each in contestants
    ]
    table = pd.DataFrame(rows, columns=["method", "effort", f"ms_per_{unit}", "error_percent"])
    return table.assign(times_kit=_at_equal_error(table, f"ms_per_{unit}"))


def error(values: np.ndarray, *, reference: np.ndarray) -> float:
    """Return the root of the summed squared error over that of the values, on the rows of both."""
    n = min(len(values), len(reference))
    off = values[:n].reshape(reference[:n].shape) - reference[:n]
    return float(np.sqrt((off**2).sum() / (reference[:n] ** 2).sum()))


def agreement(runs: Iterable[np.ndarray], reference: np.ndarray) -> float:
    """Return how far the mean of a peer's runs is from the reference, in its standard errors.

    About 1 says that both estimate the same thing.
    """
    runs = list(runs)
    mean, spread = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    off = (mean - reference[: len(mean)]) / np.maximum(spread, 1e-9)
    return float(np.sqrt((off**2).mean()))


def bars(
    tables: Mapping[str, pd.DataFrame], wanted: Mapping[tuple[str, str], float]
) -> pd.DataFrame:
    """Return every bar beside `times_kit` at the effort of a method nearest to 1 % of error.

    Beside it stand the lowest and the highest of all its efforts.

    Args:
        tables: name of the case -> what `measure` returned.
        wanted: (case, method) -> how many times as fast the kit must be.
    """
    rows = []
    for (case, method), bar in wanted.items():
        table = tables[case]
        efforts = table[(table["method"] == method) & table["times_kit"].notna()]
        if len(efforts):
            ratios = efforts["times_kit"]
            near = efforts.loc[np.log(efforts["error_percent"]).abs().idxmin()]
            measured = near["times_kit"], near["error_percent"], ratios.min(), ratios.max()
            rows.append((case, method, bar, *measured, "yes" if measured[0] >= bar else "no"))
    columns = ["case", "against", "bar", "times_kit", "at_percent", "lowest", "highest", "reached"]
    return pd.DataFrame(rows, columns=columns)


def at(table: pd.DataFrame, error_percent: float, *, bars: Mapping[str, float]) -> pd.DataFrame:
    """Return every bar beside how many times the kit's time a method takes at one error.

    Args:
        table: what `measure` returned.
        error_percent: the error; a method that never gets there is taken at its greatest effort.
        bars: method -> how many times as fast the kit must be.
    """
    ms = next(column for column in table if column.startswith("ms_per_"))

    def time_ms(method: str) -> tuple[float, bool]:
        rows = table[table["method"] == method].sort_values("error_percent")
        errors, times = np.log(rows["error_percent"]), np.log(rows[ms])
        gets_there = bool(rows["error_percent"].min() <= error_percent)
        return float(np.exp(np.interp(np.log(error_percent), errors, times))), gets_there

    ours, _ = time_ms(OURS)
    rows = []
    for method, bar in bars.items():
        theirs, gets_there = time_ms(method)
        ratio = theirs / ours
        reached = "yes" if ratio >= bar else "no"
        rows.append(
            (method, bar, ratio, "" if gets_there else "at least: never got there", reached)
        )
    return pd.DataFrame(rows, columns=["against", "bar", "measured", "note", "reached"])


def picture(name: str, tables: Mapping[str, pd.DataFrame], given: argparse.Namespace) -> None:
    """Draw time against error as `<name>.png` into the folder that was asked for."""
    panels = show.axes(width=3.4 * len(tables), height=3.6, columns=len(tables))
    drawn = {title: table[table["error_percent"] > EXACT] for title, table in tables.items()}
    methods = list(dict.fromkeys(method for table in drawn.values() for method in table["method"]))
    for panel, (title, table) in zip(panels, drawn.items(), strict=True):
        ms = next(column for column in table if column.startswith("ms_per_"))
        for method, points in table.groupby("method"):
            points = points.sort_values(ms)
            colour = show.PALETTE[methods.index(str(method)) % len(show.PALETTE)]
            style = {"marker": "o", "color": colour, "label": method}
            panel.plot(points[ms], points["error_percent"], **style)
        panel.set(xscale="log", yscale="log", xlabel=f"CPU {ms.replace('_', ' ')}")
        panel.set(ylabel="error, %")
        show.headline(panel, title)
    panels[0].legend(fontsize=7)
    with storage.atomic(given.out / f"{name}.png") as part:
        part.write_bytes(show.png(panels[0].figure))


def _prepare(run: Callable[[int], np.ndarray], seed: int) -> Callable[[], np.ndarray]:
    return partial(run, seed)


def _at_equal_error(table: pd.DataFrame, ms: str) -> pd.Series:
    """Divide by the kit's time, interpolated between its efforts on logarithmic axes.

    What is exact is held against what is exact. An error above that of the least effort is met by
    the least effort; one below that of the greatest has no answer.
    """
    mine, exact = table["method"] == OURS, table["error_percent"] <= EXACT
    ours = table[mine & ~exact].sort_values("error_percent")
    errors, times = np.log(ours["error_percent"]), np.log(ours[ms])
    asked = np.log(table["error_percent"].clip(lower=EXACT))
    at_error = pd.Series(np.exp(np.interp(asked, errors, times)), table.index)
    at_error = at_error.where(asked >= errors.min()).mask(exact, table.loc[mine & exact, ms].min())
    return (table[ms] / at_error).mask(mine)
