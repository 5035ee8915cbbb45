"""Measure on a CUDA device: training, explaining, answering and writing, all in one run."""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import bench_explain
import bench_infer
import common
import pandas as pd
import pareto
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kit import data, infer, models, text, train

ROWS, EPOCHS, LR = 200_000, 2, 1e-3
PRECISIONS = ("float32", "bfloat16")
WIDTHS = ((64, 64), (2048, 2048))  # the lessons' model, and one whose products fill a GPU
BATCHES = (1024, 8192)

TEXT = f"""\
`models.MLP` on the bundled flights, {ROWS:,} rows, Adam (lr {LR}), {EPOCHS} epochs, no validation,
everything on the GPU but the rows of the DataLoader, which come from pinned memory. All variants
take turns in one process, each round in another order; medians over rounds, ratios inside a round,
by the clock on the wall, which stops when the device has finished."""
COMPARED = """\
`ratio_wall`: how many times as fast as the variant `train.fit` in float32 is. `final_loss`: mean
loss over all training rows afterwards, and its standard deviation between rounds."""

EXPLAINED = """\
200 rows of the network without a shortcut (LayerNorm, SiLU, residual) of bench_explain, its weights
on the GPU; shap's Permutation calls it there, too. By the clock on the wall."""

FORMS = """\
784-1024-1024-10 as `infer.optimise` tries it, drift up to 0.1 standard deviations: what was tried
for each number of rows, and what was kept."""
LEARNT = """\
`train.fit_language` on the code corpus, Muon, batches of 32 windows: tokens a second."""
WROTE = """\
`infer.measure`: ms until the first token and for each one after it, all texts at once;
`roofline_frac`, tokens a second as a fraction of what copy bandwidth and matrix rate allow."""

Run = Callable[[], nn.Module]


def main() -> None:
    """Run the benchmark and write its page, or say that there is nothing to measure."""
    given = common.arguments(__doc__, rounds=7)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    where = torch.device("cuda")
    rows, epochs = (2_000, 1) if given.quick else (ROWS, EPOCHS)
    encoder, X, y = common.flights(rows)
    sections = []
    for hidden in WIDTHS[:1] if given.quick else WIDTHS:
        for batch in BATCHES:
            timed = common.race(
                _variants(encoder, X, y, where, hidden=hidden, batch=batch, epochs=epochs),
                rounds=given.rounds,
                judge=partial(common.loss_of, X=X, y=y),
                where=where,
            )
            table = common.compare(
                timed, ours="train.fit, float32", work=epochs * rows, unit="rows"
            )
            table = table.rename(columns={"score": "final_loss", "score_sd": "final_loss_sd"})
            title = f"Hidden layers {' and '.join(map(str, hidden))}, batch {batch:,}"
            sections.append(common.Section(title, COMPARED, table))
    sections += [part(where, given) for part in (explanations, forms, learning, writing)]
    common.write(
        "gpu",
        title="Training, explaining, answering and writing on a GPU",
        text=TEXT,
        sections=sections,
        facts=common.machine(),
        skipped=[],
        given=given,
    )


def explanations(where: torch.device, given: argparse.Namespace) -> common.Section:
    """Hold Shapley values of a network without a shortcut against shap's Permutation."""
    case = next(each for each in bench_explain.cases(given) if each.name == bench_explain.PLAIN)
    case = replace(case, model=case.model.to(where))
    methods = (pareto.OURS, bench_explain.PERMUTATION)
    everyone = bench_explain.contestants(case, given, skipped=list(bench_explain.PEERS))
    table = pareto.measure(
        [each for each in everyone if each.method in methods],
        reference=bench_explain.reference(case, given),
        rounds=given.rounds,
        where=where,
    )
    return common.Section("Shapley values without a shortcut", EXPLAINED, table)


