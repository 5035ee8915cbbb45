"""The training loop: batches, gradient steps, early stop, and a state that survives a crash."""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from kit.base import device, progress
from kit.base import seed as seeds
from kit.base.modes import evaluating
from kit.base.results import Result, result, short
from kit.train import checkpoint as checkpoints
from kit.train import inputs, processes, step
from kit.train import precision as precisions
from kit.train.losses import Loss, loss_for

BATCHES_AT_ONCE = 64  # gathered in one go; more is no faster, and memory stays bounded
WIDE = 256 * 256  # weights of one matrix from which bfloat16 is worth its casts on a GPU
LONG = 100  # steps from which a probe of six is worth its time


@result
class Fit(Result):
    """Hold a finished training; `table` has one row an epoch."""

    model: nn.Module
    best_epoch: int  # counted from 1; 0 where no epoch ended with a finite loss
    best_loss: float  # on the validation rows where there are any, else on the training rows
    stopped: str
    precision: str  # that was computed in
    seconds: float
    rows_per_s: float

    def facts(self) -> dict[str, str]:
        """Return the best loss, its epoch and why training ended."""
        return {
            "best_loss": short(self.best_loss),
            "best_epoch": str(self.best_epoch),
            "stopped": self.stopped,
        }


def batches(
    X: Shaped[Tensor, "rows ..."],
    y: Shaped[Tensor, "targets ..."],
    *,
    batch: int,
    seed: int = 0,
    epoch: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffle tensors that are in memory and yield them batch by batch, on their device.

    Under torchrun each process gets its own share of the rows, all shares of one size.

    Args:
        X: inputs.
        y: targets.
        batch: rows a batch; the last one of an epoch may be smaller.
        seed: of the order.
        epoch: each one has its own order, and the same epoch always the same.

    Yields:
        Inputs and targets of one batch.

    Raises:
        ValueError: not as many targets as rows, or `batch` below 1.

    Example:
        >>> X = torch.arange(5.0)[:, None]
        >>> [len(xb) for xb, yb in batches(X, X[:, 0], batch=2)]
        [2, 2, 1]
    """
    inputs.check_rows("train.batches", X, y)
    inputs.check_least("train.batches", batch=batch)
    order = torch.randperm(len(X), generator=seeds.generator(seed, epoch))
    n_each = len(order) // processes.world()
    order = order[processes.rank() :: processes.world()][:n_each]
    # rows are gathered for many batches at once and then sliced: a slice is free, a gather is not
    for rows in order.to(X.device).split(batch * BATCHES_AT_ONCE):
        xs, ys = X.index_select(0, rows), y.index_select(0, rows)  # X[rows], in half the time
        yield from zip(xs.split(batch), ys.split(batch), strict=True)


def fit(
    model: nn.Module,
    X: Shaped[Tensor, "rows ..."],
    y: Shaped[Tensor, "targets ..."],
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    epochs: int = 10,
    lr: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
    weight_decay: float = 0.0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    loss: Loss | None = None,
    patience: int | None = None,
    clip: float | None = None,
    precision: str = "auto",
    checkpoint: str | Path | None = None,
) -> Fit:
    """Train `model` in place by gradient descent; it ends with the weights that did best.

    Ctrl-C ends the training with the best weights so far. With `checkpoint`, the same call after
    a crash goes on from the last whole epoch, to the same bits as a run without the crash.

    Args:
        model: any module that takes a batch of `X`; it stays on its device.
        X: inputs.
        y: targets; their type chooses the loss: bool a yes/no question (binary cross-entropy on
            one logit), integers classes (cross-entropy), floats a quantity (squared error).
        validation: inputs and targets to choose the best epoch by; None keeps the last one.
        epochs: passes over the rows.
        lr: learning rate.
        batch: rows a gradient step.
        seed: of the order of rows, and of dropout.
        weight_decay: of the optimizer; AdamW with 0 is Adam.
        optimizer: a class of torch.optim that takes lr and weight_decay, or
            partial(SGD, momentum=0.9).
        loss: function of outputs and targets, instead of the one that `y` chooses.
        patience: epochs without a better validation loss before it stops; None never stops.
        clip: largest norm of the gradient; None leaves it as it is.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU that has it, for
            models with a matrix of 65,536 weights or more. On a CPU "auto" stays in float32; from
            a matrix of 256 x 256 and 100 steps on it times a batch with products by oneDNN
            instead of the library that torch takes, and goes on with oneDNN where that is as
            exact and at least 1.1 times as fast. The two round differently in the last digits:
            pass "float32" for weights that are the same in every run.
        checkpoint: file to save to after every epoch, and to go on from.

    Returns:
        The trained model with one row an epoch, and why it stopped.

    Raises:
        ValueError: shapes that do not fit, NaN in `X` or `y`, a setting out of range, or a
            checkpoint that is damaged or was written with other settings or rows.
    """
    inputs.check_settings(
        *(validation is not None, patience, clip, precision), epochs=epochs, batch=batch, lr=lr
    )
    inputs.check_parallel(model)
    where, rows = device.of(model), [X, y, *(validation or ())]
    for given, targets in zip(rows[::2], rows[1::2], strict=True):
        inputs.check_rows("train.fit", given, targets)
    rows = [each.to(where) for each in rows]
    for given, targets in zip(rows[::2], rows[1::2], strict=True):
        inputs.check_finite("train.fit", inputs=given, targets=targets)
    X, y, *rest = rows
    if loss is None:
        loss = loss_for(y)
        inputs.check_outputs("train.fit", predict(model, X[:2]), y[:2], y)
    opt = optimizer(
        model.parameters(), lr=lr, weight_decay=weight_decay, **_fused(optimizer, where)
    )
    settings: dict[str, Any] = {"data": inputs.fingerprint(rows), "batch": batch, "seed": seed}
    settings |= {"clip": clip, "patience": patience, "precision": precision, "loss": _name(loss)}
    settings |= {"optimizer": type(opt).__name__, **opt.defaults}
    path = Path(checkpoint) if checkpoint else None
    state = checkpoints.State()
    if path:
        state = checkpoints.read(path, model=model, opt=opt, settings=settings, epochs=epochs)
    opt.zero_grad()  # what the caller's own steps may have left
    update = step.updater(opt)
    first, start = state.epoch, time.perf_counter()
    try:
        state.precision = precisions.possible(state.precision) or _chosen(
            precision, model, lambda: loss(model(X[:batch]), y[:batch]), epochs * len(X) // batch
        )
        casts = precisions.casts(where, state.precision)
        for epoch in progress.track(range(first, 0 if state.stopped else epochs), label="epoch"):
            losses = []
            model.train()
            # dropout from the epoch's own seed, so that a resumed run draws the same
            drawing = seeds.drawing(seed, epoch, 1 + processes.rank(), where=where)
            with drawing, precisions.products(state.precision):
                for xb, yb in batches(X, y, batch=batch, seed=seed, epoch=epoch):
                    with casts:
                        value = loss(model(xb), yb)
                    value.backward()
                    if clip is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), clip)
                    update()
                    losses.append(value.detach())  # .item() here would stall a GPU at every step
            _note(state, model, float(torch.stack(losses).mean()), rest, loss, patience)
            if path and processes.rank() == 0:
                checkpoints.write(path, model=model, opt=opt, state=state, settings=settings)
            if state.stopped:
                break
    except KeyboardInterrupt:
        state.stopped = "interrupted"
    device.wait_for(where)
    seconds = time.perf_counter() - start
    if state.best:
        model.load_state_dict(state.best)
    model.eval()
    return Fit(
        table=pd.DataFrame(state.history),
        model=model,
        best_epoch=state.best_epoch,
        best_loss=state.best_loss,
        stopped=state.stopped or f"after {state.epoch} epochs",
        precision=state.precision,
        seconds=seconds,
        rows_per_s=len(X) * (state.epoch - first) / seconds,
    )


def predict(
    model: nn.Module, X: Shaped[Tensor, "rows ..."], *, batch: int = 8192
) -> Float[Tensor, "rows ..."]:
    """Run `model` over rows in batches, in eval mode and without gradients.

    Args:
        model: any module that takes a batch of `X`; its training mode is put back.
        X: inputs, on any device.
        batch: rows at once.

    Returns:
        The outputs on the CPU: logits or quantities, as the model gives them, in its precision
        but no lower than float32.

    Raises:
        ValueError: `batch` below 1.
    """
    inputs.check_least("train.predict", batch=batch)
    where = device.of(model)
    with evaluating(model):
        return torch.cat([_precise(model(xb.to(where))).cpu() for xb in X.split(batch)])


def _precise(outputs: Tensor) -> Tensor:
    """Return at least float32; float64 stays."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _note(
    state: checkpoints.State,
    model: nn.Module,
    train_loss: float,
    validation: Sequence[Tensor],
    loss: Loss,
    patience: int | None,
) -> None:
    """Write one epoch into `state` in place, and keep its weights if it is the best so far."""
    row = {"epoch": state.epoch + 1, "train_loss": train_loss}
    watched = train_loss
    if validation:
        X_val, y_val = validation
        outputs = predict(model, X_val).to(y_val.device)
        watched = row["validation_loss"] = float(loss(outputs, y_val))
    # from here on nothing takes long: Ctrl-C meets either the epoch before or this one
    state.epoch += 1
    state.history.append(row)
    if not math.isfinite(watched):
        state.stopped = f"diverged in epoch {state.epoch}: pass a smaller lr"
    elif not validation or watched < state.best_loss:
        best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        state.best, state.best_loss, state.best_epoch = best, watched, state.epoch
    elif patience is not None and state.epoch - state.best_epoch >= patience:
        state.stopped = f"no better for {patience} epochs"


