"""The language model: it looks back only, its cache changes nothing, its positions are relative."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.models import GPT

SMALL = {"depth": 2, "width": 48, "heads": 6, "groups": 2, "context": 24}


def awake(**sizes) -> GPT:
    """Return a model whose branches say something: they start at zero."""
    torch.manual_seed(0)
    model = GPT(**(SMALL | sizes)).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def tokens(batch=2, length=20):
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(1))


def test_a_token_does_not_see_those_after_it():
    model, x = awake(), tokens()
    other = x.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 256

    before, after = model(x), model(other)

    assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] != after[:, 12:]).any(-1).all()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from([1, 2, 3, 6]))
def test_a_text_in_pieces_through_the_cache_gives_the_same_as_the_whole(pieces, groups):
    model, x = awake(groups=groups), tokens(length=sum(pieces))
    cache = model.cache(len(x))

    with torch.no_grad():
        parts = [model(piece, cache) for piece in x.split(pieces, dim=1)]

    assert torch.allclose(torch.cat(parts, 1), model(x), atol=1e-10)
    assert cache.longest == sum(pieces)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(1, 3))
def test_texts_of_unlike_lengths_share_a_cache_as_if_each_were_alone(lengths, more):
    model, most = awake(), max(lengths)
    texts = [tokens(batch=1, length=n + more + 1)[0] for n in lengths]
    cache = model.cache(len(texts))
    cache.starts = [most - n for n in lengths]
    padded = [F.pad(text[:n], (most - n, 0)) for text, n in zip(texts, lengths, strict=True)]

    with torch.no_grad():
        parts = [model(torch.stack(padded), cache)[:, -1:]]
        for new in (slice(0, more), slice(more, more + 1)):
            parts.append(
                model(
                    torch.stack([text[n:][new] for text, n in zip(texts, lengths, strict=True)]),
                    cache,
                )
            )

    for row, (text, n) in enumerate(zip(texts, lengths, strict=True)):
        together = torch.cat([part[row] for part in parts])
        assert torch.allclose(together, model(text[None])[0, n - 1 :], atol=1e-10)


def test_a_cache_forgets_rows_moves_to_make_room_and_takes_texts_of_another():
    model, x = awake(context=12), tokens(batch=3, length=12)
    cache, fresh = model.cache(3), model.cache(1)
    with torch.no_grad():
        model(x[:, :11], cache)
        cache.keep([0, 2])
        model(x[1:2, 3:8], fresh)
        cache.replace([0], fresh)  # row 0 is now a text of 5 tokens, row 2 still has 11
        cache.starts[1] += 4  # and only its last 7 are looked at

        said = model(x[1:, 8:10], cache)

    assert cache.end == 9  # it would have been 13
    assert torch.allclose(said[0], model(x[1:2, 3:10])[0, -2:], atol=1e-10)
    assert cache.nbytes == 2 * 2 * (2 * 2 * 12 * 8) * 8


def by_hand(model: GPT, text: torch.Tensor) -> torch.Tensor:
    """Compute the logits of one text with loops over heads and tokens, as the papers write it."""
    size = model.shape
    head = size["width"] // size["heads"]

    def normed(v, norm):
        return v / (v.pow(2).mean(-1, keepdim=True) + torch.finfo(v.dtype).eps).sqrt() * norm.weight

    def turned(v, position):
        angle = position * 10_000.0 ** (-torch.arange(0, head, 2).double() / head)
        a, b = v[: head // 2], v[head // 2 :]
        z = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([z.real, z.imag])

    x = model.embed.weight[text]
    for block in model.blocks:
        rows = normed(x, block.norm_attention) @ block.attention.qkv.weight.T
        q, k, v = rows.view(len(text), -1, head).split(
            [size["heads"], size["groups"], size["groups"]], dim=1
        )
        found = torch.zeros(len(text), size["heads"], head, dtype=x.dtype)
        for t in range(len(text)):
            for h in range(size["heads"]):
                g = h // (size["heads"] // size["groups"])
                asked = turned(q[t, h], t)
                scores = torch.stack([asked @ turned(k[s, g], s) for s in range(t + 1)])
                found[t, h] = (scores / math.sqrt(head)).softmax(0) @ v[: t + 1, g]
        x = x + found.reshape(len(text), -1) @ block.attention.out.weight.T
        gate, value = (normed(x, block.norm_feed) @ block.feed.up.weight.T).chunk(2, -1)
        x = x + (gate * torch.sigmoid(gate) * value) @ block.feed.down.weight.T
    return normed(x, model.norm) @ model.embed.weight.T


def test_the_model_is_what_the_papers_say():
    model, x = awake(), tokens(batch=1, length=9)

    assert torch.allclose(model(x)[0], by_hand(model, x[0]), atol=1e-6)


def test_a_new_model_knows_nothing_and_learns():
    torch.manual_seed(0)
    model, x = GPT(**SMALL), tokens(batch=8)
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    loss.backward()

    assert float(loss.detach()) == pytest.approx(math.log(256), abs=0.8)
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(1, 0.07), (4, 3.28), (6, 10.72), (12, 85.2)])
def test_depth_alone_sets_a_size(depth, millions):
    with torch.device("meta"):
        model = GPT(depth=depth)

    n = sum(weight.numel() for weight in model.parameters())
    assert n / 1e6 == pytest.approx(millions, rel=0.1)
    assert model.shape["width"] == 64 * depth


def test_more_tokens_than_the_context_are_refused_with_a_cache_and_without():
    model = awake()
    cache = model.cache(2)
    model(tokens(), cache)
    told = (
        "models.GPT: expected at most 24 tokens, got 25. "
        "Cut the text, or build the model with a longer context."
    )

    with pytest.raises(ValueError) as whole:
        model(tokens(length=25))
    with pytest.raises(ValueError) as piece:
        model(tokens(length=5), cache)

    assert str(whole.value) == str(piece.value) == told


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"depth": 0}, "depth >= 1, got 0 (int)"),
        ({"width": 50}, "heads that divide the width of 50, got 6 (int)"),
        ({"width": 18}, "heads of even width, got 3 (int)"),
        ({"groups": 4}, "groups that divide the heads of 6, got 4 (int)"),
        ({"context": 0}, "context >= 1, got 0 (int)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, told):
    with pytest.raises(ValueError) as error:
        GPT(**(SMALL | sizes))

    assert str(error.value) == (
        f"models.GPT: expected {told}. Pass GPT(depth=4), which sets the rest, or sizes that fit."
    )
