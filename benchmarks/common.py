"""Share what every benchmark needs: fair rounds, medians, machine facts, one JSON and one table."""

import argparse
import gc
import importlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import data, train
from kit.base import device, storage
from kit.base.machine import cores
from kit.base.results import short

RESULTS = Path(__file__).parent / "results"
CLOCKS = ("cpu_s", "wall_s")
os.environ["KIT_QUIET"] = "1"  # a progress bar would be measured too

Prepare = Callable[[int], Callable[[], Any]]  # round -> what to time; setting up is not timed


@dataclass(frozen=True)
class Section:
    """One part of the page that a benchmark writes: a heading, a sentence or two, a table."""

    title: str
    text: str
    table: pd.DataFrame


def arguments(description: str, *, rounds: int) -> argparse.Namespace:
    """Read the command line that all benchmarks have in common, and compute on one thread.

    Args:
        description: what is measured.
        rounds: rounds of a run that is to be believed; the median is over them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; measure nothing")
    parser.add_argument("--rounds", type=int, default=None, help=f"default: {rounds}")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: benchmarks/results")
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else rounds)
    if given.rounds < 2:
        parser.error(f"expected --rounds of 2 or more, got {given.rounds}")
    torch.set_num_threads(given.threads)
    return given


def missing(peers: Mapping[str, str]) -> list[str]:
    """Import the peers now, so that no round pays for it, and name those that are not here.

    Args:
        peers: name for people -> module to import.
    """
    absent = []
    for name, module in peers.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            absent.append(name)
    return absent


def flights(rows: int) -> tuple[data.Encoder, Tensor, Tensor]:
    """Return the bundled flights as the lessons feed them to a model.

    Returns:
        The encoder, inputs (rows, columns), and late or not (rows,).
    """
    frame = data.flights(rows=rows).frame
    encoder = data.Encoder.fit(frame, target="late")
    return encoder, encoder.X(frame), encoder.y(frame)


def loss_of(model: nn.Module, *, X: Tensor, y: Tensor) -> float:
    """Return the mean log loss of a yes/no model over all rows."""
    logits = train.predict(model, X).squeeze(1)
    return float(F.binary_cross_entropy_with_logits(logits, y.float()))


def race(
    variants: Mapping[str, Prepare],
    *,
    rounds: int,
    judge: Callable[[Any], float],
    where: torch.device | None = None,
) -> pd.DataFrame:
    """Time all variants in every round, each round in another order, after a round of warm-up.

    A busy machine slows a round, not a variant: ratios are taken inside a round.

    Args:
        variants: name -> function of the round that sets up and returns what to time.
        rounds: timed rounds.
        judge: turns what a variant returned into its score, off the clock.
        where: the device to wait for; None is the CPU.

    Returns:
        One row a variant and round: variant, round, cpu_s of this process, wall_s, score.
    """
    where = where or torch.device("cpu")
    names, rows = list(variants), []
    for i in range(rounds + 1):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            cpu_s, wall_s, made = _once(variants[name](i), where)
            rows.append((name, i, cpu_s, wall_s, judge(made)))
    table = pd.DataFrame(rows, columns=["variant", "round", "cpu_s", "wall_s", "score"])
    return table[table["round"] > 0]


def _once(run: Callable[[], Any], where: torch.device) -> tuple[float, float, Any]:
    gc.collect()  # one variant must not pay for the rubbish of another
    device.wait_for(where)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    made = run()
    device.wait_for(where)
    return time.process_time() - cpu_s, time.perf_counter() - wall_s, made


def compare(timed: pd.DataFrame, *, ours: str, work: int, unit: str) -> pd.DataFrame:
    """Sum up a race: medians over rounds, and how many times as fast as each variant ours is.

    Args:
        timed: what `race` returned.
        ours: the variant that all are held against.
        work: what one run gets through, such as rows.
        unit: its name.

    Returns:
        One row a variant, the fastest first: work per second of CPU and wall time, how many times
        as fast `ours` is (by either clock; lowest and highest of a round by CPU time), the median
        score and its standard deviation over rounds.
    """
    clocks = {
        clock: timed.pivot(index="round", columns="variant", values=clock) for clock in CLOCKS
    }
    ratios = {clock: table.div(table[ours], axis=0) for clock, table in clocks.items()}
    scores = timed.groupby("variant")["score"]
    table = pd.DataFrame(
        {
            f"{unit}_per_cpu_s": work / clocks["cpu_s"].median(),
            f"{unit}_per_wall_s": work / clocks["wall_s"].median(),
            "ratio_cpu": ratios["cpu_s"].median(),
            "ratio_cpu_low": ratios["cpu_s"].min(),
            "ratio_cpu_high": ratios["cpu_s"].max(),
            "ratio_wall": ratios["wall_s"].median(),
            "score": scores.median(),
            "score_sd": scores.std(),
        }
    )
    return table.sort_values("ratio_cpu").rename_axis("variant").reset_index()


def machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a reader must know of this machine and of the packages; no name and no path."""
    facts = {
        "cpu": _cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    return facts | {package: version(package) for package in ("torch", *packages)}


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if lines:
            return lines[0].split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def write(
    name: str,
    *,
    title: str,
    text: str,
    sections: Sequence[Section],
    facts: Mapping[str, Any],
    skipped: Sequence[str],
    given: argparse.Namespace,
) -> None:
    """Write `<name>.json` and `<name>.md` into the folder that was asked for, and print the page.

    Args:
        name: of the benchmark.
        title: heading of the page.
        text: how it was measured.
        sections: the tables.
        facts: of the machine.
        skipped: peers that were not here.
        given: the command line.
    """
    record = {
        "benchmark": name,
        "quick": given.quick,
        "rounds": given.rounds,
        "machine": dict(facts),
        "skipped": list(skipped),
        "tables": {each.title: _records(each.table) for each in sections},
    }
    storage.write_json(given.out / f"{name}.json", record)
    notes = [text]
    if given.quick:
        notes.append(
            "**A quick run: it proves that the benchmark runs; its figures mean nothing.**"
        )
    if skipped:
        notes.append(f"Skipped, not installed here: {', '.join(skipped)}.")
    notes.append(
        "Machine: " + ", ".join(f"{label} {value}" for label, value in facts.items()) + "."
    )
    parts = [f"# {title}", *notes]
    for each in sections:
        parts += [f"## {each.title}", each.text, markdown(each.table)]
    page = "\n\n".join(parts) + "\n"
    storage.write_text(given.out / f"{name}.md", page)
    print(page)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a dictionary a row; what there is no number for is null in JSON."""
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown, numbers to three digits.

    Example:
        >>> print(markdown(pd.DataFrame({"who": ["we"], "rows": [12345.6]})))
        | who | rows |
        |---|---|
        | we | 12,346 |
    """
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    lines = ["| " + " | ".join(cells) + " |" for cells in [list(table.columns), *rows]]
    return "\n".join([lines[0], "|" + "---|" * table.shape[1], *lines[1:]])


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return short(value) if isinstance(value, int | float) else str(value)
