"""Measure rows per second of `train.fit` on flights against the loops that people write."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial

import common
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kit import data, models, train
from kit.base import checks
from kit.train.losses import loss_for
from kit.train.step import updater

OURS = "train.fit"
ROWS, EPOCHS, LR = 40_000, 2, 1e-3
BATCHES = (64, 1024)
PEERS = {"Lightning Fabric": "lightning_fabric", "fastai": "fastai.basics"}
PACKAGES = {"Lightning Fabric": "lightning-fabric", "fastai": "fastai"}
BARS = {  # what issue 2 asks for: how many times as fast as each variant train.fit must be
    "plain DataLoader loop": 2.0,
    "Lightning Fabric": 1.0,
    "fastai": 1.0,
    "bare tensor loop": 0.95,
}
SAME = 0.01  # largest difference in final loss; two seeds of one variant differ by a third of it

TEXT = f"""\
`models.MLP` (two hidden layers of 64, an embedding for each category) on the bundled flights:
the same {ROWS:,} rows, start weights, batch size, Adam (lr {LR}) and {EPOCHS} epochs for everyone,
no validation. All variants take turns in one process, each round in another order and with other
seeds; figures are medians over rounds, ratios are taken inside a round. Ratios go by the CPU time
of the process: a busy machine disturbs it less than the clock on the wall. What peers set up
before the first batch is not timed; all of `train.fit` is, its checks included."""
COMPARED = """\
`ratio_cpu`, `ratio_wall`: how many times as fast as the variant `train.fit` is (low and high: of a
single round). `final_loss`: mean loss over all training rows afterwards, and its standard
deviation between rounds: all variants train the same thing."""
PHASES = """\
Microseconds of CPU time a step, each phase of the same loop clocked apart, their sum, and beside it
a step of `train.fit` in the race above, with its checks, records and copies of the best weights."""

Run = Callable[[], nn.Module]


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=7)
    rows, epochs = (600, 1) if given.quick else (ROWS, EPOCHS)
    encoder, X, y = common.flights(rows)
    skipped = common.missing(PEERS)
    prepares = {
        OURS: ours,
        "plain DataLoader loop": plain,
        "Lightning Fabric": fabric,
        "fastai": fastai,
        "bare tensor loop": bare,
    }
    compared, phases = {}, []
    for batch in BATCHES:
        variants = {
            name: partial(_prepare, prepare, encoder, X, y, batch, epochs)
            for name, prepare in prepares.items()
            if name not in skipped
        }
        timed = common.race(variants, rounds=given.rounds, judge=partial(common.loss_of, X=X, y=y))
        table = common.compare(timed, ours=OURS, work=epochs * len(X), unit="rows")
        compared[batch] = table.rename(columns={"score": "final_loss", "score_sd": "final_loss_sd"})
        check_same_training(compared[batch])
        spent = phases_us(_model(encoder, 0), X, y, batch=batch, repeats=given.rounds)
        whole_us = 1e6 * batch / compared[batch].set_index("variant")["rows_per_cpu_s"][OURS]
        phases.append({"batch": batch, **spent, "sum": sum(spent.values()), OURS: whole_us})
    sections = [
        *(common.Section(f"Batch {batch:,}", COMPARED, each) for batch, each in compared.items()),
        common.Section("Bars", "By CPU time, at both batch sizes.", bars(compared)),
        common.Section("Where the time of `train.fit` goes", PHASES, pd.DataFrame(phases)),
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


def ours(model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int) -> Run:
    """Train with the kit."""
    return lambda: train.fit(model, X, y, epochs=epochs, lr=LR, batch=batch, seed=seed).model


def plain(model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int) -> Run:
    """Train as textbooks write it."""
    loader = DataLoader(TensorDataset(X, y.float()), batch_size=batch, shuffle=True)
    opt = torch.optim.Adam(model.parameters(), lr=LR)

    def run() -> nn.Module:
        for _ in range(epochs):
            for xb, yb in loader:
                loss = F.binary_cross_entropy_with_logits(model(xb).squeeze(1), yb)
                opt.zero_grad()
                loss.backward()
                opt.step()
        return model

    return run


def bare(model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int) -> Run:
    """Train with the fastest loop that one would write by hand: no loader, fused Adam."""
    y = y.float()
    opt = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def run() -> nn.Module:
        for _ in range(epochs):
            for rows in torch.randperm(len(X)).split(batch):
                xb, yb = X.index_select(0, rows), y.index_select(0, rows)
                loss = F.binary_cross_entropy_with_logits(model(xb).squeeze(1), yb)
                opt.zero_grad()
                loss.backward()
                opt.step()
        return model

    return run


def fabric(model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int) -> Run:
    """Train as the guide of Lightning Fabric turns the textbook loop into its own."""
    from lightning_fabric import Fabric

    engine = Fabric(accelerator="cpu", devices=1)
    wrapped, opt = engine.setup(model, torch.optim.Adam(model.parameters(), lr=LR))
    dataset = TensorDataset(X, y.float())
    loader = engine.setup_dataloaders(DataLoader(dataset, batch_size=batch, shuffle=True))

    def run() -> nn.Module:
        for _ in range(epochs):
            for xb, yb in loader:
                loss = F.binary_cross_entropy_with_logits(wrapped(xb).squeeze(1), yb)
                opt.zero_grad()
                engine.backward(loss)
                opt.step()
        return model

    return run


def fastai(model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int) -> Run:
    """Train with fastai's Learner, without bar, log, metrics and validation."""
    from fastai import basics

    class TrainOnly(basics.Callback):
        def before_validate(self) -> None:
            raise basics.CancelValidException

    basics.default_device(False)  # the CPU, as everyone here
    dataset = list(zip(X, y.float(), strict=True))
    dls = basics.DataLoaders.from_dsets(dataset, dataset, bs=batch, drop_last=False)
    learner = basics.Learner(
        dls,
        model,
        loss_func=basics.BCEWithLogitsLossFlat(),
        # the constants of torch's Adam; fastai's own differ
        opt_func=partial(basics.Adam, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.0),
        lr=LR,
        cbs=TrainOnly(),
    )

    def run() -> nn.Module:
        with learner.no_logging():  # its bar is off until fastai.callback.progress is imported
            learner.fit(epochs)
        return model

    return run


