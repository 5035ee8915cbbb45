"""Ask any model for numbers: a torch module or a function, on the scale wanted."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit.base import checks, device
from kit.explain import chain as chains

SCALES = ("logit", "probability", "raw")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
BATCH = 1 << 22  # numbers of the widest layer at once
PROBED = 64  # rows on which a shortcut is held against the model itself
Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A model as a function from rows to columns of scores."""

    body: Step
    device: torch.device
    dtype: torch.dtype
    width: int  # numbers that a row takes in the widest layer; 0 where that is not known
    chain: chains.Chain | None = None  # the same as `body`, layer by layer, where it allows that

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores of rows (n, F) as (n, K)."""
        return self.body(x)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of any number of rows as float64, computed in batches."""
        batches = np.array_split(rows, ceil(len(rows) * max(self.width, rows.shape[1]) / BATCH))
        found = [self(self.tensor(batch)).cpu().double().numpy() for batch in batches]
        return np.concatenate(found)

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
    """Turn a model into a `Scorer`, with the shortcut that it allows.

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
    if not isinstance(model, nn.Module):
        return whole
    chain = chains.of(model, plain.dtype, link=link, column=column)
    same = chain is not None and _agree(whole, chain, plain.tensor(rows[:PROBED]))
    return replace(whole, chain=chain) if same else whole


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


def ask(where: str, model: Any, asked: Scorer, rows: np.ndarray) -> np.ndarray:
    """Return the scores of rows, with the model in eval mode for that long."""
    with evaluating(where, model):
        return asked.scores(rows)


def _module(model: nn.Module, dtype: str) -> Scorer:
    floats = [p for p in model.parameters() if p.is_floating_point()]
    own = floats[0].dtype if floats else torch.float32
    wanted = DTYPES.get(dtype, own)
    body: Step = model if wanted == own else chains.cast(model, wanted)
    widest = max((max(p.shape) for p in floats if p.ndim > 1), default=0)
    return Scorer(body, device.of(model), wanted, widest)


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

    return Scorer(body, torch.device("cpu"), torch.float64, 0)


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
        steps = chains.steps(model)
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


def _agree(whole: Scorer, chain: chains.Chain, probe: Tensor) -> bool:
    """Hold a chain against its model: hooks, tied layers or a lie in its structure show here."""
    with torch.inference_mode():
        truth, quick = whole(probe).cpu().double(), chain(probe).cpu().double()
    slack = 1e-2 if whole.dtype == torch.bfloat16 else 1e-5
    return truth.shape == quick.shape and torch.allclose(
        truth, quick, rtol=slack, atol=slack * float(truth.abs().max())
    )


def names_of(outputs: Sequence[str] | int) -> list[str]:
    """Return the names of outputs, counted from 0 where they have none."""
    return [str(k) for k in range(outputs)] if isinstance(outputs, int) else list(outputs)
