"""What every kind of pruning returns: the smaller model, and what was done where."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kit.base.numbers import short
from kit.base.results import Result, result

Step = Mapping[str, Any]  # what JSON can hold of how a model came to its shape


@result
class Pruned(Result):
    """Hold a pruned copy of a model; `table` has one row for each part that was pruned."""

    model: nn.Module  # the new one; the original is as it was
    dense_parameters: int
    parameters: int  # that are left; zeros count where they are stored
    left: Mapping[str, str]  # parts left whole -> why
    notes: tuple[str, ...]  # what a reader of the figures should know

    def facts(self) -> dict[str, str]:
        """Return what is left of the parameters, how many parts were left whole, and the notes."""
        share = short(self.parameters / self.dense_parameters)
        facts = {"parameters": f"{self.parameters:,}", "of dense": share}
        facts |= {"left whole": str(len(self.left))} if self.left else {}
        return facts | {f"note {i}": note for i, note in enumerate(self.notes, 1)}


def parameters(model: nn.Module) -> int:
    """Count a model's parameters, each once however many names it has.

    Example:
        >>> parameters(nn.Linear(3, 2))
        8
    """
    return sum(weight.numel() for weight in model.parameters())


def steps_of(model: nn.Module) -> tuple[Step, ...]:
    """Return the steps by which a model came to its shape, from the first model that was pruned."""
    return getattr(model, "pruning_steps", ())


def remember(model: nn.Module, before: nn.Module, steps: Iterable[Step] = ()) -> None:
    """Note by which steps a model came from another, for `prune.save`."""
    # an attribute, so that copies have it as well
    model.pruning_steps = (*steps_of(before), *steps)  # type: ignore[assignment]
