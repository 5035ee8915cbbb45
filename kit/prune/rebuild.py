"""Cut a model to the size that is left: in its own class where that works, else as its graph."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kit.base.modes import evaluating
from kit.prune import opaque
from kit.prune.families import Family
from kit.prune.graphs import rebuilt
from kit.prune.inputs import Rows, call
from kit.prune.labels import Axis
from kit.prune.trace import CannotTrace, trace

Kept = Mapping[Family, Tensor]  # the units of each family that stay
# the attributes of layers that say how long an axis of their weight is
SIZES = {
    ("Linear", 0): "out_features",
    ("Linear", 1): "in_features",
    ("Conv1d", 0): "out_channels",
    ("Conv1d", 1): "in_channels",
    ("Conv2d", 0): "out_channels",
    ("Conv2d", 1): "in_channels",
    ("BatchNorm1d", 0): "num_features",
    ("BatchNorm2d", 0): "num_features",
    ("Embedding", 1): "embedding_dim",
    ("Conv1D", 0): "nx",  # of transformers: a linear layer, stored the other way round
    ("Conv1D", 1): "nf",
}
TELLING = ("head", "group", "split", "inner", "hidden")  # in names of attributes that count units
Same = Callable[[nn.Module], bool]


def cut(model: nn.Module, kept: Kept) -> nn.Module:
    """Return a copy with its weights cut to the units that stay."""
    axes: dict[Axis, Tensor] = {}
    for family, units in kept.items():
        stay = torch.cat([units, torch.tensor([-1])])
        axes |= {axis: torch.isin(each, stay).nonzero()[:, 0] for axis, each in family.axes.items()}
    smaller = copy.deepcopy(model)
    _cut(smaller, axes)
    return smaller


def in_class(model: nn.Module, kept: Kept, same: Same) -> nn.Module | None:
    """Return a smaller copy of the same class that computes the same, or None.

    Weights are cut, and then the whole numbers that a class keeps beside them: layers have known
    names for theirs; those of the modules around them are found by value, and by trying.

    Args:
        model: the working copy, with zeros where units were removed.
        kept: the units that stay.
        same: tells whether a module computes what `model` does.
    """
    sizes = _sizes(model, kept)
    for choice in (_all, _telling, _none):
        smaller = cut(model, kept)
        for path, names in sizes.items():
            part = smaller.get_submodule(path)
            for name, size in names.items():
                if choice(name):
                    setattr(part, name, size)
        if same(smaller):
            return smaller
    return None


def as_graph(model: nn.Module, kept: Kept, rows: Rows, same: Same) -> nn.Module | None:
    """Return the model's graph with smaller weights, if it computes the same, or None.

    Args:
        model: the working copy, with zeros where units were removed.
        kept: the units that stay.
        rows: an example.
        same: tells whether a module computes what `model` does.
    """
    for lengths in (True, False):
        try:
            traced = trace(model, rows, lengths=lengths)
        except CannotTrace:
            continue
        if traced.at_once or opaque.within(traced.graph):
            continue  # it would be a model of so many rows, or hold on to the working copy
        ours = {family.key: family for family in traced.families}
        units = {ours[family.key]: units for family, units in kept.items()}
        smaller = rebuilt(traced, cut(model, kept), units, rows)
        if same(smaller):
            return smaller
    return None


def agrees(model: nn.Module, rows: Rows, expected: Tensor, *, tolerance: float = 1e-4) -> bool:
    """Tell whether a module runs on rows and gives what was expected, up to rounding."""
    try:
        with evaluating(model):
            outputs = call(model, rows)
    except Exception:  # a wrong size may end in any error
        return False
    scale = float(expected.abs().max().clamp_min(1e-6))
    same = outputs.shape == expected.shape
    return same and float((outputs - expected).abs().max()) <= tolerance * scale


def _all(name: str) -> bool:
    return True


def _telling(name: str) -> bool:
    return any(word in name for word in TELLING)


def _none(name: str) -> bool:
    return False


def _cut(model: nn.Module, axes: Mapping[Axis, Tensor]) -> None:
    """Cut weights in place, and the sizes that their own layers keep."""
    held: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    held |= dict(model.named_buffers(remove_duplicate=False))
    for name in dict.fromkeys(name for name, _ in axes):
        old = held[name]
        new = old.detach()
        for axis in range(old.ndim):
            if (name, axis) in axes:
                new = new.index_select(axis, axes[name, axis].to(new.device))
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new.contiguous(), requires_grad=old.requires_grad)
        for each in [other for other, weight in held.items() if weight is old]:  # tied weights
            path, _, own = each.rpartition(".")
            part = model.get_submodule(path)
            setattr(part, own, new)
            if own == "weight":
                _resize(part, new, old)


def _resize(part: nn.Module, new: Tensor, old: Tensor) -> None:
    for axis in range(new.ndim):
        names = [
            SIZES[kind.__name__, axis]
            for kind in type(part).__mro__
            if (kind.__name__, axis) in SIZES
        ]
        if names and new.shape[axis] != old.shape[axis] and getattr(part, "groups", 1) == 1:
            setattr(part, names[0], new.shape[axis])
    if isinstance(part, nn.Conv1d | nn.Conv2d) and part.groups > 1:  # each channel on its own
        part.groups = part.in_channels = new.shape[0] * part.groups // old.shape[0]
        part.out_channels = new.shape[0]


def _sizes(model: nn.Module, kept: Kept) -> dict[str, dict[str, int]]:
    """Return whole numbers in the modules around cut layers that may have to follow."""
    sizes: dict[str, dict[str, int]] = {}
    for family, units in kept.items():
        follow = {family.units: len(units)}
        if family.heads:  # several may share a unit, as they share keys and values
            follow[family.heads] = family.heads // family.units * len(units)
        for unit in family.axes.values():
            left = int(torch.isin(unit, torch.cat([units, torch.tensor([-1])])).sum())
            follow |= {len(unit): left} if len(unit) not in follow else {}
        for name, _ in family.axes:
            owner = name.rpartition(".")[0]
            for path in {owner, owner.rpartition(".")[0]}:
                part = model.get_submodule(path)
                known = sizes.setdefault(path, {})
                if type(part).__module__.startswith("torch.nn.modules.") and path == owner:
                    continue
                known |= {
                    attribute: follow[value]
                    for attribute, value in vars(part).items()
                    if type(value) is int and value in follow
                }
    return sizes
