"""Measure cleaning: time and memory beside hand-written code, 15 kinds, 7 engines, 3 GB."""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from kit import clean, data
from kit.base import machine
from kit.clean.table import collected, wrapped
from kit.data.flights import folder

OURS, LOOK = "clean.apply, ledger included", "clean.look"
HAND, PROFILE = "pandas by hand", "ydata-profiling minimal"
PROFILE_PYTHON = "KIT_YDATA_PYTHON"
PEERS = {
    "Polars": "polars",
    "DuckDB": "duckdb",
    "Dask": "dask.dataframe",
    "PySpark": "pyspark",
    "skrub": "skrub",
    "pyjanitor": "janitor",
}
PACKAGES = {
    "Polars": "polars",
    "DuckDB": "duckdb",
    "Dask": "dask",
    "PySpark": "pyspark",
    "skrub": "skrub",
    "pyjanitor": "pyjanitor",
}
LEFT_OUT = [
    *("time_hour", "year", "month", "day", "hour", "minute", "tailnum", "sched_dep_time"),
]  # with what soil adds, 19 columns are left
ROWS, DOUBLED, QUICK_ROWS = 336_776, 5_000, 3_000
FILE_GB, QUICK_FILE_GB = 3.0, 0.003
ENGINES = {  # engine of clean.on -> the peer that it needs
    "pandas": "",
    "pyarrow": "",
    "polars": "Polars",
    "polars lazy": "Polars",
    "polars streaming": "Polars",
    "duckdb": "DuckDB",
    "dask": "Dask",
    "pyspark": "PySpark",
}

TEXT = f"""\
Flights of 2013 with fifteen kinds of dirt planted by `data.soil` (seed 0): {ROWS + DOUBLED:,} rows
and 19 columns, one thread. Variants take turns in one process, each round in another order; figures
are medians over rounds of CPU time, ratios are taken inside a round."""
APPLIED = """\
`ratio_cpu`: how many times as long as `clean.apply` with its ledger a variant takes. By hand: the
same repairs as people write them, column by column, without any ledger. skrub and pyjanitor do
what they have verbs for, which is less."""
LOOKED = f"""\
`ratio_cpu`: how many times as long as `clean.look` a variant takes. {PROFILE} needs pandas below 3,
so it runs by the Python that {PROFILE_PYTHON} names (with pyarrow), on the same frame, afterwards.
"""
KINDS = "What was planted, and what became of it; a healthy cell that changes is counted as harmed."
MEMORY = """\
Each in a process of its own: the most memory held while cleaning, the dirty frame counted in, and
how many times the frame that is."""
AGREED = """\
One plan, with all doubts accepted that can be, on every engine: `agrees` says whether the result
has the fingerprint of pandas's. Seconds to write the plan into the query, and to compute it."""
STREAMED = """\
A CSV of flights, cleaned by one plan in a process of its own with Polars' streaming engine and
written to Parquet; `peak_mib` is the most memory that the process held, `idle_mib` what it held
before the first row."""

PROFILED = """
import json, sys, time
import pandas as pd
from ydata_profiling import ProfileReport
frame, times = pd.read_parquet(sys.argv[1]), []
for _ in range(int(sys.argv[2]) + 1):
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    ProfileReport(frame, minimal=True, progress_bar=False).get_description()
    times.append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
print(json.dumps(times[1:]))
"""

Frame = pd.DataFrame


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=5)
    skipped = common.missing(PEERS)
    soiled = dirty(QUICK_ROWS if given.quick else ROWS)
    audit = clean.look(soiled.frame)
    plan = clean.plan(audit)
    cleaned = clean.apply(soiled.frame, plan)
    scored = clean.score(cleaned, soiled)
    sections = [
        common.Section("Repairs", APPLIED, applied(soiled, plan, skipped, given.rounds)),
        common.Section("Memory", MEMORY, memory(soiled, plan)),
        common.Section("A look", LOOKED, looked(soiled.frame, skipped, given.rounds)),
        common.Section("Kinds of dirt", f"{KINDS} {scored}", scored.table),
        common.Section("Engines", AGREED, engines(soiled.frame, plan, skipped)),
    ]
    if "Polars" not in skipped:
        size = QUICK_FILE_GB if given.quick else FILE_GB
        sections.append(common.Section("A file larger than memory", STREAMED, streamed(size)))
    common.write(
        "clean",
        title="Cleaning: time, memory, and what is found",
        text=TEXT,
        sections=sections,
        facts=common.machine([PACKAGES[name] for name in PEERS if name not in skipped]),
        skipped=skipped,
        given=given,
    )


