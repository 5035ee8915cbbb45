"""Zeros among the weights: which to drop, and how the rest make up for them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from kit.base import checks, modes
from kit.prune import inputs, masks, products, second_order
from kit.prune.gram import Gram, damped
from kit.prune.pruned import Pruned, parameters, remember
from kit.prune.second_order import Matrix, Moments

WHERE = "prune.sparsify"
PATTERNS = ("free", "2:4")
METHODS = ("obs", "wanda", "magnitude")
Score = Callable[[Float64[Tensor, "out columns"], Float64[Tensor, " columns"]], Tensor]
NO_SPEED_UP = (
    "no speed-up on this hardware: zeros are stored and multiplied like other numbers; "
    "prune.shrink makes a model smaller"
)
COLUMNS = ("layer", "pattern", "method", "zeros", "output_error", "rows")


def sparsify(
    model: nn.Module,
    calibration: inputs.Rows,
    *,
    amount: float,
    pattern: str = "free",
    method: str = "obs",
    score: Score | None = None,
) -> Pruned:
    """Return a copy of a model in which a fraction of every layer's weights is zero.

    Linear layers, those of transformers (Conv1D) and 2-D convolutions are pruned in the order of
    their calls, each with the inputs that the pruned layers before it give. Weights that are zero
    already stay so and count. The shapes stay, so this alone makes nothing faster: the notes say.

    Args:
        model: any module of float weights; it stays as it is.
        calibration: rows like those that the model will see, a few hundred; no labels. Of a
            convolution some of the windows are looked at.
        amount: fraction of the weights to drop, 0 < amount < 1.
        pattern: "free", or "2:4": two of each four neighbours in a row, for which GPUs have
            kernels; used at once for linear layers in half precision on one that has them.
        method: "obs" drops what costs the outputs least, and moves the other weights (and the
            bias) to make up for it; "wanda" drops the smallest |weight| · |input| of each row;
            "magnitude" the smallest weights of a layer. The last two move nothing.
        score: what to drop instead of the method's choice: the lowest of score(weight, input_norms)
            with weight (out, in) and the root mean square of each input; with "obs" the others are
            moved as well, with "wanda" it is compared within rows.

    Returns:
        The copy; `table` has a row a layer, with the error of its outputs on the calibration rows
        as a fraction of them. The layers left whole are those with tied weights, embeddings and
        layers of other kinds.

    Raises:
        TypeError: no module, or calibration of another type.
        ValueError: a setting out of range, or calibration that does not fit; activations that are
            not finite.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> pruned = sparsify(nn.Linear(8, 4), torch.randn(64, 8), amount=0.5)
        >>> int((pruned.model.weight == 0).sum())
        16

    Source:
        Frantar and Alistarh: SparseGPT, 2023; Sun et al.: Wanda, 2023; Hassibi and Stork: Optimal
        Brain Surgeon, 1993. Here the budget of a block of columns is what it holds of the layer's
        cheapest weights, and conjugate gradients end what SparseGPT's sweep leaves undone.
    """
    _check(amount, pattern, method)
    inputs.check(WHERE, model, calibration)
    new = copy.deepcopy(model)
    layers, left = products.found(new)
    if pattern == "2:4":
        odd = {name for name, layer in layers.items() if _columns(layer) % 4}
        left |= {name: f"{_columns(layers[name])} columns, not in fours" for name in sorted(odd)}
        layers = {name: layer for name, layer in layers.items() if name not in odd}
    rule = _Rule(amount, pattern, method, score)
    rows, sizes = [], []
    with modes.evaluating(new):
        for seen in products.visited(new, layers, calibration, where=WHERE):
            rows.append({"layer": seen.name, **rule.apply(seen.layer, seen.grams)})
            sizes += [(seen.grams[0].rows, seen.grams[0].columns)]
    left |= products.unreached(layers, {row["layer"] for row in rows})
    notes = products.short_note(sizes, calibration)
    remember(new, model)
    is_real = pattern == "2:4" and _with_kernels(new, [row["layer"] for row in rows])
    return Pruned(
        table=pd.DataFrame(rows, columns=COLUMNS),
        model=new,
        dense_parameters=parameters(model),
        parameters=parameters(new),
        left=left,
        notes=notes if is_real else (NO_SPEED_UP, *notes),
    )


@dataclass(frozen=True)
class _Rule:
    """What is dropped, and whether the rest makes up for it."""

    amount: float
    pattern: str
    method: str
    score: Score | None

    def apply(self, layer: nn.Module, grams: Sequence[Gram]) -> dict[str, Any]:
        """Prune a layer in place, and return its row of the table."""
        error, size, moved = 0.0, 0.0, []
        # a bias makes up for the means of the inputs, so that only their variation is lost
        is_moved = self.method == "obs" and products.is_biased(layer)
        zeros = numbers = 0
        for weight, gram in zip(products.matrices(layer), grams, strict=True):
            moments = gram.covariance() if is_moved else gram.second_moments()
            before = weight.to(torch.float64, copy=True)  # of a float64 weight as well
            weight.copy_(self._pruned(before, moments, gram))
            change = before - weight.double()
            error += second_order.squared(change, moments)
            size += second_order.squared(before, gram.second_moments())
            moved.append(change @ gram.means())
            zeros, numbers = zeros + int((weight == 0).sum()), numbers + weight.numel()
        if is_moved:
            products.shift(layer, torch.cat(moved))
        return {
            "pattern": self.pattern,
            "method": self.method,
            "zeros": zeros / numbers,
            "output_error": (error / size) ** 0.5 if size else 0.0,
            "rows": grams[0].rows,
        }

    def _pruned(self, matrix: Matrix, moments: Moments, gram: Gram) -> Matrix:
        norms = gram.second_moments().diagonal().sqrt()
        free = (matrix == 0) | (norms == 0)  # costs nothing, so goes first
        if self.method != "obs":
            return matrix.masked_fill(self._chosen(matrix, norms, free), 0)
        moments = damped(moments)
        upper = second_order.factor(moments)
        if self.score is None:
            choice = masks.Adaptive(
                matrix, upper.diagonal(), free, amount=self.amount, pattern=self.pattern
            )
            swept = second_order.swept(matrix, upper, choice)
            return second_order.fitted(swept, matrix, moments, ~choice.drop)
        drop = self._chosen(matrix, norms, free)
        return second_order.fitted(matrix.masked_fill(drop, 0), matrix, moments, ~drop)

    def _chosen(self, matrix: Matrix, norms: Tensor, free: masks.Mask) -> masks.Mask:
        """Return what goes by its score, with what is zero already."""
        scores = self._scored(matrix, norms).masked_fill(free, -torch.inf)
        if self.pattern == "2:4":
            return masks.two_of_four(scores) | (matrix == 0)
        choose = masks.cheapest_of_rows if self.method == "wanda" else masks.cheapest
        return choose(scores, self.amount) | (matrix == 0)

    def _scored(self, matrix: Matrix, norms: Tensor) -> Tensor:
        if self.score is None:
            return matrix.abs() * (norms if self.method == "wanda" else 1)
        scores = self.score(matrix.clone(), norms.clone())
        if not isinstance(scores, Tensor) or scores.shape != matrix.shape or scores.isnan().any():
            raise checks.bad_value(
                WHERE,
                expected=f"a score for each weight, of shape {tuple(matrix.shape)} and not NaN",
                got=scores,
                remedy="Return a number for each: score=lambda weight, norms: weight.abs().",
            )
        return scores.double()


def _check(amount: Any, pattern: Any, method: Any) -> None:
    inputs.check_choice(WHERE, "pattern", pattern, PATTERNS)
    inputs.check_choice(WHERE, "method", method, METHODS)
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1:
        raise checks.bad_value(
            WHERE,
            expected="0 < amount < 1",
            got=amount,
            remedy="Pass a fraction: amount=0.4 makes 40 % of the weights zero.",
        )
    if pattern == "2:4" and amount != 0.5:
        raise checks.bad_value(
            WHERE,
            expected='amount=0.5 with pattern="2:4", which drops two of every four',
            got=amount,
            remedy='Pass amount=0.5, or pattern="free".',
        )


def _columns(layer: nn.Module) -> int:
    return products.matrices(layer)[0].shape[1]


def _with_kernels(model: nn.Module, names: Sequence[str]) -> bool:
    """Give layers whose GPU multiplies 2:4 weights faster such weights; tell whether any got them.

    Its kernels take matrices of half precision whose sides are multiples of 64 or so.
    """
    given = False
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = layer.weight
        if type(layer) is not nn.Linear or not _has_kernels(weight):
            continue
        try:
            sparse = torch.sparse.to_sparse_semi_structured(weight.detach())
        except RuntimeError:  # a shape that they do not take
            continue
        layer.weight = nn.Parameter(sparse, requires_grad=weight.requires_grad)
        given = True
    return given


def _has_kernels(weight: Tensor) -> bool:
    is_half = weight.dtype in (torch.float16, torch.bfloat16)
    if not is_half or weight.device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(weight.device) >= (8, 0)
