"""Ask any model for numbers: a torch module or a function, on the scale wanted."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import models
from kit.base import checks, device

SCALES = ("logit", "probability", "raw")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
BATCH = 1 << 22  # numbers of the widest layer at once
PROBED = 64  # rows on which a shortcut is held against the model itself
Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A model as a function from rows to columns of scores, and its two ends where they are Linear.

    `head` and `tail` are set only where `tail(body(head(x)))` was found to be the model itself.
    """

    body: Step
    device: torch.device
    dtype: torch.dtype
    width: int  # widest layer: what a row of input costs in memory
    head: tuple[Tensor, Tensor | None] | None = None  # weight (H, F) and bias of the first layer
    tail: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores of rows (n, F) as (n, K)."""
        z = x if self.head is None else F.linear(x, *self.head)
        return self.finish(self.body(z))

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of any number of rows as float64, computed in batches."""
        batches = np.array_split(rows, ceil(len(rows) * max(self.width, rows.shape[1]) / BATCH))
        found = [self(self.tensor(batch)).double().cpu().numpy() for batch in batches]
        return np.concatenate(found)

    def finish(self, z: Tensor) -> Tensor:
        """Apply the last layer, where it is kept apart."""
        return z if self.tail is None else F.linear(z, *self.tail)

    def tensor(self, rows: np.ndarray) -> Tensor:
        """Return rows as a tensor of the model's type, on its device; ids stay integers."""
        found = torch.as_tensor(rows)
        return found.to(self.device, self.dtype if found.is_floating_point() else found.dtype)


def make(
    where: str,
    model: Any,
    rows: np.ndarray,
    *,
    output: str,
    target: int | str | None,
    dtype: str,
) -> Scorer:
    """Turn a model into a `Scorer`, with the shortcuts that it allows.

    Args:
        where: the public function that was called, for errors.
        model: a torch module, in eval mode, or a function of numpy rows.
        rows: some rows (n, F) to look at its outputs with.
        output: scale of the scores, one of `SCALES`.
        target: number of the one output wanted; None and "all" keep every output.
        dtype: of the computation, "auto" for the model's own.

    Raises:
        ValueError: an unknown scale or type, no such class, or outputs of a wrong shape.
        TypeError: something that cannot be asked, or that returns no array.
    """
    if output not in SCALES:
        raise checks.unknown_name(where, "output", got=output, known=SCALES)
    if dtype not in ("auto", *DTYPES):
        raise checks.unknown_name(where, "dtype", got=dtype, known=("auto", *DTYPES))
    plain = _module(model, dtype) if isinstance(model, nn.Module) else _function(where, model)
    whole = replace(plain, body=_columns(where, plain.body))
    outputs = whole(plain.tensor(rows[:PROBED]))
    link = _link(model, output, outputs.shape[1])
    column = _column(where, target, outputs.shape[1])
    whole = replace(whole, body=_linked(whole.body, link, column))
    short = _short(model, plain, link, column) if isinstance(model, nn.Module) else None
    if short is None:
        return whole
    with torch.inference_mode():
        probe = plain.tensor(rows[:PROBED])
        truth, quick = whole(probe).double(), short(probe).double()
    # a model with a forward of its own, hooks or tied parts shows here, and takes the generic path
    slack = 1e-3 if plain.dtype == torch.bfloat16 else 1e-5
    same = truth.shape == quick.shape and torch.allclose(
        truth, quick, rtol=slack, atol=slack * float(truth.abs().max())
    )
    return short if same else whole


