"""The form in which this machine computes a model fastest, for each number of rows."""

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise
from numbers import Real
from typing import Any

import pandas as pd
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from kit.base import checks, device, progress
from kit.base.memory import halved
from kit.base.results import Result, result, short
from kit.infer import contest, forms
from kit.infer.forms import Form, Subject
from kit.infer.inputs import (
    are_counts,
    check_alike,
    check_model,
    check_outputs,
    check_rows,
    copied,
    within_memory,
)

PARTS = 32  # batches of each size on which the drift is measured
SHAPES = 1024  # whose form is remembered


@result
class Optimised(Result):
    """Hold the fastest forms of a model, and call it: `optimised(x)` takes any number of rows.

    It is a copy: training the model afterwards does not change it. `table` has one row for each
    size and form: rows, form, median_ms, speedup over eager (and in the quieter laps), drift, kept,
    and the reason why not.
    """

    kept: dict[int, str]  # rows -> form
    tolerance: float
    form_for: Callable[[torch.Size, torch.dtype, bool], Form]  # of x: shape, type, gradient

    def facts(self) -> dict[str, str]:
        """Return the form kept for each size with its speed-up, and the largest drift of those."""
        kept = self.table[self.table["kept"]]
        facts = {
            f"{row.rows:,} {'row' if row.rows == 1 else 'rows'}": f"{row.form} {row.speedup:.3g}×"
            for row in kept.itertuples()
        }
        return facts | {"drift": short(kept["drift"].max())}

    def __call__(self, x: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "rows ..."]:
        """Return the model's outputs, by the form of the nearest size.

        What is not shaped and typed as the example was, or asks for gradients, is computed as the
        model itself computes it.
        """
        return self.form_for(x.shape, x.dtype, x.requires_grad)(x)


def optimise(
    model: nn.Module,
    x: Shaped[Tensor, "rows ..."],
    *,
    tolerance: float,
    sizes: Sequence[int] = (1, 16, 256),
    also: Sequence[str] = (),
) -> Optimised:
    """Find the form of `model` that is fastest here for each number of rows.

    Tried are: the layers called directly (nn.Sequential), matrix products that round inside,
    bfloat16 (all of it, or by autocast), int8 weights, ONNX Runtime in float32 and int8 (with the
    extra `onnx`), and those that are asked for. What cannot be tried is in the table with its
    reason. A form is kept where its drift is within the tolerance and it is clearly faster than
    eager, at least 1.05 times, when both take turns; otherwise eager stays.

    Args:
        model: any module that takes one tensor, rows first, and returns one; it is not changed.
        x: example rows, the more like the real ones the better: drift is measured on them.
        tolerance: the largest drift allowed: the largest difference from an output of eager, in
            standard deviations of all outputs of eager. 1e-4 lets only float32 pass, 0.1 int8.
        sizes: numbers of rows to find a form for; where `x` has fewer, its rows are repeated.
        also: forms that take long to make and hold for exactly one size: "compile" and "graphs"
            (CUDA graphs).

    Returns:
        The forms kept, to be called as the model is, and all that was tried.

    Raises:
        ValueError: no rows, a tolerance or size out of range, an unknown form, or outputs that are
            not finite, or not one row for each of `x`.
        TypeError: what is no module, no tensor, or does not return one.
        MemoryError: a single row is too much.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> fast = optimise(model, torch.randn(16, 4), tolerance=1e-3, sizes=[16])
        >>> torch.allclose(fast(torch.ones(3, 4)), model(torch.ones(3, 4)), atol=1e-3)
        True
    """
    sizes = _checked(model, x, tolerance, sizes, also)
    subject, spread = _subject(model, x[: PARTS * sizes[-1]], sizes[-1])
    flexible = {name: contest.made(make, subject) for name, make in forms.FLEXIBLE.items()}
    tries: list[contest.Try] = []
    dispatch = {}
    for n in progress.track(sizes, label="size"):
        parts = _parts(subject.x, n)
        at_n = replace(subject, x=parts[0])
        fixed = {name: contest.made(forms.FIXED[name], at_n) for name in also}
        entrants = flexible | fixed
        found = contest.measured(subject, entrants, parts, spread)
        best, nearby = (contest.best(found, names, tolerance) for names in (entrants, flexible))
        contest.judge(found, best, nearby, tolerance)
        tries += found.values()
        dispatch[n] = fixed.get(best), flexible.get(nearby, subject.model)
    return Optimised(
        table=pd.DataFrame(tries),
        kept={each.rows: each.form for each in tries if each.kept},
        tolerance=tolerance,
        form_for=_dispatcher(subject, dispatch),
    )


