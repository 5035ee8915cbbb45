"""Layers that multiply their inputs by a matrix: what they are given, layer after layer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kit.base import progress
from kit.prune.gram import Gram
from kit.prune.inputs import Rows, batches, call, count

IMAGES = 8  # unfolded together
WINDOWS = 512  # of these that are looked at: neighbours see nearly the same

Matrices = list[Float[Tensor, "out columns"]]


@dataclass(frozen=True)
class Seen:
    """A layer whose turn it is, and what it is given now that those before it have changed."""

    name: str
    layer: nn.Module
    grams: Sequence[Gram]  # one for each of its matrices


@dataclass
class _Visit:
    """Layers that are given the same tensor, in one part of a forward pass."""

    names: list[str]
    calls: int


def found(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the layers that are products, and why other layers with matrices are none.

    Returns:
        Name -> linear or convolution layer; name -> reason, for those to be left whole.
    """
    owners: dict[Tensor | None, list[str]] = {}
    for name, part in model.named_modules():
        for weight in part.parameters(recurse=False):
            owners.setdefault(weight, []).append(name)
    products, left = {}, {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and _own_weight(part) is None:
            left[name] = "its weight is computed from others"
            continue
        if all(weight.ndim < 2 for weight in part.parameters(recurse=False)):
            continue
        shared = [other for other in owners.get(_own_weight(part), ()) if other != name]
        if shared:
            left[name] = f"its weight is shared with {shared[0]}"
        elif isinstance(part, nn.Embedding | nn.EmbeddingBag):
            left[name] = "an embedding"
        elif not _is_product(part):
            left[name] = f"no rule for a {type(part).__name__}"
        else:
            products[name] = part
    return products, left


def matrices(layer: Any) -> Matrices:
    """Return a layer's weight as matrices (outputs, inputs): views, one for each group.

    Example:
        >>> [tuple(each.shape) for each in matrices(nn.Conv2d(4, 6, 3, groups=2))]
        [(3, 18), (3, 18)]
    """
    weight = layer.weight.detach()
    if isinstance(layer, nn.Conv2d):
        return list(weight.flatten(1).chunk(layer.groups))
    return [weight.T if is_transposed(layer) else weight]


def is_transposed(layer: nn.Module) -> bool:
    """Tell whether this is the Conv1D of transformers: a linear layer whose weight lies across."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


@torch.no_grad()
def shift(layer: Any, by: Float[Tensor, " out"]) -> None:
    """Add to a layer's bias, in place."""
    layer.bias.add_(by.to(layer.bias))


def is_biased(layer: nn.Module) -> bool:
    """Tell whether a layer adds a bias."""
    return getattr(layer, "bias", None) is not None


def visited(
    model: nn.Module, layers: Mapping[str, nn.Module], calibration: Rows, *, where: str
) -> Iterator[Seen]:
    """Yield layers in the order in which they are called, each with what it is given.

    Whoever reads this may change a layer before taking the next: the inputs of those to come are
    computed anew, batch by batch, up to the layer and no further, so that no more than one batch
    is held. Layers that are given the same tensor are watched together. What is never called is
    not yielded.

    Args:
        model: in eval mode; the caller decides on gradients.
        layers: name -> product, as `found` returns them.
        calibration: rows to show.
        where: the public function that asks, for errors.

    Raises:
        ValueError: inputs that are not finite.
    """
    first = next(iter(batches(calibration)))
    for visit in progress.track(_visits(model, layers, first), label="layer"):
        grams = _watched(model, layers[visit.names[0]], visit.calls, calibration, where)
        for name in visit.names:
            yield Seen(name, layers[name], grams)


def unreached(layers: Mapping[str, nn.Module], reached: set[str]) -> dict[str, str]:
    """Return the layers that no row came to, with that as the reason."""
    return {name: "never called on the first rows" for name in layers if name not in reached}


def short_note(seen: Sequence[tuple[int, int]], calibration: Rows) -> tuple[str, ...]:
    """Say where there were fewer rows than columns, and how many rows would do.

    Args:
        seen: rows and columns of each matrix.
        calibration: what they came from.
    """
    short = [(rows, columns) for rows, columns in seen if rows < columns]
    if not short:
        return ()
    enough = math.ceil(max(columns / rows for rows, columns in short) * count(calibration))
    said = f"fewer rows than columns in {len(short)} of {len(seen)} layers: a ridge decides there"
    return (f"{said}; {enough:,} calibration rows would do",)


class _Enough(Exception):
    """The layer has been given all that it is given; the rest need not be computed."""


def _visits(model: nn.Module, layers: Mapping[str, nn.Module], rows: Rows) -> list[_Visit]:
    """Return who is called in what order, seen on a few rows."""
    calls: dict[str, int] = {}
    order: list[tuple[str, bool]] = []  # who, and whether the tensor is that of the one before
    last: Tensor | None = None

    def note(name: str, x: Tensor) -> None:
        nonlocal last
        calls[name] = calls.get(name, 0) + 1
        if calls[name] == 1:
            order.append((name, x is last))
        last = x

    with _watching({name: (layer, note) for name, layer in layers.items()}):
        call(model, rows)
    visits: list[_Visit] = []
    for name, is_same in order:
        if is_same and _can_share(visits[-1], calls[name], layers):
            visits[-1].names.append(name)
        else:
            visits.append(_Visit([name], calls[name]))
    return visits


def _can_share(visit: _Visit, calls: int, layers: Mapping[str, nn.Module]) -> bool:
    """Tell whether a layer that is given the same tensor as the one before sees the same rows."""
    unfolds = isinstance(layers[visit.names[-1]], nn.Conv2d)
    return visit.calls == calls == 1 and not unfolds


def _watched(
    model: nn.Module, layer: nn.Module, calls: int, calibration: Rows, where: str
) -> list[Gram]:
    grams = [Gram(each.shape[1], where) for each in matrices(layer)]
    seen = 0

    def take(_: str, x: Tensor) -> None:
        nonlocal seen
        for part in _rows(layer, x):
            for gram, some in zip(grams, part.chunk(len(grams), dim=1), strict=True):
                gram.add(some)
        seen += 1
        if seen == calls:
            raise _Enough

    with _watching({"": (layer, take)}):
        for some in batches(calibration):
            seen = 0
            try:
                call(model, some)
            except _Enough:
                continue
    return grams


@contextmanager
def _watching(each: Mapping[str, tuple[nn.Module, Any]]) -> Iterator[None]:
    """Call a function with a layer's name and input whenever it is about to compute."""

    def hook(name: str, note: Any) -> Any:
        return lambda layer, args, kwargs: note(name, (*args, *kwargs.values())[0])

    handles = [
        layer.register_forward_pre_hook(hook(name, note), with_kwargs=True)
        for name, (layer, note) in each.items()
    ]
    # its fused kernel for nn.TransformerEncoderLayer reads the weights and calls no layer
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()


def _rows(layer: nn.Module, x: Tensor) -> Iterator[Float[Tensor, "rows columns"]]:
    """Yield what a layer's matrix is multiplied with; of a convolution, some of the windows."""
    if not isinstance(layer, nn.Conv2d):
        yield x.flatten(0, -2)
        return
    x = x if x.ndim == 4 else x[None]
    sides = layer._reversed_padding_repeated_twice
    if layer.padding_mode != "zeros":
        x = F.pad(x, sides, mode=layer.padding_mode)
    elif layer.padding != (0, 0):
        x = F.pad(x, sides)
    picker = torch.Generator().manual_seed(0)
    for some in x.split(IMAGES):
        seen = F.unfold(some, layer.kernel_size, layer.dilation, 0, layer.stride)
        seen = seen.transpose(1, 2).flatten(0, 1)
        # at random: evenly spaced ones could all lie in one column of the picture
        picked = torch.randperm(len(seen), generator=picker)[:WINDOWS]
        yield seen[picked.to(seen.device)] if len(seen) > WINDOWS else seen


def _is_product(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d) or is_transposed(layer)


def _own_weight(layer: nn.Module) -> Tensor | None:
    """Return a layer's weight where it is stored as such, not computed from others."""
    return layer._parameters.get("weight")