def dirty(rows: int) -> data.Soiled:
    """Return flights with dirt planted in them."""
    frame = pd.read_parquet(folder() / "flights.parquet").drop(columns=LEFT_OUT)
    return data.soil(frame.head(rows), seed=0, frac=DOUBLED / ROWS)


def by_hand(frame: Frame) -> Frame:
    """Repair the flights as people write it; it leaves what `clean.plan` leaves to a person."""
    out = frame.copy()
    for name in ("dep_time", "sched_arr_time"):
        digits = out[name].str.strip().str.replace("[, mi]", "", regex=True)
        out[name] = pd.to_numeric(digits).astype("Int64")
    out["dep_delay"] = out["dep_delay"].mask(out["dep_delay"] == -999)
    out["carrier"] = out["carrier"].str.strip()
    out["origin"] = out["origin"].str.upper()
    out["dest"] = out["dest"].mask(out["dest"].str.strip().isin(["NA", "n/a", "NULL"]))
    out["fare"] = pd.to_numeric(out["fare"].str.replace("[$ ]", "", regex=True))
    share = pd.to_numeric(out["load"].str.rstrip("%"))
    out["load"] = share.where(~out["load"].str.endswith("%"), share / 100)
    booked = pd.to_datetime(out["booked"], format="%Y-%m-%d", errors="coerce")
    for notation in ("%d/%m/%Y", "%d %b %Y"):
        other = pd.to_datetime(out["booked"], format=notation, errors="coerce")
        booked = booked.fillna(other)
    out["booked"] = booked
    out["member"] = out["member"].str.lower().isin(["true", "yes", "y"])
    return out.drop(columns="remarks").drop_duplicates()


def applied(soiled: data.Soiled, plan: clean.Plan, skipped: list[str], rounds: int) -> Frame:
    """Race the repairs against hand-written code and other packages."""
    frame = soiled.frame
    variants: dict[str, Callable[[], Any]] = {
        OURS: partial(with_ledger, frame, plan),
        HAND: partial(by_hand, frame),
    }
    if "Polars" not in skipped:
        variants["clean.apply on Polars, ledger included"] = partial(
            with_ledger, clean.on(frame, "polars"), plan
        )
    if "skrub" not in skipped:
        variants["skrub Cleaner"] = partial(by_skrub, frame)
    if "pyjanitor" not in skipped:
        variants["pyjanitor"] = partial(by_janitor, frame)
    prepares = {name: partial(_ready, run) for name, run in variants.items()}
    timed = common.race(prepares, rounds=rounds, judge=len)
    table = common.compare(timed, ours=OURS, work=len(frame), unit="rows")
    return table.rename(columns={"score": "rows_left"}).drop(columns="score_sd")


def with_ledger(frame: Any, plan: clean.Plan) -> Any:
    """Clean a frame and write its ledger."""
    cleaned = clean.apply(frame, plan)
    assert len(cleaned.ledger)
    return cleaned.frame


def by_skrub(frame: Frame) -> Frame:
    """Let skrub's Cleaner do what it does."""
    import skrub

    return skrub.Cleaner().fit_transform(frame)


def by_janitor(frame: Frame) -> Frame:
    """Do with pyjanitor what it has verbs for."""
    import janitor  # noqa: F401  it adds methods to frames

    return frame.clean_names().remove_empty().drop_duplicates()


def memory(soiled: data.Soiled, plan: clean.Plan) -> Frame:
    """Return the peak of each way beside the size of the frame, each in a process of its own."""
    size_mib = soiled.frame.memory_usage(deep=True).sum() / machine.MIB
    rows = []
    with tempfile.TemporaryDirectory() as place:
        soiled.frame.to_parquet(Path(place) / "dirty.parquet")
        (Path(place) / "plan.json").write_text(plan.to_json())
        for name, way in ((OURS, "ours"), (HAND, "hand")):
            grown = _in_a_process("--memory", way, place)["grown_mib"]
            rows.append((name, size_mib, size_mib + grown, (size_mib + grown) / size_mib))
    return pd.DataFrame(rows, columns=["variant", "frame_mib", "peak_mib", "times_the_frame"])


def grown(way: str, place: Path) -> None:
    """Print by how much the memory of this process grows at its peak while a frame is cleaned."""
    frame = pd.read_parquet(place / "dirty.parquet")
    plan = clean.Plan.from_json((place / "plan.json").read_text())
    few = frame.head(100)
    run = {"ours": lambda each: with_ledger(each, plan), "hand": by_hand}[way]
    run(few)  # what is imported on the way is no memory of the frame
    before = _peak_from_here()
    made = run(frame)
    after = machine.peak_mib(os.getpid())
    print(json.dumps({"grown_mib": (after or 0.0) - before, "rows": len(made)}))


