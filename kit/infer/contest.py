"""The forms of a model held against eager, for one number of rows: drift and time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kit.base.memory import ran_out
from kit.base.results import short
from kit.infer.forms import CannotTry, Form, Subject
from kit.infer.laps import laps_ms

EAGER = "eager"
MARGIN = 1.05  # times as fast as eager that a form must be, or eager stays
LINE = 160  # letters of a reason


def made(make: Callable[[Subject], Form], subject: Subject) -> Form:
    """Return the form, or one that says at its first call why it could not be made."""
    try:
        return make(subject)
    except Exception as error:  # packages raise what they like; a form must not stop the rest
        reason = _reason(error)

    def refuse(x: Tensor) -> Tensor:
        raise CannotTry(reason)

    return refuse


@dataclass
class Try:
    """One row of the table."""

    rows: int
    form: str
    median_ms: float = np.nan
    speedup: float = np.nan  # over eager: median of the laps
    speedup_quiet: float = np.nan  # of the lower quartiles: what disturbs only ever adds time
    drift: float = np.nan
    kept: bool = False
    reason: str = ""

    @property
    def sure(self) -> float:
        """Return the speed-up that both ways of measuring agree on."""
        return min(self.speedup, self.speedup_quiet)

    @property
    def is_ahead(self) -> bool:
        """Tell whether it is clearly faster than eager."""
        return self.sure >= MARGIN


def measured(
    subject: Subject, entrants: Mapping[str, Form], parts: Sequence[Tensor], spread: float
) -> dict[str, Try]:
    """Measure drift and time of all forms, eager first, for one number of rows."""
    n, eager = len(parts[0]), subject.model
    try:
        with torch.no_grad():
            expected = [eager(part) for part in parts]
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return {name: Try(n, name, reason=_reason(error)) for name in (EAGER, *entrants)}
    # what is timed is what will be called: nothing around it
    found, calls = {EAGER: Try(n, EAGER, drift=0.0)}, {EAGER: partial(eager, parts[0])}
    for name, form in entrants.items():
        found[name] = Try(n, name)
        try:
            found[name].drift = _drift(form, parts, expected, spread)
            calls[name] = partial(form, parts[0])
        except Exception as error:
            found[name].reason = _reason(error)
    times = laps_ms(calls, subject.where)
    for name, each in times.items():
        beside = times[EAGER][: len(each)]
        found[name].median_ms = float(np.median(each))
        found[name].speedup = float(np.median(beside / each))
        found[name].speedup_quiet = float(np.quantile(beside, 0.25) / np.quantile(each, 0.25))
    return found


def _drift(form: Form, parts: Sequence[Tensor], expected: Sequence[Tensor], spread: float) -> float:
    """Return the largest difference from what is expected, in units of `spread`."""
    worst = []
    for part, wanted in zip(parts, expected, strict=True):
        outputs = form(part)
        if outputs.shape != wanted.shape or outputs.dtype != wanted.dtype:
            raise CannotTry(f"returns {outputs.dtype} of shape {tuple(outputs.shape)}")
        worst.append((outputs.double() - wanted.double()).abs().amax())
    return float(torch.stack(worst).amax()) / spread


def best(found: Mapping[str, Try], names: Iterable[str], tolerance: float) -> str:
    """Return the fastest form within the tolerance that is clearly faster than eager, or eager."""
    ahead = [each for name in names if (each := found[name]).drift <= tolerance and each.is_ahead]
    return max(ahead, key=lambda each: each.sure).form if ahead else EAGER


def judge(found: Mapping[str, Try], winner: str, nearby: str, tolerance: float) -> None:
    """Write into each row, in place, whether it is kept or why not."""
    for name, each in found.items():
        each.kept = name == winner and not each.reason
        if each.kept or each.reason:
            continue
        if not each.drift <= tolerance:
            each.reason = f"drift {short(each.drift)} > tolerance {short(tolerance)}"
        elif name == nearby:
            each.reason = f"slower than {winner}; used for nearby numbers of rows"
        elif name == EAGER or each.is_ahead:
            each.reason = f"slower than {winner}"
        else:
            each.reason = "not clearly faster than eager"


def _reason(error: Exception) -> str:
    if isinstance(error, CannotTry | ModuleNotFoundError):
        return str(error)
    if isinstance(error, RuntimeError) and ran_out(error):
        return "out of memory"
    cause = error.__cause__ or error
    line = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {line}"[:LINE]
