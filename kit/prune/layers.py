"""Remove whole layers: those of a stack without which a model answers almost as before."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import progress
from kit.base.modes import evaluating
from kit.prune import inputs
from kit.prune.inputs import Rows

ROWS = 64  # on which the loss of a layer is judged


def removable(model: nn.Module, rows: Rows) -> list[str]:
    """Return the paths of layers in lists and sequences without which the model runs.

    Where it runs without no single layer of a list, layers at the same place of lists of one length
    side by side are tried together; their paths are joined by "+".
    """
    stacks = {
        path: [f"{path}.{name}".lstrip(".") for name in stack._modules]
        for path, stack in model.named_modules()
        if isinstance(stack, nn.ModuleList | nn.Sequential) and len(stack) > 1
    }
    alike = _alike(model, rows, [path for paths in stacks.values() for path in paths])
    found: list[str] = []
    rest: dict[tuple[str, int], list[list[str]]] = {}
    for stack, paths in stacks.items():
        able = [path for path in paths if alike.get(path)]
        if any(f"{stack}.".startswith(f"{path}.") for each in found for path in each.split("+")):
            continue  # it goes with the layer that it is a part of
        if len(able) > 1 and _runs(without(model, able[-1]), rows):
            found += able
        elif isinstance(model.get_submodule(stack), nn.ModuleList):
            rest.setdefault((stack.rpartition(".")[0], len(paths)), []).append(paths)
    for beside in rest.values():
        joined = ["+".join(paths) for paths in zip(*beside, strict=True)]
        found += joined if _runs(without(model, joined[-1]), rows) else []
    return found


def _alike(model: nn.Module, rows: Rows, paths: list[str]) -> dict[str, bool]:
    """Tell which layers with weights return what they take, in shape."""
    layers = {path: model.get_submodule(path) for path in paths}
    shapes: dict[str, bool] = {}
    handles = [
        layer.register_forward_hook(_note(path, shapes), with_kwargs=True)
        for path, layer in layers.items()
        if any(True for _ in layer.parameters())
    ]
    try:
        with evaluating(model):
            inputs.call(model, inputs.take(rows, slice(2)))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _runs(model: nn.Module, rows: Rows) -> bool:
    try:
        with evaluating(model):
            inputs.call(model, inputs.take(rows, slice(2)))
    except Exception:  # a model that cannot do without a layer raises what it likes
        return False
    return True


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
        path = min(drifts, key=drifts.__getitem__, default="")
        if drifts.get(path, math.inf) == math.inf:
            break
        smaller = without(smaller, path)
        gone.append({"part": path, "drift": drifts[path]})
    return smaller, gone


def _rest(model: nn.Module, rows: Rows) -> list[str]:
    paths = removable(model, rows)
    alone = [path.partition("+")[0].rpartition(".")[0] for path in paths]
    return [path for path, stack in zip(paths, alone, strict=True) if alone.count(stack) > 1]


def without(model: nn.Module, path: str) -> nn.Module:
    """Return a copy without one layer of a stack, or those at one place of several."""
    smaller = copy.deepcopy(model)
    for each in path.split("+"):
        stack, _, name = each.rpartition(".")
        layers: Any = smaller.get_submodule(stack)
        del layers[list(layers._modules).index(name)]  # type: ignore[operator]
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
