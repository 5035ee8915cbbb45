"""Matrices laid out as a CPU reads them fastest: one text at a time, or several."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kit.infer.inputs import copied
from kit.infer.reading import WHERE

AT_ONCE = 16  # rows that matrices are packed for; few more or less are as fast


class Packed(nn.Linear):
    """A linear layer that computes with its weight cut into the tiles of oneDNN."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack a copy of the weight, once: else every product packs it anew."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias  # models read them past the layer
        self.tiles = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), AT_ONCE)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Return the same numbers as the linear layer, up to rounding."""
        x = x.float()  # autocast may have made it less, and does not know this product
        return torch.ops.mkldnn._linear_pointwise(x, self.tiles, self.bias, "none", [], "")


def arranged(model: nn.Module, *, rows: int) -> nn.Module:
    """Return a copy in eval mode that computes `rows` rows at once faster, up to rounding.

    Copied are float32 matrices of linear layers on a CPU; all else is shared. For one row they are
    stored by columns, so that a product reads them in order; for more they are packed.

    Args:
        model: any module.
        rows: that it will be given at once.

    Raises:
        ValueError: a model that cannot be copied.

    Example:
        >>> model, x = nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3)
        >>> bool(torch.allclose(arranged(model, rows=1)(x), model(x)))
        True
    """
    held = (each for part in model.modules() for each in vars(part).values())
    # torch copies none of those, and pruned weights are among them
    results = (each for each in held if isinstance(each, Tensor) and not each.is_leaf)
    new = copied(WHERE, model, [*model.parameters(), *model.buffers(), *results])
    for part in list(new.modules()):
        for name, inner in part.named_children():
            if isinstance(inner, nn.Linear) and _can_move(inner):
                setattr(part, name, _by_columns(inner) if rows == 1 else Packed(inner))
    return new.eval()


def _can_move(part: nn.Linear) -> bool:
    """Tell whether it helps, and a layer is plain: what is the user's own may read its weight."""
    return (
        type(part) is nn.Linear
        and not (part._forward_hooks or part._forward_pre_hooks)
        and part.weight.dtype == torch.float32
        and part.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    )


def _by_columns(linear: nn.Linear) -> nn.Linear:
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t(), requires_grad=False)
    return linear