def _prepare(
    prepare: Callable[..., Run],
    encoder: data.Encoder,
    X: Tensor,
    y: Tensor,
    batch: int,
    epochs: int,
    seed: int,
) -> Run:
    """Set a variant up with the start weights of this round."""
    return prepare(_model(encoder, seed), X, y, batch=batch, epochs=epochs, seed=seed)


def _model(encoder: data.Encoder, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return models.MLP(
        encoder.n_numeric, encoder.n_outputs, cardinalities=encoder.cardinalities
    ).train()


def check_same_training(table: pd.DataFrame) -> None:
    """Refuse to compare the speed of trainings that end at different losses."""
    losses = table.set_index("variant")["final_loss"]
    off = (losses - losses[OURS]).abs()
    if off.max() > SAME:
        raise checks.bad_value(
            "bench_train.main",
            expected=f"every final loss within {SAME} of {losses[OURS]:.4f}",
            got=checks.Described(f"{losses[off.idxmax()]:.4f} by {off.idxmax()}"),
            remedy="Make all variants train the same thing.",
        )


def bars(compared: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Return every bar beside the ratio that was measured."""
    rows = []
    for (name, bar), (batch, table) in itertools.product(BARS.items(), compared.items()):
        ratios = table.set_index("variant")["ratio_cpu"]
        if name in ratios:
            reached = "yes" if ratios[name] >= bar else "no"
            rows.append((name, batch, bar, ratios[name], reached))
    return pd.DataFrame(rows, columns=["against", "batch", "bar", "measured", "reached"])


def phases_us(
    model: nn.Module, X: Tensor, y: Tensor, *, batch: int, repeats: int
) -> dict[str, float]:
    """Clock the phases of the loop of `train.fit`, one epoch a repeat.

    Returns:
        Median over repeats of the microseconds of CPU time that a step spends in each phase.
    """
    update = updater(torch.optim.AdamW(model.parameters(), lr=LR, fused=True))
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
