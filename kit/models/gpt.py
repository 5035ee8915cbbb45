"""The language model of the lessons: a GPT of today's kind, small enough to read whole."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from kit.base import checks
from kit.models.cache import Cache
from kit.models.shapes import check_shape

HEAD = 64  # width of a head; depth sets how many there are
ROTARY_BASE = 10_000.0
Rotary = tuple[Tensor, Tensor]  # cosine and sine of the places of tokens
Past = tuple[Cache, int]  # and the number of the block


class GPT(nn.Module):
    """A language model: blocks of attention and feed-forward, each with its input added back.

    Pre-norm with RMSNorm, rotary positions, SwiGLU, heads that share keys and values in groups, and
    one table of vectors for what comes in and what goes out. `depth` alone sets a sensible rest.
    """

    cos: Tensor  # (context, head), of the rotary positions
    sin: Tensor

    def __init__(
        self,
        *,
        depth: int = 6,
        width: int | None = None,
        heads: int | None = None,
        groups: int | None = None,
        hidden: int | None = None,
        head: int | None = None,
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
            head: width of a head; None is the width by the heads.
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
        shape = {"depth": depth, "width": width, "heads": heads, "groups": groups}
        shape |= {"hidden": hidden, "context": context, "vocabulary": vocabulary}
        check_shape(shape, head)
        head = head or width // heads
        self.context, self.vocabulary = context, vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        # so small, because the normed vector of a token meets itself on the way out
        nn.init.normal_(self.embed.weight, std=1 / width)
        self.blocks = nn.ModuleList(Block(width, heads, groups, head, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        for name, each in zip(("cos", "sin"), _rotary(context, head), strict=True):
            self.register_buffer(name, each, persistent=False)

    def forward(
        self, tokens: Int64[Tensor, "batch length"], cache: Cache | None = None
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Return the logits of the token after each; with a cache, `tokens` go on from it.

        Raises:
            ValueError: more tokens than the context holds.
        """
        T = tokens.shape[1]
        end = T + (cache.longest if cache else 0)
        if end > self.context:
            raise checks.bad_value(
                "models.GPT",
                expected=f"at most {self.context:,} tokens",
                got=checks.Described(f"{end:,}"),
                remedy="Cut the text, or build the model with a longer context.",
            )
        places, mask = cache.enter(T) if cache else (slice(T), None)
        rotary = self.cos[places].unsqueeze(-2), self.sin[places].unsqueeze(-2)
        x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, mask, (cache, i) if cache else None)
        return F.linear(self.norm(x), self.embed.weight)

    @property
    def shape(self) -> dict[str, int]:
        """The sizes that the model has now: GPT(**shape) is another one like it."""
        part: Any = self.blocks[0]
        width = self.embed.embedding_dim
        sizes = {"depth": len(self.blocks), "width": width, "hidden": part.feed.down.in_features}
        sizes |= {name: getattr(part.attention, name) for name in ("heads", "groups", "head")}
        return sizes | {"context": self.context, "vocabulary": self.vocabulary}

    def cache(self, batch: int, *, room: int | None = None) -> Cache:
        """Make room for keys and values of `batch` texts, so that only new tokens are computed.

        Args:
            batch: texts.
            room: columns; None is the context. Texts that begin in one another's midst want more.
        """
        sizes = self.shape
        shape = batch, sizes["groups"], room or self.context, sizes["head"]
        return Cache(sizes["depth"], shape, like=self.embed.weight)


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normed copy and adds what it found."""

    def __init__(self, width: int, heads: int, groups: int, head: int, hidden: int) -> None:
        """Build both."""
        super().__init__()
        self.norm_attention, self.norm_feed = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads, groups, head)
        self.feed = Feed(width, hidden)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None, past: Past | None) -> Tensor:
        """Return the stream, of the same shape."""
        x = x + self.attention(self.norm_attention(x), rotary, mask, past)
        return x + self.feed(self.norm_feed(x))


class Attention(nn.Module):
    """Every token asks those before it: softmax(q kᵀ / √head) v."""

    def __init__(self, width: int, heads: int, groups: int, head: int) -> None:
        """Build one product for queries, keys and values, and one for the way out."""
        super().__init__()
        self.heads, self.groups, self.head = heads, groups, head
        self.qkv = nn.Linear(width, (heads + 2 * groups) * self.head, bias=False)
        self.out = nn.Linear(heads * head, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None, past: Past | None) -> Tensor:
        """Return what each token found in those up to itself."""
        B, T = x.shape[:2]
        parts = self.qkv(x).view(B, T, -1, self.head)
        qk, v = parts.split([self.heads + self.groups, self.groups], dim=2)
        q, k = _turned(qk, rotary).split([self.heads, self.groups], dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
        if past:
            cache, block = past
            k, v = cache.extend(block, k, v)
        is_causal, gqa = mask is None and T > 1, self.groups < self.heads
        found = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=gqa
        )
        return self.out(found.transpose(1, 2).flatten(2))


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


def _rotary(context: int, head: int) -> Rotary:
    """Return cosine and sine of every position: pair i of a head turns by ROTARY_BASE^(-2i/head).

    Source:
        Su et al.: RoFormer, 2021.
    """
    speed = ROTARY_BASE ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * speed
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def _turned(x: Tensor, rotary: Rotary) -> Tensor:
    # of a pair, a stands in the first half and b in the second: a cos - b sin, b cos + a sin
    cos, sin = (each.to(x.dtype) for each in rotary)
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin
