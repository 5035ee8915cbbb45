"""Judge a language model: the bits that it needs for a byte of a text."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import nn

from kit.base import device, memory, modes
from kit.text import windows
from kit.train import processes, room

WHERE = "train.bits_per_byte"
NATS_PER_BIT = math.log(2)


def bits_per_byte(
    model: nn.Module, tokens: UInt8[np.ndarray, " tokens"], *, batch: int = 32, most: int = 65_536
) -> float:
    """Return the bits that a model needs for a byte of a text, on windows spread over all of it.

    Args:
        model: takes tokens (batch, context), returns logits.
        tokens: of a text that was not trained on.
        batch: windows at once, in each process that shares the model; all of them have to call.
            One process alone takes half as many, and half again, where memory runs out.
        most: tokens to predict, about; all windows where there are fewer.

    Raises:
        ValueError: a text shorter than the context.
        MemoryError: the windows do not fit, and cannot be halved.
    """
    context, where = context_of(model), device.of(model)
    n = min(len(tokens) // (context + 1), max(1, most // context))
    if n == 0:
        windows(tokens, context=context, batch=1, seed=0, step=0)  # says what is wrong
    starts = np.linspace(0, len(tokens) - context - 1, n).astype(int)
    rows = torch.from_numpy(
        np.stack([tokens[i : i + context + 1] for i in starts]).astype(np.int64)
    )
    # of a model that they share, the processes share this work, too
    shared = processes.is_shared(model)
    rank, world = (processes.rank(), processes.world()) if shared else (0, 1)
    model = processes.inner(model)

    def nats(at_once: int) -> float:
        total = 0.0
        for some in rows.split(at_once * world):
            mine = some[rank::world]
            x = (mine if len(mine) else some[:1]).to(where)  # a sharded one needs every process
            logits = model(x[:, :-1]).float().flatten(0, 1)
            if len(mine):
                total += float(F.cross_entropy(logits, x[:, 1:].flatten(), reduction="sum"))
        return total

    least = room.least(batch)
    what = f"{least} windows of {context:,} tokens at once"
    remedy = f"Pass batch={least // 2}." if least > 1 else "Pass a smaller model."
    with modes.evaluating(model), room.told(WHERE, what, where=where, remedy=remedy):
        total, _ = memory.halved(nats, batch, where, least=least)
    if shared:
        total = world * float(
            processes.mean(torch.tensor(total, dtype=torch.float64, device=where))
        )
    return total / (n * context) / NATS_PER_BIT


def context_of(model: nn.Module) -> int:
    """Return the longest text that a model takes, in tokens."""
    inner: Any = processes.inner(model)
    return inner.context
