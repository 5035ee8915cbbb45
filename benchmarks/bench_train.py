"""Measure rows per second of `train.fit` against the loops that people write."""

import argparse
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import common
import loops
import pandas as pd
import torch
import torch.nn.functional as F
from loops import Task
from torch import Tensor, nn

from kit import data, models, train
from kit.base import checks
from kit.base import seed as seeds
from kit.train.losses import loss_for
from kit.train.step import updater

OURS = "train.fit"
ROWS, EPOCHS = 40_000, 2
BATCHES = (64, 1024)
VARIANTS = {
    OURS: loops.ours,
    "plain DataLoader loop": loops.plain,
    "bare tensor loop": loops.bare,
    "Lightning's Trainer": loops.trainer,
    "Lightning Fabric": loops.fabric,
    "fastai": loops.fastai,
}
PEERS = {
    "Lightning Fabric": "lightning_fabric",
    "fastai": "fastai.basics",
    "Lightning's Trainer": "pytorch_lightning",
}
PACKAGES = {
    "Lightning Fabric": "lightning-fabric",
    "fastai": "fastai",
    "Lightning's Trainer": "pytorch-lightning",
}
BARS = {  # how many times as fast as each variant train.fit must be, on the flights
    "plain DataLoader loop": 2.0,
    "Lightning Fabric": 1.0,
    "fastai": 1.0,
    "bare tensor loop": 0.95,
}
SHAPES = {  # the same, for linear layers of these widths on synthetic rows
    "100-50-10": {"plain DataLoader loop": 2.0, "Lightning's Trainer": 3.5},
    "784-1024-1024-10": {"plain DataLoader loop": 2.3},
}
SHAPE_BATCH = 64
SHAPE_ROWS = {"100-50-10": 40_000, "784-1024-1024-10": 6_400}  # a second or two of the plain loop
SHAPE_SAME = 0.1  # of 2.3 at the start: with few rows their order counts for more
SAME = 0.01  # largest difference in final loss; two seeds of one variant differ by a third of it

TEXT = f"""\
All variants take turns in one process, each round in another order and with other seeds; figures
are medians over rounds, ratios are taken inside a round. Ratios go by the CPU time of the process:
a busy machine disturbs it less than the clock on the wall. What peers set up before the first batch
is not timed; all of `train.fit` is, its checks and probes included. Everyone has the same rows,
start weights, batch size, Adam (lr {loops.LR}) and {EPOCHS} epochs, and no validation."""
FLIGHTS = f"""\
`models.MLP` (two hidden layers of 64, an embedding for each category) on {ROWS:,} rows of the
bundled flights."""
SYNTHETIC = f"""\
Linear layers and ReLU between them, batch {SHAPE_BATCH}, on random rows whose class is the largest
of ten random projections. With the wide layers `train.fit` times products by oneDNN and may take
them: still float32."""
COMPARED = """\
`ratio_cpu`, `ratio_wall`: how many times as fast as the variant `train.fit` is (low and high: of a
single round). `final_loss`: mean loss over all training rows afterwards, and its standard
deviation between rounds: all variants train the same thing."""
PHASES = """\
Microseconds of CPU time a step, each phase of the same loop clocked apart, their sum, and beside it
a step of `train.fit` in the race above, with its checks, records and copies of the best weights."""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=7)
    skipped = common.missing(PEERS)
    encoder, X, y = common.flights(600 if given.quick else ROWS)
    flights, phases = {}, []
    for batch in BATCHES:
        task = _flights(encoder, X, y, batch, epochs=1 if given.quick else EPOCHS)
        flights[batch] = raced(task, [OURS, *BARS], skipped, given)
        check_same_training(flights[batch])
        spent = phases_us(task.model(0), X, y, batch=batch, repeats=given.rounds)
        whole_us = 1e6 * batch / flights[batch].set_index("variant")["rows_per_cpu_s"][OURS]
        phases.append({"batch": batch, **spent, "sum": sum(spent.values()), OURS: whole_us})
    shapes = {}
    for shape, asked in SHAPES.items():
        task = _synthetic(shape, given.quick)
        shapes[shape] = raced(task, [OURS, "bare tensor loop", *asked], skipped, given)
        check_same_training(shapes[shape], within=SHAPE_SAME)
    sections = [
        *(_section(f"Batch {batch:,}", FLIGHTS, table) for batch, table in flights.items()),
        common.Section("Bars", "By CPU time, at both batch sizes.", bars(flights)),
        common.Section("Where the time of `train.fit` goes", PHASES, pd.DataFrame(phases)),
        *(_section(shape, SYNTHETIC, table) for shape, table in shapes.items()),
        common.Section("Bars of the shapes", "By CPU time.", bars(shapes, SHAPES)),
    ]
    packages = [package for name, package in PACKAGES.items() if name not in skipped]
    common.write(
        "train",
        title="Training: rows per second",
        text=TEXT,
        sections=sections,
        facts=common.machine(packages),
        skipped=skipped,
        given=given,
    )


