"""Execute the notebooks, clean them, and stamp time and memory into each header.

python notebooks/execute.py [PATH …]      (make notebooks)
"""

import os
import re
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

os.environ |= {"KIT_QUIET": "1", "MPLBACKEND": "Agg"}
HERE = Path(__file__).resolve().parent
STAMP = re.compile(r"^Takes .* measured \d{4}-\d\d-\d\d$", re.M)
CORES = 2  # that the header speaks of
KEPT = {"tags", "jupyter"}  # of a cell's metadata; the rest is an editor's
CELL_TIMEOUT_S = 300


def execute(path: Path) -> None:
    """Run one notebook and write it back with clean outputs, or leave it untouched on an error."""
    import nbformat
    from nbclient import NotebookClient

    from kit.base import storage

    notebook = nbformat.read(path, as_version=4)
    clean(notebook)
    if not STAMP.search(notebook.cells[0].source):
        sys.exit(
            f"{path.name}: expected a line `Takes … measured YYYY-MM-DD` in the first cell, "
            f"got {notebook.cells[0].source!r}. Add: Takes 0 s · measured 2026-01-01"
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    clean(notebook)
    stamp(notebook, seconds, _peak_gb())
    storage.write_text(path, nbformat.writes(notebook) + "\n")
    print(f"{path.name}: {seconds:.0f} s")


def clean(notebook: dict) -> None:
    """Drop what changes from run to run and from editor to editor, in place."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:03d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in KEPT}


def stamp(notebook: dict, seconds: float, gb: float) -> None:
    """Write what the run took into the first cell, in place of the line that stood there."""
    cores = min(CORES, os.cpu_count() or 1)
    line = (
        f"Takes {seconds:.0f} s and {gb:.1f} GB on {cores} CPU cores · "
        f"measured {datetime.now(UTC):%Y-%m-%d}"
    )
    head = notebook.cells[0]
    head.source = STAMP.sub(line, head.source)


def _peak_gb() -> float:
    """Return the largest memory of any kernel that has ended, in GB (Linux counts in KiB)."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all of them, each in a process of its own."""
    import subprocess

    paths = [Path(name).resolve() for name in names] or sorted(
        p for p in HERE.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    )
    if len(paths) == 1:
        execute(paths[0])
        return
    for path in paths:
        subprocess.run([sys.executable, __file__, str(path)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
