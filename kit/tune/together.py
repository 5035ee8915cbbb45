"""Members of equal shapes trained as one model with an axis more, each at its own learning rate."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from kit.tune import space as spaces
from kit.tune.job import Job, Weights

TRACE_FROM = 400  # steps of one shape, from which tracing (0.2 s) is sooner than going without
CELLS_AT_ONCE = 2**18  # rows times members that are judged at once; memory stays bounded
aten = torch.ops.aten
SHAPERS = {  # kernels that change nothing where the shape stays
    aten.detach.default,
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
}

Step = Callable[[Weights, Tensor, Tensor], object]


class MemberDropout(nn.Module):
    """Dropout whose fraction is a tensor, so that every member can have its own."""

    p: Tensor

    def __init__(self, p: float) -> None:
        """Take the fraction to drop, 0 <= p < 1."""
        super().__init__()
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop while training, as nn.Dropout does."""
        if not self.training:
            return x
        kept = torch.rand_like(x) >= self.p
        return x * kept / (1 - self.p + torch.finfo(x.dtype).tiny)  # p may be 1


def shape_of(model: nn.Module, config: dict[str, Any]) -> tuple[object, ...]:
    """Return what must be equal for two members to be trained together."""
    model = _with_own_dropout(model)
    structural = dict(spaces.split(config)[1])
    fractions = {part.p.item() for part in model.modules() if isinstance(part, MemberDropout)}
    dropout = structural.get("dropout", math.nan)
    if fractions == {torch.tensor(dropout).item()} and not _holds(model, dropout):
        del structural["dropout"]  # all of it is in tensors that a member has for itself
    sizes = tuple((name, tuple(weight.shape)) for name, weight in model.named_parameters())
    return repr(model), sizes, repr(sorted(structural.items()))


