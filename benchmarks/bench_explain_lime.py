"""Measure time, error and stability of LIME: the kit's and lime_tabular's."""

import argparse
from collections.abc import Callable
from itertools import combinations

import common
import numpy as np
import pandas as pd
import pareto
import torch
from bench_explain import fit, mlp
from lime.lime_tabular import LimeTabularExplainer
from pareto import Contestant
from sklearn.datasets import load_breast_cancer
from torch import nn

from kit import explain

N_ROWS, N_LOOPED, N_FEATURES, N_KEPT = 200, 20, 30, 10
DEFAULT = {"kit": "16,384 samples", "lime_tabular": "5,000 samples"}
FASTER, STABLE = 200.0, 0.93  # what issue 3 asks for, at an error no worse than lime_tabular's
TEXT = f"""\
{N_ROWS} rows of the breast-cancer data, a network of 64 and 32 units, one thread, contestants in
turns, in one run. The reference of the errors, which are of all {N_FEATURES} weights, is the mean
of four runs of the kit with 262,144 samples and other seeds; there lime_tabular, which takes row by
row, had {N_LOOPED} rows or fewer. `jaccard`: how much of the {N_KEPT} features that a row keeps two
seeds have in common."""
DEFAULTS = f"""\
Both at their defaults ({N_KEPT} features kept, 16,384 and 5,000 samples), all {N_ROWS} rows.
`ratio_cpu`, `ratio_wall`: how many times as fast as the variant the kit is."""
AGREEMENT = """\
How far the mean of 12 runs of lime_tabular is from the reference, in standard errors of that mean:
about 1 says that both estimate the same thing."""

Run = Callable[[int, int], np.ndarray]  # from a seed and how many features are kept, to weights


class Cancer:
    """The breast-cancer data and a network that was trained on it."""

    def __init__(self) -> None:
        """Train."""
        table = load_breast_cancer()
        order = np.random.default_rng(0).permutation(len(table.data))
        X = ((table.data - table.data.mean(0)) / table.data.std(0))[order].astype(np.float32)
        y = torch.from_numpy(table.target[order].astype(bool))
        self.train, self.rows = X[:-N_ROWS], X[-N_ROWS:]
        torch.manual_seed(0)
        network = mlp(N_FEATURES, 64, 32, 1)
        self.model: nn.Module = fit(network, torch.from_numpy(self.train), y[:-N_ROWS], epochs=60)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return (rows, 2) probabilities, as lime_tabular asks for them."""
        with torch.inference_mode():
            p = self.model(torch.as_tensor(x, dtype=torch.float32))[:, 0].sigmoid().numpy()
        return np.stack([1 - p, p], axis=1)


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=5)
    cancer = Cancer()
    many = 2**12 if given.quick else 2**18
    reference = np.mean([kit(cancer, many)(seed, N_FEATURES) for seed in range(1000, 1004)], axis=0)
    runs = efforts(cancer, given)
    table = pareto.measure(
        [
            Contestant(method, f"{samples:,} samples", _all(run), n_rows)
            for method, samples, n_rows, run in runs
        ],
        reference=reference,
        rounds=given.rounds,
    )
    table["jaccard"] = [jaccard(run) for *_, run in runs]
    n_runs = 2 if given.quick else 12
    few = lime_tabular(cancer, 5000, 1 if given.quick else 5)
    off = pareto.agreement((few(100 + i, N_FEATURES) for i in range(n_runs)), reference)
    compared = common.compare(defaults(cancer, given), ours=pareto.OURS, work=N_ROWS, unit="rows")
    common.write(
        "explain_lime",
        title="LIME: time against error",
        text=TEXT,
        sections=[
            common.Section("Breast cancer, 30 features", pareto.COLUMNS, table),
            common.Section("As they come", DEFAULTS, compared.drop(columns=["score", "score_sd"])),
            common.Section("Bars", "Both at their defaults.", bars(table, compared)),
            common.Section("Agreement", AGREEMENT, pd.DataFrame({"standard_errors_away": [off]})),
        ],
        facts=common.machine(["lime"]),
        skipped=[],
        given=given,
    )


def efforts(cancer: Cancer, given: argparse.Namespace) -> list[tuple[str, int, int, Run]]:
    """Return method, samples, rows and how to run it, of all that is measured."""
    found = [
        (pareto.OURS, samples, N_ROWS, kit(cancer, samples)) for samples in (4096, 16_384, 65_536)
    ]
    for samples, n_rows in ((5000, 1),) if given.quick else ((5000, N_LOOPED), (50_000, 4)):
        found.append(("lime_tabular", samples, n_rows, lime_tabular(cancer, samples, n_rows)))
    return found


def defaults(cancer: Cancer, given: argparse.Namespace) -> pd.DataFrame:
    """Race both with what a user gets who asks for nothing."""
    n_rows = 2 if given.quick else N_ROWS
    variants = {
        pareto.OURS: lambda seed: lambda: kit(cancer, 16_384)(seed, N_KEPT),
        "lime_tabular": lambda seed: lambda: lime_tabular(cancer, 5000, n_rows)(seed, N_KEPT),
    }
    return common.race(variants, rounds=given.rounds, judge=len)


def kit(cancer: Cancer, samples: int) -> Run:
    """Return the kit's LIME."""
    return lambda seed, kept: (
        explain.lime(
            cancer.model,
            cancer.rows,
            train=cancer.train,
            num_features=kept,
            samples=samples,
            seed=seed,
        ).values
    )


def lime_tabular(cancer: Cancer, samples: int, n_rows: int) -> Run:
    """Return lime's own."""

    def run(seed: int, kept: int) -> np.ndarray:
        selection = "auto" if kept < N_FEATURES else "none"
        explainer = LimeTabularExplainer(
            cancer.train, random_state=seed, feature_selection=selection
        )
        weights = np.zeros((n_rows, N_FEATURES))
        settings = {"num_features": kept, "num_samples": samples}
        for row, x in zip(weights, cancer.rows, strict=False):
            for j, weight in explainer.explain_instance(
                x, cancer.probabilities, **settings
            ).local_exp[1]:
                row[j] = weight
        return weights

    return run


def jaccard(run: Run) -> float:
    """Return how much of the kept features three seeds have in common, mean over rows and pairs."""
    chosen = [run(seed, N_KEPT) != 0 for seed in range(3)]
    shares = [(a & b).sum(1) / (a | b).sum(1) for a, b in combinations(chosen, 2)]
    return float(np.mean(shares))


def bars(table: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Return every bar beside what was measured."""
    mine, stock = (
        table[(table["method"] == method) & (table["effort"] == effort)].iloc[0]
        for method, effort in DEFAULT.items()
    )
    faster = compared.set_index("variant")["ratio_cpu"]["lime_tabular"]
    at_least = [
        ("times as fast as lime_tabular", FASTER, faster),
        ("Jaccard of the top ten across seeds", STABLE, mine["jaccard"]),
        (
            "error of lime_tabular over the kit's",
            1.0,
            stock["error_percent"] / mine["error_percent"],
        ),
    ]
    rows = [(*each, "yes" if each[2] >= each[1] else "no") for each in at_least]
    return pd.DataFrame(rows, columns=["what", "bar", "measured", "reached"])


def _all(run: Run) -> Callable[[int], np.ndarray]:
    return lambda seed: run(seed, N_FEATURES)


if __name__ == "__main__":
    main()
