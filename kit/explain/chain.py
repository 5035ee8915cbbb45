"""The shortcut for models that are layers in a row, the first of them Linear.

Numbers lie as (features, rows), the transpose of what torch's layers take: matrix products with few
outputs are up to four times as fast that way, and what holds for each number alone does not care.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from kit import models

# each number alone goes in and comes out, so that the layout is free
ELEMENTWISE = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.ELU,
    nn.SELU,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardswish,
)
Step = Callable[[Tensor], Tensor]


class Rooms:
    """Memory that is used again: fresh pages from the system may cost more than the work.

    In some processes they do and in others they do not, by the luck of the allocator (docs/LOG.md).
    """

    def __init__(self) -> None:
        """Start without any."""
        self.kept: dict[int, Tensor] = {}

    def take(self, number: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor of `shape` with anything in it, valid until the next of its number."""
        size = prod(shape)
        if number not in self.kept or self.kept[number].numel() < size:
            self.kept[number] = like.new_empty(size)
        return self.kept[number][:size].view(*shape)


@dataclass(frozen=True)
class Linear:
    """A Linear layer on (features, rows)."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor | None

    def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """Return (outputs, rows)."""
        if self.bias is None:
            return torch.mm(self.weight, z, out=out)
        return torch.addmm(self.bias[:, None], self.weight, z, out=out)


@dataclass(frozen=True)
class Chain:
    """A model as its first layer, what follows, and a last one before which a mean may be taken."""

    first: Linear
    inner: tuple[Step, ...]
    last: Linear | None  # None where the scores are not linear in what comes before

    @property
    def width(self) -> int:
        """Outputs of the widest Linear layer."""
        layers = [self.first, self.last, *self.inner]
        return max(len(layer.weight) for layer in layers if isinstance(layer, Linear))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores (n, K) of rows (n, F), as the model itself does."""
        return self.finish(self.body(self.first(x.t()), Rooms())).t()

    def body(self, z: Tensor, rooms: Rooms) -> Tensor:
        """Apply all layers but the ends to (H, n); `z` may be overwritten."""
        for number, step in enumerate(self.inner, start=1):
            if isinstance(step, Linear):
                z = step(z, out=rooms.take(number, (len(step.weight), z.shape[1]), like=z))
            else:
                z = step(z)
        return z

    def finish(self, z: Tensor) -> Tensor:
        """Apply the last layer to (H, n), or to means over rows."""
        return z if self.last is None else self.last(z)


def of(
    model: nn.Module, dtype: torch.dtype, *, link: Step | None, column: int | None
) -> Chain | None:
    """Return the model as a chain, or None where it is none by its structure.

    Args:
        model: any module, in eval mode.
        dtype: of the computation.
        link: what takes outputs (n, K) to the scale wanted; None for none.
        column: the one output wanted; None keeps all.
    """
    layers = steps(model)
    if not layers or type(layers[0]) is not nn.Linear:
        return None
    first, *rest = layers
    has_last = link is None and bool(rest) and type(rest[-1]) is nn.Linear
    inner = [_step(layer, dtype) for layer in (rest[:-1] if has_last else rest)]
    if not has_last:
        inner += [_ended(link, column)]
    last = _linear(rest[-1], dtype, column) if has_last else None
    return Chain(_linear(first, dtype), tuple(inner), last)


def steps(model: nn.Module) -> list[nn.Module]:
    """Return the layers that run one after the other; none where the model has its own forward.

    Example:
        >>> [type(step).__name__ for step in steps(models.MLP(3, 1, hidden=(4,), dropout=0.1))]
        ['Linear', 'ReLU', 'Linear']
    """
    if type(model) is models.MLP and not hasattr(model, "embed"):
        return steps(model.layers)
    if type(model) is not nn.Sequential:
        return []
    nested = [steps(layer) if type(layer) is nn.Sequential else [layer] for layer in model]
    idle = (nn.Dropout, nn.Identity)  # in eval mode
    return [layer for layers in nested for layer in layers if not isinstance(layer, idle)]


def cast(model: nn.Module, dtype: torch.dtype) -> Step:
    """Run the module with weights of another type; its own stay as they are."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors
    }
    return lambda x: torch.func.functional_call(model, weights, (x,))


def _step(layer: nn.Module, dtype: torch.dtype) -> Step:
    if type(layer) is nn.Linear:
        return _linear(layer, dtype)
    if type(layer) is nn.ReLU:
        return torch.relu_  # what it overwrites is ours
    if type(layer) in ELEMENTWISE:
        return layer
    by_rows = layer if next(layer.parameters(), None) is None else cast(layer, dtype)
    return lambda z: by_rows(z.t()).t()


def _linear(layer: nn.Module, dtype: torch.dtype, column: int | None = None) -> Linear:
    assert isinstance(layer, nn.Linear)
    rows = slice(None) if column is None else slice(column, column + 1)
    bias = None if layer.bias is None else layer.bias[rows].to(dtype)
    return Linear(layer.weight[rows].to(dtype), bias)


def _ended(link: Step | None, column: int | None) -> Step:
    """Put the scores (K, n) on the scale wanted, and keep the one wanted."""
    rows = slice(None) if column is None else slice(column, column + 1)
    return lambda z: z[rows] if link is None else link(z.t()).t()[rows]
