"""Networks of linear layers, pruned without fine-tuning: what is left of their accuracy."""

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import pandas as pd
import prune_peers
import scipy.ndimage
import torch
from common import Section
from sklearn.datasets import load_digits, make_classification
from torch import Tensor, nn

from kit import prune, train

WIDE, SMALL = (784, 1024, 1024, 10), (100, 50, 10)
SEEDS = 3
KEPT = (0.75, 0.5, 0.25)
CALIBRATION = 2048
DENSE = "dense"
PEER = "Torch-Pruning"
SCRATCH = "trained from scratch"
ALL = "All must be reached."
DROP_BARS = {("784-1024-1024-10", 0.25): 0.5, ("100-50-10", 0.5): 1.0}  # keep -> points

ACCURACY = f"""\
Mean of {SEEDS} seeds, each with its own data, weights and order. 784-1024-1024-10 and 100-50-10 on
`sklearn.datasets.make_classification` (10 classes), and the wide one on `load_digits`, enlarged to
28 x 28. The settings of the made-up data stand in `benchmarks/prune_mlp.py`. They were chosen by
what the dense networks reach, about 0.958 and 0.851, and for the small one also by what training
from scratch and L2 reach, as on the data of our first measurements. Calibration without labels:
{CALIBRATION:,} training rows, or all where there are fewer. `drop_points`: of accuracy on rows
never seen, below dense; no fine-tuning by anyone. The networks trained from scratch have the shape
of the pruned ones."""


@dataclass(frozen=True)
class Task:
    """A network, and data to train it on."""

    name: str
    shape: tuple[int, ...]
    epochs: int
    data: Callable[[int], tuple[Tensor, Tensor]]  # seed -> all rows, and their classes
    n_train: int


@dataclass(frozen=True)
class Trained:
    """A dense network with its data, split."""

    task: Task
    seed: int
    model: nn.Module
    X: Tensor  # training rows
    y: Tensor
    unseen: tuple[Tensor, Tensor]

    def accuracy(self, call: Callable[[Tensor], Tensor]) -> float:
        """Return the percentage of unseen rows that a model gets right."""
        X, y = self.unseen
        with torch.no_grad():
            return 100 * float((call(X).argmax(1) == y).float().mean())

    @property
    def calibration(self) -> Tensor:
        """Return the rows that pruning may look at."""
        return self.X[:CALIBRATION]


def sections(given: Namespace, skipped: list[str]) -> list[Section]:
    """Return the table of accuracies, and the bars."""
    tasks = [SMALL_TASK] if given.quick else [WIDE_TASK, SMALL_TASK, DIGITS]
    table = accuracies(tasks, 1 if given.quick else SEEDS, skipped)
    return [
        Section("Networks of linear layers: accuracy", ACCURACY, table),
        Section("Bars for accuracy", ALL, pd.DataFrame(bars(table))),
    ]


# ---- data and training


def classes(seed: int, *, rows: int, columns: int, **told: Any) -> tuple[Tensor, Tensor]:
    """Return rows of made-up classes."""
    told |= {"n_samples": rows, "n_features": columns, "n_classes": 10, "random_state": seed}
    X, y = make_classification(**told)
    return torch.from_numpy(X).float(), torch.from_numpy(y)


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's handwritten digits, enlarged, in the order of a seed."""
    X, y = load_digits(return_X_y=True)
    pictures = scipy.ndimage.zoom(X.reshape(-1, 8, 8), (1, 3.5, 3.5), order=1).reshape(-1, 784)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(pictures).float()[order], torch.from_numpy(y)[order]


MADE = {
    WIDE: {"n_informative": 30, "n_redundant": 754, "n_clusters_per_class": 2, "class_sep": 2.25},
    SMALL: {"n_informative": 6, "n_redundant": 40, "n_clusters_per_class": 1, "class_sep": 1.5},
}
MADE[WIDE]["flip_y"], MADE[SMALL]["flip_y"] = 0.0, 0.05
WIDE_TASK = Task(
    "784-1024-1024-10", WIDE, 4, partial(classes, rows=13_000, columns=784, **MADE[WIDE]), 8_000
)
SMALL_TASK = Task(
    "100-50-10", SMALL, 20, partial(classes, rows=13_000, columns=100, **MADE[SMALL]), 8_000
)
DIGITS = Task("784-1024-1024-10, digits", WIDE, 15, digits, 1_297)


