"""What each operation of a graph means for the labels of what it reads: one rule each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from kit.prune import opaque
from kit.prune.labels import FIXED, Axis, Labels, varies


class Weight(NamedTuple):
    """The labels of a weight: for each of its axes a tensor of the weight's shape."""

    axes: tuple[Tensor, ...]


Mark = Tensor | Weight | None  # the labels of an activation or weight; None is no part of either


class Window(NamedTuple):
    """What a convolution sees at once; each of its places is a column of the weight."""

    size: tuple[int, ...]
    stride: list[int]
    padding: list[int] | str
    dilation: list[int]


@dataclass(frozen=True, eq=False)
class Use:
    """A product of an activation with a weight, whose columns can be refitted."""

    node: fx.Node
    source: fx.Node  # of the activation
    weight: str
    columns: Axis
    rows: Axis
    bias: str | None
    labels: Tensor  # of the activation's channels
    window: Window | None = None  # of a convolution


@dataclass
class Found:
    """What the rules found out."""

    labels: Labels
    parameters: frozenset[str]  # names of weights that may be fitted; others are buffers
    uses: list[Use] = field(default_factory=list)
    marks: list[tuple[Tensor, str]] = field(default_factory=list)  # of activations, and where
    whole: list[tuple[Tensor, list[int], str]] = field(default_factory=list)  # not cut along axes
    beside: list[tuple[Tensor, Mark, torch.Size, str]] = field(default_factory=list)
    heads: list[tuple[Tensor, int]] = field(default_factory=list)  # made by so many heads
    names: dict[Axis, str] = field(default_factory=dict)


class Call:
    """One node of the graph: its arguments by the names of the operation's schema, and result."""

    def __init__(
        self,
        node: fx.Node,
        found: Found,
        nodes: dict[str, Any],
        values: dict[str, Any],
        marks: dict[str, Any],
        out: Any,
    ) -> None:
        """Hold nodes, values and marks of the arguments, by name."""
        self.node, self.found, self.labels = node, found, found.labels
        self.nodes, self.values, self.marks, self.out = nodes, values, marks, out

    @property
    def name(self) -> str:
        """Return the operation's name, such as `relu`, also for the one that works in place."""
        return self.node.target._schema.name.split("::")[1].rstrip("_")  # type: ignore[union-attr]

    @property
    def where(self) -> str:
        """Return the path of the module that the operation stands in."""
        stack = list((self.node.meta.get("nn_module_stack") or {}).values())
        return str(stack[-1][0]).removeprefix("model").lstrip(".") if stack else ""

    def activations(self, *names: str) -> list[Tensor | None]:
        """Return the marks of these arguments as those of activations."""
        return [_as_activation(self.marks.get(name), self.labels) for name in names]

    def tensors(self) -> list[tuple[Mark, Tensor]]:
        """Return mark and value of each argument that is a tensor of more than one number."""
        pairs = [(self.marks.get(name), value) for name, value in self.values.items()]
        return [(m, v) for m, v in pairs if isinstance(v, Tensor) and v.numel() > 1]


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations."""

    def register(given: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, given))
        return given

    return register


def apply(call: Call) -> Any:
    """Return the mark of a call's result, or a list of marks where the result is a list."""
    if call.out is None or all(_empty(mark) for mark in call.marks.values()):
        return None
    if call.name in RULES:
        return RULES[call.name](call)
    if torch.Tag.pointwise in call.node.target.tags:  # type: ignore[union-attr]
        return _pointwise(call)
    return _unknown(call)


@rule("view", "reshape", "_unsafe_view", "unflatten", "flatten")
def _reshape(call: Call) -> Mark:
    # not the operation itself: labels may lie in memory otherwise than the numbers do
    return _moved(call, lambda labels: labels.reshape(call.out.shape))


@rule("to", "dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias")
@rule("lift_fresh_copy", "_to_copy", "type_as", "softmax", "log_softmax", "_softmax", "identity")
def _same(call: Call) -> Mark:
    mark = next(iter(call.marks.values()))
    if "softmax" in call.name and isinstance(mark, Tensor):
        call.found.whole.append((mark, [call.values["dim"] % mark.ndim], _why(call)))
    return mark


MOVES = "transpose permute t numpy_T movedim swapaxes unsqueeze squeeze slice select split"
MOVES += " split_with_sizes chunk unbind expand expand_as repeat repeat_interleave tile narrow"
MOVES += " index_select index gather roll flip mT tril triu view_as reshape_as"


