"""Choose the size of a language model: train small ones, find the law, ask it about larger ones."""

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from torch import nn

from kit import train
from kit.base import checks, device, progress, timing
from kit.base import seed as seeds
from kit.base.results import Result, result, short
from kit.train.bits import context_of
from kit.tune import law as laws
from kit.tune.law import Law

WHERE = "tune.sizes_language"
REPEATS = 30  # of the call whose latency is measured


@result
class Ladder(Result):
    """Hold a ladder of sizes; `table` has one row a run, the held-out rung last."""

    law: Law  # of all runs
    predicted: float  # bits a byte of the last rung, by the law of the rungs below it
    found: float  # what it came to
    miss: float  # |predicted - found| / found
    model_fn: Callable[..., nn.Module]

    def facts(self) -> dict[str, str]:
        """Return the law, and how well it foresaw the last rung."""
        return {
            "law": str(self.law),
            "predicted": short(self.predicted),
            "found": short(self.found),
            "miss": f"{100 * self.miss:.1f} %",
        }

    def recommend(
        self,
        *,
        seconds: float,
        latency_ms: float = float("inf"),
        depths: Sequence[int] = range(1, 13),
    ) -> "Advice":
        """Choose the depth that comes to the lowest loss in a time, and answers in another.

        Latency is measured, on models that nobody has trained: it does not depend on the weights.
        The tokens that a budget buys follow from the speed of the ladder's runs, loss from its law.

        Args:
            seconds: of training, on this machine.
            latency_ms: that one more token may take, alone in a batch.
            depths: to choose from.

        Raises:
            ValueError: no seconds, no depth, or none that answers in time.
        """
        if not 0 < seconds < float("inf") or not _some(depths):
            raise checks.bad_value(
                "Ladder.recommend",
                expected="finite seconds > 0 and depths of 1 or more",
                got=checks.Described(f"seconds={seconds} and depths={list(depths)}"),
                remedy="Pass seconds=3600, depths=range(1, 9).",
            )
        table = pd.DataFrame([self._foreseen(depth, seconds) for depth in sorted(depths)])
        table["in_time"] = table["latency_ms"] <= latency_ms
        if not table["in_time"].any():
            raise checks.bad_value(
                "Ladder.recommend",
                expected=f"latency_ms >= {short(table['latency_ms'].min())}, the fastest depth's",
                got=latency_ms,
                remedy="Allow more time a token, or offer smaller depths.",
            )
        best = table.loc[table.loc[table["in_time"], "bits_per_byte"].idxmin()]
        return Advice(
            table=table,
            depth=int(best["depth"]),
            parameters=int(best["parameters"]),
            tokens=int(best["tokens"]),
            bits_per_byte=float(best["bits_per_byte"]),
            latency_ms=float(best["latency_ms"]),
        )

    def _foreseen(self, depth: int, seconds: float) -> dict[str, float]:
        model = _made(self.model_fn, depth, seed=0)
        parameters = _size(model)
        tokens = seconds / self._seconds_a_token(parameters)
        return {
            "depth": depth,
            "parameters": parameters,
            "tokens": tokens,
            "bits_per_byte": self.law.loss(parameters, tokens),
            "latency_ms": _latency_ms(model),
        }

    def _seconds_a_token(self, parameters: int) -> float:
        """Return the time of a token, on the line through the ladder's: so much, and more a weight.

        The line goes through the largest rung, from which the larger ones are foreseen.
        """
        speeds = self.table.groupby("parameters")["tokens_per_s"].median()
        sizes, times = speeds.index.to_numpy(dtype=float), 1 / speeds.to_numpy()
        slope = max(0.0, float(np.polyfit(sizes, times, 1)[0]))
        return float(max(times[-1] + slope * (parameters - sizes[-1]), times.min()))


@result
class Advice(Result):
    """Hold a recommended size; `table` has one row a depth, with what is foreseen for it."""

    depth: int
    parameters: int
    tokens: int  # to train it on
    bits_per_byte: float  # foreseen
    latency_ms: float  # of one token alone

    def facts(self) -> dict[str, str]:
        """Return the size, the text it needs, and what it is expected to come to."""
        return {
            "depth": str(self.depth),
            "parameters": f"{self.parameters:,}",
            "tokens": f"{self.tokens:,}",
            "bits_per_byte": short(self.bits_per_byte),
            "latency_ms": short(self.latency_ms),
        }


