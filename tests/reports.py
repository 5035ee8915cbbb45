"""Tiny notebooks for the tests of reports: each starts a kernel and little else."""

from pathlib import Path

import nbformat
from nbformat import v4

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = "x: int = 1  # what is recorded (0 to 10)\nseed: int = 0  # of nothing"
GOOD = "from kit import report\n\nreport.record(third=x / 3, x=x)"
FAILING = "y = 1 / (x - x)\ny"
DYING = "import os, signal\n\nos.kill(os.getpid(), signal.SIGKILL)"
SLOW = "import os, time\nfrom pathlib import Path\n\n{note}\ntime.sleep(300)"


def notebook(path: Path, *cells: str, head: str = "# Tiny", parameters: str = PARAMETERS) -> Path:
    """Write a notebook of a heading, a cell of parameters and `cells`, and return its path."""
    made = [
        v4.new_markdown_cell(head),
        v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(v4.new_code_cell(source) for source in cells),
    ]
    nbformat.write(v4.new_notebook(cells=made, metadata={"kernelspec": KERNEL}), path)
    return path
