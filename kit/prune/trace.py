"""Follow a model's numbers through its graph, to find what can be removed together."""

import io
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, export

from kit.base.modes import evaluating
from kit.prune import opaque, rules
from kit.prune.families import Family, Settled
from kit.prune.inputs import AT_ONCE, Rows, arguments, count, first, first_line, take
from kit.prune.labels import Labels
from kit.prune.rules import Call, Found, Use, Weight

EXAMPLE = 2  # rows that a model is traced with: one would be taken for a constant


class CannotTrace(Exception):
    """The model's forward does what no graph can hold."""


@dataclass(frozen=True)
class Traced:
    """A model's graph, and what can be removed from it."""

    graph: fx.GraphModule
    at_once: int | None  # rows, where it is a graph for just so many
    families: tuple[Family, ...]  # in the order of computation
    uses: tuple[Use, ...]  # all products with weights, in order
    left: Mapping[str, str]  # what is never removed -> why, where a reader would ask
    labels: Labels
    roots: Tensor  # of the labels
    marks: Mapping[fx.Node, Any]  # labels of what each node returns


def trace(model: nn.Module, rows: Rows, *, lengths: bool = False) -> Traced:
    """Find the families of a model.

    Args:
        model: any module.
        rows: an example; two rows of it are enough.
        lengths: let the second axis of the rows vary as well in the graph, as texts do.

    Raises:
        CannotTrace: the forward does what no graph can hold.
    """
    example = take(rows, torch.arange(EXAMPLE) % count(rows))
    graph = _graph(model, example, lengths=lengths)
    at_once = None
    if _is_fixed(graph, example):  # a forward that counts its rows, as len(x) does
        example = take(rows, slice(AT_ONCE))
        at_once = count(example)
        graph = _graph(model, example, lengths=lengths)
    weights = {name: x for name, x in _held(model).items() if x.is_floating_point() and x.ndim}
    names = frozenset(name for name, _ in model.named_parameters())
    found = Found(Labels(weights), names)
    marker = _Marker(graph, found, weights)
    marker.run(*arguments(example))
    settled = Settled(found)
    return Traced(
        graph=graph,
        at_once=at_once,
        families=settled.families(),
        uses=tuple(found.uses),
        left=settled.left(dict(model.named_parameters())),
        labels=found.labels,
        roots=settled.roots,
        marks=marker.marks,
    )


def _is_fixed(graph: fx.GraphModule, example: Rows) -> bool:
    """Tell whether a graph is for just as many rows as it was made with."""
    one = take(example, slice(1))
    try:
        with torch.no_grad():
            return len(graph(*arguments(one))) != 1
    except (RuntimeError, TypeError):
        return True


def _graph(model: nn.Module, example: Rows, *, lengths: bool) -> fx.GraphModule:
    try:
        return graph_of(model, example, lengths=lengths)
    except CannotTrace:
        culprits = _culprits(model, example)
        if not culprits or lengths:
            raise
        with opaque.sealed(model, culprits):
            return graph_of(model, example, lengths=False)


def graph_of(model: nn.Module, example: Rows, *, lengths: bool) -> fx.GraphModule:
    """Return the graph of a model in eval mode for any number of rows; weights stay the model's."""
    axes = {0: Dim.AUTO, 1: Dim.AUTO} if lengths else {0: Dim.AUTO}
    values = list(arguments(example))
    shapes = [{axis: dim for axis, dim in axes.items() if axis < x.ndim} for x in values]
    plain = _Plain(model, list(example) if isinstance(example, Mapping) else None)
    try:
        with evaluating(model), _silence():
            program = export(plain, tuple(values), dynamic_shapes=(tuple(shapes),), strict=False)
            return program.module(check_guards=False)  # type: ignore[return-value]
    except Exception as error:  # whatever a forward does: torch has no one error for it
        raise CannotTrace(f"{type(error).__name__}: {first_line(error)[:160]}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep torch from telling at length, on its way, what the error says in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        quiet = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _culprits(model: nn.Module, example: Rows) -> dict[str, tuple[int, ...]]:
    """Return the innermost parts that no graph can hold, each with the shape of what it returns."""
    calls = opaque.calls(model, example)
    odd = [path for path, (given, _) in calls.items() if not _can_trace(model, path, given)]
    return {
        path: tuple(calls[path][1].shape)
        for path in odd
        if not any(other.startswith(f"{path}.") for other in odd)
    }


def _can_trace(model: nn.Module, path: str, given: Tensor) -> bool:
    try:
        graph_of(model.get_submodule(path), given, lengths=False)
    except CannotTrace:
        return False
    return True


class _Plain(nn.Module):
    """The model with tensors in and one tensor out."""

    def __init__(self, model: nn.Module, names: list[str] | None) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        if self.names is None:
            return first(self.model(*values))
        return first(self.model(**dict(zip(self.names, values, strict=True))))


def _held(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


class _Marker(fx.Interpreter):
    """Run the graph once, with the labels of each number beside it."""

    def __init__(self, graph: fx.GraphModule, found: Found, weights: Mapping[str, Tensor]) -> None:
        super().__init__(graph)
        self.found = found
        self.names = {id(weight): name for name, weight in weights.items()}
        self.marks: dict[fx.Node, Any] = {}

    @torch.no_grad()
    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        self.marks[n] = mark = self._mark(n, out)
        if isinstance(mark, Tensor):
            self.found.marks.append((mark, str(n.target)))
        return out

    def _mark(self, node: fx.Node, out: Any) -> Any:
        if node.op == "get_attr":
            name = self.names.get(id(out))
            return None if name is None else _of_weight(self.found.labels, name, out)
        if node.op == "output":
            fx.node.map_arg(node.args, self._fix)
            return None
        if node.op != "call_function":
            return None
        if node.target is operator.getitem:
            parts = self.marks[node.args[0]]  # type: ignore[index]
            return None if parts is None else parts[node.args[1]]
        if not isinstance(node.target, torch._ops.OpOverload):
            return None  # arithmetic with sizes
        return rules.apply(self._call(node, out))

    def _call(self, node: fx.Node, out: Any) -> Call:
        names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
        defaults = {a.name: a.default_value for a in node.target._schema.arguments}  # type: ignore[union-attr]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        values = {name: self._value(arg) for name, arg in given.items()}
        marks = {name: self._marks(arg) for name, arg in given.items()}
        missing = {name: defaults[name] for name in names if name not in given}
        return Call(node, self.found, given, values | missing, marks, out)

    def _value(self, arg: Any) -> Any:
        return fx.node.map_arg(arg, lambda node: self.env[node])

    def _marks(self, arg: Any) -> Any:
        if isinstance(arg, list | tuple):
            return [self._of(each) for each in arg]
        return self._of(arg)

    def _of(self, arg: Any) -> Any:
        return self.marks.get(arg) if isinstance(arg, fx.Node) else None

    def _fix(self, node: fx.Node) -> None:
        mark = self.marks.get(node)
        if isinstance(mark, Tensor):
            self.found.labels.fix(mark, None)


def _of_weight(labels: Labels, name: str, weight: Tensor) -> Weight:
    shape = [1] * weight.ndim
    marks = []
    for axis in range(weight.ndim):
        own = [*shape[:axis], -1, *shape[axis + 1 :]]
        marks.append(labels.along((name, axis)).view(own).expand(weight.shape))
    return Weight(tuple(marks))