def forms(where: torch.device, given: argparse.Namespace) -> common.Section:
    """Try every form of a network, CUDA graphs and compiled code included."""
    shape, sizes = (784, 1024, 1024, 10), (1, 16) if given.quick else (1, 16, 256, 4096)
    also = () if given.quick else ("compile", "graphs")
    model, x = bench_infer.network(shape).to(where), bench_infer.rows(max(sizes), shape[0])
    fast = infer.optimise(model, x, tolerance=0.1, sizes=sizes, also=also)
    return common.Section("The forms of a network", FORMS, fast.table)


def learning(where: torch.device, given: argparse.Namespace) -> common.Section:
    """Train GPTs of two sizes for a few steps in both precisions."""
    corpus, rows = text.corpus("code"), []
    told = {"steps": 2, "batch": 2} if given.quick else {"steps": 100, "batch": 32, "every": 20}
    for depth in (1,) if given.quick else (6, 12):
        for precision in PRECISIONS:
            model = models.GPT(depth=depth, context=64 if given.quick else 512).to(where)
            fitted = train.fit_language(model, corpus.train, precision=precision, **told)
            speed = fitted.table["tokens_per_s"].median()
            rows.append((depth, precision, _size(model), speed))
    columns = ["depth", "precision", "parameters", "tokens_per_s"]
    return common.Section("Training a GPT", LEARNT, pd.DataFrame(rows, columns=columns))


def writing(where: torch.device, given: argparse.Namespace) -> common.Section:
    """Let code-gpt and a larger model write in both precisions, beside the roofline."""
    limits, tables = infer.roofline(where), []
    large = [] if given.quick else [models.GPT(depth=16, context=1024)]
    for model in [models.load_gpt(), *large]:
        for precision in PRECISIONS:
            model = model.to(where, getattr(torch, precision))
            told = {"batches": (1,), "tokens": 4} if given.quick else {"batches": (1, 16, 64)}
            table = infer.measure(model, limits=limits, **told).table
            table.insert(0, "precision", precision)
            table.insert(0, "parameters", _size(model))
            tables.append(table)
    return common.Section("Writing", f"{WROTE} {limits}", pd.concat(tables))


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _variants(
    encoder: data.Encoder,
    X: Tensor,
    y: Tensor,
    where: torch.device,
    *,
    hidden: tuple[int, ...],
    batch: int,
    epochs: int,
) -> dict[str, common.Prepare]:
    def prepare(loop: Callable[..., nn.Module], precision: str, seed: int) -> Run:
        torch.manual_seed(seed)
        sizes = {"hidden": hidden, "cardinalities": encoder.cardinalities}
        model = models.MLP(encoder.n_numeric, encoder.n_outputs, **sizes).to(where)
        settings = {"batch": batch, "epochs": epochs, "seed": seed, "precision": precision}
        return partial(loop, model, X, y, **settings)

    loops = {"train.fit": ours, "DataLoader loop": plain}
    return {
        f"{name}, {precision}": partial(prepare, loop, precision)
        for name, loop in loops.items()
        for precision in PRECISIONS
    }


def ours(
    model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int, precision: str
) -> nn.Module:
    """Train with the kit; the rows travel to the device once, on the clock."""
    settings = {"batch": batch, "epochs": epochs, "seed": seed, "precision": precision}
    return train.fit(model, X, y, lr=LR, **settings).model


def plain(
    model: nn.Module, X: Tensor, y: Tensor, *, batch: int, epochs: int, seed: int, precision: str
) -> nn.Module:
    """Train as textbooks write it for a GPU."""
    where = next(model.parameters()).device
    dataset = TensorDataset(X, y.float())
    loader = DataLoader(dataset, batch_size=batch, shuffle=True, pin_memory=where.type == "cuda")
    opt = torch.optim.Adam(model.parameters(), lr=LR)
    half = precision == "bfloat16"
    casts = torch.autocast(where.type, dtype=torch.bfloat16) if half else nullcontext()
    for _ in range(epochs):
        for xb, yb in loader:
            xb, yb = xb.to(where, non_blocking=True), yb.to(where, non_blocking=True)
            with casts:
                loss = F.binary_cross_entropy_with_logits(model(xb).squeeze(1), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    return model


if __name__ == "__main__":
    main()
