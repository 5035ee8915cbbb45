"""Time against error of LIME weights and of texts' Shapley values: the kit's and its peers'.

    python benchmarks/bench_explain_lime_text.py

One thread, process CPU time, contestants in turns, medians of the repeats. The error is the root of
the summed squared error over that of the values; the reference is the mean of independent runs of
the kit at many times the effort, whose agreement with the peers' own mean is printed beside it.
Operators are made anew in every timed call, though a second call would find them cached.
"""

import argparse
import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "KIT_QUIET": "1"}

import re
import time
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import shap
import torch
import torch.nn.functional as F
from lime.lime_tabular import LimeTabularExplainer
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from kit import explain
from kit.base import storage
from kit.explain import coalitions

RESULTS = Path(__file__).parent / "results"
N_ROWS, N_LOOPED, N_KEPT = 200, 20, 10
N_TEXTS, N_TOKENS = 8, 30
STEPS = 700  # of training the transformer
PAD, MASK = 0, 1
GOOD, BAD, REST = (range(start, start + 18) for start in (4, 22, 40))
NOT, VERY = 2, 3
WORDS = ["[PAD]", "[MASK]", "not", "very", *(f"good{i}" for i in GOOD), *(f"bad{i}" for i in BAD)]
WORDS += [f"so{i}" for i in REST]
Run = Callable[[int], np.ndarray]  # from a seed to values


class Reader(nn.Module):
    """A transformer of four layers that says whether a text is for or against."""

    context = N_TOKENS

    def __init__(self, width: int = 64) -> None:
        """Build it with PyTorch's default weights."""
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), width)
        self.place = nn.Embedding(self.context, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Return one logit a text."""
        there = ids != PAD
        x = self.embed(ids) + self.place.weight[: ids.shape[1]]
        x = self.body(x, src_key_padding_mask=~there) * there[..., None]
        return self.head(x.sum(1) / there.sum(1, keepdim=True))


class Tokenizer:
    """A token a word, in the form that both the kit and shap's Text masker take."""

    mask_token_id, pad_token_id = MASK, PAD
    mask_token = WORDS[MASK]
    places = {word: i for i, word in enumerate(WORDS)}  # noqa: RUF012

    def __call__(self, text: str, *, return_offsets_mapping: bool = True) -> dict[str, list]:
        """Return ids and where they stand."""
        # shap puts masks and words together without a space
        found = list(re.finditer(r"\[MASK\]|\w+", text))
        ids = [self.places[match.group()] for match in found]
        return {"input_ids": ids, "offset_mapping": [match.span() for match in found]}


def lime_cases(repeats: int) -> pd.DataFrame:
    """Compare LIME for the rows of the breast-cancer data."""
    table = load_breast_cancer()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(table.data))
    X = ((table.data - table.data.mean(0)) / table.data.std(0))[order]
    train, rows = X[:-N_ROWS], X[-N_ROWS:]
    torch.manual_seed(0)
    layers = [nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)]
    model = nn.Sequential(*layers)
    labels = torch.as_tensor(table.target[order][:-N_ROWS], dtype=torch.float32)
    _train(model, torch.as_tensor(train, dtype=torch.float32), labels, epochs=60, batch=32)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            p = model(torch.as_tensor(x, dtype=torch.float32))[:, 0].sigmoid().numpy()
        return np.stack([1 - p, p], axis=1)

    def kit(samples: int, kept: int) -> Run:
        return lambda seed: (
            explain.lime(
                model, rows, train=train, num_features=kept, samples=samples, seed=seed
            ).values
        )

    def stock(samples: int, kept: int, n_rows: int) -> Run:
        def run(seed: int) -> np.ndarray:
            selection = "auto" if kept < rows.shape[1] else "none"
            explainer = LimeTabularExplainer(train, random_state=seed, feature_selection=selection)
            found = np.zeros((n_rows, rows.shape[1]))
            for i in range(n_rows):
                one = explainer.explain_instance(
                    rows[i], predict, num_features=kept, num_samples=samples
                )
                for j, weight in one.local_exp[1]:
                    found[i, j] = weight
            return found

        return run

    reference = np.mean([kit(2**18, 30)(1000 + seed) for seed in range(4)], axis=0)
    _say_agreement("lime_tabular", [stock(5000, 30, 5)(100 + s) for s in range(12)], reference)
    effort = {"kit": (4096, 16384, 65536), "lime_tabular": (5000, 50_000)}
    contestants = []
    for samples in effort["kit"]:
        contestants.append(("kit", samples, kit(samples, N_KEPT), kit(samples, 30), N_ROWS))
    for samples in effort["lime_tabular"]:
        n = N_LOOPED if samples == 5000 else 4
        runs = stock(samples, N_KEPT, n), stock(samples, 30, n)
        contestants.append(("lime_tabular", samples, *runs, n))
    rows_of_table = []
    for method, samples, run, run_all, n_rows in contestants:
        chosen = [run(seed)[:n_rows] != 0 for seed in range(3)]
        errors = [_error(run_all(seed), reference) for seed in range(2)]
        rows_of_table.append(
            {
                "method": method,
                "effort": f"{samples:,} samples",
                "error_percent": 100 * float(np.mean(errors)),
                "jaccard_of_seeds": float(
                    np.mean([_jaccard(a, b) for a, b in combinations(chosen, 2)])
                ),
            }
        )
    times = _times([(run, n_rows) for _, _, run, _, n_rows in contestants], repeats)
    found = pd.DataFrame(rows_of_table).assign(ms_per_row=times)
    stock_ms = found.loc[found["effort"] == "5,000 samples", "ms_per_row"].iloc[0]
    return found.assign(times_faster_than_stock=stock_ms / found["ms_per_row"])


