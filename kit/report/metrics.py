"""What a notebook found, in numbers: for its reader, and for the record of its run."""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from kit.base import checks
from kit.base.numbers import short

MIME = "application/vnd.modelcare.metrics+json"
Metric = bool | int | float | str | None


@dataclass(frozen=True)
class Metrics:
    """Named values that a cell shows as a table, and that `kit report` reads back from there."""

    values: Mapping[str, Metric]

    def __repr__(self) -> str:
        width = max(map(len, self.values), default=0)
        return "\n".join(f"{name:<{width}}  {shown(value)}" for name, value in self.values.items())

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(shown(value))}</td></tr>"
            for name, value in self.values.items()
        )
        # the device differs from machine to machine, and nbval compares data but not metadata
        return (
            {
                "text/plain": repr(self),
                "text/html": f"<table>{rows}</table>",
                MIME: dict(self.values),
            },
            {MIME: _device()},
        )


def record(**metrics: object) -> Metrics:
    """Note the metrics of this run; as the last value of a cell, they reach run.json.

    They travel in the output of the cell, so plain papermill and Jupyter keep them too. Fractions
    are kept at three significant digits, on the page and in the record: a stored notebook must
    say the same on the next machine. Whole numbers are kept as they are.

    Args:
        metrics: name -> number, text, true/false or None; NumPy and torch scalars are numbers. A
            number that is not finite becomes None: JSON has no word for it.

    Raises:
        TypeError: a value is none of these.

    Example:
        >>> record(log_loss=0.45678, rows=20_000)
        log_loss  0.457
        rows      20,000
    """
    return Metrics({name: _plain(name, value) for name, value in metrics.items()})


def collect(cells: Iterable[Mapping]) -> tuple[dict[str, Metric], dict[str, str] | None]:
    """Read back what `record` left in the outputs of an executed notebook; the last word counts.

    Args:
        cells: of the notebook, as nbformat gives them.

    Returns:
        The metrics, and the device that they were computed on with the reason, if any were noted.
    """
    values: dict[str, Metric] = {}
    device = None
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        if MIME in output.get("data", {}):
            values |= output["data"][MIME]
            device = output["metadata"].get(MIME, device)
    return values, dict(device) if device else None


def shown(value: object) -> str:
    """Format a value for a table: three significant digits, no word for what is not there."""
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return short(value)
    return str(value)


def _plain(name: str, value: object) -> Metric:
    if callable(getattr(value, "item", None)) and getattr(value, "size", 1) != 0:
        value = _scalar(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.3g}") if math.isfinite(value) else None
    raise checks.bad_type(
        "report.record",
        expected=f"a number, text, true/false or None for {name}",
        got=value,
        remedy=f"Pass one value: record({name}=0.5).",
    )


def _scalar(value: Any) -> object:
    try:
        return value.item()
    except (ValueError, RuntimeError):  # an array or a tensor of several
        return value


def _device() -> dict[str, str]:
    if "torch" not in sys.modules:
        return {"name": "cpu", "why": "torch was not loaded"}
    from kit.base.device import choose

    choice = choose()
    return {"name": str(choice.device), "why": choice.why}
