"""The file that a book of trials is kept in: opened whole, locked, and its faults told."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.base import checks
from kit.tune.space import WHERE

if TYPE_CHECKING:
    import optuna

LOCK_S = 60.0  # that another process may hold the journal; it writes for milliseconds


def opened(path: Path) -> "optuna.storages.BaseStorage":
    """Open a journal, without the half line that a process was killed while writing."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(path)
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        *lines, rest = path.read_bytes().split(b"\n")
        for line in lines:  # Optuna would find a damaged last line only after the next one
            json.loads(line)["op_code"]
        if rest:
            os.truncate(path, path.stat().st_size - len(rest))
    finally:
        lock.release()
    return JournalStorage(backend)


def lock_of(path: Path) -> Any:
    """Return a lock that the system releases when its process is killed, where there is one."""
    from optuna.storages.journal import JournalFileOpenLock

    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return JournalFileOpenLock(str(path))

    class KernelLock:
        def acquire(self) -> bool:
            self._file = Path(f"{path}.lock").open("a")  # noqa: SIM115  until it is released
            until = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(
                            f"locked by another process for {LOCK_S:.0f} s"
                        ) from None
                    time.sleep(0.002)
                else:
                    return True

        def release(self) -> None:
            self._file.close()

    return KernelLock()


@contextmanager
def told(storage: Any) -> Iterator[None]:
    """Say in one line what is wrong with a journal."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        if not isinstance(storage, str | Path):
            raise
        name = Path(storage).name
        what = error.strerror or str(error) if isinstance(error, OSError) else "a damaged file"
        raise checks.bad_value(
            WHERE,
            expected=f"a journal of trials that can be read and written as {name}",
            got=checks.Described(what),
            remedy="Pass another storage= to start anew, or mend the file.",
        ) from None
