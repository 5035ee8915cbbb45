"""Judge a language model: the bits that it needs for a byte of a text."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import nn

from kit.base import device
from kit.text import windows

NATS_PER_BIT = math.log(2)


def bits_per_byte(
    model: nn.Module, tokens: UInt8[np.ndarray, " tokens"], *, batch: int = 32, most: int = 65_536
) -> float:
    """Return the bits that a model needs for a byte of a text, on windows spread over all of it.

    Args:
        model: takes tokens (batch, context), returns logits.
        tokens: of a text that was not trained on.
        batch: windows at once.
        most: tokens to predict, about; all windows where there are fewer.
    """
    context, where = context_of(model), device.of(model)
    n = min(len(tokens) // (context + 1), max(1, most // context))
    if n == 0:
        windows(tokens, context=context, batch=1, seed=0, step=0)  # says what is wrong
    starts = np.linspace(0, len(tokens) - context - 1, n).astype(int)
    rows = torch.from_numpy(
        np.stack([tokens[i : i + context + 1] for i in starts]).astype(np.int64)
    )
    trained, total = [part for part in model.modules() if part.training], 0.0
    model.eval()
    try:
        with torch.no_grad():
            for some in rows.split(batch):
                x = some.to(where)
                logits = model(x[:, :-1]).float().flatten(0, 1)
                total += float(F.cross_entropy(logits, x[:, 1:].flatten(), reduction="sum"))
    finally:
        for part in trained:
            part.training = True
    return total / (n * context) / NATS_PER_BIT


def context_of(model: nn.Module) -> int:
    """Return the longest text that a model takes, in tokens."""
    inner: Any = getattr(model, "module", model)  # of DistributedDataParallel
    return inner.context
