"""The processes that train one model together: who this is, how many, what they agree on."""

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


def rank() -> int:
    """Return the number of this process; the first, or only one, is 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(value: Value) -> Value:
    """Return what the first process found, in all of them."""
    values = [value]
    if world() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def mean(value: Tensor) -> Tensor:
    """Return the mean over all processes; `value` is changed in place."""
    if world() > 1:
        dist.all_reduce(value)
        value /= world()
    return value


def alone(model: nn.Module) -> AbstractContextManager[object]:
    """Let gradients wait in this process: the rest of its batch is still to come."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
