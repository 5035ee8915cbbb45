"""Train a language model: Muon and AdamW, warm-up and decay, bits per byte, safe from crashes."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from kit.base import device, memory, progress
from kit.base import seed as seeds
from kit.base.results import Result, result, short
from kit.text import windows
from kit.train import checkpoint as checkpoints
from kit.train import inputs, optimizers, processes, room
from kit.train import precision as precisions
from kit.train.bits import bits_per_byte, context_of
from kit.train.optimizers import Optimizers
from kit.train.pace import Pace

WHERE = "train.fit_language"


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
    tell: Callable[[Mapping[str, float]], None] | None = None,
) -> LanguageFit:
    """Train a language model in place on windows of a text, each drawn at random.

    Ctrl-C ends it with the weights of that moment. With `checkpoint`, the same call after a crash
    goes on from the last row of the table, to the same bits as a run without the crash.

    Under torchrun the processes share every batch: pass the model in DistributedDataParallel, or,
    where one device cannot hold it, parted by fully_shard. One process may go on from a checkpoint
    of many, and many from one of one, to the same losses. Ctrl-C then ends all of them.

    Args:
        model: takes tokens (batch, context), returns logits, and has a `context`: models.GPT.
        tokens: of the training part of a corpus.
        validation: of the other part.
        steps: gradient steps.
        batch: windows a step, of all processes together.
        accumulate: parts that a process's share of a batch is computed in, where memory is short.
            One process alone finds out by itself, halves the parts, and says so.
        lr: the highest learning rate.
        weight_decay: of the matrices that Muon trains, none of the rest; with "adamw", of all.
        warmup: fraction of the steps, the first ones, in which lr rises.
        decay: fraction of the steps, the last ones, in which it falls.
        optimizer: "muon" (for matrices inside the model; AdamW for what tokens come in and go out
            by, and for norms) or "adamw".
        clip: largest norm of the gradient; None leaves it as it is.
        precision: "float32", "bfloat16" (autocast), or "auto", which times a step of both.
        seed: of the windows.
        every: steps a row of the table, and between two checkpoints.
        checkpoint: file to save to, and to go on from.
        tell: is called with each row of the table as soon as it is known, in the first process.

    Returns:
        The trained model, with bits per byte and tokens per second along the way.

    Raises:
        ValueError: a setting out of range, a text shorter than the context or with a token that
            the model has not, a model without weights to train, a device without bfloat16, a bare
            model under torchrun, or a checkpoint that is damaged or was written with other
            settings, texts or sizes.
        TypeError: tokens that are no bytes, or a model without a `context`.
        MemoryError: the parts of a batch do not fit, and cannot be halved.

    Source:
        Jordan et al.: Muon, an Optimizer for Hidden Layers in Neural Networks, 2024.
    """
    settings: dict[str, Any] = {"steps": steps, "batch": batch}
    inputs.check_least(WHERE, every=every, accumulate=accumulate, **settings)
    settings |= {"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "decay": decay}
    settings |= {"optimizer": optimizer, "clip": clip, "precision": precision, "seed": seed}
    inputs.check_language(WHERE, settings, accumulate)
    inputs.check_parallel(model, where=WHERE, sharded=True)
    inputs.check_reader(WHERE, model)
    texts = [tokens] if validation is None else [tokens, validation]
    inputs.check_texts(WHERE, texts, model)
    settings |= {"every": every, "data": inputs.fingerprints(texts)}
    where, opt = device.of(model), optimizers.make(model, optimizer, lr, weight_decay)
    path, state = Path(checkpoint) if checkpoint else None, checkpoints.State()
    if path:
        told: dict[str, Any] = {"epochs": math.ceil(steps / every), "where": WHERE}
        state = checkpoints.read(path, model=model, opt=opt, settings=settings, **told)
    asked = batch // processes.world() // accumulate
    at_once = min(asked, state.at_once or asked)
    state.precision = state.precision or _chosen(model, tokens, settings, at_once)
    if state.precision == "bfloat16":
        precisions.check_bfloat16(WHERE, where)
    casts = precisions.casts(where, state.precision)
    todo = range(state.epoch * every, 0 if state.stopped else steps)
    pace, start = Pace(batch * context_of(model)), time.perf_counter()
    try:
        for step in progress.track(todo, label="step") if processes.rank() == 0 else todo:
            if step % every == 0:
                pace.begin()
            told = {"at_once": at_once, "casts": casts, "settings": settings}
            loss, fitted = _step(model, tokens, opt, step, **told)
            if fitted < at_once:
                at_once = state.at_once = fitted
            pace.add(loss)
            if (step + 1) % every and step + 1 < steps:
                continue
            row = {"step": step + 1, **pace.end()}
            if validation is not None:
                row["validation_bits"] = bits_per_byte(model, validation, batch=at_once)
            state.history.append(row)
            state.epoch += 1
            if not math.isfinite(row["bits_per_byte"]):
                state.stopped = f"diverged by step {step + 1}: pass a smaller lr"
            if path:
                checkpoints.write(path, model=model, opt=opt, state=state, settings=settings)
            if tell and processes.rank() == 0:
                tell(row)
            if state.stopped:
                break
    except KeyboardInterrupt:
        if processes.world() > 1:  # the others are elsewhere: there is no common moment to keep
            raise
        state.stopped = "interrupted"
    table = pd.DataFrame(state.history, columns=_columns(validation is not None))
    last = table.iloc[-1] if len(table) else pd.Series(math.nan, table.columns)
    return LanguageFit(
        table=table,
        model=model.eval(),
        bits_per_byte=float(last.get("validation_bits", last["bits_per_byte"])),
        stopped=state.stopped or f"after {steps:,} steps",
        precision=state.precision,
        tokens_per_s=pace.tokens_per_s(),
        seconds=time.perf_counter() - start,
    )


def _step(
    model: nn.Module,
    tokens: np.ndarray,
    opt: Optimizers,
    step: int,
    *,
    at_once: int,
    casts: AbstractContextManager[object],
    settings: Mapping[str, Any],
) -> tuple[Tensor, int]:
    """Take one gradient step; return its loss, in nats a token, and how many windows fitted."""
    for group in opt.param_groups:
        group["lr"] = settings["lr"] * _height(step, settings)
    x, y = _share(model, tokens, settings, step)
    # dropout from the step's own seed, so that a resumed run draws the same
    stream = settings["seed"], step, 1 + processes.rank()
    gradients = partial(_gradients, model, x, y, casts=casts, stream=stream)
    with _room(x, at_once) as least:
        total, fitted = memory.halved(gradients, at_once, x.device, least=least)
        if settings["clip"] is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        opt.step()
    if fitted < at_once:
        warnings.warn(
            f"{WHERE}: memory ran out at {at_once} windows at once; it goes on with {fitted}. "
            f"Pass accumulate={math.ceil(len(x) / fitted)} to begin so.",
            stacklevel=3,
        )
    return processes.mean(total), fitted


def _gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    at_once: int,
    *,
    casts: AbstractContextManager[object],
    stream: tuple[int, ...],
) -> Tensor:
    """Add up the gradients of a batch, so many windows at once, and return its loss."""
    model.zero_grad()  # what an attempt that ran out of memory has left
    model.train()
    parts = list(zip(x.split(at_once), y.split(at_once), strict=True))
    total = torch.zeros((), device=x.device)
    with seeds.drawing(*stream, where=x.device):
        for i, (xb, yb) in enumerate(parts):
            more = i + 1 < len(parts)
            with processes.alone(model) if more else nullcontext(), casts:
                loss = _loss(model, xb, yb) / (len(x) / len(xb))
                loss.backward()
            total += loss.detach()
    return total


def _share(
    model: nn.Module, tokens: np.ndarray, settings: Mapping[str, Any], step: int
) -> tuple[Tensor, Tensor]:
    """Return this process's windows of a step, and the token after each of theirs."""
    told = {"context": context_of(model), "batch": settings["batch"], "seed": settings["seed"]}
    share = slice(processes.rank(), None, processes.world())
    x, y = (each[share].to(device.of(model)) for each in windows(tokens, **told, step=step))
    return x, y


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def _height(step: int, settings: Mapping[str, Any]) -> float:
    """Return lr as a fraction of its highest: up, level, and down."""
    steps, warmup, decay = (settings[name] for name in ("steps", "warmup", "decay"))
    up = (step + 1) / (warmup * steps) if warmup else 1.0
    down = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, up, down)


def _chosen(model: nn.Module, tokens: np.ndarray, settings: Mapping[str, Any], at_once: int) -> str:
    if settings["precision"] != "auto":
        return settings["precision"]
    if not precisions.has_bfloat16(device.of(model)):
        return "float32"
    x, y = _share(model, tokens, settings, 0)
    with _room(x, at_once) as least:
        found, _ = memory.halved(
            lambda n: precisions.probed(lambda: _loss(model, x[:n], y[:n]), model),
            *(at_once, x.device),
            least=least,
        )
    return processes.agreed(found)


@contextmanager
def _room(x: Tensor, at_once: int) -> Iterator[int]:
    """Tell of a step that does not fit, after all was halved down to the number that this gives."""
    least = room.least(at_once)
    remedy = "Pass a smaller model or a shorter context."
    if least > 1:
        remedy = f"Pass accumulate={math.ceil(2 * len(x) / least)}."
    what = f"a step with {least} windows of {x.shape[1]:,} tokens at once"
    with room.told(WHERE, what, where=x.device, remedy=remedy):
        yield least


def _columns(has_validation: bool) -> list[str]:
    return ["step", "bits_per_byte", *["validation_bits"] * has_validation, "tokens_per_s"]
