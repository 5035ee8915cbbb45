"""Examine the machine and the installation: what is here, what is missing, what to type."""

import sys
from dataclasses import dataclass
from importlib import metadata
from platform import platform, python_version

import pandas as pd
from packaging.requirements import Requirement

from kit.base import device, machine
from kit.base.results import Result, result, short

PROJECT = "modelcare"
REQUIRED = ""  # the name of the extra that is none


@result
class Checkup(Result):
    """Hold what was found; `table` has one row a thing that was looked at."""

    commands: tuple[str, ...]  # that mend what is missing

    def facts(self) -> dict[str, str]:
        """Return Python, cores, memory, device, and whether something is missing."""
        rows = self.table.set_index("what")["found"]
        n_missing = len(self.commands)
        return {name: rows[name] for name in ("python", "cores", "memory", "device")} | {
            "missing": "; ".join(self.commands) if n_missing else "nothing"
        }

    def text(self) -> str:
        """Return the table as lines for a terminal, and below it what to type."""
        width = self.table["what"].str.len().max()
        lines = [
            f"{row.what:<{width}}  {row.found}" + (f"  {row.note}" if row.note else "")
            for row in self.table.itertuples()
        ]
        return "\n".join([*lines, *(f"To add what is missing: {each}" for each in self.commands)])


@dataclass(frozen=True)
class _Package:
    name: str
    extra: str
    found: str  # its version; empty where it is not installed
    wanted: str  # such as >=2.6

    @property
    def fits(self) -> bool:
        wanted = Requirement(f"{self.name}{self.wanted}").specifier
        return bool(self.found) and wanted.contains(self.found, prereleases=True)


def examine() -> Checkup:
    """Look at versions, cores, memory, GPU and packages; name the command for what is missing.

    Returns:
        One row a thing; `commands` says what to type, and is empty if nothing is missing.
    """
    choice = device.choose()
    rows = [
        ("python", python_version(), "in a .venv" if sys.prefix != sys.base_prefix else ""),
        ("system", platform(), ""),
        ("cores", str(machine.cores()), "that this process may use"),
        ("memory", f"{short(machine.memory_mib() / 1024)} GiB", ""),
        ("device", str(choice.device), choice.why),
    ]
    packages = _packages()
    for each in packages:
        note = "" if each.fits else f"expected {each.name}{each.wanted}"
        note += f" (for {PROJECT}[{each.extra}])" if note and each.extra else ""
        rows.append((each.name, each.found or "missing", note))
    return Checkup(
        table=pd.DataFrame(rows, columns=["what", "found", "note"]), commands=_commands(packages)
    )


def _packages() -> list[_Package]:
    """Return the packages that the installed metadata asks for, those of the extras last."""
    found = [_Package(PROJECT, REQUIRED, _version(PROJECT), "")]
    for line in metadata.requires(PROJECT) or []:
        asked = Requirement(line)
        extra = _extra(asked)
        if extra == REQUIRED and asked.marker and not asked.marker.evaluate():
            continue  # for another system or another Python
        found.append(_Package(asked.name, extra, _version(asked.name), str(asked.specifier)))
    return sorted(found, key=lambda each: each.extra)


def _commands(packages: list[_Package]) -> tuple[str, ...]:
    """Return one command for each extra that lacks something, to type in the project's folder."""
    lacking = dict.fromkeys(each.extra for each in packages if not each.fits)
    return tuple(
        f"pip install -e '.[{extra}]'" if extra else "pip install -e ." for extra in lacking
    )


def _extra(asked: Requirement) -> str:
    """Return the extra that a requirement belongs to."""
    names = metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    if asked.marker is None or asked.marker.evaluate({"extra": ""}):
        return REQUIRED
    return next((name for name in names if asked.marker.evaluate({"extra": name})), REQUIRED)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