class Together:
    """Members whose weights lie in one matrix, a row a member, moved by the same few kernels."""

    def __init__(
        self, job: Job, configs: Sequence[Mapping[str, Any]], models: Sequence[nn.Module]
    ) -> None:
        """Copy the weights of members that have the same shapes."""
        self._job = job
        own = [_with_own_dropout(model) for model in models]
        self._base = own[0]
        names = [name for name, weight in self._base.named_parameters() if weight.requires_grad]
        first = dict(self._base.named_parameters())
        self._shapes = {name: first[name].shape for name in names}
        self._tied = _second_names(self._base)
        rows = [[dict(model.named_parameters())[name] for name in names] for model in own]
        flat = torch.stack([torch.cat([w.detach().flatten() for w in row]) for row in rows])
        training = [spaces.split(config)[0] for config in configs]
        buffers = [dict(model.named_buffers()) for model in own]
        # all that differs from member to member, its axis first
        self._own = {
            "flat": flat,
            "velocity": torch.zeros_like(flat),
            **{key: flat.new_tensor([[each[key]] for each in training]) for key in spaces.DEFAULTS},
            **{
                f"buffer {name}.p": torch.stack([each[f"{name}.p"] for each in buffers])
                for name, part in self._base.named_modules()
                if isinstance(part, MemberDropout)
            },
        }
        self._smooth = any(each["label_smoothing"] > 0 for each in training)
        self._traced: Step | None = None
        self._untraceable = False
        self._left = math.ceil(len(job.X) / job.batch) * job.epochs  # steps

    def epoch(self, i: int) -> list[float]:
        """Train all members for epoch `i` and return their validation losses."""
        self._base.train()
        self._job.walk(i, self.step)
        return self._judge()

    @torch.no_grad()
    def step(self, xb: Tensor, yb: Tensor) -> None:
        """Train all members on one batch."""
        whole = len(xb) == self._job.batch  # a trace holds for one shape
        if whole and self._traced is None and self._left >= TRACE_FROM and not self._untraceable:
            self._trace(xb, yb)
        step = self._traced if whole and self._traced is not None else self._step
        step(self._own, xb, yb)
        self._left -= 1

    def keep(self, members: list[int]) -> None:
        """Go on with these members alone."""
        if len(members) < len(self._own["flat"]):
            self._own = {name: tensor[members] for name, tensor in self._own.items()}
            self._traced = None

    def weights(self, member: int) -> Weights:
        """Return a copy of the weights of a member as they are now."""
        state = {name: tensor.detach().clone() for name, tensor in self._base.state_dict().items()}
        mine = self._parts(self._own["flat"][member : member + 1])
        state |= {name: tensor[0].clone() for name, tensor in mine.items()}
        return state | {other: state[name] for other, name in self._tied.items()}

    def _parts(self, flat: Tensor) -> Weights:
        """Return views of the matrix as the model names and shapes its weights."""
        columns = flat.split([shape.numel() for shape in self._shapes.values()], dim=1)
        return {
            name: part.view(len(flat), *shape)
            for (name, shape), part in zip(self._shapes.items(), columns, strict=True)
        }

    def _fractions(self, own: Weights) -> Weights:
        return {
            name.removeprefix("buffer "): tensor
            for name, tensor in own.items()
            if name.startswith("buffer ")
        }

    def _step(self, own: Weights, xb: Tensor, yb: Tensor) -> None:
        """Move all members in place, as torch.optim.SGD moves one."""

        def loss(weights: Weights, fractions: Weights, smoothing: Tensor) -> Tensor:
            outputs = functional_call(self._base, weights | fractions, (xb,))
            return self._job.train_loss(outputs, yb, smoothing.squeeze() if self._smooth else 0.0)

        with torch.enable_grad():
            leaf = own["flat"].detach().requires_grad_()
            losses = vmap(loss, randomness="different")(
                self._parts(leaf), self._fractions(own), own["label_smoothing"]
            )
            # members share nothing: the slope of the sum holds the slope of each
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        flat, velocity = own["flat"], own["velocity"]
        velocity.mul_(own["momentum"]).add_(slope).addcmul_(flat, own["weight_decay"])
        flat.addcmul_(velocity, own["lr"], value=-1)

    def _trace(self, xb: Tensor, yb: Tensor) -> None:
        """Record the bare kernels of a step: for small nets vmap and autograd cost more than they.

        A model that cannot be traced is trained all the same, only slower.
        """
        copies = {name: tensor.clone() for name, tensor in self._own.items()}
        before = [buffer.clone() for buffer in self._base.buffers()]  # a norm counts every step
        try:
            traced = make_fx(lambda *given: self._step(*given))(copies, xb, yb)
            _tidy(traced)
            self._traced = traced
        except Exception:  # whatever a model of the user's may raise here
            self._untraceable = True
        for buffer, value in zip(self._base.buffers(), before, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def _judge(self) -> list[float]:
        self._base.eval()
        weights = self._parts(self._own["flat"])

        def ask(weights: Weights, xb: Tensor) -> Tensor:
            return functional_call(self._base, weights, (xb,))

        several = vmap(ask, in_dims=(0, None))
        rows = max(1, CELLS_AT_ONCE // len(self._own["flat"]))
        outputs = torch.cat([several(weights, xb) for xb in self._job.X_val.split(rows)], dim=1)
        return vmap(self._job.judge)(outputs).tolist()


def _tidy(traced: GraphModule) -> None:
    """Take out in place what vmap and autograd wrote down but what changes nothing."""
    for node in traced.graph.nodes:
        same = node.target is aten.mul.Scalar and node.args[1] == 1
        if node.target in SHAPERS:
            before, after = (each.meta["tensor_meta"] for each in (node.args[0], node))
            same = (before.shape, before.stride) == (after.shape, after.stride)
        if same:
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _second_names(model: nn.Module) -> dict[str, str]:
    """Return the further names of weights that go by several -> the first one."""
    first = {weight: name for name, weight in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[weight] for name, weight in every if first[weight] != name}


def _holds(model: nn.Module, number: float) -> bool:
    """Tell whether a part of the model keeps this number for itself, as attention its dropout."""
    kept = (value for part in model.modules() for value in vars(part).values())
    return any(isinstance(value, float) and value == number for value in kept)


def _with_own_dropout(model: nn.Module) -> nn.Module:
    """Return a copy whose nn.Dropout parts hold their fraction as a tensor."""
    model = copy.deepcopy(model)
    for name, part in list(model.named_modules()):
        if type(part) is nn.Dropout and name:
            parent, _, own = name.rpartition(".")
            where = next(model.parameters()).device
            setattr(model.get_submodule(parent), own, MemberDropout(part.p).to(where))
    return model