@lru_cache
def learned(task: Task, seed: int, *, shape: tuple[int, ...] | None = None) -> Trained:
    """Train a network of a task's shape, or of another, on the task's data."""
    X, y = task.data(seed)
    mean, sd = X[: task.n_train].mean(0), X[: task.n_train].std(0).clamp_min(1e-3)
    X = (X - mean) / sd
    torch.manual_seed(seed)
    model = network(shape or task.shape)
    mine = X[: task.n_train], y[: task.n_train]
    train.fit(model, *mine, epochs=task.epochs, batch=128, seed=seed)
    return Trained(task, seed, model, *mine, (X[task.n_train :], y[task.n_train :]))


def network(shape: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    layers = [(nn.Linear(n_in, n_out), nn.ReLU()) for n_in, n_out in pairwise(shape)]
    return nn.Sequential(*list(itertools.chain(*layers))[:-1])


def narrower(shape: tuple[int, ...], keep: float) -> tuple[int, ...]:
    """Return a shape with so much of each hidden layer.

    Example:
        >>> narrower((784, 1024, 10), 0.25)
        (784, 256, 10)
    """
    return shape[0], *(round(keep * width) for width in shape[1:-1]), shape[-1]


# ---- accuracy


def accuracies(tasks: list[Task], seeds: int, skipped: list[str]) -> pd.DataFrame:
    """Return one row a network, method and fraction kept: accuracy, and what pruning cost."""
    rows = pd.DataFrame(
        [
            {"network": task.name, "variant": variant, "kept": keep, "accuracy": accuracy}
            | {"drop_points": dense.accuracy(dense.model) - accuracy}
            for task in tasks
            for dense in (learned(task, seed) for seed in range(seeds))
            for variant, keep, accuracy in _accuracies(dense, skipped)
        ]
    )
    grouped = rows.groupby(["network", "kept", "variant"], sort=False)
    table = grouped[["accuracy", "drop_points"]].mean()
    table["drop_sd"] = grouped["drop_points"].std()
    return table.reset_index()


def _accuracies(dense: Trained, skipped: list[str]) -> Iterator[tuple[str, float, float]]:
    """Yield variant, fraction kept and accuracy."""
    yield DENSE, 1.0, dense.accuracy(dense.model)
    for keep in KEPT:
        for name, small in structured(dense, keep, skipped).items():
            yield name, keep, dense.accuracy(small)
        shape = narrower(dense.task.shape, keep)
        yield SCRATCH, keep, dense.accuracy(learned(dense.task, dense.seed, shape=shape).model)


def structured(dense: Trained, keep: float, skipped: list[str]) -> dict[str, nn.Module]:
    """Return the networks that are left by each way to choose neurons."""
    models = {
        f"prune.shrink {method}": shrunk(dense, keep, method)
        for method in ("obs", "activation", "magnitude")
    }
    if PEER not in skipped:
        models[PEER] = prune_peers.torch_pruning(dense.model, dense.X[:2], keep=keep)
    return models


def shrunk(dense: Trained, keep: float, method: str = "obs") -> nn.Module:
    """Return the network with so many of its neurons."""
    told = {"keep": keep, "what": "neurons", "method": method}
    return prune.shrink(dense.model, dense.calibration, **told).model


def bars(accuracy: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield every bar beside the points that were lost."""
    ours = accuracy[accuracy["variant"] == "prune.shrink obs"].set_index(["network", "kept"])
    for (network, keep), bar in DROP_BARS.items():
        if (network, keep) in ours.index:
            drop = float(ours["drop_points"][network, keep])
            what = f"{network}, {1 - keep:.0%} removed: points lost"
            yield bar_row(what, f"<= {bar:g}", drop, reached=drop <= bar)


def bar_row(what: str, bar: str, measured: float, *, reached: bool) -> dict[str, Any]:
    """Return a bar, what was measured, and whether that is enough."""
    words = "yes" if reached else "no"
    return {"what": what, "bar": bar, "measured": measured, "reached": words}