def sizes_language(
    model_fn: Callable[..., nn.Module],
    tokens: UInt8[np.ndarray, " tokens"],
    *,
    validation: UInt8[np.ndarray, " validation_tokens"],
    depths: Sequence[int] = (1, 2, 3),
    lengths: Sequence[int] = (100_000, 200_000, 400_000),
    batch: int = 16,
    lr: float = 5e-3,
    optimizer: str = "muon",
    precision: str = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
) -> Ladder:
    """Train a ladder of sizes, foresee the last rung before it is trained, and show the miss.

    Every depth but the last is trained on every length, the last one on the longest. The law
    loss = floor + a / parameters^alpha + b / tokens^beta is found without it, then with it.

    Args:
        model_fn: `model_fn(depth=…)` returns an untrained model, such as models.GPT.
        tokens: of the training part of a corpus.
        validation: of the other part; losses are those of it.
        depths: of the rungs, three or more: one size alone has no slope.
        lengths: tokens to train on, two or more; each is rounded up to whole steps.
        batch: windows a gradient step.
        lr: the highest learning rate.
        optimizer: as for train.fit_language.
        precision: as for train.fit_language.
        seed: of first weights and windows.
        folder: keeps every run in a file; the same call after a crash trains only what is missing.

    Returns:
        Loss, speed and latency of every run, the law, and what it foresaw.

    Raises:
        ValueError: fewer than three depths or two lengths, or a rung whose training fails.
    """
    *below, top = sorted(set(depths)) or [0]
    if len(below) < 2 or not _some(depths):
        raise _too_few("three depths", depths)
    context = context_of(_made(model_fn, below[0], seed))
    wholes = sorted({batch * context * ceil(length / (batch * context)) for length in lengths})
    if len(wholes) < 2 or not _some(lengths):
        raise _too_few(f"two lengths, of {batch * context:,} tokens a step,", lengths)
    told = {"batch": batch, "lr": lr, "seed": seed, "validation": validation}
    told |= {"optimizer": optimizer, "precision": precision}
    runs = [(depth, length) for depth in below for length in wholes]
    rows: list[dict[str, float]] = []
    predicted = float("nan")
    for depth, length in progress.track([*runs, (top, wholes[-1])], label="run"):
        model = _made(model_fn, depth, seed)
        if depth == top:
            predicted = _law(rows).loss(_size(model), length)
        rows.append(_run(model, tokens, depth, length, folder, told))
    found = rows[-1]["bits_per_byte"]
    return Ladder(
        table=pd.DataFrame(rows),
        law=_law(rows),
        predicted=predicted,
        found=found,
        miss=abs(predicted - found) / found,
        model_fn=model_fn,
    )


def _run(
    model: nn.Module,
    tokens: np.ndarray,
    depth: int,
    length: int,
    folder: str | Path | None,
    told: dict[str, Any],
) -> dict[str, float]:
    steps = length // (told["batch"] * context_of(model))
    path = Path(folder) / f"depth{depth}-{length}.safetensors" if folder else None
    fitted = train.fit_language(
        model, tokens, steps=steps, every=ceil(steps / 4), checkpoint=path, **told
    )
    if not fitted.stopped.startswith("after"):
        raise KeyboardInterrupt if fitted.stopped == "interrupted" else _failed(depth, fitted)
    return {
        "depth": depth,
        "parameters": _size(model),
        "tokens": length,
        "bits_per_byte": fitted.bits_per_byte,
        "tokens_per_s": float(fitted.table["tokens_per_s"].median()),
        "latency_ms": _latency_ms(model),
    }


def _law(rows: Sequence[dict[str, float]]) -> Law:
    names = ("parameters", "tokens", "bits_per_byte")
    return laws.fit(*([row[name] for row in rows] for name in names))


def _made(model_fn: Callable[..., nn.Module], depth: int, seed: int) -> nn.Module:
    """Return an untrained model where it would be trained, and leave no trace in random numbers."""
    with seeds.drawing(seed):
        return model_fn(depth=depth).to(device.pick())


def _latency_ms(model: nn.Module) -> float:
    """Return the time of one token alone, as a cache leaves it to compute."""
    where = device.of(model)
    token = torch.zeros(1, 1, dtype=torch.int64, device=where)
    with torch.no_grad():
        return timing.measure(lambda: model(token), device=where, repeats=REPEATS).median_ms


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _some(values: Sequence[int]) -> bool:
    return len(values) > 0 and min(values) >= 1


def _too_few(expected: str, got: Sequence[int]) -> ValueError:
    return checks.bad_value(
        WHERE,
        expected=f"{expected} or more, of 1 or more",
        got=tuple(got),
        remedy="Pass depths=(1, 2, 3), lengths=(100_000, 200_000).",
    )


def _failed(depth: int, fitted: train.LanguageFit) -> ValueError:
    return checks.bad_value(
        WHERE,
        expected=f"a training of depth {depth} that ends well",
        got=checks.Described(fitted.stopped),
        remedy="Pass a smaller lr.",
    )
