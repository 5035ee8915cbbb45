"""Race `infer.generate` against transformers on the same weights, for bench_infer.py."""

import argparse
import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import common
import pandas as pd
import torch
from torch import Tensor, nn

from kit import infer
from kit.models import GPT

OURS, INT8, PEER = "infer.generate", "infer.generate int8", "transformers"
DEPTHS, BATCHES = (5, 6), (1, 16)
PROMPT, MADE = 32, 192  # tokens; together they fill most of the context of 256
BARS = {(OURS, 1): 1.35, (INT8, 1): 2.0, (OURS, 16): 1.15, (INT8, 16): 2.0}  # of transformers

COMPARED = f"""\
Prompts of {PROMPT} tokens, {MADE} tokens made, the likeliest each time. `transformers` is
LlamaForCausalLM.generate with the very same weights and its cache; int8 weights are torch.ao's.
What `infer.generate` sets up in a call is timed. `ratio_cpu`, `ratio_wall`: how many times as fast
as the variant `infer.generate` is (low and high: of a single round). `same`: fraction of tokens
equal to those of `infer.generate`."""
DRAFTED = """\
The most that a draft can bring on this machine, to one text: of six blocks five add nothing, so
that a draft of one block agrees always. A draft that is trained agrees less often."""

Texts = list[Tensor]
Write = Callable[[], Texts]


def sections(given: argparse.Namespace, skipped: list[str]) -> list[common.Section]:
    """Return one section for each depth and batch, the bars, and what a draft can bring."""
    made, depths = (4, (1,)) if given.quick else (MADE, DEPTHS)
    parts, judged = [], []
    for depth in depths:
        model = awake(depth)
        small = int8(model)
        for batch in BATCHES:
            x = prompts(batch)
            variants = {OURS: partial(ours, model, x, made), INT8: partial(ours, small, x, made)}
            if PEER not in skipped:
                variants[PEER] = partial(theirs, llama(model), x, made)
            timed = raced(variants, given.rounds)
            table = compared(timed, batch * made)
            parts.append(
                common.Section(f"Generation, depth {depth}, batch {batch}", COMPARED, table)
            )
            judged += bars(timed, depth, batch)
    columns = ["depth", "batch", "variant", "against", "bar", "measured", "reached"]
    if judged:
        table = pd.DataFrame(judged, columns=columns)
        parts.append(common.Section("Bars of generation", "By CPU time.", table))
    return [*parts, common.Section("A draft", DRAFTED, drafted(given, made))]


def awake(depth: int) -> GPT:
    """Return a GPT whose branches say something: they start at zero."""
    torch.manual_seed(0)
    model = GPT(depth=depth).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.05)
    return model


def int8(model: GPT) -> nn.Module:
    """Return a copy with int8 weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})


def llama(model: GPT) -> Any:
    """Return the same network with the same weights as transformers has it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = model.shape
    twin = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocabulary"],
            hidden_size=shape["width"],
            intermediate_size=shape["hidden"],
            num_hidden_layers=shape["depth"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["groups"],
            max_position_embeddings=shape["context"],
            rms_norm_eps=torch.finfo(torch.float32).eps,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    )
    names = {"embed_tokens.weight": model.embed.weight, "norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        head = shape["width"] // shape["heads"]
        sizes = [shape["heads"] * head, shape["groups"] * head, shape["groups"] * head]
        q, k, v = block.attention.qkv.weight.split(sizes)
        gate, up = block.feed.up.weight.chunk(2)
        held = {
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.feed.down.weight,
            "input_layernorm": block.norm_attention.weight,
            "post_attention_layernorm": block.norm_feed.weight,
        }
        names |= {f"layers.{i}.{name}.weight": weight for name, weight in held.items()}
    twin.model.load_state_dict({name: weight.detach() for name, weight in names.items()})
    return twin.eval()


def prompts(batch: int) -> Tensor:
    """Return prompts of random tokens."""
    return torch.randint(256, (batch, PROMPT), generator=torch.Generator().manual_seed(1))


def ours(model: nn.Module, x: Tensor, made: int, _: int = 0) -> Write:
    """Write with the kit."""
    return lambda: infer.generate(model, list(x), max_tokens=made, temperature=0).tokens


def theirs(model: Any, x: Tensor, made: int, _: int = 0) -> Write:
    """Write with transformers, as its documentation does."""
    told = {"max_new_tokens": made, "do_sample": False, "use_cache": True}

    def run() -> Texts:
        with torch.inference_mode():
            written = model.generate(x, attention_mask=torch.ones_like(x), **told)
        return list(written[:, x.shape[1] :])

    return run


def raced(variants: dict[str, common.Prepare], rounds: int) -> pd.DataFrame:
    """Time the variants; the score is the fraction of tokens that are those of `OURS`."""
    expected = torch.stack(variants[OURS](0)())
    return common.race(
        variants,
        rounds=rounds,
        judge=lambda made: float((torch.stack(made) == expected).double().mean()),
    )


def compared(timed: pd.DataFrame, tokens: int) -> pd.DataFrame:
    """Sum a race up."""
    table = common.compare(timed, ours=OURS, work=tokens, unit="tokens")
    return table.rename(columns={"score": "same"}).drop(columns="score_sd")


def bars(timed: pd.DataFrame, depth: int, batch: int) -> list[tuple]:
    """Return every bar beside the ratio that was measured; none without the peer."""
    if PEER not in set(timed["variant"]):
        return []
    rows = []
    for variant in (OURS, INT8):
        table = common.compare(timed, ours=variant, work=1, unit="texts").set_index("variant")
        ratio, bar = table.loc[PEER, "ratio_cpu"], BARS[variant, batch]
        reached = "yes" if ratio >= bar else "no"
        rows.append((depth, batch, variant, PEER, bar, ratio, reached))
    return rows


def drafted(given: argparse.Namespace, made: int) -> pd.DataFrame:
    """Race one text with a draft that always agrees against the same without it."""
    model, x = awake(2 if given.quick else 6), prompts(1)
    for block in model.blocks[1:]:
        nn.init.zeros_(block.attention.out.weight)
        nn.init.zeros_(block.feed.down.weight)
    draft = GPT(**(model.shape | {"depth": 1})).eval()
    draft.load_state_dict({name: model.state_dict()[name] for name in draft.state_dict()})

    def with_draft(_: int) -> Write:
        told = {"max_tokens": made, "temperature": 0, "draft": draft}
        return lambda: infer.generate(model, list(x), **told).tokens

    variants = {OURS: partial(ours, model, x, made), "with a perfect draft": with_draft}
    return compared(raced(variants, given.rounds), made)
