"""What a model says of the next token of texts that grow: through its cache, or without one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks, device

WHERE = "infer.generate"


class Reader:
    """Read texts, which are appended to outside: the whole window of each for every token.

    A window begins with the text. Where it would outgrow the context, it becomes the later half
    of the context, so that it need not move at every token.
    """

    def __init__(self, model: Any, texts: list[list[int]]) -> None:
        """Begin the window of a text that is longer than the context in its midst."""
        self.model, self.context = model, model.context
        self.texts = texts
        self.begins = [max(0, len(text) - self.context) for text in texts]
        self.where = device.of(model)

    def logits(self, last: int = 1) -> Tensor:
        """Return the logits after the `last` latest tokens of each text."""
        for row in self.outgrown():
            self.begins[row] = len(self.texts[row]) - max(1, self.context // 2)
        windows = [text[begin:] for text, begin in zip(self.texts, self.begins, strict=True)]
        most = max(map(len, windows))
        # a causal model does not see what stands to the right of a text
        out = self._computed([each + [0] * (most - len(each)) for each in windows])
        ends = torch.tensor([len(each) for each in windows], device=self.where)[:, None]
        wanted = ends - torch.arange(last, 0, -1, device=self.where)
        return out[torch.arange(len(out), device=self.where)[:, None], wanted]

    def outgrown(self) -> list[int]:
        """Return the rows whose window is longer than the context."""
        sizes = [len(text) - begin for text, begin in zip(self.texts, self.begins, strict=True)]
        return [row for row, size in enumerate(sizes) if size > self.context]

    def room(self) -> int:
        """Return how many tokens more the first text can grow before its window moves."""
        return self.context - (len(self.texts[0]) - self.begins[0])

    def rewind(self, length: int) -> None:
        """Do nothing: nothing is remembered."""

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all texts but those of `rows`."""
        self.texts = [self.texts[row] for row in rows]
        self.begins = [self.begins[row] for row in rows]

    def _computed(self, rows: list[list[int]], *cache: Any) -> Tensor:
        out = self.model(torch.tensor(rows, device=self.where), *cache)
        shape = (len(rows), len(rows[0]))
        if not isinstance(out, Tensor) or out.ndim != 3 or out.shape[:2] != shape:
            got = out if isinstance(out, Tensor) else checks.Described(type(out).__name__)
            raise checks.bad_value(
                WHERE,
                expected=f"logits of shape {shape} and one for each token of the vocabulary",
                got=got,
                remedy="Wrap the model in a module whose forward returns them.",
            )
        return out


class CachedReader(Reader):
    """Read new tokens only: keys and values of the others are remembered.

    A window that moves is computed anew, its own row alone; a text of n tokens is so read about
    twice, whatever n.
    """

    def __init__(self, model: nn.Module, texts: list[list[int]], *, grow: int) -> None:
        """Make room; texts of unlike lengths want up to two contexts of it."""
        super().__init__(model, texts)
        longest = min(self.context, max(map(len, texts)))
        self.cache = self.model.cache(len(texts), room=min(2 * self.context, longest + grow))
        self.seen = list(self.begins)

    def logits(self, last: int = 1) -> Tensor:
        """Return the logits after the `last` latest tokens of each text."""
        if rows := self.outgrown():
            self._move(rows)
        new = [text[seen:] for text, seen in zip(self.texts, self.seen, strict=True)]
        most = max(map(len, new))
        if self.cache.end == 0:
            self.cache.starts = [most - len(each) for each in new]
        self.seen = [len(text) for text in self.texts]
        return self._computed([[0] * (most - len(each)) + each for each in new], self.cache)[
            :, -last:
        ]

    def rewind(self, length: int) -> None:
        """Forget all after the first `length` tokens of every text."""
        self.cache.end -= max(0, self.seen[0] - length)
        self.seen = [min(seen, length) for seen in self.seen]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all texts but those of `rows`."""
        super().keep(rows)
        self.seen = [self.seen[row] for row in rows]
        self.cache.keep(rows)

    def _move(self, rows: list[int]) -> None:
        """Let windows begin later, and read again what was read of them."""
        for row in rows:
            self.begins[row] = len(self.texts[row]) - max(1, self.context // 2)
            self.seen[row] = max(self.seen[row], self.begins[row])
        older = [self.texts[row][self.begins[row] : self.seen[row]] for row in rows]
        fresh = self.model.cache(len(rows), room=len(older[0]))
        if older[0]:
            self._computed(older, fresh)
        self.cache.replace(rows, fresh)


def reader(model: nn.Module, texts: list[list[int]], *, grow: int) -> Reader:
    """Return the reader that fits `model`, for texts that grow by up to so many tokens."""
    if callable(getattr(model, "cache", None)):
        return CachedReader(model, texts, grow=grow)
    return Reader(model, texts)
