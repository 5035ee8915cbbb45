"""Time against error of Shapley values: the kit's and its peers', on four models, in one run.

    python -m venv .venv-bench
    .venv-bench/bin/pip install -e . -r benchmarks/requirements-bench-explain.txt
    .venv-bench/bin/python benchmarks/bench_explain.py

One thread, process CPU time, contestants interleaved, medians of the repeats. The error is the
root of the summed squared error over that of the values. The reference is exact for 12 features;
for more it is the mean of independent runs with seeds that no contestant has. The kit's operators
are made anew in every timed call, though a second call would find them cached.
"""

import argparse
import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "KIT_QUIET": "1"}

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import shap
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from kit import explain, show
from kit.base import storage
from kit.explain import coalitions

RESULTS = Path(__file__).parent / "results"
N_ROWS, N_BACKGROUND = 200, 100
N_LOOPED = 20  # rows for the error, and at the most for peers that take row by row
REFERENCE = [(2048, seed) for seed in range(1000, 1010)]


class Residual(nn.Module):
    """A network without a shortcut: LayerNorm, SiLU, residual connections, a forward of its own."""

    def __init__(self, n_features: int, width: int = 64) -> None:
        """Build two blocks."""
        super().__init__()
        self.first = nn.Linear(n_features, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit a row."""
        z = self.first(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            z = z + F.silu(block(norm(z)))
        return self.last(z)


@dataclass(frozen=True)
class Case:
    """A trained model with rows to explain."""

    name: str
    model: nn.Module
    X: np.ndarray  # (N_ROWS, F)
    background: np.ndarray  # (N_BACKGROUND, F)
    reference: np.ndarray  # (N_LOOPED, F, K)

    def call(self, x: np.ndarray) -> np.ndarray:
        """Return the model's outputs in numpy, for peers; one output has no axis."""
        with torch.inference_mode():
            scores = self.model(torch.as_tensor(np.asarray(x), dtype=torch.float32)).numpy()
        return scores[:, 0] if scores.shape[1] == 1 else scores


@dataclass(frozen=True)
class Contestant:
    """A method at one effort: a function from rows to values (rows, F, K)."""

    method: str
    effort: str
    run: Callable[[np.ndarray], np.ndarray]
    n_rows: int


def cases() -> Iterator[Case]:
    """Train the four models, and compute what is true for each."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 12))
    waves = X[:, 1] * X[:, 2] + np.sin(2 * X[:, 3]) * X[:, 4] + 0.5 * X[:, 8] ** 2
    kinks = np.maximum(X[:, 5], X[:, 6]) * X[:, 7]
    y = 2 * X[:, 0] + waves + kinks + 0.3 * X[:, 9] - 0.1 * X[:, 10]
    yield _case("12 features", lambda: _mlp(12, 100, 50, 10, 1), X, (y - y.mean()) / y.std(), 60)
    table = load_breast_cancer()
    X = (table.data - table.data.mean(0)) / table.data.std(0)
    order = rng.permutation(len(X))
    X, y = X[order], table.target[order].astype(bool)
    yield _case("breast cancer, 30", lambda: _mlp(30, 64, 32, 1), X, y, 60)
    yield _case("no shortcut, 30", lambda: Residual(30), X, y, 40)
    X = rng.normal(size=(4200, 100))
    weights = rng.normal(size=(100, 10)) / np.sqrt(np.arange(1, 101))[:, None]
    y = (X @ weights + 1.5 * np.tanh(X[:, :10]) * X[:, 10:20]).argmax(1)
    yield _case("100 features, 10 outputs", lambda: _mlp(100, 50, 10), X, y, 20)


def contestants(case: Case) -> Iterator[Contestant]:
    """Yield every method at every effort that this case is tried with."""
    d, K = case.X.shape[1], case.reference.shape[2]
    if d <= coalitions.EXACT_PLAYERS:
        yield Contestant("kit", "exact", _kit(case, "exact"), N_ROWS)
        yield Contestant("shap.Exact", "exact", _exact(case), N_LOOPED)
    for pairs in (30, 60, 120, 240, 480, 960, 1920):
        if coalitions.fewest(d) <= pairs < coalitions.all_pairs(d):
            yield Contestant("kit", f"{pairs} pairs", _kit(case, pairs), N_ROWS)
    for n in (3, 10, 30) if K > 1 else (10, 30, 100):
        rows = N_LOOPED if n < 100 else N_LOOPED // 4
        yield Contestant("shap.Permutation", f"{n} permutations", _permutation(case, n), rows)
    for n in (512, 2 * d + 2048):
        yield Contestant("shap.Kernel l1_reg=0", f"{n} samples", _kernel(case, n), N_LOOPED // 4)
    yield Contestant("shap.Deep", "default", _deep(case), N_ROWS)
    if K == 1:
        for n in (512, 2048):
            yield Contestant("shapiq KernelSHAP", f"{n} samples", _shapiq(case, n), N_LOOPED // 4)
        for n in (2048, 16384):
            yield Contestant(
                "captum KernelShap", f"{n} samples", _captum(case, n), 3 if n < 4096 else 1
            )


def measure(case: Case, *, repeats: int) -> pd.DataFrame:
    """Run every contestant `repeats` times, in turns; medians of CPU time, errors of the first."""
    found: dict[tuple[str, str], dict] = {}
    first = {each.method: each for each in reversed(list(contestants(case)))}
    for each in first.values():
        _attempt(each, case.X[:1])  # compilers have their turn before the clock
    for _ in range(repeats):
        for each in contestants(case):
            rows = case.X[: each.n_rows]
            start = time.process_time()
            values, failure = _attempt(each, rows)
            spent_ms = 1e3 * (time.process_time() - start) / len(rows)
            row = found.setdefault((each.method, each.effort), {"times": [], "error": np.nan})
            row["times"].append(spent_ms if values is not None else np.nan)
            if values is None:
                row["failure"] = failure
            elif np.isnan(row["error"]):
                row["error"] = _error(values, case.reference)
    return pd.DataFrame(
        {
            "model": case.name,
            "method": method,
            "effort": effort,
            "ms_per_row": float(np.median(row["times"])),
            "error_percent": 100 * row["error"],
            "failure": row.get("failure", ""),
        }
        for (method, effort), row in found.items()
    )


def at_equal_error(table: pd.DataFrame) -> pd.Series:
    """Return how many times a method's time is the kit's at the same error.

    The kit's time is interpolated between its efforts, on logarithmic axes; beyond them, it is that
    of its nearest effort that is at least as good, and none where there is no such effort.
    """
    ours = table[(table["method"] == "kit") & (table["effort"] != "exact")].sort_values(
        "error_percent"
    )
    errors, times = np.log(ours["error_percent"]), np.log(ours["ms_per_row"])
    asked = np.log(table["error_percent"].clip(lower=1e-9))
    ratio = table["ms_per_row"] / np.exp(np.interp(asked, errors, times))
    return ratio.where((asked >= errors.min()) & (table["method"] != "kit"))


def picture(table: pd.DataFrame) -> None:
    """Draw time against error, a panel a model."""
    names = list(table["model"].unique())
    panels = show.axes(width=3.4 * len(names), height=3.6, columns=len(names))
    methods = list(dict.fromkeys(table["method"]))
    for panel, name in zip(panels, names, strict=True):
        for method, points in table[
            (table["model"] == name) & ~table["error_percent"].isna()
        ].groupby("method"):
            points = points[points["error_percent"] > 1e-3].sort_values("ms_per_row")
            colour = show.PALETTE[methods.index(str(method)) % len(show.PALETTE)]
            panel.plot(
                points["ms_per_row"],
                points["error_percent"],
                marker="o",
                color=colour,
                label=method,
            )
        panel.set(xscale="log", yscale="log", title=name, xlabel="CPU ms a row", ylabel="error, %")
    panels[0].legend(fontsize=7)
    (RESULTS / "explain_shap.png").write_bytes(show.png(panels[0].figure))


def main() -> None:
    """Measure every case, and write table, picture and JSON under results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="", help="measure only models whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    tables = []
    for case in cases():
        if options.cases not in case.name:
            continue
        table = measure(case, repeats=options.repeats)
        table["times_kit"] = at_equal_error(table)
        print(
            table.drop(columns="model").to_string(index=False, float_format="{:.3g}".format),
            flush=True,
        )
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    if not options.cases:
        rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
        storage.write_json(
            RESULTS / "explain_shap.json",
            {"torch": torch.__version__, "repeats": options.repeats, "rows": rows},
        )
        storage.write_text(RESULTS / "explain_shap.md", _markdown(table))
        picture(table)


def _case(
    name: str, build: Callable[[], nn.Module], X: np.ndarray, y: np.ndarray, epochs: int
) -> Case:
    X = X.astype(np.float32)
    torch.manual_seed(0)
    model = build()
    targets = torch.as_tensor(y, dtype=torch.int64 if y.dtype == np.int64 else torch.float32)
    loss = {"i": F.cross_entropy, "b": F.binary_cross_entropy_with_logits}.get(
        y.dtype.kind, F.mse_loss
    )
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    n_train = len(X) - N_ROWS
    for _ in range(epochs):
        for batch in torch.randperm(n_train).split(128):
            logits = model(torch.from_numpy(X)[batch])
            value = loss(logits if y.dtype.kind == "i" else logits[:, 0], targets[batch])
            opt.zero_grad()
            value.backward()
            opt.step()
    model.eval()
    rows, background = X[n_train:], X[:N_BACKGROUND]
    print(f"\n{name}: training loss {float(value.detach()):.3f}", flush=True)
    return Case(name, model, rows, background, _reference(model, rows[:N_LOOPED], background))


def _attempt(each: Contestant, rows: np.ndarray) -> tuple[np.ndarray | None, str]:
    try:
        return each.run(rows), ""
    except Exception as error:  # a peer that breaks on a model is a result, too
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _reference(model: nn.Module, rows: np.ndarray, background: np.ndarray) -> np.ndarray:
    if rows.shape[1] <= coalitions.EXACT_PLAYERS:
        return explain.shap(model, rows, background=background, target="all", pairs="exact").values
    runs = [
        explain.shap(model, rows, background=background, target="all", pairs=n, seed=seed).values
        for n, seed in REFERENCE
    ]
    return np.mean(runs, axis=0)


def _error(values: np.ndarray, reference: np.ndarray) -> float:
    n = min(len(values), len(reference))
    off = values[:n].reshape(n, *reference.shape[1:]) - reference[:n]
    return float(np.sqrt((off**2).sum() / (reference[:n] ** 2).sum()))


def _kit(case: Case, pairs: int | str) -> Callable[[np.ndarray], np.ndarray]:
    def run(rows: np.ndarray) -> np.ndarray:
        for cached in (coalitions.draw, coalitions.sampled, coalitions.parts, coalitions.exact):
            cached.cache_clear()
        return explain.shap(case.model, rows, background=case.background, pairs=pairs).values

    return run


def _exact(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    masker = shap.maskers.Independent(case.background, max_samples=N_BACKGROUND)
    explainer = shap.explainers.Exact(case.call, masker)
    return lambda rows: explainer(rows, silent=True).values


def _permutation(case: Case, n: int) -> Callable[[np.ndarray], np.ndarray]:
    masker = shap.maskers.Independent(case.background, max_samples=N_BACKGROUND)
    explainer = shap.explainers.Permutation(case.call, masker, seed=0)
    most = n * (2 * case.X.shape[1] + 1)
    return lambda rows: explainer(rows, max_evals=most, silent=True).values


def _kernel(case: Case, n: int) -> Callable[[np.ndarray], np.ndarray]:
    explainer = shap.KernelExplainer(case.call, case.background, seed=0)
    return lambda rows: explainer.shap_values(rows, nsamples=n, l1_reg=0, silent=True)


def _deep(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    def run(rows: np.ndarray) -> np.ndarray:
        explainer = shap.DeepExplainer(case.model, torch.from_numpy(case.background))
        return explainer.shap_values(torch.from_numpy(rows), check_additivity=False)

    return run


def _shapiq(case: Case, n: int) -> Callable[[np.ndarray], np.ndarray]:
    import shapiq

    d = case.X.shape[1]

    def run(rows: np.ndarray) -> np.ndarray:
        explainer = shapiq.TabularExplainer(
            case.call,
            case.background,
            imputer="marginal",
            sample_size=N_BACKGROUND,
            approximator=shapiq.KernelSHAP(n=d, random_state=0),
            index="SV",
            max_order=1,
            random_state=0,
        )
        found = [explainer.explain(row, budget=n).dict_values for row in rows]
        return np.array([[values.get((j,), 0.0) for j in range(d)] for values in found])

    return run


def _captum(case: Case, n: int) -> Callable[[np.ndarray], np.ndarray]:
    from captum.attr import KernelShap

    background = torch.from_numpy(case.background)
    ones = torch.ones(1, case.X.shape[1])

    def values(x: Tensor) -> np.ndarray:
        # captum knows one baseline; the background is averaged in the function that it explains
        def worth(members: Tensor) -> Tensor:
            with torch.inference_mode():
                rows = torch.where(members[:, None] > 0.5, x, background)
                scores = case.model(rows.flatten(0, 1))
            return scores.view(len(members), len(background)).mean(1)

        torch.manual_seed(0)
        found = KernelShap(worth).attribute(
            ones, baselines=0 * ones, n_samples=n, perturbations_per_eval=64
        )
        return found[0].numpy()

    return lambda rows: np.array([values(x) for x in torch.from_numpy(rows)])


def _markdown(table: pd.DataFrame) -> str:
    lines = ["# Shapley values: time against error", ""]
    lines += [
        f"{N_ROWS} rows, {N_BACKGROUND} background rows, one thread, CPU time.",
        "`× kit` is how many times the kit's time a method takes at equal error.",
        "",
    ]
    for name, rows in table.groupby("model", sort=False):
        lines += [
            f"## {name}",
            "",
            "| method | effort | ms a row | error, % | × kit |",
            "|---|---|--:|--:|--:|",
        ]
        for row in rows.itertuples():
            ratio = "" if np.isnan(row.times_kit) else f"{row.times_kit:.1f}"
            error = row.failure or f"{row.error_percent:.2g}"
            lines.append(
                f"| {row.method} | {row.effort} | {row.ms_per_row:.3g} | {error} | {ratio} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