def _peak_from_here() -> float:
    """Forget the peak so far, where the kernel can, and return what is held now, in MiB."""
    gc.collect()
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")
    return machine.peak_mib(os.getpid()) or 0.0


def looked(frame: Frame, skipped: list[str], rounds: int) -> Frame:
    """Race a look against a profile; the profile takes so long that two rounds must do."""
    variants: dict[str, Callable[[], Any]] = {LOOK: partial(clean.look, frame)}
    variants["pandas describe and nunique"] = partial(by_describe, frame)
    if "skrub" not in skipped:
        variants["skrub TableReport"] = partial(by_report, frame)
    prepares = {name: partial(_ready, run) for name, run in variants.items()}
    timed = common.race(prepares, rounds=min(rounds, 3), judge=lambda made: 0.0)
    if os.environ.get(PROFILE_PYTHON):
        timed = pd.concat([timed, profiled(frame, min(rounds, 3))], ignore_index=True)
    table = common.compare(timed, ours=LOOK, work=len(frame), unit="rows")
    return table.drop(columns=["score", "score_sd"])


def by_describe(frame: Frame) -> Any:
    """Look with pandas alone."""
    return frame.describe(include="all"), frame.nunique(), frame.isna().sum()


def by_report(frame: Frame) -> Any:
    """Look with skrub."""
    import skrub

    return skrub.TableReport(frame, verbose=0).json()


def profiled(frame: Frame, rounds: int) -> Frame:
    """Time ydata-profiling in the Python that has it."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "dirty.parquet"
        # without what this pandas notes of its types, which the other does not know
        parquet.write_table(pa.Table.from_pandas(frame).replace_schema_metadata(None), path)
        python = os.environ[PROFILE_PYTHON]
        command = [python, "-c", PROFILED, str(path), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    times = json.loads(done.stdout.splitlines()[-1])
    rows = [(PROFILE, i, *pair, 0.0) for i, pair in enumerate(times, start=1)]
    return pd.DataFrame(rows, columns=["variant", "round", "cpu_s", "wall_s", "score"])


def engines(frame: Frame, plan: clean.Plan, skipped: list[str]) -> Frame:
    """Run one plan on every engine that is here, and compare the fingerprints."""
    for kind in {doubt.kind for doubt in plan.doubts if doubt.step}:
        plan = plan.accept(kind)
    wanted = clean.fingerprint(clean.apply(frame, plan).frame)
    rows = []
    for engine, peer in ENGINES.items():
        if peer in skipped or (engine == "pyspark" and not shutil.which("java")):
            continue
        there = clean.on(frame, engine.replace("streaming", "lazy"))
        start = time.perf_counter()
        made = clean.apply(there, plan).frame
        written = time.perf_counter()
        if engine == "polars streaming":
            made = made.collect(engine="streaming")
        else:
            made = collected(wrapped(made)).to_native()
        done = time.perf_counter()
        agrees = "yes" if clean.fingerprint(made) == wanted else "no"
        rows.append((engine, agrees, written - start, done - written))
    return pd.DataFrame(rows, columns=["engine", "agrees", "write_s", "compute_s"])


def streamed(size_gb: float) -> Frame:
    """Clean a CSV of some gigabytes in a process of its own."""
    frame = dirty(min(ROWS, max(QUICK_ROWS, int(size_gb * 1e6)))).frame
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "flights.csv"
        lines = frame.to_csv(index=False).partition("\n")
        with path.open("w") as file:
            file.write(lines[0] + "\n")
            while file.tell() < size_gb * 1e9:
                file.write(lines[2])
        told = _in_a_process("--stream", str(path), str(Path(place) / "clean.parquet"))
        size_mib = path.stat().st_size / machine.MIB
    return pd.DataFrame([{"file_mib": size_mib, **told}])


def stream(path: Path, out: Path) -> None:
    """Clean a CSV by the streaming engine, and print what that took."""
    import polars as pl

    idle = machine.peak_mib(os.getpid())
    start = time.perf_counter()
    query = pl.scan_csv(path, infer_schema=False)
    # whole rows are compared in memory: in a stream of this size they cannot be
    plan = clean.plan(clean.look(query)).drop(rule="drop_duplicates")
    clean.apply(query, plan).frame.sink_parquet(out, engine="streaming")
    wall_s = time.perf_counter() - start
    rows = pl.scan_parquet(out).select(pl.len()).collect().item()
    peak = machine.peak_mib(os.getpid())
    steps = len(plan.steps)
    told = {"rows": rows, "steps": steps, "wall_s": wall_s, "idle_mib": idle, "peak_mib": peak}
    print(json.dumps(told))


def _in_a_process(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _ready(run: Callable[[], Any], _: int) -> Callable[[], Any]:
    return run


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        grown(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--stream"]:
        stream(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
