"""The processes that train one model together: who this is, how many, what they hand around."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")
DDP = nn.parallel.DistributedDataParallel


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


def by_first(work: Callable[[], Value]) -> Value:
    """Let the first process do something; return what it returned, or raise its error, in all."""
    done: tuple[Value | None, Exception | None] = None, None
    if rank() == 0:
        try:
            done = work(), None
        except (ValueError, TypeError, OSError) as error:
            done = None, error
    value, raised = agreed(done)
    if raised is not None:
        raise raised
    return cast(Value, value)


def mean(value: Tensor) -> Tensor:
    """Return the mean over all processes; `value` is changed in place."""
    if world() > 1:
        dist.all_reduce(value)
        value /= world()
    return value


def inner(model: nn.Module) -> nn.Module:
    """Return the model that DistributedDataParallel holds, or `model` itself."""
    return model.module if isinstance(model, DDP) else model


def is_shared(model: nn.Module) -> bool:
    """Tell whether the processes train this model together, each on its share of a batch."""
    return isinstance(model, DDP) or _is(model, "torch.distributed.fsdp", "FSDPModule")


def alone(model: nn.Module) -> AbstractContextManager[object]:
    """Let gradients wait in this process: the rest of its batch is still to come.

    Those of a sharded model do not wait: whole ones would take the memory that shards save.
    """
    return model.no_sync() if isinstance(model, DDP) else nullcontext()


def whole(tensor: Any) -> Tensor:
    """Gather a tensor that is in shards; every process must call it."""
    return tensor.full_tensor() if _in_shards(tensor) else tensor


def handed_out(tensor: Tensor, *, like: Any, source: int = 0) -> Tensor:
    """Return what the process `source` has, where `like` is and in shards where `like` is.

    Args:
        tensor: the whole; of the other processes' only shape and type count, "meta" will do.
        like: the tensor that it is for.
        source: number of the process that has it.
    """
    if world() == 1 and not _in_shards(like):
        return tensor
    here = rank() == source
    tensor = tensor.to(like.device) if here else torch.empty_like(tensor, device=like.device)
    if _in_shards(like):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=source)
    dist.broadcast(tensor, src=source)
    return tensor


def _in_shards(tensor: object) -> bool:
    return _is(tensor, "torch.distributed.tensor", "DTensor")


def _is(value: object, module: str, name: str) -> bool:
    """Tell a class whose module takes a second to import; before that, nothing is of the class."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
