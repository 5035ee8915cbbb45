"""Execute one notebook through papermill, and say what became of it, whatever happens."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook, remove_error_markers

from kit.base import machine

ENGINE = "kit"  # its name at papermill
KERNEL = "python3"  # of the environment that the kit itself runs in
START_TIMEOUT_S = 120
DIED = "the kernel died: it was killed, ran out of memory or crashed"


@dataclass(frozen=True)
class Outcome:
    """What an execution left."""

    notebook: Any  # an nbformat NotebookNode with the outputs so far; None if no kernel came up
    error: dict[str, Any] | None  # as runs.ERROR_FIELDS; None if every cell ran
    traceback: str  # of the error, for --debug
    seconds: float
    peak_memory_mib: float | None


@dataclass(eq=False)
class Watch:
    """What is known of a running kernel from outside."""

    notebook: Any = None
    pid: int | None = None
    cell: int | None = None  # position of the cell that runs, from 1
    source: str = ""  # its first line
    peak_mib: float | None = None
    reason: str = ""  # why it was ended, if we ended it
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def started(self, pid: int) -> None:
        """Note the process of the kernel; end it at once if that was asked for already."""
        with self._lock:
            self.pid = pid
            if self.reason:
                _kill(pid)

    def end(self, reason: str) -> None:
        """End the kernel, now or as soon as it has started; the first reason counts."""
        with self._lock:
            self.reason = self.reason or reason
            if self.pid is not None:
                self.measure()
                _kill(self.pid)

    def gone(self) -> None:
        """Forget the process: its number may soon be another's."""
        with self._lock:
            self.pid = None

    def measure(self) -> None:
        """Read the peak memory of the process, while it is there."""
        if self.pid is not None:
            self.peak_mib = machine.peak_mib(self.pid) or self.peak_mib

    def at(self, cell_index: int, source: str) -> None:
        """Note which cell runs."""
        self.cell = cell_index + 1
        self.source = next(iter(source.strip().splitlines()), "")


class Kernels:
    """The kernels that are running, so that Ctrl-C can end them, and no others."""

    def __init__(self) -> None:
        """Begin without kernels."""
        self._watches: set[Watch] = set()
        self._lock = threading.Lock()
        self._reason = ""

    @contextmanager
    def watched(self, *, timeout: float | None) -> Iterator[Watch]:
        """List a kernel while the block runs; end it when `timeout` seconds are over."""
        watch = Watch()
        with self._lock:
            self._watches.add(watch)
            watch.reason = self._reason
        words = f"no end after {timeout or 0:g} s, the --timeout"
        timer = threading.Timer(timeout or threading.TIMEOUT_MAX, watch.end, [words])
        timer.daemon = True
        if timeout is not None:
            timer.start()
        try:
            yield watch
        finally:
            timer.cancel()
            with self._lock:
                self._watches.discard(watch)

    def end_all(self, reason: str) -> None:
        """End every kernel, also those that are still to start."""
        with self._lock:
            self._reason = reason
            watches = list(self._watches)
        for watch in watches:
            watch.end(reason)


class Engine(NBClientEngine):
    """Papermill's own engine, with an environment for the kernel and an eye on its process."""

    @classmethod
    def execute_managed_notebook(  # type: ignore[override]
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        watch: Watch,
        environment: dict[str, str],
        **_: object,
    ) -> None:
        """Run all cells; `watch` learns of the process and of each cell that begins."""
        watch.notebook = nb_man.nb
        client: PapermillNotebookClient = PapermillNotebookClient(
            nb_man,
            timeout=None,
            startup_timeout=START_TIMEOUT_S,
            kernel_name=kernel_name,
            shutdown_kernel="immediate",  # it has nothing left to say, and waiting costs
            on_notebook_start=lambda **_: watch.started(client.km.provisioner.pid),
            on_cell_start=lambda cell, cell_index: watch.at(cell_index, cell.source),
            on_cell_executed=lambda **_: watch.measure(),
        )
        try:
            # what the kernel's process itself prints are warnings about its ports
            client.execute(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            watch.gone()


papermill_engines.register(ENGINE, Engine)


def execute(
    path: Path,
    parameters: Mapping[str, Any],
    *,
    unfinished: Path,
    kernels: Kernels,
    threads: int = 1,
    timeout: float | None = None,
) -> Outcome:
    """Run the notebook at `path` in a kernel of its own, in the present working directory.

    Args:
        path: the notebook; it stays as it is.
        parameters: name -> value, injected by papermill after the cell tagged `parameters`.
        unfinished: file that holds the notebook as far as it has come.
        kernels: where the kernel is listed while it lives.
        threads: most threads that the kernel's numerical libraries take.
        timeout: seconds for the whole run; None waits for ever.

    Returns:
        The notebook with its outputs, and the error if a cell failed or the kernel died.

    Raises:
        OSError: `unfinished` cannot be written.
    """
    start = time.perf_counter()
    error, traceback = None, ""
    with kernels.watched(timeout=timeout) as watch:
        run = partial(
            execute_notebook,
            _unformatted(path),
            _unformatted(unfinished),
            dict(parameters),
            engine_name=ENGINE,
            kernel_name=KERNEL,
            progress_bar=False,
            watch=watch,
            environment=_environment(threads),
        )
        try:
            _with_second_start(run, watch)
        except OSError:
            raise
        except Exception as raised:  # whatever ends a run is its outcome, and other runs go on
            error, traceback = _told(raised, watch)
    return Outcome(
        notebook=_tidied(watch.notebook),
        error=error,
        traceback=traceback,
        seconds=time.perf_counter() - start,
        peak_memory_mib=watch.peak_mib,
    )


def _with_second_start(run: Callable[[], object], watch: Watch) -> None:
    """Run once more if the kernel never came up: two processes may draw the same free port."""
    try:
        run()
    except RuntimeError:
        if watch.cell is not None or watch.reason:
            raise
        run()


def _environment(threads: int) -> dict[str, str]:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        threads = min(threads, int(asked))
    ours = {"KIT_QUIET": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": str(threads)}
    return {**os.environ, **ours}


def _unformatted(path: Path) -> str:
    """Double the braces of a path: papermill would fill them in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _told(raised: Exception, watch: Watch) -> tuple[dict[str, Any], str]:
    """Describe an error as run.json holds it, and return its traceback beside it."""
    kind, message, text = type(raised).__name__, str(raised), ""
    if isinstance(raised, PapermillExecutionError):
        kind, message, text = raised.ename, raised.evalue, "\n".join(raised.traceback)
    elif isinstance(raised, DeadKernelError):
        message = DIED
    if watch.reason:
        kind, message = "Ended", watch.reason
    line = " ".join(message.split())
    return {"cell": watch.cell, "source": watch.source, "type": kind, "message": line}, text


def _tidied(notebook: Any) -> Any:
    """Drop papermill's own error cells and file names: the page says both in its own way."""
    if notebook is None:
        return None
    for name in ("input_path", "output_path"):
        notebook.metadata.papermill.pop(name, None)
    return remove_error_markers(notebook)


def _kill(pid: int) -> None:
    """End a kernel together with what it started: it leads a process group of its own."""
    with suppress(ProcessLookupError):  # it has ended by itself
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)
