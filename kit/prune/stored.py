"""Pruned models in files: weights and the steps to the smaller shape, nothing that is executed."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks, storage
from kit.prune import choose, int8, layers
from kit.prune.inputs import Rows
from kit.prune.narrow import BUILDS
from kit.prune.pruned import Pruned, steps_of
from kit.prune.trace import CannotTrace, trace

WHERE = "prune.load"


def save(path: str | Path, pruned: Pruned | nn.Module) -> None:
    """Write a pruned model as one safetensors file, whole or not at all; no pickle.

    Weights with several names are written once. A `models.GPT` can also be read by
    `models.load_gpt`, if it is not quantised.

    Args:
        path: the file.
        pruned: what `shrink`, `sparsify` or `quantise` returned, or its model.
    """
    model = pruned.model if isinstance(pruned, Pruned) else pruned
    about: dict[str, Any] = {"prune": list(steps_of(model))}
    if isinstance(shape := getattr(model, "shape", None), Mapping):
        about |= {"model": type(model).__name__, "shape": dict(shape)}
    storage.save(path, _once(model), about=about)


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Return a pruned model from a file; its outputs are those of the one saved, to the bit.

    Args:
        path: a file that `save` wrote.
        model: one of the original's class and size, with any weights; it is not changed.

    Raises:
        ValueError: the file is missing or damaged, or does not fit the model.
    """
    weights, about = storage.load(path)
    if "prune" not in about:
        raise _misfit("a file that prune.save wrote", Path(path).name)
    smaller = copy.deepcopy(model)
    for step in about["prune"]:
        try:
            smaller = _again(smaller, step)
        except (AttributeError, KeyError, IndexError, RuntimeError, CannotTrace) as error:
            raise _misfit("a model like the one that was pruned", str(error)) from None
    own = _once(smaller)
    odd = [n for n in own.keys() | weights.keys() if _shape(own, n) != _shape(weights, n)]
    if odd:
        name = min(odd)
        told = f"{_shape(own, name)} by this model"
        raise _misfit(f"{name} of shape {_shape(weights, name)}, as in the file", told)
    smaller.load_state_dict(weights, strict=False)  # other names of shared weights are not in it
    return smaller


def _again(model: nn.Module, step: Mapping[str, Any]) -> nn.Module:
    """Return the model after one step."""
    if step["as"] == "without":
        return layers.without(model, step["at"])
    if step["as"] == "int8":
        return int8.placed(model, step["layers"])
    part = model.get_submodule(step["at"])
    rows = _example(step, next(part.parameters()))
    _draw(part)
    traced = trace(part, rows)
    ours = {family.key: family for family in traced.families}
    kept = {ours[key]: torch.tensor(units) for key, units in step["units"].items()}
    choose.blank(part, kept)
    smaller = BUILDS[step["as"]](part, kept, rows)
    if smaller is None:
        raise KeyError(f"{step['at'] or type(part).__name__} cannot be built so")
    if not step["at"]:
        return smaller
    model.set_submodule(step["at"], smaller)
    return model


def _draw(part: nn.Module) -> None:
    """Draw weights that are all zero: sizes are found by trying, and zeros agree with any."""
    chance = torch.Generator().manual_seed(0)
    for weight in part.parameters():
        if weight.is_floating_point() and not weight.any():
            drawn = torch.randn(weight.shape, generator=chance) / 10
            weight.data.copy_(drawn)


def _example(step: Mapping[str, Any], like: Tensor) -> Rows:
    """Return rows of the shapes that the model was traced with."""
    chance = torch.Generator().manual_seed(0)
    rows = []
    for each in step["example"]:
        dtype = getattr(torch, each["dtype"])
        # between 0 and 1: a column of codes among numbers then says 0, which every table has
        x = torch.rand(2, *each["shape"], generator=chance)
        rows.append(x.to(dtype) if dtype.is_floating_point else torch.ones_like(x, dtype=dtype))
    rows = [x.to(like.device) for x in rows]
    return dict(zip(step["names"], rows, strict=True)) if step["names"] else rows[0]


def _once(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state, with shared weights under their first name only."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    state = {}
    for name, x in model.state_dict().items():
        key = (x.data_ptr(), x.shape, x.stride())
        if x.numel() == 0 or first.setdefault(key, name) == name:
            state[name] = x
    return state


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    if name not in state:
        return "none"
    return f"{tuple(state[name].shape)} in {str(state[name].dtype).removeprefix('torch.')}"


def _misfit(expected: str, got: str) -> ValueError:
    return checks.bad_value(
        WHERE,
        expected=expected,
        got=checks.Described(got),
        remedy="Build the model as it was before it was pruned: prune.load(path, model).",
    )
