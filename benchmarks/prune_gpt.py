"""Our language model, pruned: heads, feed-forward and layers; single weights; latency."""

import copy
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pandas as pd
import prune_peers
import prune_speed
import torch
import torch.nn.functional as F
from common import Section
from prune_mlp import ALL, DENSE, bar_row
from torch import Tensor, nn

from kit import models, prune, text
from kit.base import modes

WINDOWS, CALIBRATION = 64, 128  # of validation files, and of training files
FEW = 32  # of the latter, where every layer is computed many times over
BATCH = 16  # texts at once where latency is measured
RECOVERY = 60  # steps
METHODS = ("obs", "activation", "magnitude")
PATTERNS = ("free", "2:4")
DEEP = (("layers", 0.75), ("layers", 0.5), ("auto", 0.75))  # what, keep
EXCESS_BARS = {(0.75, 0): 1 / 7, (0.5, 0): 1 / 4, (0.75, RECOVERY): 1 / 3, (0.5, RECOVERY): 1 / 3}
WEIGHTS_BAR = 1.05  # of SparseGPT's excess
SPEED_BAR = 0.95  # of the parameter ratio

HEADS = f"""\
`models.load_gpt()`; loss on {WINDOWS} windows of 256 bytes of validation files, calibration
{CALIBRATION} windows of training files ({FEW} for layers and auto). `excess_nats`: per byte, above
dense. `recover`: steps of training afterwards, on the calibration windows, towards what the dense
model says. `speedup_per_ratio`: speed-up at {BATCH} texts of 256 bytes (below), by the parameters
of the dense model over those that are left. Torch-Pruning: {{}}."""
WEIGHTS = f"""\
Half of the weights of every linear layer at zero; nothing is faster for it. Wanda and SparseGPT are
our own plain renderings of the papers (`benchmarks/prune_peers.py`), through whose hands the model
goes block by block, as there. Calibration: {FEW} windows for everyone."""
LATENCY = f"""\
{BATCH} texts of 256 bytes at once, float32. `speedup`: as above, by CPU time within a round."""


@dataclass(frozen=True)
class Judge:
    """The dense model, what it is shown, and what it is judged on."""

    model: nn.Module
    calibration: Tensor
    x: Tensor
    y: Tensor

    def nats(self, model: nn.Module) -> float:
        """Return the loss per byte."""
        with modes.evaluating(model):
            logits = [model(part) for part in self.x.split(BATCH)]
            return float(F.cross_entropy(torch.cat(logits).flatten(0, 1), self.y.flatten()))

    @cached_property
    def dense(self) -> float:
        """Return the dense model's loss."""
        return self.nats(self.model)


def sections(given: Namespace, skipped: list[str]) -> list[Section]:
    """Return the tables of parts, of single weights and of latency, and their bars."""
    judge = judged(is_quick=given.quick)
    parts, smaller = by_parts(judge, is_quick=given.quick)
    weights = by_weights(judge, is_quick=given.quick)
    latency = latencies(judge, smaller, given)
    error = "not installed" if "Torch-Pruning" in skipped else peer_error(judge)
    bars = pd.DataFrame([*_part_bars(parts), *_weight_bars(weights), *_speed_bars(latency)])
    return [
        Section("GPT: heads, feed-forward, layers", HEADS.format(error), parts),
        Section("GPT: single weights", WEIGHTS, weights),
        Section("GPT: latency", LATENCY, latency),
        Section("Bars for the GPT", ALL, bars),
    ]


def judged(*, is_quick: bool) -> Judge:
    """Return the model that ships, and windows of the corpus that it was trained on."""
    corpus = text.corpus("code")
    n, model = (2 if is_quick else WINDOWS), models.load_gpt()
    context = 32 if is_quick else model.context
    told = {"context": context, "seed": 0, "step": 0}
    calibration, _ = text.windows(corpus.train, batch=2 if is_quick else CALIBRATION, **told)
    return Judge(model, calibration, *text.windows(corpus.validation, batch=n, **told))


# ---- parts


def by_parts(judge: Judge, *, is_quick: bool) -> tuple[pd.DataFrame, dict[str, nn.Module]]:
    """Shrink by every method; return the losses, and the models by name."""
    rows, smaller = [], {}
    for told in _shrinkings(is_quick=is_quick):
        shown = judge.calibration[: None if told["what"] == "heads+ffn" else FEW]
        pruned = prune.shrink(judge.model, shown, **told)
        name = f"{told['what']} {told['keep']:g} {told['method']}"
        smaller |= {} if told["recover"] else {name: pruned.model}
        excess = judge.nats(pruned.model) - judge.dense
        left = pruned.parameters / pruned.dense_parameters
        rows.append({**told, "excess_nats": excess, "of_parameters": left})
    return pd.DataFrame(rows), smaller


