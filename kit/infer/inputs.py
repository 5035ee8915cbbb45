"""What this package asks of a model and of what goes in and out of it."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from kit.base import checks


def check_model(where: str, model: Any) -> None:
    """Refuse what is no module."""
    if not isinstance(model, nn.Module):
        raise checks.bad_type(
            where,
            expected="a torch.nn.Module",
            got=checks.Described(type(model).__name__),
            remedy="Pass the model itself.",
        )


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


def check_outputs(where: str, outputs: Any) -> None:
    """Refuse a model that does not return one tensor."""
    if not isinstance(outputs, Tensor):
        raise checks.bad_type(
            where,
            expected="a model that returns one tensor",
            got=checks.Described(type(outputs).__name__),
            remedy="Wrap it in a module whose forward returns the one you want.",
        )


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