def text_cases(repeats: int) -> pd.DataFrame:
    """Compare Shapley values of texts of 30 tokens."""
    model, texts = _reader()
    tokenizer = Tokenizer()

    def kit(pairs: int, mask: str = "token") -> Run:
        def run(seed: int) -> np.ndarray:
            for cached in (coalitions.draw, coalitions.sampled, coalitions.parts):
                cached.cache_clear()
            return explain.text(model, tokenizer, texts, pairs=pairs, seed=seed, mask=mask).values

        return run

    def scores(strings: list[str]) -> np.ndarray:
        found = [tokenizer(str(string))["input_ids"] for string in strings]
        with torch.inference_mode():
            return model(torch.tensor(found))[:, 0].numpy()

    def peer(algorithm: str, most: int, *, tree: bool = True) -> Run:
        masker = shap.maskers.Text(tokenizer, mask_token=WORDS[MASK], collapse_mask_token=False)
        if not tree:
            masker.clustering = None

        # in batches large enough not to wait for Python

        def run(seed: int) -> np.ndarray:
            explainer = shap.Explainer(scores, masker, algorithm=algorithm, seed=seed)
            found = explainer(texts, max_evals=most, batch_size=256, silent=True)
            return np.stack(list(found.values))

        return run

    reference = np.mean([kit(2048)(1000 + seed) for seed in range(4)], axis=0)
    free = peer("permutation", 5 * 61, tree=False)
    _say_agreement("shap Permutation", [free(100 + s) for s in range(6)], reference)
    contestants = [("kit", f"{n} pairs", kit(n)) for n in (40, 60, 90, 120, 180, 240, 480)]
    for n in (5, 10, 20, 40):
        # as it comes, orders keep to a tree of neighbours, and do not lead to Shapley values
        contestants.append(("shap Permutation", f"{n} orders", peer("permutation", n * 61)))
        run = peer("permutation", n * 61, tree=False)
        contestants.append(("shap Permutation, no tree", f"{n} orders", run))
    contestants.append(("shap Partition", "500 evaluations", peer("partition", 500)))
    times = _times([(run, N_TEXTS) for _, _, run in contestants], repeats)
    found = pd.DataFrame(
        {
            "method": method,
            "effort": effort,
            "error_percent": 100 * float(np.mean([_error(run(s), reference) for s in range(2)])),
            "ms_per_text": ms,
        }
        for (method, effort, run), ms in zip(contestants, times, strict=True)
    )
    ours = found[found["method"] == "kit"].sort_values("error_percent")
    errors, logs = np.log(ours["error_percent"]), np.log(ours["ms_per_text"])
    at_error = np.exp(np.interp(np.log(found["error_percent"]), errors, logs))
    within = found["error_percent"].between(*ours["error_percent"].iloc[[0, -1]])
    ratio = (found["ms_per_text"] / at_error).where(within & (found["method"] != "kit"))
    return found.assign(times_kit_at_equal_error=ratio)


