"""Whether pruned models of ten shapes are what they should be: the original with parts masked."""

import copy
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import prune_peers
import torch
from common import Section
from shapes import SHAPES, WITH_HEADS, WITH_LAYERS
from torch import Tensor, nn

from kit import prune

KEEP = 0.5
CLOSE = 1e-5  # largest difference between outputs
HEADS = {  # of layers by their names, for Torch-Pruning
    "fused QKV, tied": {"c_attn": 4},
    "grouped heads": {"q_proj": 6, "k_proj": 3, "v_proj": 3},
    "post-norm encoder": {"query": 4, "key": 4, "value": 4},
    "norms in odd places": {"to_qkv": 3},
}
TEXT = f"""\
`benchmarks/shapes.py`: ten models with random weights, pruned by the norm of weights alone (no
refit) to {KEEP:g}. `runs`: on the rows that it was given, on five of them, and on shorter ones
where rows have a length. `correct`: also has fewer parameters, and gives there what the original
gives with the columns that read what was removed set to zero, to {CLOSE:g}. Which columns those are
is read off the pruned weights, without asking who pruned them. Torch-Pruning was told the number of
heads where that is what it asks for; where it fails so, it was tried without, too. It also narrows
norms, whose means are then of other numbers: that runs, and is no masked original."""


@dataclass(frozen=True)
class Matrix:
    """Where a pruned matrix comes from: a name in the original, and which rows and columns."""

    name: str
    rows: np.ndarray
    columns: np.ndarray


def sections(given: Namespace, skipped: list[str]) -> list[Section]:
    """Return the table of all shapes, and how many each method got right."""
    names = list(SHAPES)[:2] if given.quick else list(SHAPES)
    with_peer = "Torch-Pruning" not in skipped
    table = pd.DataFrame([row for name in names for row in _rows(name, with_peer=with_peer)])
    right = table.groupby(["by", "shape"])["correct"].agg(lambda each: (each == "yes").all())
    counted = right.groupby("by").agg(["sum", "count"]).reset_index()
    counted.columns = ["by", "correct", "shapes"]
    return [
        Section("Ten shapes", TEXT, table),
        Section("Shapes right", "In all that was asked of them.", counted),
    ]


def _rows(name: str, *, with_peer: bool) -> Iterator[dict[str, Any]]:
    model, rows = SHAPES[name]()
    for what in whats(name):
        pruned, error = prune_peers.attempt(
            lambda what=what: prune.shrink(model, rows, keep=KEEP, what=what, method="magnitude")
        )
        small = pruned.model if pruned else None
        yield {"shape": name, "by": "prune.shrink", "what": what} | judged(name, small, error)
    if with_peer:
        small, error = _by_peer(name, model, rows)
        yield {"shape": name, "by": "Torch-Pruning", "what": "channels"} | judged(
            name, small, error
        )


def whats(name: str) -> list[str]:
    """Return what there is to remove from a shape."""
    with_heads = ["heads", "heads+ffn"] if name in WITH_HEADS else []
    return ["neurons", *with_heads, *(["layers", "auto"] if name in WITH_LAYERS else [])]


def _by_peer(name: str, model: nn.Module, rows: Tensor) -> tuple[nn.Module | None, str]:
    error = ""
    for heads in [HEADS[name], None] if name in HEADS else [None]:

        def make(heads: Any = heads) -> nn.Module:
            small = prune_peers.torch_pruning(model, rows[:2], keep=KEEP, heads=heads)
            with torch.no_grad():
                small(rows[:2])
            return small

        small, error = prune_peers.attempt(make)
        if small is not None:
            break
    return small, error


def judged(name: str, small: nn.Module | None, error: str) -> dict[str, Any]:
    """Return how much of a shape is left, how far it is from the masked original, and a verdict."""
    model, rows = SHAPES[name]()
    row = {"of_parameters": np.nan, "runs": "no", "difference": np.nan}
    row |= {"correct": "no", "why": error}
    if small is None:
        return row
    counts = [sum(weight.numel() for weight in each.parameters()) for each in (small, model)]
    row["of_parameters"] = counts[0] / counts[1]
    got, row["why"] = prune_peers.attempt(lambda: [outputs(small, x) for x in _batches(name, rows)])
    if got is None:
        return row
    row["runs"] = "yes"
    expected, row["why"] = prune_peers.attempt(lambda: masked(model, small))
    if expected is None:
        return row
    wanted = [outputs(expected, x) for x in _batches(name, rows)]
    difference = max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True))
    row["difference"] = difference
    if counts[0] >= counts[1]:
        return row | {"why": "not smaller"}
    return row | {"correct": "yes" if difference <= CLOSE else "no"}


