"""Measure four runs of the table report: `kit report --jobs 2` against a loop over papermill."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import pandas as pd

from kit.report import notebooks, runs

SEEDS = (0, 1, 2, 3)
ROWS = 20_000
BAR = 1.6  # what issue 2 asks for: four runs with --jobs 2, against a loop over papermill
OURS, LOOP = "kit report --jobs 2", "papermill loop"

TEXT = """\
The same four runs of `notebooks/reports/table.ipynb` on the bundled flights ({rows:,} rows, seeds
0 to 3), each variant from the start of its process to its end, in turns, the first of which
changes from round to round; medians over rounds, ratios by the clock on the wall inside a round.
The loop is `papermill.execute_notebook` in one Python process, which pays for papermill's import
once; it leaves notebooks only. `kit report` also writes the pages, the records and the index.
The loop's kernels may use every core; those of `kit report --jobs 2` get half of the cores each.
"""

PAPERMILL = """
import sys
from papermill import execute_notebook
notebook, out, rows, *seeds = sys.argv[1:]
for seed in map(int, seeds):
    execute_notebook(notebook, f"{out}/{seed}.ipynb", {"rows": int(rows), "seed": seed},
                     progress_bar=False, kernel_name="python3")
"""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=3)
    rows, seeds = (2_000, SEEDS[:2]) if given.quick else (ROWS, SEEDS)
    timed = pd.DataFrame(
        [row for number in range(given.rounds) for row in _round(number, rows, seeds)]
    )
    facts = common.machine(["papermill", "nbclient", "ipykernel"])
    common.write(
        "report",
        title="Reports: four runs at two a time, against a loop",
        text=TEXT.format(rows=rows),
        sections=[
            common.Section("Compared", f"The bar is {BAR} by the wall.", _compared(timed)),
            common.Section("Every round", "Seconds; CPU time is that of all kernels.", timed),
        ],
        facts=facts,
        skipped=[],
        given=given,
    )


def _round(number: int, rows: int, seeds: tuple[int, ...]) -> list[dict]:
    """Time both variants once, the other one first in every second round."""
    words = list(map(str, seeds))
    notebook = str(notebooks.find("table"))
    made = []
    for name in (OURS, LOOP) if number % 2 == 0 else (LOOP, OURS):
        out = Path(tempfile.mkdtemp())
        command = [sys.executable, "-c", PAPERMILL, notebook, str(out), str(rows), *words]
        if name == OURS:
            command = [sys.executable, "-c", "from kit.cli import main; main()", "report", "table"]
            command += ["-p", f"rows={rows}", "--sweep", f"seed={','.join(words)}"]
            command += ["--jobs", "2", "--out", str(out)]
        made.append({"round": number + 1, "variant": name, **_timed(command)})
        _check(out, name, len(seeds))
        shutil.rmtree(out)
    return made


def _timed(command: list[str]) -> dict[str, float]:
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall_s, after = time.perf_counter() - start, os.times()
    cpu_s = after.children_user + after.children_system
    return {"wall_s": wall_s, "cpu_s": cpu_s - before.children_user - before.children_system}


def _check(out: Path, name: str, n_runs: int) -> None:
    """Make sure that every run is there and went well: a failed one would be a fast one."""
    if name == LOOP:
        assert len(list(out.glob("*.ipynb"))) == n_runs
        return
    done = [runs.read(path) for path in out.glob(f"*/{runs.FILE}")]
    assert [run["status"] for run in done] == [runs.OK] * n_runs


def _compared(timed: pd.DataFrame) -> pd.DataFrame:
    """Sum up the rounds: medians, and how many times as fast `kit report` is."""
    walls = timed.pivot(index="round", columns="variant", values="wall_s")
    ratios = walls.div(walls[OURS], axis=0)
    rows = [
        {
            "variant": name,
            "wall_s": statistics.median(walls[name]),
            "ratio_wall": statistics.median(ratios[name]),
            "ratio_low": ratios[name].min(),
            "ratio_high": ratios[name].max(),
        }
        for name in (OURS, LOOP)
    ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