def main() -> None:
    """Measure both, and write tables and JSON under results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("lime", "text"), default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name, cases in {"lime": lime_cases, "text": text_cases}.items():
        if options.only not in (None, name):
            continue
        table = cases(options.repeats)
        print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3g}'.format)}", flush=True)
        rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
        storage.write_json(
            RESULTS / f"explain_{name}.json", {"torch": torch.__version__, "rows": rows}
        )


def _times(runs: list[tuple[Run, int]], repeats: int) -> list[float]:
    """Return the median CPU milliseconds a row of each, taken in turns."""
    spent = np.zeros((repeats, len(runs)))
    for repeat in range(repeats):
        for i, (run, n_rows) in enumerate(runs):
            start = time.process_time()
            run(repeat)
            spent[repeat, i] = 1e3 * (time.process_time() - start) / n_rows
    return [float(ms) for ms in np.median(spent, axis=0)]


def _say_agreement(name: str, runs: list[np.ndarray], reference: np.ndarray) -> None:
    """Print how far the peer's mean is from the reference, in standard errors: 1 is no bias."""
    mean, error = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    off = (mean - reference[: len(mean)]) / np.maximum(error, 1e-9)
    print(
        f"mean of {len(runs)} runs of {name}: {np.sqrt((off**2).mean()):.2f} standard errors away"
    )


def _error(values: np.ndarray, reference: np.ndarray) -> float:
    n = min(len(values), len(reference))
    off = values[:n] - reference[:n]
    return float(np.sqrt((off**2).sum() / (reference[:n] ** 2).sum()))


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a & b).sum(1) / (a | b).sum(1)).mean())


def _train(model: nn.Module, X: Tensor, y: Tensor, *, epochs: int, batch: int) -> None:
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(X)).split(batch):
            loss = F.binary_cross_entropy_with_logits(model(X[part])[:, 0], y[part])
            opt.zero_grad()
            loss.backward()
            opt.step()
    model.eval()


def _reader() -> tuple[Reader, list[str]]:
    """Train the transformer: good and bad words count, "very" doubles and "not" turns round.

    It never sees a text twice. Answers are drawn as people give them: the clearer, the surer.
    """
    torch.manual_seed(0)
    model = Reader()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        ids = _texts(64)
        # the model meets masks in training, as it will when it is explained
        ids = ids.masked_fill(torch.rand(ids.shape) < torch.rand(len(ids), 1), MASK)
        answers = torch.bernoulli(_score(ids).sigmoid())
        loss = F.binary_cross_entropy_with_logits(model(ids)[:, 0], answers)
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    model.eval()
    ids = _texts(500)
    with torch.inference_mode():
        right = (model(ids)[:, 0] > 0) == (_score(ids) > 0)
    print(f"the transformer is right on {float(right.float().mean()):.0%} of texts")
    return model, [" ".join(WORDS[i] for i in row) for row in _texts(N_TEXTS).tolist()]


def _texts(n: int) -> Tensor:
    ids = torch.randint(2, len(WORDS), (n, N_TOKENS))
    drawn = torch.rand(ids.shape)
    return ids.masked_fill(drawn < 0.12, NOT).masked_fill(drawn > 0.88, VERY)


def _score(ids: Tensor) -> Tensor:
    """Return what a text says: the sum of its good and bad words, as the word before each says."""
    good = (ids >= GOOD[0]) & (ids <= GOOD[-1])
    bad = (ids >= BAD[0]) & (ids <= BAD[-1])
    factor = torch.ones(ids.shape)
    factor[:, 1:] *= torch.where(ids[:, :-1] == VERY, 2.0, 1.0)
    factor[:, 1:] *= torch.where(ids[:, :-1] == NOT, -1.0, 1.0)
    return ((good.float() - bad.float()) * factor).sum(1)


if __name__ == "__main__":
    main()
