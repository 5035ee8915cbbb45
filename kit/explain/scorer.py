"""Ask any model for numbers: a torch module or a function, on the scale wanted."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit.base import checks, device
from kit.base.memory import halved
from kit.explain import chain as chains

SCALES = ("logit", "probability", "raw")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
BATCH = 1 << 22  # numbers of the widest layer at once
PROBED = 64  # rows on which a shortcut is held against the model itself
# layers that answer otherwise in train mode; others say by a number `dropout` whether they do
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)
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

    def scores(self, rows: np.ndarray, *, at_once: int | None = None) -> np.ndarray:
        """Return the scores of any number of rows as float64, computed in batches.

        Args:
            rows: numbers (n, F), or ids.
            at_once: rows of a batch, fewer where memory does not hold them; None for what a cache
                or a slice of a GPU does.
        """
        at_once = at_once or max(1, BATCH // max(self.width, rows.shape[1]))
        at_once, found, start = min(at_once, len(rows)), [], 0
        while start < len(rows):
            batch, at_once = halved(partial(self._batch, rows, start), at_once, self.device)
            found.append(batch)
            start += len(batch)
        return np.concatenate(found)

    def _batch(self, rows: np.ndarray, start: int, n: int) -> np.ndarray:
        return self(self.tensor(rows[start : start + n])).cpu().double().numpy()

    def tensor(self, rows: np.ndarray) -> Tensor:
        """Return a copy of rows as a tensor of the model's type, on its device; ids stay integers.

        A copy, for a model may write into what it is given.
        """
        found = torch.as_tensor(rows)
        dtype = self.dtype if found.is_floating_point() else found.dtype
        return found.to(self.device, dtype, copy=True)


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
    whole = replace(plain, body=_columns(where, plain))
    rows = rows[:PROBED]
    outputs, fit = halved(lambda n: whole(plain.tensor(rows[:n])), len(rows), plain.device)
    link = _link(model, output, outputs.shape[1])
    column = _column(where, target, outputs.shape[1])
    whole = replace(whole, body=_linked(whole.body, link, column))
    if not isinstance(model, nn.Module):
        return whole
    chain = chains.of(model, plain.dtype, link=link, column=column)
    same = chain is not None and _agree(whole, chain, plain.tensor(rows[:fit]))
    return replace(whole, chain=chain) if same else whole


@contextmanager
def evaluating(where: str, model: Any) -> Iterator[None]:
    """Put a module in eval mode and without gradients, say so where it matters, and put it back."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    if any(module.training and _differs(module) for module in model.modules()):
        warnings.warn(
            f"{where}: the model was in train mode. It is explained in eval mode and put back; "
            "call model.eval() first to silence this.",
            stacklevel=4,  # this, the context's __enter__, the public function, its caller
        )
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _differs(module: nn.Module) -> bool:
    """Tell whether train mode changes what a layer says, beside the layers inside it."""
    share = module.p if isinstance(module, DROPOUTS) else getattr(module, "dropout", 0)
    return isinstance(module, NORMS) or (isinstance(share, int | float) and share > 0)


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
        scores = np.asarray(model(x.numpy()))
        if scores.dtype.kind not in "fiub":
            raise checks.bad_type(
                where,
                expected="a function that returns numbers",
                got=scores.flat[0] if scores.size else scores,
                remedy="Pass its method: model.predict_proba.",
            )
        return torch.as_tensor(scores)

    return Scorer(body, torch.device("cpu"), torch.float64, 0)


def _columns(where: str, plain: Scorer) -> Step:
    """Check what the model returns, and make it (n, K) of floating point."""

    def body(x: Tensor) -> Tensor:
        scores = plain.body(x)
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
        scores = scores if scores.is_floating_point() else scores.to(plain.dtype)
        return scores[:, None] if scores.ndim == 1 else scores

    return body


def _link(model: Any, output: str, n_outputs: int) -> Step | None:
    """Return what takes the model's outputs to the scale wanted; None leaves them as they are."""
    if output == "raw" or not isinstance(model, nn.Module):
        return None
    steps = chains.steps(model)
    # by structure, not by value: an end that normalises
    normalised = bool(steps) and isinstance(steps[-1], nn.Sigmoid | nn.Softmax)
    if (output == "probability") == normalised:
        return None
    if output == "logit":
        return lambda p: torch.logit(p, eps=1e-7)
    return torch.sigmoid if n_outputs == 1 else lambda z: torch.softmax(z, dim=1)


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


def names(target: int | str | None, n_outputs: int) -> tuple[list[str] | None, slice | int]:
    """Return the names of outputs, which are numbers, and what to take of the axis for them.

    Where a result has no such axis, these are None and 0.
    """
    whole = target == "all" or (target is None and n_outputs > 1)
    return ([str(k) for k in range(n_outputs)], slice(None)) if whole else (None, 0)
