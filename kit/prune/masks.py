"""Which weights go: the cheapest of a layer, of each row, or of each four neighbours."""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

STEP = 128  # columns between two looks at what has become of the weights, as SparseGPT does it

Scores = Float64[Tensor, "out columns"]
Mask = Bool[Tensor, "out columns"]  # True where a weight goes


def cheapest(scores: Scores, amount: float) -> Mask:
    """Mark that fraction of all weights whose scores are lowest.

    Example:
        >>> cheapest(torch.tensor([[1.0, 4.0], [2.0, 3.0]], dtype=torch.float64), 0.5).tolist()
        [[True, False], [True, False]]
    """
    return _first(scores.flatten()[None], round(amount * scores.numel())).view_as(scores)


def cheapest_of_rows(scores: Scores, amount: float) -> Mask:
    """Mark the lowest scores of each row, as many in one as in another but for rounding.

    Example:
        >>> cheapest_of_rows(torch.tensor([[1.0, 4.0], [2.0, 3.0]]).double(), 0.5).tolist()
        [[True, False], [True, False]]
    """
    rows, columns = scores.shape
    # rounded sums, not a rounded number for each: so that the layer has its amount
    sums = (amount * columns * torch.arange(rows + 1, dtype=torch.float64)).round().long()
    return _first(scores, sums.diff()[:, None].to(scores.device))


def two_of_four(scores: Scores) -> Mask:
    """Mark the two lowest scores of each four neighbours in a row.

    Example:
        >>> two_of_four(torch.tensor([[1.0, 4.0, 2.0, 3.0]]).double()).tolist()
        [[True, False, True, False]]
    """
    return _first(scores.reshape(-1, 4), 2).view_as(scores)


class Adaptive:
    """Choose on the way of a sweep: by what the weights have become, not by what they were.

    The cost of dropping weight w of column i is (w / U_ii)². How many go in each run of columns is
    what the whole matrix says at first.
    """

    def __init__(
        self,
        matrix: Float64[Tensor, "out columns"],
        diagonal: Float64[Tensor, " columns"],
        free: Mask,
        *,
        amount: float,
        pattern: str,
    ) -> None:
        """Set the budgets.

        Args:
            matrix: weights.
            diagonal: of the factor U.
            free: what is dropped first.
            amount: fraction to drop.
            pattern: "free" or "2:4".
        """
        self.diagonal, self.free, self.pattern = diagonal, free, pattern
        self.stays = matrix == 0  # what is zero must not be moved
        self.drop = torch.zeros_like(free)
        self.step = 4 if pattern == "2:4" else STEP
        budget = cheapest(self._costs(matrix.T, 0), amount)
        self.budgets = [float(part.double().mean()) for part in budget.split(STEP, dim=1)]

    def __call__(self, rest: Float64[Tensor, "left out"], column: int) -> Float64[Tensor, " out"]:
        """Return what becomes of the first of these columns."""
        if column % self.step == 0:
            run = slice(column, column + self.step)
            costs = self._costs(rest[: self.step], column)
            is_free = self.pattern == "free"
            gone = cheapest(costs, self.budgets[column // STEP]) if is_free else two_of_four(costs)
            self.drop[:, run] = gone | self.stays[:, run]
        return rest[0].masked_fill(self.drop[:, column], 0)

    def _costs(self, columns: Float64[Tensor, "columns out"], first: int) -> Scores:
        run = slice(first, first + len(columns))
        costs = (columns.T / self.diagonal[run]) ** 2
        return costs.masked_fill(self.free[:, run], -1.0)


def _first(scores: Tensor, counts: int | Int64[Tensor, "rows 1"]) -> Bool[Tensor, "rows columns"]:
    # by rank, not by threshold: a threshold would take all weights that tie with it
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts
