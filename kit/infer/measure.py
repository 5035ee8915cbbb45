"""How fast a language model reads and writes, and how far that is from what the machine can do."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from kit.base import checks, device
from kit.base import seed as seeds
from kit.base.machine import MIB
from kit.base.memory import ran_out
from kit.base.results import Result, result, short
from kit.infer.inputs import are_counts, check_model, context_of, is_count
from kit.infer.layout import arranged
from kit.infer.limits import Roofline, cache_bytes, roofline, weights
from kit.infer.reading import reader
from kit.infer.sampling import choose
from kit.infer.stream import Writer

WHERE = "infer.measure"
COLUMNS = [
    *("batch", "context", "first_token_ms", "token_ms", "tokens_per_s", "ceiling_per_s"),
    *("roofline_frac", "prefill_per_s", "prefill_frac", "cache_mib"),
]


@result
class Measured(Result):
    """Hold the speed of a model; `table` has one row for each batch and context."""

    n_weights: int
    weights_mib: float
    limits: Roofline
    device: str

    def facts(self) -> dict[str, str]:
        """Return the fastest that it writes, how far that is from the ceiling, and its memory."""
        table = self.table.dropna(subset="tokens_per_s")
        if table.empty:
            return {"tokens_per_s": "–", "weights_mib": short(self.weights_mib)}
        best = table.loc[table["tokens_per_s"].idxmax()]
        return {
            "tokens_per_s": f"{best['tokens_per_s']:,.0f} at batch {best['batch']:.0f}",
            "roofline_frac": short(best["roofline_frac"]),
            "token_ms": f"{short(table['token_ms'].min())} at best",
            "weights_mib": short(self.weights_mib),
        }


def measure(
    model: nn.Module,
    *,
    contexts: Sequence[int] | None = None,
    batches: Sequence[int] = (1, 4, 16),
    tokens: int = 32,
    limits: Roofline | None = None,
) -> Measured:
    """Measure how fast `generate` is over lengths of prompts and numbers of texts at once.

    Args:
        model: as for `generate`.
        contexts: tokens of the prompts; None is a quarter of the model's context, and all of it
            but room for `tokens`.
        batches: texts at once.
        tokens: to make, after one that warms up; times are medians over them.
        limits: what `roofline` found; None measures it.

    Returns:
        A row for each batch and context: ms until the first token (the weights are laid out, as
        every call does, and the prompt is read) and for each one after it, tokens a second of all
        texts together, the ceiling that memory and matrix rate set and the fraction of it that was
        reached, the same for reading the prompt, and MiB of keys and values. NaN where memory ran
        out.

    Raises:
        ValueError: a model without a context, a batch, a context or `tokens` below 1, or more of
            them than the context holds.
    """
    check_model(WHERE, model)
    context = context_of(WHERE, model)
    _check_counts(contexts, batches, tokens)
    if contexts is None:
        longest = max(1, context - tokens)
        contexts = sorted({min(longest, max(1, context // 4)), longest})
    _check_reach(context, contexts, tokens)
    where = device.of(model)
    limits = limits or roofline(where)
    rows = [
        _row(model, batch, length, tokens, limits=limits, where=where)
        for batch in batches
        for length in contexts
    ]
    n, n_bytes, _ = weights(model)
    return Measured(
        table=pd.DataFrame(rows, columns=COLUMNS),
        n_weights=n,
        weights_mib=n_bytes / MIB,
        limits=limits,
        device=str(where),
    )


def _row(
    model: nn.Module, batch: int, length: int, n: int, *, limits: Roofline, where: torch.device
) -> dict[str, Any]:
    row: dict[str, Any] = {"batch": batch, "context": length}
    row["cache_mib"] = batch * (length + n) * cache_bytes(model) / MIB
    try:
        laid_s, first_s, token_s = _seconds(model, batch, length, n, where)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return row
    # what is read grows by a token a step: its mean is half of the way
    ceiling = limits.decode_ceiling(model, batch=batch, context=length + n // 2)
    prefill = batch * length / first_s
    return row | {
        "first_token_ms": 1e3 * (laid_s + first_s),
        "token_ms": 1e3 * token_s,
        "tokens_per_s": batch / token_s,
        "ceiling_per_s": ceiling,
        "roofline_frac": batch / token_s / ceiling,
        "prefill_per_s": prefill,
        "prefill_frac": prefill / limits.prefill_ceiling(model),
    }


def _seconds(
    model: nn.Module, batch: int, length: int, n: int, where: torch.device
) -> tuple[float, float, float]:
    """Return the seconds of laying out the weights, of the first token, and of one after it."""
    draw = partial(torch.randint, getattr(model, "vocabulary", 256), (batch, length))
    prompts = draw(generator=seeds.generator(0)).tolist()
    laid_s, steps = 0.0, [0.0]
    for _ in range(2):  # the first round warms up
        start = time.perf_counter()
        fast = arranged(model, rows=batch)
        laid_s = time.perf_counter() - start
        read = reader(fast, [list(each) for each in prompts], grow=n + 1)
        writer = Writer(read, None, torch.zeros(batch, n + 1), partial(choose, temperature=0.0))
        steps = [_lap(writer, where) for _ in range(n + 1)]
    return laid_s, steps[0], float(pd.Series(steps[1:]).median())


def _lap(writer: Writer, where: torch.device) -> float:
    device.wait_for(where)
    start = time.perf_counter()
    writer.step()
    device.wait_for(where)
    return time.perf_counter() - start


def _check_counts(contexts: Any, batches: Any, tokens: Any) -> None:
    rules = {
        "contexts": (contexts, contexts is None or are_counts(contexts)),
        "batches": (batches, are_counts(batches)),
        "tokens": (tokens, is_count(tokens)),
    }
    for name, (got, holds) in rules.items():
        if not holds:
            raise checks.bad_value(
                WHERE,
                expected=f"{name} of 1 or more",
                got=got,
                remedy="Pass contexts=(64, 192), batches=(1, 16), tokens=32.",
            )


def _check_reach(context: int, contexts: Sequence[int], tokens: int) -> None:
    if max(contexts) + tokens > context:
        raise checks.bad_value(
            WHERE,
            expected=f"prompts and tokens within the model's context of {context:,}",
            got=checks.Described(f"{max(contexts):,} and {tokens:,}"),
            remedy="Pass shorter contexts, or fewer tokens.",
        )
