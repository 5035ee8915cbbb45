"""Run notebooks, several at a time: each in a folder of its own, whatever becomes of the others."""

import errno
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from papermill.iorw import local_file_io_cwd

from kit.base import checks, machine, storage
from kit.report import index, metrics, notebooks, page, runs
from kit.report.execute import Kernels, Outcome, execute
from kit.report.job import Job

UNFINISHED = ".unfinished.ipynb"
FIGURE = "figure.png"
INTERRUPTED = "interrupted by Ctrl-C"


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    job: Job
    folder: Path
    run: Mapping[str, Any]  # as in run.json
    traceback: str = ""


def run_all(
    jobs: Sequence[Job],
    *,
    out: Path,
    workers: int = 1,
    timeout: float | None = None,
    code: bool = False,
    tell: Callable[[Done], None] = lambda done: None,
) -> list[Done]:
    """Run every job and rebuild the index after each.

    A thread waits for each kernel, and the kernels are processes of their own: one that dies
    takes nothing with it.

    Args:
        jobs: what to run.
        out: folder that gets a folder a run and the index.
        workers: jobs at the same time; the cores are shared out among them.
        timeout: seconds for each run.
        code: show code cells on the pages.
        tell: is called with each run when it is done, in the calling thread.

    Returns:
        The runs in the order in which they ended.

    Raises:
        KeyboardInterrupt: after the kernels have been ended and what was done is on disk.
        OSError: the index cannot be written.
    """
    kernels = Kernels()
    threads = max(1, machine.cores() // workers)
    done: list[Done] = []
    # papermill keeps one working directory for all threads, and each run puts back what it found
    with local_file_io_cwd(), ThreadPoolExecutor(workers, thread_name_prefix="run") as pool:
        futures = [
            pool.submit(
                run_one, job, out=out, kernels=kernels, threads=threads, timeout=timeout, code=code
            )
            for job in jobs
        ]
        try:
            for future in as_completed(futures):
                done.append(future.result())
                with suppress(OSError):  # a full disk: said once, by the last try below
                    index.rebuild(out)
                tell(done[-1])
        except BaseException:
            for future in futures:
                future.cancel()
            kernels.end_all(INTERRUPTED)
            pool.shutdown(wait=True)
            index.rebuild(out)
            raise
    index.rebuild(out)
    return done


def run_one(
    job: Job,
    *,
    out: Path,
    kernels: Kernels,
    threads: int,
    timeout: float | None,
    code: bool,
) -> Done:
    """Run one job in a new folder below `out`, and write notebook, page and record there."""
    started, clock = runs.now(), time.perf_counter()
    folder = None
    try:
        folder = claim(out, job.name)
        outcome = execute(
            job.path,
            job.given,
            unfinished=folder / UNFINISHED,
            kernels=kernels,
            threads=threads,
            timeout=timeout,
        )
        run = _record(job, outcome, started)
        _write(folder, job, outcome, run, code)
        return Done(job, folder, run, outcome.traceback)
    except Exception as error:  # a full disk, say: other runs still get their chance
        return _lost(job, folder, out, error, started, time.perf_counter() - clock)
    finally:
        if folder:
            (folder / UNFINISHED).unlink(missing_ok=True)


def claim(out: Path, name: str) -> Path:
    """Make a folder that no other run has, and return it.

    Args:
        out: the folder of all runs.
        name: of the notebook; the time and, if need be, a number follow it.
    """
    stamp = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = out / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)  # fails if it is there: two runs can never share one
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() has no end")


def _record(job: Job, outcome: Outcome, started: str) -> dict[str, Any]:
    cells = outcome.notebook.cells if outcome.notebook else []
    found, device = metrics.collect(cells)
    parameters = job.parameters()
    seed = parameters.get("seed")
    return {
        "schema": runs.SCHEMA,
        "notebook": job.name,
        "title": notebooks.title(job.path),
        "started": started,
        "status": runs.FAILED if outcome.error else runs.OK,
        "error": outcome.error,
        "parameters": parameters,
        "metrics": found,
        "seed": seed if isinstance(seed, int) else None,
        "seconds": round(outcome.seconds, 2),
        "peak_memory_mib": outcome.peak_memory_mib and round(outcome.peak_memory_mib, 1),
        "device": device,
        "versions": runs.versions(),
        "git": runs.git(job.path),
        "files": {"notebook": None, "page": None, "figure": None, "figure_alt": None},
    }


def _write(folder: Path, job: Job, outcome: Outcome, run: dict[str, Any], code: bool) -> None:
    """Write the files of a run, the record last: who finds it finds the others."""
    if outcome.notebook is not None:
        run["files"] |= {"notebook": f"{job.name}.ipynb", "page": f"{job.name}.html"}
        storage.write_text(folder / run["files"]["notebook"], nbformat.writes(outcome.notebook))
        html = page.render(outcome.notebook, run, code=code)
        storage.write_text(folder / run["files"]["page"], html)
        if figure := page.first_figure(outcome.notebook):
            run["files"] |= {"figure": FIGURE, "figure_alt": figure[1]}
            with storage.atomic(folder / FIGURE) as part:
                part.write_bytes(figure[0])
    storage.write_json(folder / runs.FILE, runs.validate(run))


def _lost(
    job: Job, folder: Path | None, out: Path, error: Exception, started: str, seconds: float
) -> Done:
    """Return the record of a run that could not be written, and leave what of it can be."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = str(
            checks.bad_value(
                "kit report",
                expected="room on the disk",
                got=checks.Described(f"none left below {folder or out}"),
                remedy="Free some, or type --out with a folder on another disk.",
            )
        )
    told = {"cell": None, "source": "", "type": type(error).__name__, "message": message}
    outcome = Outcome(None, told, traceback.format_exc(), seconds, None)
    run = _record(job, outcome, started)
    if folder:
        with suppress(OSError):
            storage.write_json(folder / runs.FILE, run)
        with suppress(OSError):
            folder.rmdir()  # only if nothing at all could be written
    return Done(job, folder or out, run, outcome.traceback)
