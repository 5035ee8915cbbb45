"""Parts of a model that no graph can hold, as single nodes of one that holds the rest."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, fx, nn

from kit.base.modes import evaluating
from kit.prune.inputs import Rows, call

PARTS: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()  # by the key in the graph
NAMES: dict[int, str] = {}
SHAPES: dict[int, tuple[int, ...]] = {}  # of what a part returns, without the rows


@torch.library.custom_op("kit_prune::opaque", mutates_args=())
def opaque(x: Tensor, key: int) -> Tensor:
    """Return what a part computes."""
    return type(PARTS[key]).forward(PARTS[key], x).clone()


@opaque.register_fake
def _(x: Tensor, key: int) -> Tensor:
    return x.new_empty((x.shape[0], *SHAPES[key]))


def within(graph: fx.GraphModule) -> bool:
    """Tell whether a graph has such nodes."""
    return any("kit_prune.opaque" in str(node.target) for node in graph.graph.nodes)


def called(key: int) -> str:
    """Return the path of a part."""
    return NAMES[key]


@contextmanager
def sealed(model: nn.Module, parts: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Let the forwards of parts be single nodes in a graph that is made inside the block.

    Args:
        model: whose graph is made.
        parts: paths, with the shapes of what they return.
    """
    patched = []
    for path, shape in parts.items():
        part, key = model.get_submodule(path), len(NAMES)
        PARTS[key], NAMES[key], SHAPES[key] = part, path, shape[1:]
        part.forward = lambda x, key=key: opaque(x, key)  # type: ignore[method-assign]
        patched.append(part)
    try:
        yield
    finally:
        for part in patched:
            del part.forward


def calls(model: nn.Module, example: Rows) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what parts are called with, and return, for those with one tensor each way."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(path: str) -> Any:
        def hook(_: nn.Module, values: Any, named: Any, out: Any) -> None:
            alone = len(values) == 1 and not named and isinstance(values[0], Tensor)
            if alone and isinstance(out, Tensor) and values[0].ndim and out.ndim:
                seen[path] = (values[0], out)

        return hook

    handles = [
        part.register_forward_hook(note(path), with_kwargs=True)
        for path, part in model.named_modules()
        if path
    ]
    try:
        with evaluating(model):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return seen