@rule(*MOVES.split())
def _move(call: Call) -> Any:
    values = {name: value for name, value in call.values.items() if name not in ("self", "input")}
    given = {name: fx.node.map_aggregate(value, _at_hand) for name, value in values.items()}
    return _moved(call, lambda labels: call.node.target(labels, **given))  # type: ignore[operator]


@rule("constant_pad_nd", "pad")
def _pad(call: Call) -> Mark:
    pad = call.values["pad"]
    return _moved(call, lambda labels: torch.nn.functional.pad(labels, pad, value=FIXED))


@rule("cat", "concat", "stack")
def _cat(call: Call) -> Mark:
    parts = []
    for mark, value in zip(call.marks["tensors"], call.values["tensors"], strict=True):
        labels = _as_activation(mark, call.labels)
        parts.append(torch.full(value.shape, FIXED) if labels is None else labels)
    return call.node.target(parts, call.values.get("dim", 0))  # type: ignore[operator,no-any-return]


@rule("embedding")
def _embedding(call: Call) -> Mark:
    weight = call.marks["weight"]
    if not isinstance(weight, Weight):
        return _unknown(call)
    return weight.axes[-1][_at_hand(call.values["indices"])]


@rule("linear")
def _linear(call: Call) -> Mark:
    return _product(call, "input", call.marks["weight"], call.marks.get("bias"))


@rule("mm", "matmul", "bmm")
def _matmul(call: Call) -> Mark:
    first, second = (name for name in call.values if name in ("self", "mat2", "other"))
    return _either(call, first, second)


@rule("addmm", "baddbmm")
def _addmm(call: Call) -> Mark:
    first, second = (n for n in ("mat1", "mat2", "batch1", "batch2") if n in call.values)
    return _either(call, first, second, bias=call.marks["self"])


def _either(call: Call, first: str, second: str, bias: Mark = None) -> Mark:
    weight = call.marks[second]
    if isinstance(weight, Weight) and call.values[second].ndim == 2:
        turned = Weight(tuple(axis.t() for axis in weight.axes))
        return _product(call, first, turned, bias)
    weights = any(isinstance(call.marks[name], Weight) for name in (first, second))
    if weights or bias is not None or min(call.values[name].ndim for name in (first, second)) < 2:
        return _unknown(call)
    return _between(call, *call.activations(first, second))


def _product(call: Call, name: str, weight: Mark, bias: Mark) -> Mark:
    """Follow a product with a weight of shape (out, in): new labels, the old ones end here."""
    (labels,) = call.activations(name)
    if not isinstance(weight, Weight) or len(weight.axes) != 2:
        return _unknown(call)
    # a weight that was turned has its axes in the other order
    out, into = weight.axes if _along(weight.axes[0], 0) else reversed(weight.axes)
    rows, columns = out[:, 0], into[0]
    if isinstance(bias, Weight):
        call.labels.tie(bias.axes[-1], rows)
    if labels is None:
        call.labels.fix(columns, None)
    else:
        _use(call, name, labels[(0,) * (labels.ndim - 1)], columns, rows, bias)
    return rows.expand(call.out.shape)


def _along(labels: Tensor, axis: int) -> bool:
    return varies(labels, axis) or (not varies(labels, 1 - axis) and axis == 0)


def _use(
    call: Call,
    name: str,
    given: Tensor,
    columns: Tensor,
    rows: Tensor,
    bias: Mark,
    window: Window | None = None,
) -> None:
    labels, found, source = call.labels, call.found, call.nodes[name]
    labels.tie(given, columns)
    into, out = labels.axis_of(columns), labels.axis_of(rows)
    at = labels.axis_of(bias.axes[-1]) if isinstance(bias, Weight) else None
    at = at if at is not None and at[0] in found.parameters else None
    if into is not None and into[0] not in found.parameters:
        labels.fix(columns, "a buffer is read as a weight")
        return
    if into is None or out is None:
        labels.fix(columns, f"only a part of a weight is used ({call.name})")
        return
    name_of_bias = at[0] if at else None
    found.uses.append(Use(call.node, source, into[0], into, out, name_of_bias, given, window))
    found.names[into] = call.where


def _between(call: Call, a: Tensor | None, b: Tensor | None) -> Mark:
    """Follow a product of two activations: what it sums over is not cut, or goes as a whole."""
    if a is not None and b is not None:
        a, b = (each.expand(*call.out.shape[:-2], *each.shape[-2:]) for each in (a, b))
        first = a[..., :1, :1]
        call.labels.tie(a, first)
        call.labels.tie(b, first)
        call.found.heads.append((first, a.shape[-3] if a.ndim > 2 else 1))
        return first.expand(call.out.shape)
    labels, axis = (a, -1) if a is not None else (b, -2)
    assert labels is not None
    call.found.whole.append((labels, [labels.ndim + axis], _why(call)))
    return labels.narrow(axis, 0, 1).expand(call.out.shape)


