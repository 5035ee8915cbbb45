"""Compute a model and its pruned copy side by side, and stop where a product is to be refitted."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from kit.prune.gram import Gram, Pairs
from kit.prune.inputs import AT_ONCE, Rows, arguments, batches, count
from kit.prune.rules import Use, Window

WINDOWS = 4096  # of a convolution, looked at in a batch
ADDS = ("add.Tensor", "add_.Tensor")
PASSING = ("dropout", "contiguous", "clone", "view", "reshape", "_unsafe_view")


class Lockstep:
    """Both graphs, node by node, over all rows: what is still to be read is in memory, no more."""

    def __init__(
        self, graph: fx.GraphModule, rows: Rows, *, at_once: int | None, where: str
    ) -> None:
        """Take the graph of the copy as it is now for that of the original.

        Args:
            graph: of the copy, whose weights will change.
            rows: the calibration.
            at_once: rows, where it is a graph for just so many; some may be left over.
            where: the public function that asks, for errors.
        """
        self.where = where
        parts = batches(rows, at_once or AT_ONCE)
        self.parts = [part for part in parts if at_once in (None, count(part))]
        self.masks = [_mask(part) for part in self.parts]
        self.copy = _Machine(graph, self.parts)
        with warnings.catch_warnings():  # of torch's own copying
            warnings.simplefilter("ignore", FutureWarning)
            self.original = _Machine(copy.deepcopy(graph), self.parts)
        self.twins = dict(zip(graph.graph.nodes, self.original.nodes, strict=True))

    def run(self, at: Callable[[fx.Node], None], last: fx.Node) -> None:
        """Compute up to `last`; before each node, `at` may change the copy's weights."""
        for node, twin in self.twins.items():
            at(node)
            if node is last:
                return
            self.copy.step(node)
            self.original.step(twin)

    def alone(self, weight: Tensor) -> bool:
        """Tell whether a weight is read in one place only, so that it can be fitted to that."""
        nodes = [node for node in self.twins if node.op == "get_attr"]
        readers = [node for node in nodes if self.copy.fetch_attr(node.target) is weight]
        return sum(len(node.users) for node in readers) == 1

    def pairs(self, use: Use) -> Pairs:
        """Return what the copy gives a product now, beside what it would have to return.

        That is what the original returns there. Where it is added to a stream, it is what is
        missing to the stream of the original, so that errors of earlier layers are made up for.

        Raises:
            ValueError: activations that are not finite.
        """
        total, other = self._stream(use.node)
        pairs = None
        both = zip(self.copy.envs, self.original.envs, self.masks, strict=True)
        for env, true, mask in both:
            wanted = self.original.value(self.twins[total], true)
            if other is not None:
                wanted = wanted - env[other]
            x = columns_of(env[use.source], use.window)
            y = wanted if use.window is None else _sampled(wanted.flatten(2).transpose(1, 2))
            x, y = _of_text(mask, x, y)
            pairs = pairs or Pairs(x.shape[-1], self.where, outputs=y.shape[-1])
            pairs.add_pair(x, y)
        assert pairs is not None
        return pairs

    def grams(self, uses: Sequence[Use]) -> dict[str, Gram]:
        """Return what the copy gives these products, which may stand anywhere, from the start."""
        grams: dict[str, Gram] = {}
        machine, waiting = _Machine(self.copy.whole, self.parts), {use.node for use in uses}
        for node in machine.nodes:
            for use in (use for use in uses if use.node is node):
                for env, mask in zip(machine.envs, self.masks, strict=True):
                    (x,) = _of_text(mask, columns_of(env[use.source], use.window))
                    grams.setdefault(use.weight, Gram(x.shape[-1], self.where)).add(x)
            waiting.discard(node)
            if not waiting:
                break
            machine.step(node)
        return grams

    def _stream(self, node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
        """Return where a product meets a stream that both have computed, or the product alone."""
        total, before = node, node
        while len(total.users) == 1:
            total, before = next(iter(total.users)), total
            name = str(total.target).removeprefix("aten.")
            if name in ADDS and len(total.all_input_nodes) == 2 and not total.kwargs:
                (other,) = (each for each in total.all_input_nodes if each is not before)
                alike = other in self.copy.envs[0] and _shape(other) == _shape(total)
                return (total, other) if alike else (node, None)
            if not name.startswith(PASSING):
                break
        return node, None


class _Machine(fx.Interpreter):
    """One graph, computed node by node for several batches."""

    def __init__(self, graph: fx.GraphModule, parts: Sequence[Rows]) -> None:
        super().__init__(graph)
        self.whole, self.nodes = graph, list(graph.graph.nodes)
        inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self.envs: list[dict[fx.Node, Any]] = [
            dict(zip(inputs, arguments(part), strict=True)) for part in parts
        ]

    @torch.no_grad()
    def step(self, node: fx.Node) -> None:
        for env in self.envs:
            if node not in env:
                self.env = env
                env[node] = self.run_node(node)
            for spent in self.user_to_last_uses.get(node, []):
                del env[spent]

    @torch.no_grad()
    def value(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        """Return the value of a node, computed ahead of its turn and not kept."""
        if node in env:
            return env[node]
        self.env = env | {each: self.value(each, env) for each in node.all_input_nodes}
        return self.run_node(node)


def _mask(rows: Rows) -> Tensor | None:
    """Return which tokens are text, where the rows say so as transformers do."""
    mask = rows.get("attention_mask") if isinstance(rows, Mapping) else None
    return mask.bool() if mask is not None and mask.ndim == 2 else None


def _of_text(mask: Tensor | None, *values: Tensor) -> list[Tensor]:
    """Return the rows of tokens that are text: what fills up short texts has nothing to say."""
    flat = [x.reshape(-1, x.shape[-1]) for x in values]
    if mask is None or any(x.shape[:-1] not in (mask.shape, (mask.numel(),)) for x in values):
        return flat
    return [x[mask.flatten()] for x in flat]


def columns_of(x: Tensor, window: Window | None) -> Tensor:
    """Return what a product is given as rows: (…, channels), or (windows, channels x places)."""
    if window is None:
        return x
    one = [1] * (4 - x.ndim)  # a convolution along one axis is one of height 1
    x = F.pad(x, _padding(window)).unsqueeze(2) if one else F.pad(x, _padding(window))
    seen = F.unfold(
        x,
        (*one, *window.size),
        stride=(*one, *window.stride),
        dilation=(*one, *window.dilation),
    )
    return _sampled(seen.transpose(1, 2))


def _sampled(windows: Tensor) -> Tensor:
    """Return some of the windows, drawn by chance: even steps might follow a column."""
    rows = windows.flatten(0, 1)
    chance = torch.Generator().manual_seed(len(rows))  # the same for inputs and outputs
    return rows[torch.randperm(len(rows), generator=chance)[:WINDOWS].to(rows.device)]


def _padding(window: Window) -> list[int]:
    """Return zeros before and after each axis, the last axis first, as F.pad takes them."""
    if isinstance(window.padding, str):
        wide = [d * (k - 1) for k, d in zip(window.size, window.dilation, strict=True)]
        wide = wide if window.padding == "same" else [0] * len(wide)
        pairs = [(each // 2, each - each // 2) for each in wide]
    else:
        pairs = [(each, each) for each in window.padding]
    return [side for pair in reversed(pairs) for side in pair]


def _shape(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)
