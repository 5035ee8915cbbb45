"""What this package asks of a model and of what goes in and out of it."""

import copy
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from kit.base import checks
from kit.base.memory import ran_out


def check_model(where: str, model: Any) -> None:
    """Refuse what is no module."""
    if not isinstance(model, nn.Module):
        raise checks.bad_type(
            where,
            expected="a torch.nn.Module",
            got=checks.Described(type(model).__name__),
            remedy="Pass the model itself.",
        )


def context_of(where: str, model: Any) -> int:
    """Return the longest text that a language model reads, or refuse one that does not say."""
    context: Any = getattr(model, "context", None)
    if not is_count(context):
        raise checks.bad_value(
            where,
            expected="a model with a context, the longest text in tokens",
            got=checks.Described(f"{type(model).__name__} with context {context}"),
            remedy="Set model.context = 256.",
        )
    return int(context)


def check_rows(where: str, X: Any) -> None:
    """Refuse what is no tensor, or has no axis of rows."""
    if not isinstance(X, Tensor):
        raise checks.bad_type(
            where,
            expected="a tensor of rows",
            got=checks.Described(type(X).__name__),
            remedy="Encode the table first: encoder.X(frame).",
        )
    if X.ndim == 0:
        raise checks.bad_value(
            where, expected="rows", got=X, remedy="Add the axis of rows: x[None]."
        )


def check_outputs(where: str, outputs: Any, rows: int) -> None:
    """Refuse what is not one tensor with a row for each of so many inputs."""
    if not isinstance(outputs, Tensor):
        raise checks.bad_type(
            where,
            expected="a model that returns one tensor",
            got=checks.Described(type(outputs).__name__),
            remedy="Wrap it in a module whose forward returns the one you want.",
        )
    if outputs.ndim == 0 or len(outputs) != rows:
        raise checks.bad_value(
            where,
            expected=f"one row of outputs for each of {rows} inputs",
            got=outputs,
            remedy="Pass a model that keeps the rows apart.",
        )


def check_alike(where: str, outputs: Tensor, first: Tensor) -> None:
    """Refuse outputs whose rows are shaped unlike those of the first batch."""
    if outputs.shape[1:] != first.shape[1:]:
        raise checks.bad_value(
            where,
            expected=f"outputs of shape {tuple(first.shape[1:])} in every row",
            got=outputs,
            remedy="Pass rows of one shape, or predict them one by one.",
        )


def is_count(given: Any) -> bool:
    """Tell whether this is a whole number, 1 or more."""
    return isinstance(given, Integral) and int(given) >= 1


def are_counts(given: Any) -> bool:
    """Tell whether these are whole numbers, each 1 or more, and at least one."""
    return isinstance(given, Collection) and len(given) > 0 and all(map(is_count, given))


@contextmanager
def within_memory(where: str, what: str, *, remedy: str) -> Iterator[None]:
    """Say in one line where the block runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        told = checks.bad_value(
            where, expected=f"memory for {what}", got=checks.Described("too little"), remedy=remedy
        )
        raise MemoryError(str(told)) from None


def copied(where: str, model: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Return a copy of a model that shares these tensors with it, or say why there is none."""
    try:
        return copy.deepcopy(model, {id(each): each for each in shared})
    except Exception as error:
        raise checks.bad_value(
            where,
            expected="a model that copy.deepcopy can copy",
            got=checks.Described(f"{type(error).__name__}: {error}"),
            remedy="Hold no results of a computation in its attributes; of a pruned model, first "
            'prune.remove(module, "weight").',
        ) from error