def _dispatcher(
    subject: Subject, dispatch: Mapping[int, tuple[Form | None, Form]]
) -> Callable[[torch.Size, torch.dtype, bool], Form]:
    """Return a function from shape, type and need of gradients to the form to call."""
    # these alone are held on to: the rows and the exported graph may be large
    model, sizes = subject.model, list(dispatch)
    seen = subject.x.shape[1:], subject.x.dtype
    exact = {n: form for n, (form, _) in dispatch.items()}
    nearest: list[Form] = [model, *(nearby for _, nearby in dispatch.values())]
    # halfway between neighbours by factors, as times go by factors too; no rows go to the model
    cuts = [1.0, *(math.sqrt(low * high) for low, high in pairwise(sizes))]

    @lru_cache(SHAPES)
    def form_for(shape: torch.Size, dtype: torch.dtype, needs_gradient: bool) -> Form:
        if needs_gradient or not shape or (shape[1:], dtype) != seen:
            return model
        return exact.get(shape[0]) or nearest[bisect(cuts, shape[0])]

    return form_for


def _subject(model: nn.Module, x: Tensor, at_once: int) -> tuple[Subject, float]:
    """Return a copy of the model with its rows, and the spread of its outputs."""
    twin = copied("infer.optimise", model).eval().requires_grad_(False)
    x = x.detach().to(device.of(model), copy=True)
    with torch.no_grad(), within_memory("infer.optimise", "one row", remedy="Shrink the model."):
        outputs, _ = halved(partial(_outputs, twin, x), at_once, x.device)
    together = torch.cat(outputs).double()
    if not torch.isfinite(together).all():
        n_bad = int((~torch.isfinite(together)).sum())
        raise checks.bad_value(
            "infer.optimise",
            expected="finite outputs",
            got=checks.Described(f"{n_bad} NaN or infinite numbers"),
            remedy="Drift cannot be told from those: look at the model and at x.",
        )
    # outputs that are all the same have no spread: then what counts is their size
    spread = float(together.std(correction=0)) or float(together.abs().amax()) or 1.0
    return Subject(twin, x, outputs[0].dtype), spread


def _outputs(model: nn.Module, x: Tensor, at_once: int) -> list[Tensor]:
    outputs: list[Tensor] = []
    for part in x.split(at_once):
        outputs.append(model(part))
        check_outputs("infer.optimise", outputs[-1], len(part))
        check_alike("infer.optimise", outputs[-1], outputs[0])
    return outputs


def _parts(x: Tensor, n: int) -> list[Tensor]:
    """Return batches of exactly `n` rows, at most PARTS of them; few rows are repeated."""
    n_parts = min(PARTS, max(1, len(x) // n))
    order = torch.arange(n * n_parts, device=x.device) % len(x)
    return list(x[order].split(n))


def _checked(model: Any, x: Any, tolerance: Any, sizes: Any, also: Sequence[str]) -> list[int]:
    """Return the sizes in order, each once, or refuse what makes no sense."""
    check_model("infer.optimise", model)
    check_rows("infer.optimise", x)
    if len(x) == 0:
        raise checks.bad_value(
            "infer.optimise", expected="at least one row", got=x, remedy="Pass X[:256]."
        )
    if not (isinstance(tolerance, Real) and float(tolerance) > 0):
        raise checks.bad_value(
            "infer.optimise",
            expected="tolerance > 0",
            got=tolerance,
            remedy="Pass tolerance=0.1 to allow int8, 1e-4 for float32 alone.",
        )
    if not are_counts(sizes):
        raise checks.bad_value(
            "infer.optimise",
            expected="sizes of 1 or more, at least one",
            got=sizes,
            remedy="Pass sizes=(1, 16, 256).",
        )
    for name in also:
        if name not in forms.FIXED:
            raise checks.unknown_name(
                "infer.optimise", "form to ask for", got=name, known=forms.FIXED
            )
    return sorted(set(sizes))