def raced(
    task: Task, names: list[str], skipped: list[str], given: argparse.Namespace
) -> pd.DataFrame:
    """Let the variants of these names train the same, and return one row each."""
    variants = {name: partial(VARIANTS[name], task) for name in names if name not in skipped}
    judge = partial(final_loss, task=task)
    timed = common.race(variants, rounds=given.rounds, judge=judge)
    table = common.compare(timed, ours=OURS, work=task.work, unit="rows")
    return table.rename(columns={"score": "final_loss", "score_sd": "final_loss_sd"})


def final_loss(model: nn.Module, *, task: Task) -> float:
    """Return the mean loss over all training rows."""
    return float(task.loss(train.predict(model, task.X), task.targets))


def _section(title: str, text: str, table: pd.DataFrame) -> common.Section:
    return common.Section(title, f"{text}\n\n{COMPARED}", table)


def _flights(encoder: data.Encoder, X: Tensor, y: Tensor, batch: int, *, epochs: int) -> Task:
    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        sizes = encoder.n_numeric, encoder.n_outputs
        return models.MLP(*sizes, cardinalities=encoder.cardinalities).train()

    def loss(logits: Tensor, late: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), late)

    return Task(model, X, y, loss, y.float(), batch, epochs)


def _synthetic(shape: str, quick: bool) -> Task:
    widths = [int(width) for width in shape.split("-")]
    random = seeds.generator(0)
    X = torch.randn(SHAPE_ROWS[shape] // (40 if quick else 1), widths[0], generator=random)
    y = (X @ torch.randn(widths[0], widths[-1], generator=random)).argmax(dim=1)

    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = [each for sizes in pairwise(widths) for each in (nn.Linear(*sizes), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    return Task(model, X, y, F.cross_entropy, y, SHAPE_BATCH, EPOCHS)


def check_same_training(table: pd.DataFrame, *, within: float = SAME) -> None:
    """Refuse to compare the speed of trainings that end at different losses."""
    losses = table.set_index("variant")["final_loss"]
    off = (losses - losses[OURS]).abs()
    if off.max() > within:
        raise checks.bad_value(
            "bench_train.main",
            expected=f"every final loss within {within} of {losses[OURS]:.4f}",
            got=checks.Described(f"{losses[off.idxmax()]:.4f} by {off.idxmax()}"),
            remedy="Make all variants train the same thing.",
        )


def bars(
    compared: Mapping[Any, pd.DataFrame], asked: Mapping[Any, Mapping[str, float]] | None = None
) -> pd.DataFrame:
    """Return every bar beside the ratio that was measured.

    Args:
        compared: batch size -> what `common.compare` returned; or shape.
        asked: the same -> variant -> how many times as fast `train.fit` must be; None is BARS.
    """
    label = "shape" if asked else "batch"
    rows = []
    for which, table in compared.items():
        ratios = table.set_index("variant")["ratio_cpu"]
        for name, bar in (asked[which] if asked else BARS).items():
            if name in ratios:
                reached = "yes" if ratios[name] >= bar else "no"
                rows.append((name, which, bar, ratios[name], reached))
    return pd.DataFrame(rows, columns=["against", label, "bar", "measured", "reached"])


def phases_us(
    model: nn.Module, X: Tensor, y: Tensor, *, batch: int, repeats: int
) -> dict[str, float]:
    """Clock the phases of the loop of `train.fit`, one epoch a repeat.

    Returns:
        Median over repeats of the microseconds of CPU time that a step spends in each phase.
    """
    update = updater(torch.optim.AdamW(model.parameters(), lr=loops.LR, fused=True))
    loss = loss_for(y)
    epochs = []
    for epoch in range(repeats):
        steps, spent = 0, dict.fromkeys(("gather", "forward", "backward", "optimizer"), 0)
        batches = train.batches(X, y, batch=batch, epoch=epoch)
        lap = _laps()
        next(lap)
        for xb, yb in _lapped(batches, spent, lap):
            value = loss(model(xb), yb)
            spent["forward"] += next(lap)
            value.backward()
            spent["backward"] += next(lap)
            update()
            spent["optimizer"] += next(lap)
            steps += 1
        epochs.append({phase: ns / 1e3 / steps for phase, ns in spent.items()})
    return pd.DataFrame(epochs).median().to_dict()


def _lapped(
    batches: Iterator[tuple[Tensor, Tensor]], spent: dict[str, int], lap: Iterator[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    for each in batches:
        spent["gather"] += next(lap)
        yield each


def _laps() -> Iterator[int]:
    """Yield the nanoseconds of CPU time since the last call."""
    before = time.thread_time_ns()
    while True:
        now = time.thread_time_ns()
        yield now - before
        before = now


if __name__ == "__main__":
    main()
