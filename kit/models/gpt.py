"""The language model of the lessons: a GPT of today's kind, small enough to read whole."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from kit.base import checks

HEAD = 64  # width of a head; depth sets how many there are
ROTARY_BASE = 10_000.0


class GPT(nn.Module):
    """A language model: blocks of attention and feed-forward, each with its input added back.

    Pre-norm with RMSNorm, rotary positions, SwiGLU, heads that share keys and values in groups, and
    one table of vectors for what comes in and what goes out. `depth` alone sets a sensible rest.
    """

    cos: Tensor  # (context, head / 2), of the rotary positions
    sin: Tensor

    def __init__(
        self,
        *,
        depth: int = 6,
        width: int | None = None,
        heads: int | None = None,
        groups: int | None = None,
        hidden: int | None = None,
        context: int = 256,
        vocabulary: int = 256,
    ) -> None:
        """Build the model; matrices start small, and those that end a branch at zero.

        Args:
            depth: blocks.
            width: of the stream of numbers; None is 64 a block.
            heads: of attention; None is one for each 64 of the width.
            groups: of heads that share keys and values; None is one for each head.
            hidden: width inside a feed-forward; None is 8/3 of the width, in steps of 64.
            context: the longest text, in tokens.
            vocabulary: different tokens.

        Raises:
            ValueError: a size below 1, or one that does not divide another.
        """
        super().__init__()
        width = HEAD * depth if width is None else width
        heads = max(1, width // HEAD) if heads is None else heads
        groups = heads if groups is None else groups
        hidden = 64 * round(8 * width / 3 / 64) or 64 if hidden is None else hidden
        self.shape = {"depth": depth, "width": width, "heads": heads, "groups": groups}
        self.shape |= {"hidden": hidden, "context": context, "vocabulary": vocabulary}
        _check(self.shape)
        self.context, self.vocabulary = context, vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        # so small, because the normed vector of a token meets itself on the way out
        nn.init.normal_(self.embed.weight, std=1 / width)
        self.blocks = nn.ModuleList(Block(width, heads, groups, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        for name, each in zip(("cos", "sin"), _rotary(context, width // heads), strict=True):
            self.register_buffer(name, each, persistent=False)

    def forward(
        self, tokens: Int64[Tensor, "batch length"], cache: "list[Past] | None" = None
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Return the logits of the token after each; with a cache, `tokens` go on from it.

        Raises:
            ValueError: more tokens than the context holds.
        """
        start = cache[0].length if cache else 0
        end = start + tokens.shape[1]
        if end > self.context:
            raise checks.bad_value(
                "models.GPT",
                expected=f"at most {self.context:,} tokens",
                got=checks.Described(f"{end:,}"),
                remedy="Cut the text, or build the model with a longer context.",
            )
        rotary = self.cos[start:end], self.sin[start:end]
        x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, cache[i] if cache else None)
        return F.linear(self.norm(x), self.embed.weight)

    def cache(self, batch: int) -> "list[Past]":
        """Make room for the keys and values of `batch` texts, to compute new tokens only."""
        head = self.shape["width"] // self.shape["heads"]
        room = batch, self.shape["groups"], self.context, head
        empty = self.embed.weight.new_empty
        return [Past(empty(room), empty(room)) for _ in self.blocks]


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normed copy and adds what it found."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        """Build both."""
        super().__init__()
        self.norm_attention, self.norm_feed = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads, groups)
        self.feed = Feed(width, hidden)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], past: "Past | None") -> Tensor:
        """Return the stream, of the same shape."""
        x = x + self.attention(self.norm_attention(x), rotary, past)
        return x + self.feed(self.norm_feed(x))


class Attention(nn.Module):
    """Every token asks those before it: softmax(q kᵀ / √head) v."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        """Build one product for queries, keys and values, and one for the way out."""
        super().__init__()
        self.heads, self.groups, self.head = heads, groups, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * groups) * self.head, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], past: "Past | None") -> Tensor:
        """Return what each token found in those up to itself."""
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, -1, self.head).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.groups, self.groups], dim=1)
        q, k = _turned(q, rotary), _turned(k, rotary)
        is_first = past is None or past.length == 0
        if past:
            k, v = past.extended(k, v)
        mask = None if is_first or length == 1 else _causal(length, k.shape[2], x.device)
        found = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=is_first and length > 1,
            enable_gqa=self.groups < self.heads,
        )
        return self.out(found.transpose(1, 2).reshape(batch, length, width))


class Feed(nn.Module):
    """SwiGLU: one half of what is computed opens and shuts the other."""

    def __init__(self, width: int, hidden: int) -> None:
        """Build one product for both halves, and one for the way out."""
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.normal_(self.up.weight, std=width**-0.5)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return numbers of the same shape."""
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


@dataclass
class Past:
    """Keys and values of one block, with room for the whole context."""

    keys: Float[Tensor, "batch groups context head"]
    values: Float[Tensor, "batch groups context head"]
    length: int = 0  # tokens that are in

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put in what is new, and return all up to it."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def _rotary(context: int, head: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position: pair i of a head turns by ROTARY_BASE^(-2i/head).

    Source:
        Su et al.: RoFormer, 2021.
    """
    speed = ROTARY_BASE ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * speed
    return angle.cos().float(), angle.sin().float()


def _turned(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (each.to(x.dtype) for each in rotary)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _causal(length: int, reach: int, where: torch.device) -> Tensor:
    """Let the i-th of `length` new tokens see all before and itself, of `reach` in all."""
    return torch.ones(length, reach, dtype=torch.bool, device=where).tril(reach - length)


def _check(shape: dict[str, int]) -> None:
    width, heads, groups = (shape[name] for name in ("width", "heads", "groups"))
    rules = [(f"{name} >= 1", size >= 1, size) for name, size in shape.items()]
    if min(shape.values()) >= 1:
        rules += [
            ("heads that divide the width of " + str(width), width % heads == 0, heads),
            ("heads of even width", width // heads % 2 == 0, width // heads),
            ("groups that divide the heads of " + str(heads), heads % groups == 0, groups),
        ]
    for expected, holds, got in rules:
        if not holds:
            remedy = "Pass GPT(depth=4), which sets the rest, or sizes that fit."
            raise checks.bad_value("models.GPT", expected=expected, got=got, remedy=remedy)