def _batches(name: str, rows: Tensor) -> list[Tensor]:
    """Return all rows, a few of them, and where they have a length, shorter ones."""
    return [rows, rows[:5]] + ([rows[:5, :7]] if name in WITH_HEADS else [])


@torch.no_grad()
def outputs(model: nn.Module, rows: Tensor) -> Tensor:
    """Return what a model says."""
    return model(rows)


# ---- the masked original


def masked(model: nn.Module, small: nn.Module) -> nn.Module:
    """Return the original with zeros for every column that a pruned copy of it no longer has.

    A block of which the copy has nothing left hands on what it was given.

    Args:
        model: the original.
        small: the copy; its matrices are parts of the original's, values unchanged.

    Raises:
        ValueError: a matrix that is no part of one of the original's.
    """
    found = _found(model, small)
    twin = copy.deepcopy(model)
    skipped = _without(twin, set(found))
    for block in skipped:
        block.register_forward_hook(lambda block, given, output: given[0])
    gone = {id(weight) for block in skipped for weight in block.parameters()}
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if weight.ndim > 1 and id(weight) not in gone:
                dropped = np.setdiff1d(np.arange(weight.shape[1]), found.get(name, []))
                weight[:, torch.from_numpy(dropped)] = 0
                if name not in found:  # a branch that is gone: it adds nothing
                    _silence(twin, name)
    return twin


def _silence(model: nn.Module, name: str) -> None:
    part = model.get_submodule(name.rpartition(".")[0])
    if getattr(part, "bias", None) is not None:
        part.bias.zero_()


def _found(model: nn.Module, small: nn.Module) -> dict[str, np.ndarray]:
    """Return the columns that are left of each of the original's matrices of which any are."""
    matrices = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    index = Index(matrices)
    columns: dict[str, np.ndarray] = {}
    for name, weight in small.named_parameters():
        if weight.ndim > 1 and weight.numel():  # one of two branches may be gone
            at = index.find(name, weight)
            columns[at.name] = np.union1d(columns.get(at.name, []), at.columns).astype(int)
    return columns


def _without(model: nn.Module, found: set[str]) -> list[nn.Module]:
    """Return the blocks in lists of blocks of whose matrices none was found."""
    blocks = []
    for path, part in model.named_modules():
        if isinstance(part, nn.ModuleList | nn.Sequential):
            for name, block in part.named_children():
                inside = [
                    f"{path}.{name}.{each}".lstrip(".")
                    for each, weight in block.named_parameters()
                    if weight.ndim > 1
                ]
                if len(inside) > 1 and not found & set(inside):
                    blocks.append(block)
    return blocks


class Index:
    """Every value of some matrices, sorted, with its place: random values hardly ever meet."""

    def __init__(self, matrices: dict[str, Tensor]) -> None:
        """Sort the values."""
        self.matrices = {name: _flat(weight) for name, weight in matrices.items()}
        self.names = list(matrices)
        values = np.concatenate([each.ravel() for each in self.matrices.values()])
        sizes = [each.size for each in self.matrices.values()]
        self.starts = np.cumsum([0, *sizes])
        self.order = np.argsort(values, kind="stable")
        self.values = values[self.order]

    def find(self, name: str, weight: Tensor) -> Matrix:
        """Return where a pruned matrix comes from: what most of its values say."""
        part = _flat(weight)
        at = np.minimum(np.searchsorted(self.values, part), len(self.values) - 1)
        place = self.order[at]
        which = np.searchsorted(self.starts, place, side="right") - 1
        source = int(np.bincount(which.ravel()).argmax())
        whole = self.matrices[self.names[source]]
        inside = np.clip(place - self.starts[source], 0, whole.size - 1)
        # not by np.unravel_index: of more than 8,192 places, NumPy 2.4 gets some wrong
        row, column = inside // whole[0].size, inside % whole[0].size // whole.shape[2]
        rows = np.array([np.bincount(each.ravel()).argmax() for each in row])
        columns = np.array([np.bincount(each.ravel()).argmax() for each in column.swapaxes(0, 1)])
        taken = whole[np.ix_(rows, columns)]
        if taken.shape != part.shape or not np.array_equal(taken, part):
            raise ValueError(f"{name} of shape {tuple(weight.shape)} is no part of the original")
        return Matrix(self.names[source], rows, columns)


def _flat(weight: Tensor) -> np.ndarray:
    """Return a matrix as (rows, columns, what a kernel holds for both)."""
    return weight.detach().reshape(*weight.shape[:2], -1).numpy()
