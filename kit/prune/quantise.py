"""Linear layers in int8, rounded so that the columns to come make up for each."""

import copy
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from kit.base import checks, modes
from kit.prune import inputs, int8, products, second_order
from kit.prune.gram import Gram, damped
from kit.prune.pruned import Pruned, parameters, remember
from kit.prune.second_order import Matrix

WHERE = "prune.quantise"
SMALL = 4096  # weights of a layer below which int8 saves neither time nor much room
NARROWER = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # than the largest weight: grids that are tried

Codes = Float64[Tensor, "out columns"]  # whole numbers


def quantise(model: nn.Module, calibration: inputs.Rows, *, bits: int = 8) -> Pruned:
    """Return a copy of a model whose linear layers hold their weights in int8 and multiply so.

    Each layer in the order of calls: its weights are rounded column by column to a grid for each
    output, and those to the right (and the bias) make up for what rounding did to the outputs.
    Inputs are rounded as they come, a batch on one grid: what one row gives depends, in the last
    digits, on the others of its batch. Zero weights stay zero. Prune first, then quantise.

    Args:
        model: any module of float weights; it stays as it is.
        calibration: rows like those that the model will see, a few hundred; no labels.
        bits: of the grid, 2 to 8. Fewer than 8 show what that would cost; they are stored in 8.

    Returns:
        The copy, for inference on a CPU; `table` has a row a layer, with the error that its
        rounded weights make as a fraction of its outputs. Layers of other kinds, tied ones and
        those of fewer than 4,096 weights are left whole.

    Raises:
        TypeError: no module, or calibration of another type.
        ValueError: bits out of range, calibration that does not fit, a quantised model, or
            activations that are not finite.

    Example:
        >>> quantised = quantise(nn.Linear(64, 64), torch.randn(256, 64))
        >>> quantised.model.codes.dtype
        torch.int8

    Source:
        Frantar et al.: GPTQ, 2022, algorithm 1; with the best of a few grids for each row.
    """
    _check(bits)
    inputs.check(WHERE, model, calibration)
    new = copy.deepcopy(model)
    layers, left = products.found(new)
    left |= {name: reason for name, layer in layers.items() if (reason := _reason(layer))}
    layers = {name: layer for name, layer in layers.items() if name not in left}
    rows: list[dict[str, Any]] = []
    states: dict[str, dict[str, Tensor]] = {}
    with modes.evaluating(new):
        for seen in products.visited(new, layers, calibration, where=WHERE):
            row, states[seen.name] = _rounded(seen.layer, seen.grams[0], bits)
            rows.append({"layer": seen.name, "bits": bits, **row})
    left |= products.unreached(layers, set(states))
    shapes = {n: (*each["codes"].shape[::-1], "bias" in each) for n, each in states.items()}
    new = int8.placed(new, shapes)
    for name, state in states.items():
        new.get_submodule(name).load_state_dict(state)
    remember(new, model, [{"as": "int8", "layers": shapes}])
    sizes = [(row["rows"], states[row["layer"]]["codes"].shape[1]) for row in rows]
    return Pruned(
        table=pd.DataFrame(rows, columns=["layer", "bits", "output_error", "rows"]),
        model=new,
        dense_parameters=parameters(model),
        parameters=parameters(new),
        left=left,
        notes=(*_notes(new, bits), *products.short_note(sizes, calibration)),
    )


def _check(bits: Any) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise checks.bad_value(
            WHERE, expected="2 <= bits <= 8", got=bits, remedy="Pass bits=8, or leave it out."
        )


def _reason(layer: nn.Module) -> str:
    """Return why a layer stays in float, or nothing."""
    if type(layer) is not nn.Linear and not products.is_transposed(layer):
        return f"only linear layers are held in int8, and this is a {type(layer).__name__}"
    size = products.matrices(layer)[0].numel()
    return f"{size:,} weights: too few for int8 to be faster" if size < SMALL else ""


def _rounded(layer: Any, gram: Gram, bits: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Round a layer's weights in place, and return its row of the table and its state in int8."""
    (weight,) = products.matrices(layer)
    before = weight.to(torch.float64, copy=True)  # of a float64 weight as well
    is_biased = products.is_biased(layer)
    moments = gram.covariance() if is_biased else gram.second_moments()
    steps = _steps(before, gram.second_moments().diagonal(), bits)
    codes = _compensated(before, damped(moments), steps, bits)
    change = before - codes * steps[:, None]
    weight.copy_(codes * steps[:, None])
    if is_biased:
        products.shift(layer, change @ gram.means())
    size = second_order.squared(before, gram.second_moments())
    error = second_order.squared(change, moments)
    row = {"output_error": (error / size) ** 0.5 if size else 0.0, "rows": gram.rows}
    state = {"codes": codes.to(torch.int8), "scales": steps.float()}
    return row, state | ({"bias": layer.bias.float()} if is_biased else {})


def _steps(
    matrix: Matrix, squares: Float64[Tensor, " columns"], bits: int
) -> Float64[Tensor, " out"]:
    """Return the step of each row's grid: the one that rounds it with the least error."""
    most = 2 ** (bits - 1) - 1
    widest = matrix.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / most
    tried = widest * torch.tensor(NARROWER, dtype=torch.float64, device=matrix.device)[:, None]
    errors = torch.stack(
        [
            ((matrix - _grid(matrix, steps, most) * steps[:, None]) ** 2 * squares).sum(1)
            for steps in tried
        ]
    )
    return tried.gather(0, errors.argmin(0, keepdim=True))[0]


def _compensated(
    matrix: Matrix, moments: Tensor, steps: Float64[Tensor, " out"], bits: int
) -> Codes:
    most, is_zero = 2 ** (bits - 1) - 1, matrix == 0
    codes = torch.empty_like(matrix)

    def change(rest: Tensor, column: int) -> Tensor:
        code = _grid(rest[0][:, None], steps, most)[:, 0].masked_fill(is_zero[:, column], 0)
        codes[:, column] = code
        return code * steps

    second_order.swept(matrix, second_order.factor(moments), change)
    return codes


def _grid(matrix: Matrix, steps: Float64[Tensor, " out"], most: int) -> Codes:
    return (matrix / steps[:, None]).round().clamp(-most, most)


def _notes(model: nn.Module, bits: int) -> tuple[str, ...]:
    notes = []
    if bits < 8:
        notes.append(f"weights of {bits} bits are stored in 8: the file is that of 8 bits")
    where = next(model.parameters()).device.type
    if where != "cpu":
        notes.append(f"no speed-up on this hardware: {where} expands the weights for each product")
    return tuple(notes)
