"""Which units to remove, and how the rest makes up for them: optimal brain surgeon, by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from kit.prune.gram import damped

STEPS = 128  # in which units go, so that each choice knows of those before it
REFIT_DAMP = 1e-3
DEAD = 1e-9  # of the largest variance


@dataclass(frozen=True)
class Reader:
    """A product that reads a family: the matrix it would best have, and what it is given."""

    matrix: Float64[Tensor, "out columns"]
    units: Int64[Tensor, " columns"]  # the unit of each column, or -1
    moments: Float64[Tensor, "columns columns"]  # about the means where a bias stands in for them


def best(
    matrix: Float64[Tensor, "out columns"],
    moments: Float64[Tensor, "columns columns"],
    cross: Float64[Tensor, "columns out"],
) -> Float64[Tensor, "out columns"]:
    """Return the matrix that comes nearest to what is to come out.

    It is least squares with a ridge that pulls towards the matrix as it is, not towards zero.

    Args:
        matrix: as it is.
        moments: means of x xᵀ.
        cross: means of x yᵀ, with y what is to come out.
    """
    inner = damped(moments, REFIT_DAMP)
    return torch.linalg.solve(inner, cross + (inner - moments) @ matrix.T).T


def order(readers: Sequence[Reader], *, units: int, keep: int) -> Int64[Tensor, " keep"]:
    """Return the units to keep, by removing again and again those whose loss costs least.

    The cost of a unit with columns b is tr(W_b (H⁻¹_bb)⁻¹ W_bᵀ): by how much the outputs of its
    readers must change even if all other columns do their best to make up for it. After each step
    W and H⁻¹ are those of the columns that are left.

    Args:
        readers: the products that read the units.
        units: how many there are.
        keep: how many stay.

    Source:
        Hassibi and Stork: Optimal Brain Surgeon, 1993, equation 5, for blocks of columns.
    """
    states = [_State(reader, units) for reader in readers]
    alive = torch.ones(units, dtype=torch.bool, device=states[0].matrix.device)
    step = max(1, (units - keep) // STEPS)
    while (surplus := int(alive.sum()) - keep) > 0:
        cost = torch.stack([state.costs() for state in states]).sum(0)
        cost[~alive] = torch.inf
        gone = cost.topk(min(step, surplus), largest=False).indices
        alive[gone] = False
        for state in states:
            state.remove(gone)
    return alive.nonzero().flatten()


class _State:
    """A reader on the way: its matrix and the inverse of its moments without what has gone."""

    def __init__(self, reader: Reader, units: int) -> None:
        self.matrix = reader.matrix.clone()
        spread = reader.moments.diagonal()
        # what never varies costs nothing; the ridge would make it as dear as its weights are large
        self.matrix[:, spread <= DEAD * spread.max()] = 0
        self.inverse = torch.linalg.inv(damped(reader.moments))
        self.columns = torch.stack([(reader.units == u).nonzero().flatten() for u in range(units)])

    def costs(self) -> Float64[Tensor, " units"]:
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]  # (U, b, b)
        parts = self.matrix[:, self.columns].movedim(1, 0).transpose(1, 2)  # (U, b, out)
        if self.columns.shape[1] == 1:
            return (parts.square() / blocks).sum((1, 2))
        return (parts * torch.linalg.solve(blocks, parts)).sum((1, 2))

    def remove(self, units: Int64[Tensor, " gone"]) -> None:
        gone = self.columns[units].flatten()
        rows = self.inverse[gone]
        share = torch.linalg.solve(rows[:, gone], rows)  # (gone, columns)
        self.matrix -= self.matrix[:, gone] @ share
        self.inverse -= self.inverse[:, gone] @ share
        self.matrix[:, gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        self.inverse[gone, gone] = 1  # so that the blocks of what has gone can be solved


def refit(reader: Reader, keep: Int64[Tensor, " kept"]) -> Float64[Tensor, "out columns"]:
    """Return the matrix whose remaining columns make up for the removed ones, which are zero.

    It is least squares: argmin ‖X Wᵀ - X_S Rᵀ‖ has R = W G_:S (G_SS)⁻¹, with G the moments.

    Args:
        reader: a product.
        keep: the units that stay.
    """
    stays = torch.isin(reader.units, keep) | (reader.units < 0)
    kept = stays.nonzero().flatten()
    inner = damped(reader.moments[kept][:, kept], REFIT_DAMP)
    ridge = inner - reader.moments[kept][:, kept]
    goal = reader.moments[kept] @ reader.matrix.T + ridge @ reader.matrix[:, kept].T
    fitted = torch.zeros_like(reader.matrix)
    fitted[:, kept] = torch.linalg.solve(inner, goal).T
    return fitted
