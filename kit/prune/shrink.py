"""Make a model smaller: neurons, heads and layers go, and what is left makes up for them."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor, nn

from kit.base import checks
from kit.base.modes import evaluating
from kit.prune import choose, inputs, layers
from kit.prune.distil import distil
from kit.prune.families import Family
from kit.prune.graphs import Rebuilt
from kit.prune.inputs import Rows
from kit.prune.mixed import mixed
from kit.prune.narrow import Done, narrow
from kit.prune.pruned import Pruned, parameters, remember

WHERE = "prune.shrink"
# a higher rate sets back what is nearly right: code-gpt then stayed where it was, at 0.042 nats
LANGUAGE: dict[str, Any] = {"lr": 2e-4, "temperature": 1.0}
WHAT = ("neurons", "heads", "heads+ffn", "layers", "auto")


def shrink(
    model: nn.Module,
    calibration: Tensor | Mapping[str, Tensor],
    *,
    keep: float = 0.75,
    what: str = "neurons",
    method: str = "obs",
    recover: int = 0,
) -> Pruned:
    """Return a smaller, dense copy of a model, without labels and without fine-tuning.

    Which numbers go together is found by tracing the model: what writes a neuron and what reads it,
    through reshapes, fused and shared weights, gates and residual sums. A part that cannot lose
    units safely is left whole and named in `left`. The copy is of the model's own class where its
    forward follows the new sizes, else it is the model's graph with new sizes; either is held
    against the original with zeros in place of what went, before anything is returned.

    Args:
        model: any module in float; it is not changed.
        calibration: rows like those that the model will see, without labels; or tensors by the
            names of the model's arguments. A few hundred rows; more columns need more.
        keep: the fraction of each layer's units that stays at least, 0 < keep <= 1; for "layers" of
            the layers, for "auto" of the parameters (at most).
        what: "neurons" (of hidden layers, channels, numbers of an embedding), "heads" (of
            attention; those that share keys and values go together), "heads+ffn" (both), "layers"
            (whole ones of a stack), or "auto": as many layers as are worth it and then units, by
            drift for each millisecond saved here.
        method: "obs" removes what costs least at second order and refits the rest in closed form;
            "magnitude" (L2 of all weights of a unit) and "activation" (what a unit adds to its
            readers) only remove.
        recover: steps of `prune.distil` afterwards, on the calibration.

    Returns:
        The copy, with a row for each part: its kind, units, and how many were kept.

    Raises:
        ValueError: an argument out of range, a quantised model, calibration that does not fit, or
            no part that could lose such units.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> import torch
        >>> shrink(model, torch.randn(64, 4), keep=0.25).model[0].out_features
        8

    Source:
        Hassibi and Stork: Optimal Brain Surgeon, 1993. Frantar and Alistarh: SparseGPT, 2023.
    """
    inputs.check(WHERE, model, calibration)
    inputs.check_fraction(WHERE, "keep", keep, remedy="Pass keep=0.75: a quarter of the units go.")
    inputs.check_choice(WHERE, "what", what, WHAT)
    inputs.check_choice(WHERE, "method", method, choose.METHODS)
    _check_recover(recover)
    if what == "layers":
        done = _fewer_layers(model, calibration, keep)
    elif what == "auto":
        done = mixed(model, calibration, keep=keep, method=method, where=WHERE)
    else:
        counts = partial(_count, keep=keep, what=what)
        done = narrow(model, calibration, counts=counts, method=method, where=WHERE)
    if keep < 1 and not done.table:
        raise _nothing(what, done.left)
    if recover:
        told: dict[str, Any] = LANGUAGE if _is_language(done.model, calibration) else {}
        distil(done.model, model, calibration, steps=recover, **told)
    return _told(model, done, recover)


def _count(family: Family, *, keep: float, what: str) -> int:
    if (what == "neurons" and family.heads) or (what == "heads" and not family.heads):
        return family.units
    return stays(family.units, keep)


def stays(units: int, keep: float) -> int:
    """Return how many of so many units are at least this fraction.

    Example:
        >>> stays(5, 0.5), stays(10, 0.7), stays(3, 0.01)
        (3, 7, 1)
    """
    return max(1, math.ceil(keep * units - 1e-9))


def _fewer_layers(model: nn.Module, rows: Rows, keep: float) -> Done:
    n = len(layers.removable(model, rows))
    smaller, gone = layers.drop(model, rows, n=n - stays(n, keep) if n else 0)
    steps = [{"at": row["part"], "as": "without"} for row in gone]
    table = [{"kind": "layer", "units": 1, "kept": 0, **row} for row in gone]
    return Done(smaller, table=table, steps=steps)


def _is_language(model: nn.Module, rows: Rows) -> bool:
    """Tell whether rows are tokens and each gets an answer of its own, one logit a token."""
    first = inputs.tensors(rows)[0]
    if first.is_floating_point():
        return False
    with evaluating(model):
        out = inputs.call(model, inputs.take(rows, slice(2)))
    return out.ndim == 3 and out.shape[-1] > int(first.max())


def _told(model: nn.Module, done: Done, recover: int) -> Pruned:
    notes = []
    if done.short:
        notes.append(f"fewer rows than columns: a ridge decides; {done.short:,} rows would do")
    if recover:
        notes.append(f"{recover} steps of distillation")
    if isinstance(done.model, Rebuilt):
        done.model.train(model.training)
    remember(done.model, model, done.steps)
    return Pruned(
        table=pd.DataFrame(done.table, columns=_columns(done.table)),
        model=done.model,
        dense_parameters=parameters(model),
        parameters=parameters(done.model),
        left=done.left,
        notes=tuple(notes),
    )


def _columns(table: list[dict[str, Any]]) -> list[str]:
    known = ["part", "kind", "units", "kept"]
    return known + [name for name in ("drift",) if any(name in row for row in table)]


def _nothing(what: str, left: Mapping[str, str]) -> ValueError:
    reasons = "; ".join(f"{name}: {why}" for name, why in left.items())
    return checks.bad_value(
        WHERE,
        expected=f"a model with {'units' if what == 'auto' else what} that can be removed",
        got=checks.Described(f"none ({reasons})" if reasons else "none"),
        remedy='Pass a smaller keep, or another what: "neurons", "heads", "heads+ffn" or "layers".',
    )


def _check_recover(recover: Any) -> None:
    if isinstance(recover, bool) or not isinstance(recover, int) or recover < 0:
        raise checks.bad_value(
            WHERE,
            expected="recover of 0 or more steps",
            got=recover,
            remedy="Pass recover=60.",
        )
