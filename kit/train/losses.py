"""The loss that the type of the targets chooses."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_for(y: Shaped[Tensor, "rows ..."]) -> Loss:
    """Choose the loss by the type of the targets: bool, integers or floats."""
    if y.dtype == torch.bool:
        return _yes_no
    return _quantity if y.dtype.is_floating_point else _classes


# reshape: an output column (rows, 1) beside targets (rows,) would broadcast to (rows, rows)
def _yes_no(logits: Tensor, yb: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.reshape(yb.shape), yb.to(logits.dtype))


def _quantity(outputs: Tensor, yb: Tensor) -> Tensor:
    return F.mse_loss(outputs.reshape(yb.shape), yb)


def _classes(logits: Tensor, yb: Tensor) -> Tensor:
    return F.cross_entropy(logits, yb.long())
