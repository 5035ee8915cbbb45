"""Remove whole layers: those of a stack without which a model answers almost as before."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import progress
from kit.base.modes import evaluating
from kit.prune import inputs
from kit.prune.inputs import Rows

ROWS = 64  # on which the loss of a layer is judged


def removable(model: nn.Module, rows: Rows) -> list[str]:
    """Return the paths of layers in lists and sequences that return what they take, in shape."""
    stacks = [
        f"{path}.{name}".lstrip(".")
        for path, stack in model.named_modules()
        if isinstance(stack, nn.ModuleList | nn.Sequential) and len(stack) > 1
        for name, layer in stack.named_children()
        if any(True for _ in layer.parameters())
    ]
    shapes: dict[str, bool] = {}
    handles = [
        model.get_submodule(path).register_forward_hook(_note(path, shapes), with_kwargs=True)
        for path in stacks
    ]
    try:
        with evaluating(model):
            inputs.call(model, inputs.take(rows, slice(2)))
    finally:
        for handle in handles:
            handle.remove()
    return [path for path in stacks if shapes.get(path)]


def _note(path: str, shapes: dict[str, bool]) -> Any:
    def hook(_: nn.Module, values: Any, named: Any, out: Any) -> None:
        given = [x for x in (*values, *named.values()) if isinstance(x, Tensor)]
        shapes[path] = bool(given) and inputs.first(out).shape == given[0].shape

    return hook


def drop(model: nn.Module, rows: Rows, *, n: int) -> tuple[nn.Module, list[dict[str, object]]]:
    """Return a copy without `n` layers, each the one whose loss changes the outputs least.

    Args:
        model: any module with stacks of layers; it is not changed.
        rows: the calibration.
        n: layers to remove; fewer go where no more can.

    Returns:
        The copy, and for each layer removed its path, as it was then, and the drift since.
    """
    some = sample(rows, ROWS)
    smaller, gone = copy.deepcopy(model), []
    for _ in progress.track(range(n), label="layer"):
        drifts = {path: drift(without(smaller, path), model, some) for path in _rest(smaller, some)}
        if not drifts:
            break
        path = min(drifts, key=drifts.__getitem__)
        smaller = without(smaller, path)
        gone.append({"part": path, "drift": drifts[path]})
    return smaller, gone


def _rest(model: nn.Module, rows: Rows) -> list[str]:
    paths = removable(model, rows)
    alone = [path.rpartition(".")[0] for path in paths]
    return [path for path, stack in zip(paths, alone, strict=True) if alone.count(stack) > 1]


def without(model: nn.Module, path: str) -> nn.Module:
    """Return a copy without one layer of a stack."""
    smaller = copy.deepcopy(model)
    stack, _, name = path.rpartition(".")
    del smaller.get_submodule(stack)[int(name)]  # type: ignore[operator]
    return smaller


def drift(model: nn.Module, original: nn.Module, rows: Rows) -> float:
    """Return how far a model's outputs are from the original's: squares, by their variance.

    A model that does not run has drifted without end.
    """
    with evaluating(original):
        wanted = inputs.outputs(original, rows).float()
    try:
        with evaluating(model):
            given = inputs.outputs(model, rows).float()
    except Exception:  # a model that cannot do without a layer raises what it likes
        return float("inf")
    apart = (given - wanted).square().mean() / wanted.var().clamp_min(1e-12)
    return float(apart) if bool(torch.isfinite(apart)) else float("inf")


def sample(rows: Rows, n: int) -> Rows:
    """Return up to `n` rows, evenly from all."""
    count = inputs.count(rows)
    return inputs.take(rows, torch.linspace(0, count - 1, min(n, count)).long())
