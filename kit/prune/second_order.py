"""Change a matrix column by column, and let the columns to come make up for it."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

BLOCK = 128  # columns between two updates of all that is to the right, as SparseGPT does it
TINY = torch.finfo(torch.float64).tiny
STEPS = 32  # of conjugate gradients

Matrix = Float64[Tensor, "out columns"]
Moments = Float64[Tensor, "columns columns"]
# given the columns from here to the end of the block, as rows, and the number of the first:
# what becomes of the first
Change = Callable[[Float64[Tensor, "left out"], int], Float64[Tensor, " out"]]


def factor(moments: Moments) -> Moments:
    """Return U, upper triangular, with UᵀU the inverse of the moments.

    Row i of U tells how the columns after i make up for column i, once those before it are done.

    Args:
        moments: of the inputs, damped so that there is an inverse.

    Example:
        >>> factor(4 * torch.eye(2, dtype=torch.float64)).diagonal().tolist()
        [0.5, 0.5]
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True)


def swept(matrix: Matrix, upper: Moments, change: Change, *, block: int = BLOCK) -> Matrix:
    """Change the columns from left to right, each time moving those to the right to make up for it.

    Args:
        matrix: weights.
        upper: from `factor`.
        change: what becomes of a column.
        block: columns between two updates of all that is to the right; only speed depends on it.

    Returns:
        The matrix after all changes.

    Source:
        Frantar and Alistarh: SparseGPT, 2023, algorithm 1; Frantar et al.: GPTQ, 2022.
    """
    columns = matrix.T.clone(memory_format=torch.contiguous_format)  # rows of it are read at once
    for start in range(0, len(columns), block):
        part, inner = columns[start : start + block], upper[start : start + block]
        errors = torch.empty_like(part)
        for i in range(len(part)):
            changed = change(part[i:], start + i)
            errors[i] = (part[i] - changed) / inner[i, start + i]
            part[i] = changed
            part[i + 1 :].addr_(inner[i, start + i + 1 : start + len(part)], errors[i], alpha=-1)
        columns[start + block :] -= inner[:, start + block :].T @ errors
    return columns.T.contiguous()


def fitted(
    start: Matrix, goal: Matrix, moments: Moments, keep: Bool[Tensor, "out columns"]
) -> Matrix:
    """Bring the kept weights nearer to those whose outputs are nearest to the goal's.

    Conjugate gradients on all rows at once, each in the space of its own mask: a few products of
    matrices, where solving for each row would cost the cube of the columns. The error never grows.

    Args:
        start: weights, zero where they are not kept.
        goal: weights whose outputs are to be met.
        moments: of the inputs, damped.
        keep: which weights may be other than zero.
    """
    x, scale = start.clone(), moments.diagonal()
    residual = ((goal - x) @ moments) * keep
    towards = residual / scale
    now = (residual * towards).sum(1, keepdim=True)
    for _ in range(STEPS):
        ahead = (towards @ moments) * keep
        step = now / (towards * ahead).sum(1, keepdim=True).clamp_min(TINY)
        x += step * towards
        residual -= step * ahead
        scaled = residual / scale
        before, now = now, (residual * scaled).sum(1, keepdim=True)
        towards = scaled + now / before.clamp_min(TINY) * towards
    return x


def squared(matrix: Matrix, moments: Moments) -> float:
    """Return the mean square of a matrix' outputs, summed over them.

    Example:
        >>> squared(2 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
        8.0
    """
    return max(0.0, float(((matrix @ moments) * matrix).sum()))
