"""The training loop: batches, gradient steps, early stop, and a state that survives a crash."""

import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from kit.base import checks, device, progress
from kit.base import seed as seeds
from kit.base.results import Result, result, short
from kit.train import checkpoint as checkpoints

BATCHES_AT_ONCE = 64  # gathered in one go; more is no faster, and memory stays bounded
WIDE = 256 * 256  # weights of one matrix from which bfloat16 is worth its casts on a GPU
PRECISIONS = ("auto", "float32", "bfloat16")
Loss = Callable[[Tensor, Tensor], Tensor]


@result
class Fit(Result):
    """Hold a finished training; `table` has one row an epoch."""

    model: nn.Module
    best_epoch: int  # counted from 1
    best_loss: float  # on the validation rows where there are any, else on the training rows
    stopped: str
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
    y: Shaped[Tensor, "rows ..."],
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

    Example:
        >>> X = torch.arange(5.0)[:, None]
        >>> [len(xb) for xb, yb in batches(X, X[:, 0], batch=2)]
        [2, 2, 1]
    """
    order = torch.randperm(len(X), generator=seeds.generator(seed, epoch))
    if dist.is_initialized():
        n_each = len(order) // dist.get_world_size()
        order = order[dist.get_rank() :: dist.get_world_size()][:n_each]
    # rows are gathered for many batches at once and then sliced: a slice is free, a gather is not
    for rows in order.to(X.device).split(batch * BATCHES_AT_ONCE):
        yield from zip(X[rows].split(batch), y[rows].split(batch), strict=True)


def fit(
    model: nn.Module,
    X: Shaped[Tensor, "rows ..."],
    y: Shaped[Tensor, "rows ..."],
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    epochs: int = 10,
    lr: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
    weight_decay: float = 0.0,
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW,
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
        optimizer: a class of torch.optim.
        loss: function of outputs and targets, instead of the one that `y` chooses.
        patience: epochs without a better validation loss before it stops; None never stops.
        clip: largest norm of the gradient; None leaves it as it is.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU that has it, for
            models with a matrix of 65,536 weights or more.
        checkpoint: file to save to after every epoch, and to go on from.

    Returns:
        The trained model with one row an epoch, and why it stopped.

    Raises:
        ValueError: shapes that do not fit, NaN in `X`, a setting out of range, or a checkpoint
            that is damaged or was written with other settings.
    """
    _check(X, y, validation, epochs=epochs, batch=batch, patience=patience, precision=precision)
    where = device.of(model)
    X, y = X.to(where), y.to(where)
    loss = loss or loss_for(y)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay, **_fused(optimizer, where))
    settings = {"rows": list(X.shape), "lr": lr, "batch": batch, "seed": seed, "clip": clip}
    settings |= {"weight_decay": weight_decay, "optimizer": optimizer.__name__}
    path = Path(checkpoint) if checkpoint else None
    state = checkpoints.State()
    if path:
        state = checkpoints.read(path, model=model, opt=opt, settings=settings)
    casts = _autocast(model, where, precision)
    first, start = state.epoch, time.perf_counter()
    try:
        for epoch in progress.track(range(first, 0 if state.stopped else epochs), label="epoch"):
            losses = []
            model.train()
            with _dropout_seeded(seed, epoch, where):
                for xb, yb in batches(X, y, batch=batch, seed=seed, epoch=epoch):
                    with casts:
                        value = loss(model(xb), yb)
                    opt.zero_grad()
                    value.backward()
                    if clip is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), clip)
                    opt.step()
                    losses.append(value.detach())  # .item() here would stall a GPU at every step
            _note(state, model, float(torch.stack(losses).mean()), validation, loss, patience)
            if path:
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
        The outputs on the CPU: logits or quantities, as the model gives them.
    """
    where, mode = device.of(model), model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = [model(xb.to(where)).float().cpu() for xb in X.split(batch)]
    finally:
        model.train(mode)
    return torch.cat(parts)


def loss_for(y: Shaped[Tensor, " rows"]) -> Loss:
    """Choose the loss by the type of the targets: bool, integers or floats."""
    if y.dtype == torch.bool:
        return _yes_no
    return _quantity if y.dtype.is_floating_point else F.cross_entropy


def _yes_no(logits: Tensor, yb: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.view(-1), yb.to(logits.dtype))


def _quantity(outputs: Tensor, yb: Tensor) -> Tensor:
    return F.mse_loss(outputs.view(-1), yb)


def _note(
    state: checkpoints.State,
    model: nn.Module,
    train_loss: float,
    validation: tuple[Tensor, Tensor] | None,
    loss: Loss,
    patience: int | None,
) -> None:
    """Write one epoch into `state` in place, and keep its weights if it is the best so far."""
    state.epoch += 1
    row = {"epoch": state.epoch, "train_loss": train_loss}
    watched = train_loss
    if validation is not None:
        X_val, y_val = validation
        watched = row["validation_loss"] = float(loss(predict(model, X_val), y_val.cpu()))
    state.history.append(row)
    if not math.isfinite(watched):
        state.stopped = f"diverged in epoch {state.epoch}: pass a smaller lr"
    elif validation is None or watched < state.best_loss:
        state.best_loss, state.best_epoch = watched, state.epoch
        state.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    elif patience is not None and state.epoch - state.best_epoch >= patience:
        state.stopped = f"no better for {patience} epochs"


def _fused(optimizer: type[torch.optim.Optimizer], where: torch.device) -> dict[str, bool]:
    """Ask for one kernel over all weights, where the optimizer has it."""
    has_it = "fused" in inspect.signature(optimizer).parameters and where.type in ("cpu", "cuda")
    return {"fused": True} if has_it else {}


def _autocast(
    model: nn.Module, where: torch.device, precision: str
) -> AbstractContextManager[object]:
    wide = max((weight.numel() for weight in model.parameters()), default=0) >= WIDE
    if precision == "auto" and where.type == "cuda" and torch.cuda.is_bf16_supported() and wide:
        precision = "bfloat16"
    if precision == "bfloat16":
        return torch.autocast(where.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def _dropout_seeded(seed: int, epoch: int, where: torch.device) -> Iterator[None]:
    """Draw dropout from the epoch's own seed, so that a resumed run draws the same."""
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seeds.generator(seed, epoch, 1).initial_seed())
        yield


def _check(
    X: Tensor,
    y: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    *,
    epochs: int,
    batch: int,
    patience: int | None,
    precision: str,
) -> None:
    where = "train.fit"
    for inputs, targets in [(X, y), *([validation] if validation is not None else [])]:
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise checks.bad_value(
                where,
                expected="as many targets as rows, at least one",
                got=checks.Described(f"{len(inputs)} rows and {len(targets)} targets"),
                remedy="Pass X and y of the same rows.",
            )
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            n_bad = int((~torch.isfinite(inputs)).sum())
            raise checks.bad_value(
                where,
                expected="finite inputs",
                got=checks.Described(f"{n_bad} NaN or infinite cells"),
                remedy="Fill the gaps first: data.Encoder does.",
            )
    for name, value in {"epochs": epochs, "batch": batch, "patience": patience}.items():
        if value is not None and value < 1:
            raise checks.bad_value(
                where, expected=f"{name} >= 1", got=value, remedy=f"Pass {name}=10."
            )
    if precision not in PRECISIONS:
        raise checks.unknown_name(where, "precision", got=precision, known=PRECISIONS)
