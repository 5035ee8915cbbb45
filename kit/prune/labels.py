"""Labels for the places of every weight, and which of them can only be removed together."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FIXED = 0  # the label of what is never removed
Axis = tuple[str, int]  # a weight's name and one of its axes


class Labels:
    """One number for each place along each axis of each weight, and the ties between them."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Number the places along every axis; 0 stands for what is never removed."""
        self.starts: dict[Axis, int] = {}
        self.size = 1
        for name, weight in weights.items():
            for axis, length in enumerate(weight.shape):
                self.starts[name, axis] = self.size
                self.size += length
        self._lengths = {(n, a): w.shape[a] for n, w in weights.items() for a in range(w.ndim)}
        self._ties: list[Tensor] = []
        self.reasons: list[tuple[Tensor, str | None]] = [(torch.tensor([FIXED]), None)]

    def along(self, axis: Axis) -> Int64[Tensor, " places"]:
        """Return the labels of the places along an axis."""
        return torch.arange(self.starts[axis], self.starts[axis] + self._lengths[axis])

    def all(self) -> Iterator[tuple[Axis, Int64[Tensor, " places"]]]:
        """Yield each axis with the labels of the places along it."""
        for axis in self.starts:
            yield axis, self.along(axis)

    def axis_of(self, labels: Int64[Tensor, " places"]) -> Axis | None:
        """Return the axis of which these are all the places in order, or None."""
        first = int(labels[0])
        for axis, start in self.starts.items():
            if start == first and torch.equal(labels, self.along(axis)):
                return axis
        return None

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Say that what `a` and `b` label, place by place, goes together."""
        a, b = torch.broadcast_tensors(a, b)
        a, b = _without_repeats(a, b)
        pairs = torch.unique(a.reshape(-1) * self.size + b.reshape(-1))
        self._ties.append(torch.stack([pairs // self.size, pairs % self.size]))

    def merge(self, labels: Tensor) -> None:
        """Say that all of these go together."""
        self.tie(labels, labels.reshape(-1)[:1].reshape([1] * labels.ndim))

    def fix(self, labels: Tensor, why: str | None) -> None:
        """Say that these are never removed; without a reason, nobody would have expected it."""
        (labels,) = _without_repeats(labels)
        self.reasons.append((labels.unique(), why))

    @property
    def said(self) -> int:
        """Count what was said so far, to see whether more was."""
        return len(self._ties) + len(self.reasons)

    def roots(self) -> tuple[Int64[Tensor, " labels"], set[int]]:
        """Return the root of each label, the same for what goes together, and the fixed roots."""
        if self._ties:
            rows, columns = torch.cat(self._ties, 1).numpy()
        else:
            rows = columns = np.zeros(0, dtype=np.int64)
        ties = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), (self.size, self.size))
        roots = torch.from_numpy(connected_components(ties, directed=False)[1]).long()
        fixed: Iterable[int] = roots[torch.cat([labels for labels, _ in self.reasons])].tolist()
        return roots, set(fixed)


def varies(labels: Tensor, axis: int) -> bool:
    """Tell whether labels differ along an axis.

    Example:
        >>> labels = torch.tensor([[1, 2], [1, 2]])
        >>> varies(labels, 0), varies(labels, 1)
        (False, True)
    """
    (labels,) = _without_repeats(labels, keep=axis)
    return bool((labels != labels.narrow(axis, 0, 1)).any())


def _without_repeats(*labels: Tensor, keep: int = -1) -> tuple[Tensor, ...]:
    """Cut axes along which all of these are mere repeats of one place, as expand makes them."""
    for axis in range(labels[0].ndim):
        if axis != keep and all(each.stride(axis) == 0 for each in labels):
            labels = tuple(each.narrow(axis, 0, 1) for each in labels)
    return labels
