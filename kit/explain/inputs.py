"""Read what an explanation is asked about: tables of numbers, and models of any habit."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from kit.base import checks, device

Table = pd.DataFrame | np.ndarray | Tensor
Model = nn.Module | Callable[..., Any]  # functions take and return NumPy arrays
OUTPUTS = ("logit", "probability", "raw")


def matrix(
    where: str, name: str, X: Table
) -> tuple[Float64[np.ndarray, "rows columns"], list[str]]:
    """Return a table as float64 with the names of its columns, or say what is wrong with it.

    Args:
        where: the public function that was called, for its messages.
        name: the argument's name, for its messages.
        X: numbers, a row a case; names come from a DataFrame, else they are x0, x1, …

    Raises:
        TypeError: a column of words.
        ValueError: not two axes, or missing or infinite numbers.
    """
    frame = X if isinstance(X, pd.DataFrame) else None
    array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    if array.ndim != 2 or 0 in array.shape:
        remedy = f"Add the axis of rows: {name}[None]." if array.ndim == 1 else "Pass a row a case."
        raise checks.bad_value(
            where, expected=f"{name} of shape (rows, columns)", got=X, remedy=remedy
        )
    names = [f"x{j}" for j in range(array.shape[1])] if frame is None else list(map(str, frame))
    _refuse_words(where, name, array, names)
    numbers = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers).all(0))
    if bad.size:
        raise checks.bad_value(
            where,
            expected=f"finite numbers in {name}",
            got=checks.Described(f"missing or infinite ones in {_some(names, bad)}"),
            remedy=f"Fill or drop them first: {name}.dropna() on a DataFrame.",
        )
    return numbers, names


@contextmanager
def evaluating(where: str, model: Model) -> Iterator[None]:
    """Put a module that trains into evaluation mode, say so, and put it back at the end."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [module for module in modules if module.training]
    if any(isinstance(module, _RANDOM) for module in training):
        warnings.warn(
            f"{where}: the model was in training mode; explained in evaluation mode. "
            "Call model.eval() first to silence this.",
            stacklevel=3,
        )
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def predictor(
    where: str, model: Model, *, output: str
) -> Callable[[Float64[np.ndarray, "rows columns"]], Float64[np.ndarray, "rows outputs"]]:
    """Return a function from rows to outputs, whatever shape and place the model works in.

    Args:
        where: the public function that was called, for its messages.
        model: a module, which gets its own dtype and device, or a function of NumPy arrays.
        output: "probability" puts a sigmoid (one output) or a softmax (several) on a module's
            logits; "logit" and "raw" take them as they are, as the outputs of functions always are.

    Raises:
        ValueError: `output` is unknown; at the call: outputs of another shape, or not finite.
    """
    if output not in OUTPUTS:
        raise checks.unknown_name(where, "output", got=output, known=OUTPUTS)
    if not isinstance(model, nn.Module):
        return lambda X: outputs(where, model(X), len(X))
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(1))
    place = device.of(model)

    @torch.inference_mode()
    def call(X: np.ndarray) -> np.ndarray:
        return link(
            outputs(where, model(torch.as_tensor(X).to(place, weight.dtype)), len(X)), output
        )

    return call


def outputs(where: str, found: Any, n_rows: int) -> Float64[np.ndarray, "rows outputs"]:
    """Return what a model gave as (rows, outputs), or say that it cannot be explained."""
    if isinstance(found, tuple | list) and found and isinstance(found[0], Tensor | np.ndarray):
        found = found[0]  # models that hand back (logits, state) mean the logits
    array = (
        found.detach().cpu().double().numpy() if isinstance(found, Tensor) else np.asarray(found)
    )
    if array.ndim == 1 and len(array) == n_rows:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n_rows or not np.issubdtype(array.dtype, np.number):
        raise checks.bad_value(
            where,
            expected=f"a model that gives ({n_rows}, outputs) for {n_rows} rows",
            got=found,
            remedy="Wrap it: lambda X: model(X)[...] with one row of numbers a case.",
        )
    if not np.isfinite(array).all():
        raise checks.bad_value(
            where,
            expected="finite predictions",
            got=checks.Described("NaN or infinity from the model"),
            remedy="Look at its inputs' scale: explain the rows in the units it was trained on.",
        )
    return array.astype(np.float64)


def link(logits: Float64[np.ndarray, "rows outputs"], output: str) -> np.ndarray:
    """Return logits as they are, or as probabilities."""
    if output != "probability":
        return logits
    scores = torch.from_numpy(logits)
    return (scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)).numpy()


def choose(where: str, target: int | str | None, n_outputs: int) -> list[int]:
    """Return the outputs to explain: one class, or all for None and "all".

    Raises:
        ValueError: no such class.
    """
    if target is None or target == "all":
        return list(range(n_outputs))
    if not isinstance(target, int) or not 0 <= target < n_outputs:
        raise checks.bad_value(
            where,
            expected=f'a class from 0 to {n_outputs - 1} or "all"',
            got=target,
            remedy="Pass target=0 for the first.",
        )
    return [target]


_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def _refuse_words(where: str, name: str, array: np.ndarray, names: list[str]) -> None:
    if np.issubdtype(array.dtype, np.number) or array.dtype == bool:
        return
    words = [j for j in range(array.shape[1]) if not _numeric(array[:, j])]
    if words:
        raise checks.bad_type(
            where,
            expected=f"numbers in {name}",
            got=checks.Described(f"words in {_some(names, words)}"),
            remedy="Encode them first, as the model's own training did: data.Encoder.",
        )


def _numeric(column: np.ndarray) -> bool:
    return all(isinstance(cell, int | float | np.number | np.bool_) for cell in column)


def _some(names: list[str], chosen: Any) -> str:
    shown = ", ".join(repr(names[j]) for j in chosen[:5])
    return shown + (f" and {len(chosen) - 5} more" if len(chosen) > 5 else "")
