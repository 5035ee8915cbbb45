"""Fewer layers or narrower ones: the mix that loses least for each millisecond that it saves."""

import copy
import math
from functools import partial

from torch import nn

from kit.base import timing
from kit.base.modes import evaluating
from kit.prune import inputs, layers
from kit.prune.families import Family
from kit.prune.inputs import Rows
from kit.prune.narrow import Done, narrow
from kit.prune.pruned import parameters
from kit.prune.trace import CannotTrace, trace

ROWS = 16  # that are timed together
CLOCK = 0.01  # of a time: no clock tells less, and a smaller model saves memory at least
NEAR = 0.95  # of the size that is asked for, where layers alone come below it
LEAST = 0.05  # of a layer's units: narrower layers are no use to anybody


def mixed(model: nn.Module, rows: Rows, *, keep: float, method: str, where: str) -> Done:
    """Try every number of layers with the width that comes to the same size; return the best.

    Args:
        model: any module; it is not changed.
        rows: the calibration.
        keep: the fraction of its parameters that may stay.
        method: of choose.METHODS.
        where: the public function that asks, for errors.

    Returns:
        The smaller model; `table` has the layers and units that went.
    """
    goal, few = keep * parameters(model), layers.sample(rows, ROWS)
    dense_ms = _time_ms(model, few)
    best, most, least = None, -1.0, math.inf
    smaller, gone = copy.deepcopy(model), Done(model)
    while True:
        width = _width(smaller, rows, goal)
        if width is not None:
            done = narrow(
                smaller, rows, counts=partial(_count, keep=width), method=method, where=where
            )
            saved = max(dense_ms - _time_ms(done.model, few), CLOCK * dense_ms)
            lost = layers.drift(done.model, model, layers.sample(rows, layers.ROWS))
            worth = saved / max(lost, 1e-9)
            # a model much smaller than was asked for has to be better, not only quicker
            is_small = parameters(smaller) < NEAR * goal
            if best is None or (lost <= least if is_small else worth > most):
                best, most, least = _joined(gone, done), worth, lost
        if width == 1.0:
            break
        smaller, one = layers.drop(smaller, rows, n=1)
        if not one:
            break
        gone.table += [{"kind": "layer", "units": 1, "kept": 0, **one[0]}]
        gone.steps += [{"at": one[0]["part"], "as": "without"}]
    return best or Done(copy.deepcopy(model))


def _joined(gone: Done, done: Done) -> Done:
    return Done(done.model, gone.table + done.table, done.left, gone.steps + done.steps, done.short)


def _count(family: Family, *, keep: float) -> int:
    return max(1, math.floor(keep * family.units + 1e-9))


def _width(model: nn.Module, rows: Rows, goal: float) -> float | None:
    """Return the fraction of all units with which a model has so many parameters, or None."""
    total = parameters(model)
    if total <= goal:
        return 1.0
    try:
        families = trace(model, rows).families
    except CannotTrace:
        return None
    weights = dict(model.named_parameters())
    names = {name for family in families for name, _ in family.axes if name in weights}
    narrowing = sum(weights[name].numel() for name in names)
    width = 1 - (total - goal) / max(1, narrowing)
    return width if width >= LEAST else None


def _time_ms(model: nn.Module, rows: Rows) -> float:
    device = next(model.parameters()).device
    with evaluating(model):
        return timing.measure(lambda: inputs.call(model, rows), device=device, repeats=7).median_ms