def _fused(optimizer: Callable[..., torch.optim.Optimizer], where: torch.device) -> dict[str, bool]:
    """Ask for one kernel over all weights, where the optimizer has it."""
    if {"fused", "foreach", "differentiable"} & getattr(optimizer, "keywords", {}).keys():
        return {}  # the caller has chosen
    has_it = "fused" in inspect.signature(optimizer).parameters and where.type in ("cpu", "cuda")
    return {"fused": True} if has_it else {}


def _chosen(asked: str, model: nn.Module, loss: Callable[[], Tensor], steps: int) -> str:
    """Return what "auto" stands for, given the loss of a batch and the steps to come."""
    where = device.of(model)
    if asked != "auto":
        return asked
    if where.type == "cuda":
        wide = max((weight.numel() for weight in model.parameters()), default=0) >= WIDE
        return "bfloat16" if wide and torch.cuda.is_bf16_supported() else "float32"
    is_worth_it = where.type == "cpu" and steps >= LONG and precisions.is_wide(model)
    if not is_worth_it or processes.world() > 1 or not precisions.is_exact():
        return "float32"
    return precisions.probed(loss, model, precisions.ONEDNN)


def _name(loss: Loss) -> str:
    return getattr(loss, "__qualname__", type(loss).__qualname__)
