"""Train a language model: Muon and AdamW, warm-up and decay, bits per byte, safe from crashes."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from kit.base import checks, device, progress, storage
from kit.base.results import Result, result, short
from kit.text import windows
from kit.train import checkpoint as checkpoints
from kit.train import inputs, optimizers
from kit.train.optimizers import Optimizers

WHERE = "train.fit_language"
NATS_PER_BIT = math.log(2)
PAYS = 1.1  # bfloat16 is taken where a step is so many times as fast


@result
class LanguageFit(Result):
    """Hold a finished training; `table` has one row every so many steps."""

    model: nn.Module
    bits_per_byte: float  # of the validation text where there is one, else of the last steps
    stopped: str
    precision: str
    tokens_per_s: float
    seconds: float

    def facts(self) -> dict[str, str]:
        """Return how well it predicts, how fast it was trained, and why that ended."""
        return {
            "bits_per_byte": short(self.bits_per_byte),
            "tokens_per_s": f"{self.tokens_per_s:,.0f}",
            "precision": self.precision,
            "stopped": self.stopped,
        }


def fit_language(
    model: nn.Module,
    tokens: UInt8[np.ndarray, " tokens"],
    *,
    validation: UInt8[np.ndarray, " validation_tokens"] | None = None,
    steps: int = 1000,
    batch: int = 32,
    accumulate: int = 1,
    lr: float = 3e-3,
    weight_decay: float = 0.1,
    warmup: float = 0.05,
    decay: float = 0.5,
    optimizer: str = "muon",
    clip: float | None = 1.0,
    precision: str = "auto",
    seed: int = 0,
    every: int = 100,
    checkpoint: str | Path | None = None,
) -> LanguageFit:
    """Train a language model in place on windows of a text, each drawn at random.

    Ctrl-C ends it with the weights of that moment. With `checkpoint`, the same call after a crash
    goes on from the last row of the table, to the same bits as a run without the crash. Under
    torchrun, pass the model in DistributedDataParallel: the processes share every batch.

    Args:
        model: takes tokens (batch, context), returns logits, and has a `context`: models.GPT.
        tokens: of the training part of a corpus.
        validation: of the other part.
        steps: gradient steps.
        batch: windows a step, of all processes together.
        accumulate: parts that a process's share of a batch is computed in, where memory is short.
        lr: the highest learning rate.
        weight_decay: of every matrix.
        warmup: fraction of the steps, the first ones, in which lr rises.
        decay: fraction of the steps, the last ones, in which it falls.
        optimizer: "muon" (for matrices inside the model; AdamW for the rest) or "adamw".
        clip: largest norm of the gradient; None leaves it as it is.
        precision: "float32", "bfloat16" (autocast), or "auto", which times a step of both.
        seed: of the windows.
        every: steps a row of the table, and between two checkpoints.
        checkpoint: file to save to, and to go on from.

    Returns:
        The trained model, with bits per byte and tokens per second along the way.

    Raises:
        ValueError: a setting out of range, a text shorter than the context, or a checkpoint that
            is damaged or was written with other settings or tokens.

    Source:
        Jordan et al.: Muon, an Optimizer for Hidden Layers in Neural Networks, 2024.
    """
    told: dict[str, Any] = {"steps": steps, "batch": batch, "accumulate": accumulate}
    inputs.check_least(WHERE, every=every, **told)
    _check(warmup, decay, optimizer, precision, lr, batch, accumulate)
    where, opt = device.of(model), optimizers.make(model, optimizer, lr, weight_decay)
    told |= {"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "decay": decay}
    told |= {"optimizer": optimizer, "clip": clip, "seed": seed, "every": every}
    some = torch.from_numpy(np.array(tokens[:: 1 + len(tokens) // 10_000]))
    told |= {"precision": precision, "data": [len(tokens), inputs.fingerprint([some])]}
    path = Path(checkpoint) if checkpoint else None
    if path and path.exists():
        told["casts"] = storage.load(path)[1].get("settings", {}).get("casts")
    else:
        told["casts"] = _chosen(model, tokens, where, precision, batch // accumulate)
    casts = _casts(where, told["casts"])
    state = checkpoints.State()
    if path:
        n_rows = math.ceil(steps / every)
        state = checkpoints.read(path, model=model, opt=opt, settings=told, epochs=n_rows)
    start, first = time.perf_counter(), state.epoch * every
    try:
        for step in progress.track(range(first, steps), label="step"):
            if step % every == 0:
                losses, since = [], time.perf_counter()
            for group in opt.param_groups:
                group["lr"] = lr * _height(step, steps, warmup, decay)
            losses.append(_step(model, tokens, opt, step, where=where, casts=casts, told=told))
            if (step + 1) % every == 0 or step + 1 == steps:
                bits = float(torch.stack(losses).mean()) / NATS_PER_BIT
                row = {"step": step + 1, "bits_per_byte": bits}
                if validation is not None:
                    row["validation_bits"] = bits_per_byte(model, validation, batch=batch)
                n_tokens = len(losses) * batch * _context(model)
                row["tokens_per_s"] = n_tokens / (time.perf_counter() - since)
                state.history.append(row)
                state.epoch += 1
                if path and _rank() == 0:
                    checkpoints.write(path, model=model, opt=opt, state=state, settings=told)
                if not math.isfinite(bits):
                    state.stopped = f"diverged by step {step + 1}: pass a smaller lr"
                    break
    except KeyboardInterrupt:
        state.stopped = "interrupted"
    device.wait_for(where)
    seconds = time.perf_counter() - start
    table = pd.DataFrame(state.history, columns=_columns(validation is not None))
    done = int(table["step"].iloc[-1]) if len(table) else 0
    last = table.iloc[-1] if len(table) else pd.Series(math.nan, table.columns)
    return LanguageFit(
        table=table,
        model=model.eval(),
        bits_per_byte=float(last.get("validation_bits", last["bits_per_byte"])),
        stopped=state.stopped or f"after {steps:,} steps",
        precision=told["casts"],
        tokens_per_s=max(0, done - first) * batch * _context(model) / seconds,
        seconds=seconds,
    )


def bits_per_byte(
    model: nn.Module, tokens: UInt8[np.ndarray, " tokens"], *, batch: int = 32, most: int = 65_536
) -> float:
    """Return the bits that a model needs for a byte of a text, on windows spread over all of it.

    Args:
        model: takes tokens (batch, context), returns logits.
        tokens: of a text that was not trained on.
        batch: windows at once.
        most: tokens to predict, about; all windows where there are fewer.
    """
    context, where = _context(model), device.of(model)
    n = min(len(tokens) // (context + 1), max(1, most // context))
    if n == 0:
        windows(tokens, context=context, batch=1, seed=0, step=0)  # says what is wrong
    starts = np.linspace(0, len(tokens) - context - 1, n).astype(int)
    rows = torch.from_numpy(
        np.stack([tokens[i : i + context + 1] for i in starts]).astype(np.int64)
    )
    trained, total = [part for part in model.modules() if part.training], 0.0
    model.eval()
    try:
        with torch.no_grad():
            for some in rows.split(batch):
                x = some.to(where)
                logits = model(x[:, :-1]).float().flatten(0, 1)
                total += float(F.cross_entropy(logits, x[:, 1:].flatten(), reduction="sum"))
    finally:
        for part in trained:
            part.training = True
    return total / (n * context) / NATS_PER_BIT


def _step(
    model: nn.Module,
    tokens: np.ndarray,
    opt: Optimizers,
    step: int,
    *,
    where: torch.device,
    casts: AbstractContextManager[object],
    told: Mapping[str, Any],
) -> Tensor:
    """Take one gradient step and return its loss, in nats a token."""
    x, y = windows(
        tokens, context=_context(model), batch=told["batch"], seed=told["seed"], step=step
    )
    share = slice(_rank(), None, _world())
    parts = list(
        zip(*(each[share].to(where).chunk(told["accumulate"]) for each in (x, y)), strict=True)
    )
    total = torch.zeros((), device=where)
    model.train()
    for i, (xb, yb) in enumerate(parts):
        with _alone(model, i + 1 < len(parts)), casts:
            loss = F.cross_entropy(model(xb).flatten(0, 1), yb.flatten()) / len(parts)
            loss.backward()
        total += loss.detach()
    if told["clip"] is not None:
        nn.utils.clip_grad_norm_(model.parameters(), told["clip"])
    opt.step()
    if _world() > 1:
        dist.all_reduce(total)
        total /= _world()
    return total


def _alone(model: nn.Module, more_to_come: bool) -> AbstractContextManager[object]:
    """Keep the processes from adding up gradients before the last part of a batch."""
    if more_to_come and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def _height(step: int, steps: int, warmup: float, decay: float) -> float:
    """Return lr as a fraction of its highest: up, level, and down."""
    up = (step + 1) / (warmup * steps) if warmup else 1.0
    down = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, up, down)


def _chosen(
    model: nn.Module, tokens: np.ndarray, where: torch.device, precision: str, batch: int
) -> str:
    """Return the precision; "auto" times a forward and a backward pass of each."""
    if precision != "auto":
        return precision
    x, y = (
        each.to(where)
        for each in windows(
            tokens, context=_context(model), batch=max(1, batch // _world()), seed=0, step=0
        )
    )
    seconds = {name: min(_passes(model, x, y, where, name)) for name in ("float32", "bfloat16")}
    model.zero_grad()
    return "bfloat16" if seconds["float32"] > PAYS * seconds["bfloat16"] else "float32"


def _passes(
    model: nn.Module, x: Tensor, y: Tensor, where: torch.device, precision: str
) -> Iterator[float]:
    for _ in range(3):
        device.wait_for(where)
        start = time.perf_counter()
        with _casts(where, precision):
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        device.wait_for(where)
        yield time.perf_counter() - start


def _casts(where: torch.device, precision: str) -> AbstractContextManager[object]:
    if precision == "bfloat16":
        return torch.autocast(where.type, dtype=torch.bfloat16)
    return nullcontext()


def _context(model: nn.Module) -> int:
    inner: Any = getattr(model, "module", model)  # of DistributedDataParallel
    return inner.context


def _columns(has_validation: bool) -> list[str]:
    return ["step", "bits_per_byte", *["validation_bits"] * has_validation, "tokens_per_s"]


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _check(
    warmup: float,
    decay: float,
    optimizer: str,
    precision: str,
    lr: float,
    batch: int,
    accumulate: int,
) -> None:
    if optimizer not in optimizers.NAMES:
        raise checks.unknown_name(WHERE, "optimizer", got=optimizer, known=optimizers.NAMES)
    if precision not in inputs.PRECISIONS:
        raise checks.unknown_name(WHERE, "precision", got=precision, known=inputs.PRECISIONS)
    rules = [
        ("lr > 0", lr > 0, lr, "Pass lr=3e-3."),
        (
            "warmup and decay from 0 to 1",
            0 <= warmup <= 1 and 0 <= decay <= 1,
            (warmup, decay),
            "Pass warmup=0.05, decay=0.5.",
        ),
        (
            f"a batch that {_world()} processes with {accumulate} parts each can share",
            batch % (_world() * accumulate) == 0,
            batch,
            f"Pass batch={_world() * accumulate}, or a multiple.",
        ),
    ]
    for expected, holds, got, remedy in rules:
        if not holds:
            raise checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