def _shrinkings(*, is_quick: bool) -> Iterator[dict[str, Any]]:
    recover = 2 if is_quick else RECOVERY
    for keep in (0.75,) if is_quick else (0.75, 0.5):
        told = {"what": "heads+ffn", "keep": keep}
        yield from ({**told, "method": method, "recover": 0} for method in METHODS)
        yield from ({**told, "method": each, "recover": recover} for each in ("obs", "magnitude"))
    for what, keep in () if is_quick else DEEP:
        yield {"what": what, "keep": keep, "method": "obs", "recover": 0}


def peer_error(judge: Judge) -> str:
    """Return what Torch-Pruning says to our model, in one line."""
    heads = {"qkv": judge.model.shape["heads"]}
    rows = judge.x[:2]

    def made() -> Tensor:
        small = prune_peers.torch_pruning(judge.model, rows, keep=0.75, heads=heads)
        return small(rows)

    return prune_peers.attempt(made)[1] or "runs"


# ---- single weights


def by_weights(judge: Judge, *, is_quick: bool) -> pd.DataFrame:
    """Set half of the weights to zero by every method."""
    rows = []
    for pattern in PATTERNS[1:] if is_quick else PATTERNS:
        for name, model in sparse(judge, pattern, is_quick=is_quick):
            excess = judge.nats(model) - judge.dense
            rows.append({"pattern": pattern, "variant": name, "excess_nats": excess})
    return pd.DataFrame(rows)


def sparse(judge: Judge, pattern: str, *, is_quick: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yield the models with zeros, by whom they were made."""
    for method in ("obs", "wanda", "magnitude"):
        told = {"amount": 0.5, "pattern": pattern, "method": method}
        yield (
            f"prune.sparsify {method}",
            prune.sparsify(judge.model, judge.calibration[:FEW], **told).model,
        )
    for name, render in prune_peers.renderings(pattern).items():
        twin = copy.deepcopy(judge.model)
        blocks = list(twin.blocks)[:1] if is_quick else list(twin.blocks)
        run = partial(in_batches, twin, judge.calibration[:FEW])
        yield name, prune_peers.by_blocks(twin, blocks, run, render)


def in_batches(model: nn.Module, rows: Tensor) -> None:
    """Show a model rows, a few at once."""
    for part in rows.split(BATCH):
        model(part)


# ---- latency


def latencies(judge: Judge, smaller: dict[str, nn.Module], given: Namespace) -> pd.DataFrame:
    """Race the dense model and those that our method left."""
    chosen = {DENSE: judge.model} | {
        name: model for name, model in smaller.items() if name.endswith("obs")
    }
    calls = {name: prune_speed.without_gradients(model) for name, model in chosen.items()}
    context = judge.x[:1].expand(2 if given.quick else BATCH, -1).contiguous()
    table = prune_speed.raced(calls, context, given.rounds)
    counts = {name: prune_speed.counted(model) for name, model in chosen.items()}
    table["parameter_ratio"] = counts[DENSE] / table["variant"].map(counts)
    table["speedup_per_ratio"] = table["speedup"] / table["parameter_ratio"]
    return table


# ---- bars


def _part_bars(parts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    told = parts[parts["what"] == "heads+ffn"]
    excess = told.set_index(["keep", "recover", "method"])["excess_nats"]
    for (keep, recover), bar in EXCESS_BARS.items():
        if (keep, recover, "obs") in excess.index:
            share = excess[keep, recover, "obs"] / excess[keep, recover, "magnitude"]
            after = f" after {recover} steps" if recover else ""
            what = f"GPT, {1 - keep:.0%} of heads and ffn removed{after}: excess, of L2's"
            yield bar_row(what, f"<= {bar:.3g}", share, reached=share <= bar)


def _weight_bars(weights: pd.DataFrame) -> Iterator[dict[str, Any]]:
    excess = weights.set_index(["pattern", "variant"])["excess_nats"]
    for pattern in weights["pattern"].unique():
        share = excess[pattern, "prune.sparsify obs"] / excess[pattern, "SparseGPT, rendered"]
        what = f"GPT, half of the weights, {pattern}: excess, of SparseGPT's"
        yield bar_row(what, f"<= {WEIGHTS_BAR:g}", share, reached=share <= WEIGHTS_BAR)


def _speed_bars(latency: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in latency[latency["variant"] != DENSE].itertuples():
        what = f"GPT, {row.variant}: speed-up, by parameter ratio"
        share = row.speedup_per_ratio
        yield bar_row(what, f">= {SPEED_BAR:g}", share, reached=share >= SPEED_BAR)
