"""How fast pruned networks of linear layers compute, and how large a file they make."""

import copy
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import common
import pandas as pd
import prune_peers
import torch
from common import Section
from prune_mlp import (
    ALL,
    DENSE,
    KEPT,
    PEER,
    SMALL_TASK,
    WIDE,
    WIDE_TASK,
    Trained,
    bar_row,
    learned,
    shrunk,
)
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import prune as masks

from kit import infer, prune
from kit.base import timing

BATCHES = (1, 256)
RUN_S = 0.05  # of the dense network: so many calls make a run, or the clock would be measured
DRIFT = 0.2  # standard deviations of the outputs that infer.optimise may change
MOST_LOST = 0.2  # points of accuracy, for the bars of speed
SPEED_BARS = {1: 7.5, 256: 18.0}  # rows -> times as fast as dense
FILE_BAR = 0.02  # file ratio, over parameter ratio

SPEED = f"""\
{"-".join(map(str, WIDE))}, the network of seed 0, calls one after the other; all variants take
turns in one process. `speedup`: times as fast as dense, by CPU time inside a round (low, high: of a
single round). `file_ratio`: bytes as safetensors, by those of dense; ONNX Runtime's form has
none. `drop_points` as above."""


def sections(given: Namespace, skipped: list[str]) -> list[Section]:
    """Return the table of speeds and sizes, and the bars."""
    dense = learned(SMALL_TASK if given.quick else WIDE_TASK, 0)
    table = speeds(dense, KEPT[1:2] if given.quick else KEPT, given, skipped)
    return [
        Section("Networks of linear layers: speed and size", SPEED, table),
        Section("Bars for speed and size", ALL, pd.DataFrame(bars(table))),
    ]


def speeds(
    dense: Trained, kept: Sequence[float], given: Namespace, skipped: list[str]
) -> pd.DataFrame:
    """Race dense, masked and pruned networks, one row a variant and number of rows."""
    models = variants(dense, kept, skipped)
    calls = {name: without_gradients(model) for name, model in models.items()}
    calls |= optimised(dense, kept, models)
    parameters = {name: counted(model) for name, model in models.items()}
    sizes = {name: file_bytes(model) for name, model in models.items()}
    accuracy = {name: dense.accuracy(call) for name, call in calls.items()}
    tables = []
    for batch in BATCHES:
        table = raced(calls, dense.unseen[0][:batch].clone(), given.rounds)
        table["drop_points"] = accuracy[DENSE] - table["variant"].map(accuracy)
        table["parameter_ratio"] = table["variant"].map(parameters) / parameters[DENSE]
        table["file_ratio"] = table["variant"].map(sizes) / sizes[DENSE]
        tables.append(table.assign(rows=batch))
    return pd.concat(tables, ignore_index=True)


def variants(dense: Trained, kept: Sequence[float], skipped: list[str]) -> dict[str, nn.Module]:
    """Return the networks that race."""
    models = {DENSE: dense.model}
    for name, is_removed in (("live masks", False), ("masks removed", True)):
        models[f"torch.nn.utils.prune 50 %, {name}"] = masked(dense.model, is_removed=is_removed)
    for keep in kept:
        small = shrunk(dense, keep)
        models[f"prune.shrink, {keep:.0%} kept"] = small
        quick = prune.quantise(small, dense.calibration).model
        models[f"prune.shrink, {keep:.0%} kept, prune.quantise"] = quick
        if PEER not in skipped:
            peer = prune_peers.torch_pruning(dense.model, dense.X[:2], keep=keep)
            models[f"{PEER}, {keep:.0%} kept"] = peer
    models["prune.quantise"] = prune.quantise(dense.model, dense.calibration).model
    return models


def optimised(
    dense: Trained, kept: Sequence[float], models: dict[str, nn.Module]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the pruned networks in the fastest form that `infer.optimise` finds."""
    names = [f"prune.shrink, {keep:.0%} kept" for keep in kept]
    return {
        f"{name}, infer.optimise": infer.optimise(
            models[name], dense.X[: max(BATCHES)], tolerance=DRIFT, sizes=BATCHES
        )
        for name in names
    }


def masked(model: nn.Module, *, is_removed: bool) -> nn.Module:
    """Return a copy whose smaller half of weights is masked as torch's documentation shows."""
    twin = copy.deepcopy(model)
    for layer in [part for part in twin if isinstance(part, nn.Linear)]:
        masks.l1_unstructured(layer, "weight", amount=0.5)
        if is_removed:
            masks.remove(layer, "weight")
    return twin


def without_gradients(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the fastest way to call a module that torch's documentation knows."""

    def call(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(x)

    return call


def counted(model: nn.Module) -> int:
    """Count weights, in whatever form they are held."""
    return sum(value.numel() for value in model.state_dict().values())


def file_bytes(model: nn.Module) -> int:
    """Return how large a model is as safetensors."""
    return len(save({name: value.contiguous() for name, value in model.state_dict().items()}))


def raced(
    calls: dict[str, Callable[[Tensor], Tensor]], x: Tensor, rounds: int, run_s: float = RUN_S
) -> pd.DataFrame:
    """Return how many times as fast as dense every call is."""
    once = timing.measure(lambda: calls[DENSE](x), repeats=5)
    repeats = max(1, round(1e3 * run_s / once.median_ms))

    def prepare(call: Callable[[Tensor], Tensor], i: int) -> Callable[[], Tensor]:
        def run() -> Tensor:
            for _ in range(repeats):
                outputs = call(x)
            return outputs

        return run

    timed = common.race(
        {name: partial(prepare, call) for name, call in calls.items()},
        rounds=rounds,
        judge=lambda outputs: 0.0,
    )
    cpu_s = timed.pivot(index="round", columns="variant", values="cpu_s")
    ratios = cpu_s.rdiv(cpu_s[DENSE], axis=0)[list(calls)]
    table = {"us_per_call": 1e6 * cpu_s.median()[list(calls)] / repeats, "speedup": ratios.median()}
    table |= {"speedup_low": ratios.min(), "speedup_high": ratios.max()}
    return pd.DataFrame(table).rename_axis("variant").reset_index()


def bars(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield every bar beside the fastest pruned network in int8 that loses next to nothing."""
    ours = table[table["variant"].str.startswith("prune.shrink")]
    is_int8 = ours["variant"].str.contains("quantise|optimise")
    for batch, bar in SPEED_BARS.items():
        good = ours[is_int8 & (ours["rows"] == batch) & (ours["drop_points"] <= MOST_LOST + 1e-6)]
        best = good.loc[good["speedup"].idxmax()] if len(good) else None
        speedup = float(best["speedup"]) if best is not None else float("nan")
        name = best["variant"] if best is not None else "none loses so little"
        what = f"speed of pruned + int8, {batch} rows, <= {MOST_LOST} points lost ({name})"
        yield bar_row(what, f">= {bar:g}", speedup, reached=speedup >= bar)
    plain = ours[~is_int8]
    excess = float((plain["file_ratio"] / plain["parameter_ratio"]).max())
    bar = 1 + FILE_BAR
    yield bar_row("file ratio, by parameter ratio", f"<= {bar:g}", excess, reached=excess <= bar)