@rule("scaled_dot_product_attention")
def _attention(call: Call) -> Mark:
    q, k, v = call.activations("query", "key", "value")
    if q is None or k is None or v is None:
        return _unknown(call)
    heads = q.shape[-3] if q.ndim > 3 else 1
    k, v = (
        each.repeat_interleave(heads // each.shape[-3], -3) if each.ndim > 3 else each
        for each in (k, v)
    )
    first = v[..., :1, :1]
    for each in (q, k, v):
        call.labels.tie(each, first)
    call.found.heads.append((first, heads))
    out = first.expand(call.out.shape)
    mask = call.values.get("attn_mask")
    if isinstance(mask, Tensor):
        scores = first.expand(*out.shape[:-1], mask.shape[-1])
        _beside(call, scores, call.marks["attn_mask"], mask.shape)
    return out


@rule("conv1d", "conv2d")
def _convolution(call: Call) -> Mark:
    (labels,) = call.activations("input")
    weight, bias, groups = call.marks["weight"], call.marks.get("bias"), call.values["groups"]
    if not isinstance(weight, Weight):
        return _unknown(call)
    rows, columns = (axis.movedim(i, 0).flatten(1)[:, 0] for i, axis in enumerate(weight.axes[:2]))
    if isinstance(bias, Weight):
        call.labels.tie(bias.axes[-1], rows)
    given = None if labels is None else labels.movedim(1, -1)[(0,) * (labels.ndim - 1)]
    if given is None:
        call.labels.fix(columns, None)
    elif groups == 1:
        size = tuple(call.values["weight"].shape[2:])
        window = Window(size, *(call.values[name] for name in ("stride", "padding", "dilation")))
        _use(call, "input", given, columns, rows, bias, window)
    elif groups == len(given):  # each channel on its own
        call.labels.tie(rows.view(groups, -1), given[:, None])
    else:
        for each in (given, rows):
            call.labels.fix(each, f"convolution in {groups} groups")
    shape = call.out.shape
    return rows.view(-1, *[1] * (len(shape) - 2)).expand(shape)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")
def _batch_norm(call: Call) -> Mark:
    (labels,) = call.activations("input")
    channels = None if labels is None else labels.movedim(1, -1)[(0,) * (labels.ndim - 1)]
    for name in ("weight", "bias", "running_mean", "running_var"):
        mark = call.marks.get(name)
        if isinstance(mark, Weight):
            own = mark.axes[0]
            call.labels.fix(own, None) if channels is None else call.labels.tie(own, channels)
    return labels


@rule("prelu")
def _prelu(call: Call) -> Mark:
    (labels,) = call.activations("self")
    slope = call.marks["weight"]
    if labels is not None and isinstance(slope, Weight) and len(slope.axes[0]) > 1:
        call.labels.tie(slope.axes[0], labels.movedim(1, -1)[(0,) * (labels.ndim - 1)])
    return labels


@rule("glu")
def _glu(call: Call) -> Mark:
    (labels,) = call.activations("self")
    if labels is None:
        return _unknown(call)
    value, gate = labels.chunk(2, call.values["dim"])
    call.labels.tie(value, gate)
    return value


@rule("layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize")
def _norm(call: Call) -> Mark:
    (labels,) = call.activations("input")
    if labels is not None:
        shape = call.values.get("normalized_shape")
        last = list(range(labels.ndim - len(shape), labels.ndim)) if shape is not None else [1]
        call.found.whole.append((labels, last, _why(call)))
    return labels


@rule(
    "mean", "sum", "amax", "amin", "var", "std", "prod", "logsumexp", "norm", "linalg_vector_norm"
)
@rule("cumsum", "cumprod", "argmax", "argmin", "any", "all", "sort", "topk", "median", "max", "min")
def _reduce(call: Call) -> Any:
    (labels,) = call.activations("self")
    dim = call.values.get("dim")
    is_pair = not isinstance(call.out, Tensor)  # values, and where they were found
    out = call.out[0] if is_pair else call.out
    if labels is None or call.name in ("sort", "topk"):
        return _unknown(call)
    dims = range(labels.ndim) if dim in (None, []) else [dim] if isinstance(dim, int) else dim
    axes = [axis % labels.ndim for axis in dims]
    call.found.whole.append((labels, axes, _why(call)))
    if out.ndim == labels.ndim:
        keep: list[Any] = [slice(1) if i in axes else slice(None) for i in range(labels.ndim)]
    else:
        keep = [0 if i in axes else slice(None) for i in range(labels.ndim)]
    left = labels[tuple(keep)].expand(out.shape)
    return [left, None] if is_pair else left


POOLS = "max_pool avg_pool adaptive_avg_pool adaptive_max_pool"


@rule(*(f"{pool}{d}d" for pool in POOLS.split() for d in (1, 2, 3)))
@rule("upsample_nearest2d", "upsample_bilinear2d", "upsample_nearest1d", "upsample_linear1d")
def _pool(call: Call) -> Any:
    (labels,) = call.activations("self" if "self" in call.values else "input")
    if labels is None or not isinstance(call.out, Tensor):
        return _unknown(call)
    call.found.whole.append((labels, list(range(2, labels.ndim)), _why(call)))
    return labels[(slice(None), slice(None), *[slice(1)] * (labels.ndim - 2))].expand(
        call.out.shape
    )


# that torch has not marked as such
POINTWISE = "pow where masked_fill rsub clamp softplus hardtanh hardswish hardsigmoid relu6"
POINTWISE += " leaky_relu elu selu celu mish gelu softsign tanhshrink threshold log_sigmoid"


@rule(*POINTWISE.split())
def _pointwise(call: Call) -> Mark:
    """Follow numbers computed place by place: what meets in a place goes together."""
    operands, shape = call.tensors(), call.out.shape
    acts = [mark for mark, _ in operands if isinstance(mark, Tensor)]
    if not acts:
        return _of_weights(call, [(m, v) for m, v in operands if m is not None], len(operands))
    labels = acts[0]
    for other in acts[1:]:
        labels = _meet(call, labels, other, shape)
    labels = labels.expand(shape)
    for mark, value in operands:
        if not isinstance(mark, Tensor):
            _beside(call, labels, mark, value.shape)
    return labels


def _meet(call: Call, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    wide = [each.expand(shape) for each in (a, b)]
    for small, large, kept in ((b, wide[0], wide[0]), (a, wide[1], wide[1])):
        lack = len(shape) - small.ndim
        sizes = [1] * lack + list(small.shape)
        if any(sizes[i] == 1 < shape[i] and varies(large, i) for i in range(len(shape))):
            # one number for all channels opens or shuts them: it stays, they may go
            call.labels.fix(small, None)
            return kept
    call.labels.tie(*wide)
    return wide[0]


def _of_weights(call: Call, operands: Sequence[tuple[Mark, Tensor]], n: int) -> Mark:
    mark, value = operands[0]
    if n == 1 and isinstance(mark, Weight) and value.shape == call.out.shape:
        return mark
    return _unknown(call)


def _beside(call: Call, labels: Tensor, mark: Mark, shape: torch.Size) -> None:
    """Note a weight or number beside an activation: whether it is cut, its units will tell."""
    call.found.beside.append((labels, mark, shape, _untold(call)))


def _unknown(call: Call) -> Mark:
    for mark in call.marks.values():
        for each in mark if isinstance(mark, list) else [mark]:
            for labels in each.axes if isinstance(each, Weight) else [each]:
                if isinstance(labels, Tensor):
                    call.labels.fix(labels, _no_rule(call))
    return None


def _no_rule(call: Call) -> str:
    if call.name == "opaque":
        return f"{opaque.called(call.values['key'])} cannot be traced"
    return f"no rule for {call.name} with such arguments"


def _moved(call: Call, move: Callable[[Tensor], Any]) -> Any:
    mark = call.marks.get("self", call.marks.get("input"))
    if isinstance(mark, Weight):
        moved = [move(axis) for axis in mark.axes]
        if isinstance(moved[0], Tensor):
            return Weight(tuple(moved))
        return [Weight(tuple(parts)) for parts in zip(*moved, strict=True)]
    return _unknown(call) if mark is None else move(mark)


def _at_hand(value: Any) -> Any:
    """Return a tensor where labels are, on the CPU, and all else as it is."""
    return value.cpu() if isinstance(value, Tensor) else value


def _as_activation(mark: Mark, labels: Labels) -> Tensor | None:
    """Take a weight for what it is when numbers are added to it: its last axis has the channels."""
    if not isinstance(mark, Weight):
        return mark
    for axis in mark.axes[:-1]:
        labels.fix(axis, None)
    return mark.axes[-1]


def _why(call: Call) -> str:
    return f"{call.name} reads across it"


def _untold(call: Call) -> str:
    return f"{call.name} with numbers of its width that are no weight"


def _empty(mark: Any) -> bool:
    return all(each is None for each in mark) if isinstance(mark, list) else mark is None
