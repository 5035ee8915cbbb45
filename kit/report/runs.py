"""The record of a run: what is in run.json, and whether a run.json is one of ours."""

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from kit.base import checks

SCHEMA = 1
FILE = "run.json"
OK, FAILED = "ok", "failed"
PACKAGES = ("modelcare", "torch", "numpy", "pandas", "scikit-learn", "matplotlib", "papermill")
NUMBER = (int, float)
OPTIONAL_NUMBER = (*NUMBER, type(None))
# every field with its types, so that another program can rely on them
FIELDS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "notebook": (str,),  # its file name without .ipynb
    "title": (str,),
    "started": (str,),  # ISO 8601, UTC
    "status": (str,),  # "ok" or "failed"
    "error": (dict, type(None)),  # ERROR_FIELDS, of a failed run
    "parameters": (dict,),  # all of them, the defaults too, with their JSON types
    "metrics": (dict,),  # what the notebook gave to report.record
    "seed": (int, type(None)),  # the parameter of that name, if there is one
    "seconds": NUMBER,  # wall time, kernel start included
    "peak_memory_mib": OPTIONAL_NUMBER,  # of the kernel
    "device": (dict, type(None)),  # {"name", "why"}, noted by report.record
    "versions": (dict,),
    "git": (dict, type(None)),  # {"revision", "dirty"}; null outside git
    "files": (dict,),  # notebook, page and figure: names in this folder, or null
}
ERROR_FIELDS: dict[str, tuple[type, ...]] = {
    "cell": (int, type(None)),  # of the executed notebook, counted from 1; null outside a cell
    "source": (str,),  # first line of that cell
    "type": (str,),
    "message": (str,),  # one line
}


def validate(run: object) -> dict[str, Any]:
    """Check that `run` has every field of schema 1, with its type, and no other.

    Args:
        run: what a run.json holds.

    Returns:
        The run itself.

    Raises:
        ValueError: the first thing that is wrong.
    """
    if not isinstance(run, dict):
        raise _wrong("an object", type(run).__name__)
    _check_fields(run, FIELDS, "")
    if run["schema"] != SCHEMA:
        raise _wrong(f"schema {SCHEMA}", str(run["schema"]))
    if run["status"] not in (OK, FAILED):
        raise _wrong(f"status {OK!r} or {FAILED!r}", repr(run["status"]))
    if (run["error"] is None) != (run["status"] == OK):
        raise _wrong("an error if, and only if, the run failed", f"{run['status']}, {run['error']}")
    if run["error"] is not None:
        _check_fields(run["error"], ERROR_FIELDS, "error.")
    return run


def read(path: Path) -> dict[str, Any]:
    """Read one run.json.

    Raises:
        ValueError: not JSON, or not a run of schema 1.
    """
    return validate(json.loads(path.read_text(encoding="utf-8")))


def now() -> str:
    """Return the present time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git(path: Path) -> dict[str, Any] | None:
    """Return revision and dirtiness of the working tree that holds `path`; None outside git."""
    revision, status = _git(path, "rev-parse", "HEAD"), _git(path, "status", "--porcelain")
    if revision is None or status is None:
        return None
    return {"revision": revision.strip(), "dirty": bool(status.strip())}


def _git(path: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(path.parent), *words], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return done.stdout if done.returncode == 0 else None


def _check_fields(
    given: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]], prefix: str
) -> None:
    for name in [*given, *fields]:
        if name not in fields or name not in given:
            raise _wrong(f"the fields {', '.join(fields)}", f"{prefix}{name} missing or unknown")
    for name, types in fields.items():
        # JSON's true is no number, but Python's True is an int
        if type(given[name]) not in types:
            names = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise _wrong(f"{prefix}{name} of type {names}", repr(given[name]))


def _wrong(expected: str, got: str) -> ValueError:
    return checks.bad_value(
        "runs.validate",
        expected=expected,
        got=checks.Described(got),
        remedy="Run the report again.",
    )
