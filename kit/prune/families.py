"""Gather what goes together into families of units, of which any number can be removed."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from kit.prune.labels import Axis, varies
from kit.prune.rules import Found, Mark, Use, Weight


@dataclass(frozen=True, eq=False)
class Family:
    """Units of which so many can go: the neurons of a layer, the heads of a block."""

    part: str  # where its first consumer stands
    units: int
    heads: int  # of attention in all its units; 0 where they are neurons
    axes: Mapping[Axis, Tensor]  # of weights -> the unit that each place belongs to, or -1
    uses: tuple[Use, ...]  # products that read it, in order

    @property
    def key(self) -> str:
        """Name it by the first axis that it lies on."""
        name, axis = next(iter(self.axes))
        return f"{name}:{axis}"


class Settled:
    """The roots of all labels once every conclusion is drawn."""

    def __init__(self, found: Found) -> None:
        """Draw the conclusions until there are no more."""
        self.found, self.labels = found, found.labels
        self._look()
        self.alone = self.roots  # before anything is fixed by what follows from it
        said = -1
        while self.labels.said > said:
            said = self.labels.said
            self._conclude()
            self._look()

    def _look(self) -> None:
        roots, fixed = self.labels.roots()
        self.roots, self.live = roots, ~torch.isin(roots, torch.tensor(sorted(fixed)))

    def _conclude(self) -> None:
        for mark, where in self.found.marks:
            if len(self._moving(mark)) > 1:
                self._fix(mark, f"it lies along two axes at once ({where})")
        for mark, axes, why in self.found.whole:
            if set(axes) & set(self._moving(mark)):
                self._fix(mark, why)
        for mark, other, shape, why in self.found.beside:
            for axis in self._moving(mark):
                self._beside(mark, axis, other, shape, why)

    def _moving(self, mark: Tensor) -> list[int]:
        """Return the axes along which an activation's units lie."""
        short = mark[tuple(slice(1) if step == 0 else slice(None) for step in mark.stride())]
        roots = torch.where(self.live[short], self.roots[short], -1)
        return [axis for axis in range(mark.ndim) if varies(roots, axis)]

    def _fix(self, mark: Tensor, why: str | None) -> None:
        self.labels.fix(mark[self.live[mark]], why)

    def _beside(self, mark: Tensor, axis: int, other: Mark, shape: torch.Size, why: str) -> None:
        own = axis - (mark.ndim - len(shape))
        if own < 0 or shape[own] == 1:
            return
        if not isinstance(other, Weight):
            self._fix(mark, why)
            return
        theirs = next((each for each in other.axes if varies(each, own)), None)
        if theirs is None:
            return
        a, b = _vector(mark, axis), _vector(theirs, own)
        if not torch.equal(self.roots[a], self.roots[b]):
            self.labels.tie(a, b)

    def families(self) -> tuple[Family, ...]:
        """Return the families, in the order in which they are computed."""
        members = self._members()
        heads = {int(self.roots[x]): n for each, n in self.found.heads for x in each.unique()}
        grouped: dict[int, list[Use]] = {}
        for use in self.found.uses:
            for member in members[self._live_on(use.columns)].unique().tolist():
                grouped.setdefault(member, []).append(use)
        families = []
        for member, uses in grouped.items():
            roots = _in_order(self._live_on(uses[0].columns))
            roots = roots[members[roots] == member]
            if len(roots) < 2 or not self._even(uses, roots):
                for use in uses:
                    self._fix(use.labels, "its units are one, or of different sizes")
                continue
            axes = self._axes(members, member, roots)
            part = self.found.names[uses[0].columns]
            families.append(
                Family(part, len(roots), heads.get(int(roots[0]), 0), axes, tuple(uses))
            )
        return tuple(families)

    def _live_on(self, axis: Axis) -> Tensor:
        labels = self.labels.along(axis)
        return self.roots[labels[self.live[labels]]]

    def _members(self) -> Tensor:
        """Return for each root the family that it belongs to: roots on one axis are of one."""
        pairs = [np.zeros((2, 0), dtype=np.int64)]
        for axis in self.labels.starts:
            roots = self._live_on(axis).unique().numpy()
            pairs.append(np.stack([roots, np.broadcast_to(roots[:1], roots.shape)]))
        a, b = np.concatenate(pairs, axis=1)
        size = self.labels.size
        ties = coo_array((np.ones(len(a), dtype=bool), (a, b)), (size, size))
        return torch.from_numpy(connected_components(ties, directed=False)[1]).long()

    def _even(self, uses: list[Use], roots: Tensor) -> bool:
        """Tell whether every use reads as many channels of each unit."""
        counts = [
            (self.roots[self.labels.along(use.columns)][:, None] == roots).sum(0) for use in uses
        ]
        return all(int(each.min()) == int(each.max()) > 0 for each in counts)

    def _axes(self, members: Tensor, member: int, roots: Tensor) -> dict[Axis, Tensor]:
        unit = torch.full((self.labels.size,), -1)
        unit[roots] = torch.arange(len(roots))
        axes = {}
        for axis in self.labels.starts:
            on = self._live_on(axis)
            if len(on) and int(members[on[0]]) == member:
                labels = self.labels.along(axis)
                axes[axis] = torch.where(self.live[labels], unit[self.roots[labels]], -1)
        return axes

    def left(self, parameters: Container[str]) -> dict[str, str]:
        """Return what is never removed -> why, where a reader would ask."""
        why, told = self._reasons(), set()
        left: dict[int, list[str]] = {}
        for use in self.found.uses:
            roots = self.alone[use.labels].tolist()
            told |= set(roots)
            odd = [root for root in roots if root in why]
            if odd:
                left.setdefault(odd[0], []).append(self.found.names[use.columns])
        parts = {_several(parts): why[root] for root, parts in left.items()}
        for (name, _), labels in self.labels.all():  # what no product reads
            for root in set(self.alone[labels].tolist()) & why.keys() - told:
                if name not in parameters:
                    continue
                owner = name.rpartition(".")[0]
                parts.setdefault(f"weights of {owner}" if owner else name, why[root])
        return parts

    def _reasons(self) -> dict[int, str]:
        """Return the roots of what is never removed -> why, the first reason that was given."""
        self._look()
        why: dict[int, str] = {}
        for labels, reason in reversed(self.labels.reasons):
            if reason is not None:
                why |= dict.fromkeys(self.alone[labels[~self.live[labels]]].tolist(), reason)
        return why


def _vector(labels: Tensor, axis: int) -> Tensor:
    return labels.movedim(axis, -1)[(0,) * (labels.ndim - 1)]


def _in_order(roots: Tensor) -> Tensor:
    """Return each root once, in the order in which they come."""
    _, place = np.unique(roots.numpy(), return_index=True)
    return roots[torch.from_numpy(np.sort(place))]


def _several(parts: list[str]) -> str:
    more = len(dict.fromkeys(parts)) - 1
    return f"input of {parts[0]}" + (f" and {more} more" if more else "")
