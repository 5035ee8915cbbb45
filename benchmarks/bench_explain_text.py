"""Measure time against error of the Shapley values of texts: the kit's and shap's."""

import argparse
import re
import warnings
from collections.abc import Callable
from typing import ClassVar

import common
import numpy as np
import pandas as pd
import pareto
import shap
import torch
import torch.nn.functional as F
from pareto import Contestant
from torch import Tensor, nn

from kit import explain
from kit.explain import coalitions

N_TEXTS, N_TOKENS = 8, 30
STEPS = 700  # of training the transformer
PAD, MASK, NOT, VERY = range(4)
GOOD, BAD, REST = (range(start, start + 18) for start in (4, 22, 40))
WORDS = ["[PAD]", "[MASK]", "not", "very"]
WORDS += [f"{kind}{i}" for kind, ids in (("good", GOOD), ("bad", BAD), ("so", REST)) for i in ids]
CASE = f"{N_TOKENS} tokens, 4 layers"
TREE, FREE = "shap Permutation", "shap Permutation, no tree"
ERROR_PERCENT, BARS = 3.0, {TREE: 8.0, FREE: 8.0}  # what issue 3 asks for, at that error
TEXT = f"""\
{N_TEXTS} texts of {N_TOKENS} tokens, a transformer of four layers and width 64 that was trained to
weigh good and bad words with "very" and "not" before them; hidden tokens are masked. One thread,
contestants in turns, in one run. The reference is the mean of four runs of the kit with 2,048 pairs
and other seeds. shap's Permutation with its Text masker keeps to a tree of neighbours, which does
not lead to Shapley values however long it runs; without the tree it does. Both see batches of 256
texts. Partition gives Owen values of that tree."""
AGREEMENT = """\
How far the mean of 6 runs of shap's Permutation without its tree is from the reference, in standard
errors of that mean: about 1 says that both estimate the same thing."""


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
    places: ClassVar = {word: i for i, word in enumerate(WORDS)}

    def __call__(self, text: str, *, return_offsets_mapping: bool = True) -> dict[str, list]:
        """Return ids and where they stand."""
        # shap puts masks and words together without a space
        found = list(re.finditer(r"\[MASK\]|\w+", text))
        ids = [self.places[match.group()] for match in found]
        return {"input_ids": ids, "offset_mapping": [match.span() for match in found]}


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=5)
    warnings.filterwarnings("ignore")  # of shap, about its own insides
    model, texts = reader(5 if given.quick else STEPS), texts_of(1 if given.quick else N_TEXTS)
    many = 64 if given.quick else 2048
    reference = np.mean([kit(model, texts, many)(seed) for seed in range(1000, 1004)], axis=0)
    table = pareto.measure(
        contestants(model, texts, given), reference=reference, rounds=given.rounds, unit="text"
    )
    free = permutation(model, texts, 1 if given.quick else 5, tree=False)
    n_runs = 2 if given.quick else 6
    judged = pareto.at(table, ERROR_PERCENT, bars=BARS)
    off = pareto.agreement((free(100 + i) for i in range(n_runs)), reference)
    common.write(
        "explain_text",
        title="Shapley values of texts: time against error",
        text=TEXT,
        sections=[
            common.Section(CASE, pareto.COLUMNS, table),
            common.Section("Bars", f"At {ERROR_PERCENT:g} % error.", judged),
            common.Section("Agreement", AGREEMENT, pd.DataFrame({"standard_errors_away": [off]})),
        ],
        facts=common.machine(["shap"]),
        skipped=[],
        given=given,
    )


def contestants(model: Reader, texts: list[str], given: argparse.Namespace) -> list[Contestant]:
    """Return every method at every effort."""
    found = [
        Contestant(pareto.OURS, f"{n} pairs", kit(model, texts, n), len(texts))
        for n in ((40, 60) if given.quick else (40, 60, 90, 120, 180, 240, 480))
    ]
    for n in (1,) if given.quick else (5, 10, 20, 40, 80):
        for method in (TREE, FREE):
            run = permutation(model, texts, n, tree=method == TREE)
            found.append(Contestant(method, f"{n} orders", run, len(texts)))
    if not given.quick:
        run = peer(model, texts, "partition", 500)
        found.append(Contestant("shap Partition", "500 evaluations", run, len(texts)))
    return found


def kit(model: Reader, texts: list[str], pairs: int) -> Callable[[int], np.ndarray]:
    """Return the kit's, operators made anew in every call."""

    def run(seed: int) -> np.ndarray:
        for cached in (coalitions.draw, coalitions.sampled, coalitions.parts):
            cached.cache_clear()
        return explain.text(model, Tokenizer(), texts, pairs=pairs, seed=seed).values

    return run


def permutation(
    model: Reader, texts: list[str], orders: int, *, tree: bool
) -> Callable[[int], np.ndarray]:
    """Return shap's Permutation explainer with so many orders of the tokens, there and back."""
    return peer(model, texts, "permutation", orders * (2 * N_TOKENS + 1), tree=tree)


def peer(
    model: Reader, texts: list[str], algorithm: str, most: int, *, tree: bool = True
) -> Callable[[int], np.ndarray]:
    """Return an explainer of shap with its Text masker and at most so many evaluations a text."""
    tokenizer = Tokenizer()
    masker = shap.maskers.Text(tokenizer, mask_token=WORDS[MASK], collapse_mask_token=False)
    if not tree:
        masker.clustering = None

    def scores(strings: list[str]) -> np.ndarray:
        ids = [tokenizer(str(string))["input_ids"] for string in strings]
        with torch.inference_mode():
            return model(torch.tensor(ids))[:, 0].numpy()

    def run(seed: int) -> np.ndarray:
        explainer = shap.Explainer(scores, masker, algorithm=algorithm, seed=seed)
        found = explainer(texts, max_evals=most, batch_size=256, silent=True)
        return np.stack(list(found.values))

    return run


def reader(steps: int) -> Reader:
    """Train the transformer; it never sees a text twice, and answers as people do.

    Good and bad words count, "very" doubles and "not" turns round: the clearer, the surer.
    """
    torch.manual_seed(0)
    model = Reader()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, total_steps=steps)
    for _ in range(steps):
        ids = _draw(64)
        # the model meets masks in training, as it will when it is explained
        ids = ids.masked_fill(torch.rand(ids.shape) < torch.rand(len(ids), 1), MASK)
        answers = torch.bernoulli(_score(ids).sigmoid())
        loss = F.binary_cross_entropy_with_logits(model(ids)[:, 0], answers)
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    return model.eval()


def texts_of(n: int) -> list[str]:
    """Return texts that the transformer has not seen."""
    return [" ".join(WORDS[i] for i in row) for row in _draw(n).tolist()]


def _draw(n: int) -> Tensor:
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
