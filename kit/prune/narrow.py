"""Remove units from a model, or from the parts of it that a graph can hold."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kit.base.modes import evaluating
from kit.prune import choose, inputs, rebuild
from kit.prune.families import Family
from kit.prune.inputs import Rows
from kit.prune.lockstep import Lockstep
from kit.prune.rebuild import Kept
from kit.prune.trace import CannotTrace, Traced, trace

Build = Callable[[nn.Module, Kept, Rows], nn.Module | None]
Counts = Callable[[Family], int]
NO_SIZES = "sizes in the forward do not follow, nor in its graph"


@dataclass
class Done:
    """A smaller model, and what was done to it."""

    model: nn.Module
    table: list[dict[str, object]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)  # to do again when it is loaded
    short: int = 0  # rows that would have done where there were too few

    def take(self, path: str, part: "Done") -> None:
        """Take in what was done to a part."""
        prefix = f"{path}." if path else ""
        self.table += [{**row, "part": f"{prefix}{row['part']}"} for row in part.table]
        self.left |= {f"{name} in {path}" if path else name: why for name, why in part.left.items()}
        self.steps += [{**step, "at": f"{prefix}{step['at']}".rstrip(".")} for step in part.steps]
        self.short = max(self.short, part.short)


def narrow(model: nn.Module, rows: Rows, *, counts: Counts, method: str, where: str) -> Done:
    """Return a smaller copy of a model; where its forward cannot be traced, of its parts.

    Args:
        model: any module; it is not changed.
        rows: the calibration.
        counts: how many units of a family are to stay; all of them leave it whole.
        method: of choose.METHODS.
        where: the public function that asks, for errors.
    """
    work = copy.deepcopy(model)
    try:
        traced = trace(work, rows)
    except CannotTrace as error:
        return _part_by_part(work, rows, str(error), counts=counts, method=method, where=where)
    wanted = {family: counts(family) for family in traced.families}
    wanted = {family: n for family, n in wanted.items() if n < family.units}
    built, build, odd = buildable(model, rows, traced, wanted)
    kept, short = _blanked(work, rows, traced, built, method, where)
    smaller = build(work, kept, rows) if kept else work
    if smaller is None:  # it was built with units kept elsewhere, so units are told by their places
        odd |= {f"input of {family.part}": NO_SIZES for family in built}
        return Done(copy.deepcopy(model), left={**traced.left, **odd})
    done = Done(smaller, left={**traced.left, **odd}, short=short)
    if kept:
        done.steps = [_step(kept, rows, build)]
    done.table = [
        {"part": family.part, "kind": "heads" if family.heads else "neurons"}
        | {"units": family.heads or family.units, "kept": _count(family, n)}
        for family, n in built.items()
    ]
    return done


def _count(family: Family, n: int) -> int:
    return family.heads // family.units * n if family.heads else n


def _blanked(
    work: nn.Module,
    rows: Rows,
    traced: Traced,
    counts: Mapping[Family, int],
    method: str,
    where: str,
) -> tuple[Kept, int]:
    if method == "magnitude":
        return choose.largest(work, counts), 0
    side = Lockstep(traced.graph, rows, at_once=traced.at_once, where=where)
    if method == "activation":
        return choose.largest(work, counts, side), 0
    surgeon = choose.Surgeon(work, counts, side)
    surgeon.operate(traced.uses)
    return surgeon.kept, max(surgeon.short, default=0)


def buildable(
    model: nn.Module, rows: Rows, traced: Traced, counts: Mapping[Family, int]
) -> tuple[dict[Family, int], Build, dict[str, str]]:
    """Find out, before any choice is made, what a smaller model can be built as.

    Its own class is tried first, then its graph, then its own class family by family.

    Returns:
        The families that can lose units with how many stay, how to build, and what cannot and why.
    """
    if not counts:
        return {}, _same_class, {}
    trial = copy.deepcopy(model)
    kept = {family: _spread(family.units, n) for family, n in counts.items()}
    choose.blank(trial, kept)
    for build in BUILDS.values():
        if build(trial, kept, rows) is not None:
            return dict(counts), build, {}
    able, why = {}, {}
    for family, n in counts.items():
        trial = copy.deepcopy(model)
        choose.blank(trial, one := {family: kept[family]})
        if _same_class(trial, one, rows) is None:
            why[f"input of {family.part}"] = NO_SIZES
        else:
            able[family] = n
    return able, _same_class, why


def _spread(units: int, n: int) -> Tensor:
    """Return `n` places without the first and the last: what asks for places is found out so."""
    gone = torch.linspace(0, units - 1, units - n).round().long()
    stays = torch.ones(units, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero()[:, 0]


def _same_class(model: nn.Module, kept: Kept, rows: Rows) -> nn.Module | None:
    return rebuild.in_class(model, kept, _same(model, rows))


def _same_graph(model: nn.Module, kept: Kept, rows: Rows) -> nn.Module | None:
    return rebuild.as_graph(model, kept, rows, _same(model, rows))


def _same(model: nn.Module, rows: Rows) -> rebuild.Same:
    """Return what tells whether a module computes what this one does, for rows of some shapes."""
    with evaluating(model):
        probes = [(part, inputs.call(model, part)) for part in _probes(model, rows)]
    return lambda other: all(rebuild.agrees(other, part, wanted) for part, wanted in probes)


def _probes(model: nn.Module, rows: Rows) -> list[Rows]:
    """Return two rows, one row, and two shorter ones, if the model takes those."""
    probes = [inputs.take(rows, slice(2)), inputs.take(rows, slice(1))]
    shorter = inputs.shortened(probes[0])
    if shorter is not None:
        try:
            inputs.call(model, shorter)
        except Exception:  # a model of rows of one length: whatever it raises
            return probes
        probes.append(shorter)
    return probes


BUILDS = {"class": _same_class, "graph": _same_graph}


def _step(kept: Kept, rows: Rows, build: Build) -> dict[str, Any]:
    """Return what JSON can hold of how a model was made smaller."""
    example = [
        {"shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch.")}
        for x in inputs.tensors(rows)
    ]
    return {
        "at": "",
        "as": next(name for name, each in BUILDS.items() if each is build),
        "units": {family.key: units.tolist() for family, units in kept.items()},
        "names": list(rows) if isinstance(rows, Mapping) else None,
        "example": example,
    }


def _part_by_part(
    work: nn.Module, rows: Rows, reason: str, *, counts: Counts, method: str, where: str
) -> Done:
    """Make the parts of a model smaller whose own forward a graph can hold, in place."""
    done = Done(work, left={f"forward of {type(work).__name__}": reason})
    waiting = list(work.named_children())
    while waiting:
        path, part = waiting.pop(0)
        if not any(True for _ in part.parameters()):
            continue
        given = None if _shares(work, part) else _given(work, part, rows)
        if given is None:  # it is not called, or not with one tensor: its parts may be
            waiting = [(f"{path}.{name}", child) for name, child in part.named_children()] + waiting
            continue
        one = narrow(part, given, counts=counts, method=method, where=where)
        if one.table:
            work.set_submodule(path, one.model)
        done.take(path, one)
    return done


def _shares(model: nn.Module, part: nn.Module) -> bool:
    """Tell whether weights of a part have other names elsewhere in the model."""
    names = [
        Counter(map(id, dict(every.named_parameters(remove_duplicate=False)).values()))
        for every in (model, part)
    ]
    return any(names[0][weight] > n for weight, n in names[1].items())


def _given(model: nn.Module, part: nn.Module, rows: Rows) -> Tensor | None:
    """Return what a part of a model is called with, if that is one tensor each time."""
    seen: list[Any] = []
    handle = part.register_forward_pre_hook(
        lambda _, values, named: seen.append(None if named or len(values) != 1 else values[0]),
        with_kwargs=True,
    )
    try:
        with evaluating(model):
            for batch in inputs.batches(rows):
                inputs.call(model, batch)
    finally:
        handle.remove()
    if not seen or not all(isinstance(x, Tensor) and x.ndim > 1 for x in seen):
        return None
    return torch.cat(seen) if len({x.shape[1:] for x in seen}) == 1 else None