@contextmanager
def evaluating(where: str, model: Any) -> Iterator[None]:
    """Put a module in eval mode and without gradients, say so where it matters, and put it back."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    random = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    if any(module.training and isinstance(module, random) for module in model.modules()):
        warnings.warn(
            f"{where}: the model was in train mode. It is explained in eval mode and put back; "
            "call model.eval() first to silence this.",
            stacklevel=3,
        )
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _module(model: nn.Module, dtype: str) -> Scorer:
    floats = [p for p in model.parameters() if p.is_floating_point()]
    own = floats[0].dtype if floats else torch.float32
    wanted = DTYPES.get(dtype, own)
    body: Step = model if wanted == own else _cast(model, wanted)
    widest = max((max(p.shape) for p in floats if p.ndim > 1), default=1)
    return Scorer(body, device.of(model), wanted, widest)


def _cast(model: nn.Module, dtype: torch.dtype) -> Step:
    """Run the module with weights of another type; its own stay as they are."""
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    return lambda x: torch.func.functional_call(model, weights, (x,))


def _function(where: str, model: Any) -> Scorer:
    if not callable(model):
        raise checks.bad_type(
            where,
            expected="a torch module or a function of rows",
            got=checks.Described(type(model).__name__),
            remedy="Pass its method: model.predict_proba.",
        )

    def body(x: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(model(x.numpy())))

    return Scorer(body, torch.device("cpu"), torch.float64, 1)


def _columns(where: str, call: Step) -> Step:
    """Check what the model returns, and make it (n, K)."""

    def body(x: Tensor) -> Tensor:
        scores = call(x)
        if not isinstance(scores, Tensor):
            raise checks.bad_type(
                where,
                expected="a model that returns one tensor",
                got=checks.Described(type(scores).__name__),
                remedy="Wrap it in a module whose forward returns the scores alone.",
            )
        if scores.shape[:1] != x.shape[:1] or scores.ndim > 2:
            raise checks.bad_value(
                where,
                expected=f"outputs of shape ({len(x)},) or ({len(x)}, classes)",
                got=scores,
                remedy="Wrap the model so that it returns one row of scores a row of input.",
            )
        return scores[:, None] if scores.ndim == 1 else scores

    return body


def _link(model: Any, output: str, n_outputs: int) -> Step | None:
    """Return what takes the model's outputs to the scale wanted; None leaves them as they are."""
    if output == "raw" or (output == "probability") == _gives_probabilities(model):
        return None
    if output == "logit":
        return lambda p: torch.logit(p, eps=1e-7)
    return torch.sigmoid if n_outputs == 1 else lambda z: torch.softmax(z, dim=1)


def _gives_probabilities(model: Any) -> bool:
    """Tell by structure, not by value: scikit-learn's predict_proba, or an end that normalises."""
    if isinstance(model, nn.Module):
        steps = _steps(model)
        return bool(steps) and isinstance(steps[-1], nn.Sigmoid | nn.Softmax)
    return getattr(model, "__name__", "") == "predict_proba"


def _column(where: str, target: int | str | None, n_outputs: int) -> int | None:
    if target is None or target == "all":
        return None
    if isinstance(target, str) or not 0 <= target < n_outputs:
        raise checks.bad_value(
            where,
            expected=f"a class from 0 to {n_outputs - 1}, 'all' or None",
            got=target,
            remedy="Pass target=0 for the first class.",
        )
    return int(target)


def _linked(call: Step, link: Step | None, column: int | None) -> Step:
    if link is None and column is None:
        return call

    def body(x: Tensor) -> Tensor:
        scores = call(x) if link is None else link(call(x))
        return scores if column is None else scores[:, column : column + 1]

    return body


def _short(model: nn.Module, plain: Scorer, link: Step | None, column: int | None) -> Scorer | None:
    """Take the first and the last layer apart, where they are Linear."""
    steps = _steps(model)
    has_head = bool(steps) and type(steps[0]) is nn.Linear
    has_tail = len(steps) > 1 and type(steps[-1]) is nn.Linear and link is None
    if not has_head and not has_tail:
        return None
    inner = steps[int(has_head) : len(steps) - int(has_tail)]
    calls = [_quick(step, plain.dtype) for step in inner]

    def body(z: Tensor) -> Tensor:
        for call in calls:
            z = call(z)
        return z

    tail = _linear(steps[-1], plain.dtype, column) if has_tail else None
    return replace(
        plain,
        body=body if has_tail else _linked(body, link, column),
        head=_linear(steps[0], plain.dtype) if has_head else None,
        tail=tail,
    )


def _steps(model: nn.Module) -> list[nn.Module]:
    """Return the modules that run one after the other; none where the model has its own forward."""
    if type(model) is models.MLP and not hasattr(model, "embed"):
        return _steps(model.layers)
    if type(model) is not nn.Sequential:
        return []
    nested = [_steps(step) if type(step) is nn.Sequential else [step] for step in model]
    return [
        step for steps in nested for step in steps if not isinstance(step, nn.Dropout | nn.Identity)
    ]


def _linear(
    layer: nn.Module, dtype: torch.dtype, column: int | None = None
) -> tuple[Tensor, Tensor | None]:
    assert isinstance(layer, nn.Linear)
    rows = slice(None) if column is None else slice(column, column + 1)
    bias = None if layer.bias is None else layer.bias[rows].to(dtype)
    return layer.weight[rows].to(dtype), bias


def _quick(step: nn.Module, dtype: torch.dtype) -> Step:
    """Return a layer in the type wanted; ReLU works in place, for its input is ours."""
    if type(step) is nn.ReLU:
        return torch.relu_
    if type(step) is nn.Linear:
        weight, bias = _linear(step, dtype)
        return lambda z: F.linear(z, weight, bias)
    own = next(step.parameters(), None)
    return step if own is None or own.dtype == dtype else _cast(step, dtype)


def names_of(outputs: Sequence[str] | int) -> list[str]:
    """Return the names of outputs, counted from 0 where they have none."""
    return [str(k) for k in range(outputs)] if isinstance(outputs, int) else list(outputs)
