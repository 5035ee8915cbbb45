"""The mode that a module is in: eval for a while, then as it was, part by part."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode and without gradients inside the block, and as before after it.

    Args:
        model: any module; parts that were in eval mode stay so.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluating(model):
        ...     model.training, torch.is_grad_enabled()
        (False, False)
        >>> model.training
        True
    """
    trained = [part for part in model.modules() if part.training]
    model.eval()
    try:
        # not inference_mode: a module may keep what it computes here, and train with it later
        with torch.no_grad():
            yield
    finally:
        for part in trained:  # one by one: a user may keep some of them in eval mode
            part.training = True
