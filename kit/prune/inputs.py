"""What pruning asks of a model and of the rows that it watches it on."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks
from kit.base.modes import evaluating

Rows = Tensor | Mapping[str, Tensor]  # for model(rows), or for model(**rows)
AT_ONCE = 64  # rows that a model is shown together


def check(where: str, model: Any, calibration: Any) -> None:
    """Refuse what is no float model on one device, or no finite rows there.

    Args:
        where: the public function that was called, as `module.function`.
        model: what is to be a module.
        calibration: what is to be rows for it.

    Raises:
        TypeError: no module; neither a tensor nor tensors by name.
        ValueError: no weights, or quantised ones; no rows, rows of differing number, rows that are
            not finite, or on another device than the model; rows that the model does not take, or
            for which it returns what is not finite.
    """
    _check_model(where, model)
    if not tensors(calibration) or not all(isinstance(x, Tensor) for x in tensors(calibration)):
        raise checks.bad_type(
            where,
            expected="a tensor of rows, or tensors by the names of the model's arguments",
            got=checks.Described(type(calibration).__name__),
            remedy="Pass X[:1024], or {'input_ids': tokens}.",
        )
    device = next(model.parameters()).device
    counts = {len(x) if x.ndim else 0 for x in tensors(calibration)}
    for x in tensors(calibration):
        if counts == {0} or len(counts) > 1 or x.numel() == 0:
            raise checks.bad_value(
                where,
                expected="the same number of rows, 1 or more, in all of calibration",
                got=x,
                remedy="Pass a few hundred rows like those that the model will see.",
            )
        if x.device != device:
            raise checks.bad_value(
                where,
                expected=f"calibration on the model's device, {device}",
                got=checks.Described(str(x.device)),
                remedy=f'Move it: calibration.to("{device}").',
            )
        if x.is_floating_point() and not x.isfinite().all():
            raise checks.bad_value(
                where,
                expected="finite numbers in calibration",
                got=checks.Described(f"{int((~x.isfinite()).sum()):,} that are not"),
                remedy="Fill or drop those rows first: clean.apply.",
            )
    _check_taken(where, model, calibration)


def check_fraction(where: str, name: str, value: Any, *, remedy: str) -> None:
    """Refuse what is not a fraction above 0 and up to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise checks.bad_value(where, expected=f"0 < {name} <= 1", got=value, remedy=remedy)


def check_choice(where: str, what: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse a name that is not one of `known`."""
    if value not in known:
        raise checks.unknown_name(where, what, got=value, known=known)


def tensors(rows: Any) -> list[Any]:
    """Return the tensors that rows consist of."""
    return list(rows.values()) if isinstance(rows, Mapping) else [rows]


def arguments(rows: Rows) -> tuple[Tensor, ...]:
    """Return the tensors that a graph is called with."""
    return tuple(tensors(rows))


def count(rows: Rows) -> int:
    """Return how many rows there are."""
    return len(tensors(rows)[0])


def take(rows: Rows, part: slice | Tensor) -> Rows:
    """Return some of the rows, in the form of all.

    Example:
        >>> take({"x": torch.arange(4)}, slice(2))
        {'x': tensor([0, 1])}
    """
    if isinstance(rows, Mapping):
        return {name: x[part] for name, x in rows.items()}
    return rows[part]


def shortened(rows: Rows) -> Rows | None:
    """Return texts or series one place shorter, or None where rows have no such axis.

    Example:
        >>> shortened(torch.zeros(2, 9, 4)).shape
        torch.Size([2, 8, 4])
    """
    long = all(x.ndim in (2, 3) and x.shape[1] > 2 for x in tensors(rows))
    if not long or any(x.ndim == 2 and x.is_floating_point() for x in tensors(rows)):
        return None
    if isinstance(rows, Mapping):
        return {name: x[:, :-1] for name, x in rows.items()}
    return rows[:, :-1]


def batches(rows: Rows, at_once: int = AT_ONCE) -> Iterator[Rows]:
    """Yield rows, so many together."""
    for start in range(0, count(rows), at_once):
        yield take(rows, slice(start, start + at_once))


def call(model: nn.Module, rows: Rows) -> Tensor:
    """Return a model's one output for rows: logits, or the first of what it returns."""
    return first(model(**rows) if isinstance(rows, Mapping) else model(rows))


def first(output: Any) -> Tensor:
    """Return the tensor that stands for an output: itself, its logits, or its first part.

    Example:
        >>> first({"loss": None, "logits": torch.ones(2)})
        tensor([1., 1.])
    """
    if isinstance(output, Mapping):
        parts = [part for part in output.values() if part is not None]
        return first(output["logits"] if output.get("logits") is not None else parts[0])
    return first(output[0]) if isinstance(output, tuple | list) else output


def outputs(model: nn.Module, rows: Rows) -> Tensor:
    """Return the outputs for all rows; the caller decides on mode and gradients."""
    return torch.cat([call(model, part) for part in batches(rows)])


def first_line(error: Exception) -> str:
    """Return what an error says first, or its name where it says nothing.

    Example:
        >>> first_line(AssertionError())
        'AssertionError'
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_taken(where: str, model: nn.Module, rows: Rows) -> None:
    few = take(rows, slice(2))
    try:
        with evaluating(model):
            out = call(model, few)
    except Exception as error:  # a forward raises what it likes
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors(few))
        raise checks.bad_value(
            where,
            expected="calibration that the model takes",
            got=checks.Described(f"rows of shape {shapes}: {first_line(error)[:120]}"),
            remedy="Pass rows as you pass them to the model.",
        ) from error
    if isinstance(out, Tensor) and not out.isfinite().all():
        raise checks.bad_value(
            where,
            expected="a model that returns finite numbers",
            got=checks.Described("NaN or infinity"),
            remedy="Look for the layer where they begin, or use float32.",
        )


def _check_model(where: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise checks.bad_type(
            where,
            expected="a torch.nn.Module",
            got=checks.Described(type(model).__name__),
            remedy="Pass the model itself.",
        )
    held = list(chain(model.parameters(), model.buffers()))
    packed = [part for part in model.modules() if "quantized" in type(part).__module__]
    if packed or any(x.dtype in (torch.int8, torch.qint8) for x in held):
        raise checks.bad_value(
            where,
            expected="a model of float weights",
            got=checks.Described("a quantised one"),
            remedy="Prune first, then quantise what is left: prune.quantise(pruned.model, rows).",
        )
    if any(isinstance(x, Tensor) and not x.is_leaf for x in _attributes(model)):
        raise checks.bad_value(
            where,
            expected="weights that are stored as such, so that the model can be copied",
            got=checks.Described("some that a hook computes from others"),
            remedy='Make them final first: torch.nn.utils.prune.remove(layer, "weight").',
        )
    if not any(weight.is_floating_point() for weight in model.parameters()):
        raise checks.bad_value(
            where,
            expected="a model with weights",
            got=checks.Described(type(model).__name__),
            remedy="Pass the model itself, built and trained.",
        )
    if len({weight.device for weight in model.parameters()}) > 1:
        raise checks.bad_value(
            where,
            expected="a model on one device",
            got=checks.Described("several"),
            remedy='Move it: model.to("cpu").',
        )


def _attributes(model: nn.Module) -> Iterator[Any]:
    """Yield what the modules hold besides parameters, buffers and parts."""
    return chain.from_iterable(vars(part).values() for part in model.modules())
