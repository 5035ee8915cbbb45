"""A smaller model as a graph: for forwards whose sizes cannot be changed from outside."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from kit.prune.families import Family
from kit.prune.inputs import Rows
from kit.prune.labels import varies
from kit.prune.trace import Traced

FAR = 2**40  # an end of a slice that means all


class Rebuilt(nn.Module):
    """The graph of a model with smaller weights; it is called as the model was.

    It computes what the model computes in eval mode, so that dropout does nothing; its weights are
    trained like any others.
    """

    def __init__(self, graph: fx.GraphModule, names: tuple[str, ...] | None) -> None:
        """Hold the graph, and the names of the arguments that it is called with."""
        super().__init__()
        self.graph, self.names = graph, names

    def forward(self, *values: Tensor, **named: Tensor) -> Tensor:
        """Return the model's one output: logits, or the first of what it returned."""
        given = values if self.names is None else tuple(named[name] for name in self.names)
        return self.graph(*given)  # type: ignore[no-any-return]


def rebuilt(
    traced: Traced, smaller: nn.Module, kept: Mapping[Family, Tensor], rows: Rows
) -> Rebuilt:
    """Return the graph of a model with smaller weights, its sizes written anew, in place.

    Args:
        traced: the model at its full size, for any number of rows.
        smaller: a copy with its weights cut, whose own forward may be at a loss with them.
        kept: the units of the families that stay.
        rows: an example of what it is called with.
    """
    writer, graph = _Writer(traced, kept), traced.graph.graph
    root = nn.Module()
    root.model = smaller
    for node in graph.nodes:
        writer.rewrite(node)
        if node.op == "get_attr":
            _lend(root, node.target, traced.graph)
    names = tuple(rows) if isinstance(rows, Mapping) else None
    return Rebuilt(fx.GraphModule(root, graph), names)


def _lend(root: nn.Module, target: str, graph: fx.GraphModule) -> None:
    """Give the root what only the graph has: numbers that the forward writes out."""
    path, _, name = target.rpartition(".")
    part = root.get_submodule(path)
    if not hasattr(part, name):
        setattr(part, name, getattr(graph.get_submodule(path), name))


class _Writer:
    """Write sizes anew, node by node: how many places stay is known from the labels."""

    def __init__(self, traced: Traced, kept: Mapping[Family, Tensor]) -> None:
        self.marks, self.roots = traced.marks, traced.roots
        self.gone = torch.zeros(int(self.roots.max()) + 1, dtype=torch.bool)
        for family, units in kept.items():
            stay = torch.cat([units, torch.tensor([-1])])
            for axis, unit in family.axes.items():
                places = traced.labels.along(axis)[~torch.isin(unit, stay)]
                self.gone[self.roots[places]] = True

    def rewrite(self, node: fx.Node) -> None:
        """Write the sizes among a node's arguments anew."""
        schema = getattr(node.target, "_schema", None)
        rule = RULES.get(schema.name.split("::")[1]) if schema else None
        if rule is not None:
            rule(self, node)

    def shape(self, node: fx.Node) -> None:
        """Write the lengths of a result's axes."""
        mark = self.marks.get(node)
        at = 2 if "unflatten" in str(node.target) else 1
        if isinstance(mark, Tensor):
            sizes: list[Any] = list(node.args[at])  # type: ignore[arg-type]
            first: Any = node.args[1] if at == 2 else 0
            first %= mark.ndim - len(sizes) + 1
            for i, size in enumerate(sizes):
                left = self.left(mark, i + first)
                if isinstance(size, int) and size > 1:
                    sizes[i] = left
                elif isinstance(size, fx.Node) and left < mark.shape[i + first]:
                    sizes[i] = -1  # a product of sizes, of which one is the number of units
            node.update_arg(at, sizes)

    def parts(self, node: fx.Node) -> None:
        """Write the lengths of the parts that a tensor is split into."""
        marks = [each for each in self.marks.get(node) or [] if isinstance(each, Tensor)]
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if marks:
            lengths = [self.left(mark, axis) for mark in marks]  # type: ignore[arg-type]
            node.update_arg(1, lengths[0] if isinstance(node.args[1], int) else lengths)

    def run(self, node: fx.Node) -> None:
        """Write where a slice begins and ends, or which place is selected."""
        mark = self.marks.get(node.args[0])  # type: ignore[arg-type]
        axis = node.args[1] if len(node.args) > 1 else 0
        for i in range(2, min(4, len(node.args))):
            place = node.args[i]
            if isinstance(mark, Tensor) and isinstance(place, int) and 0 < place < FAR:
                length = min(place, mark.shape[axis])  # type: ignore[index]
                node.update_arg(i, self.left(mark.narrow(axis, 0, length), axis))  # type: ignore[arg-type]

    def groups(self, node: fx.Node) -> None:
        """Write the number of groups of a convolution that keeps its channels apart."""
        mark = self.marks.get(node.args[0])  # type: ignore[arg-type]
        if isinstance(mark, Tensor) and len(node.args) > 6 and node.args[6] == mark.shape[1] > 1:
            node.update_arg(6, self.left(mark, 1))

    def left(self, mark: Tensor, axis: int) -> int:
        """Return how many places along an axis stay: all of them where no units lie along it."""
        roots = self.roots[mark]
        if not varies(roots, axis):
            return mark.shape[axis]
        return int((~self.gone[roots]).movedim(axis, -1)[(0,) * (mark.ndim - 1)].sum())


RULES: dict[str, Callable[[_Writer, fx.Node], None]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "unflatten"), _Writer.shape),
    **dict.fromkeys(("split", "split_with_sizes"), _Writer.parts),
    **dict.fromkeys(("slice", "select"), _Writer.run),
    **dict.fromkeys(("conv1d", "conv2d"), _Writer.groups),
}
