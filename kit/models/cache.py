"""What a language model remembers of the tokens it has read: their keys and values."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Columns = Float[Tensor, "batch groups room head"]


class Cache:
    """Keys and values of every block, a row a text and a column a token.

    All texts end in the same column, so that the next token of each goes to the next one; a text
    that is shorter begins later. Row `i` holds the columns `starts[i]` to `end`.
    """

    def __init__(self, blocks: int, shape: tuple[int, int, int, int], *, like: Tensor) -> None:
        """Take the room for keys and values, of type and place as `like`."""
        empty = like.new_empty
        self.blocks: list[tuple[Columns, Columns]]
        self.blocks = [(empty(shape), empty(shape)) for _ in range(blocks)]
        self.starts, self.end = [0] * shape[0], 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.end - min(self.starts)

    @property
    def nbytes(self) -> int:
        """Bytes of all the room, used or not."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.blocks)

    def enter(self, length: int) -> tuple[slice | Tensor, Bool[Tensor, "rows 1 new seen"] | None]:
        """Take the columns of the next `length` tokens of every text.

        Returns:
            The places of these tokens in their texts, which those that share one share; and what
            each may look at, None where that is all up to itself and nothing was there before,
            or where one token looks at all.
        """
        if self.end + length > self.blocks[0][0].shape[2]:
            self._move_left()
        self.end += length
        first, low = self.end - length, min(self.starts)
        is_even = max(self.starts) == low
        if is_even and (length == 1 or first == low):
            return slice(first - low, self.end - low), None
        where = self.blocks[0][0].device
        columns = torch.arange(low, self.end, device=where)
        starts = torch.tensor(self.starts[:1] if is_even else self.starts, device=where)[:, None]
        new = columns[first - low :]
        # a column before its text looks at itself: a softmax over nothing would be NaN
        seen = (columns <= new[:, None]) & (columns >= torch.minimum(starts, new)[..., None])
        places = (new - starts).clamp(min=0)
        return places, seen[:, None]

    def extend(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values of the columns that were entered, and return all up to them."""
        low, first = min(self.starts), self.end - k.shape[2]
        both = []
        for held, new in zip(self.blocks[block], (k, v), strict=True):
            held.narrow(2, first, k.shape[2]).copy_(new)
            both.append(held.narrow(2, low, self.end - low))
        return both[0], both[1]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all texts but those of `rows`."""
        self.starts = [self.starts[row] for row in rows]
        self.blocks = [(keys[rows], values[rows]) for keys, values in self.blocks]

    def replace(self, rows: Sequence[int], other: "Cache") -> None:
        """Let texts of `rows` be those of another cache, which all have one length."""
        first = self.end - other.end
        for ours, theirs in zip(self.blocks, other.blocks, strict=True):
            for held, new in zip(ours, theirs, strict=True):
                held[rows, :, first : self.end] = new[:, :, : other.end]
        for row in rows:
            self.starts[row] = first

    def _move_left(self) -> None:
        low = min(self.starts)
        for held in (each for block in self.blocks for each in block):
            held[:, :, : self.end - low] = held[:, :, low : self.end].clone()
        self.starts = [start - low for start in self.starts]
        self.end -= low
