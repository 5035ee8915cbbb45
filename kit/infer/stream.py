"""A text that is being written: its pieces as they come, and the whole."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from kit import text
from kit.infer.inputs import within_memory
from kit.infer.reading import WHERE, Reader
from kit.infer.speculate import ahead

SHORTEN = "Pass fewer prompts."  # where memory runs out
Piece = str | int
Choose = Callable[[Tensor, Tensor], Int64[Tensor, " rows"]]


class Row:
    """What was made of one text, and what of it was handed out."""

    def __init__(self, ends: Sequence[list[int]], most: int, *, is_text: bool) -> None:
        """Begin with nothing made."""
        self.ends, self.most, self.is_text = ends, most, is_text
        self.made: list[int] = []
        self.given, self.stopped = 0, ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, token: int) -> list[Piece]:
        """Take the next token, and return what can be handed out now."""
        self.made.append(token)
        met = max((end for end in self.ends if self.made[-len(end) :] == end), key=len, default=[])
        if met:
            del self.made[-len(met) :]
            self.stopped = "stop"
        elif len(self.made) == self.most:
            self.stopped = "max_tokens"
        return self.pieces()

    def pieces(self) -> list[Piece]:
        """Return what was not handed out; what may yet become a stop is held back till the end."""
        ready = len(self.made) - (0 if self.stopped else self._held())
        new, self.given = self.made[self.given : ready], ready
        if not self.is_text:
            return list(new)
        piece = self.decoder.decode(bytes(new), final=bool(self.stopped))
        return [piece] if piece else []

    def _held(self) -> int:
        """Return how many of the last tokens are the beginning of a stop."""
        sizes = (
            n
            for end in self.ends
            for n in range(min(len(end) - 1, len(self.made)), 0, -1)
            if self.made[-n:] == end[:n]
        )
        return max(sizes, default=0)


class Writer:
    """Choose the next tokens of all texts that go on."""

    def __init__(self, large: Reader, small: Reader | None, luck: Tensor, choose: Choose) -> None:
        """Take the model's reader, the draft's on the same texts, and the luck of every token."""
        self.large, self.small, self.luck, self.choose = large, small, luck, choose
        self.made = 0

    @torch.inference_mode()
    def step(self) -> list[list[int]]:
        """Return the new tokens of each text, which now ends with them."""
        if self.small:
            most = self.luck.shape[1] - self.made
            new = [ahead(self.large, self.small, self._pick, at=self.made, most=most)]
        else:
            chosen = self.choose(self.large.logits()[:, -1], self.luck[:, self.made])
            new = [[token] for token in chosen.tolist()]
            for tokens, more in zip(self.large.texts, new, strict=True):
                tokens += more
        self.made += len(new[0])
        return new

    def keep(self, rows: list[int]) -> None:
        """Leave all texts but those of `rows` as they are."""
        self.large.keep(rows)
        self.luck = self.luck[rows]

    def _pick(self, logits: Tensor, at: int) -> list[int]:
        return self.choose(logits, self.luck[0, at : at + len(logits)]).tolist()


class Stream:
    """A text that is being written: iterate over its pieces, or take the whole.

    A piece is a string without half a character, or a token where the prompt was of tokens; of
    several texts it comes as (row, piece). Ctrl-C ends the texts as they are. `text`, `tokens`
    and `stopped` first write to the end; of several texts they are lists.
    """

    def __init__(self, rows: Sequence[Row], writer: Writer, *, is_one: bool) -> None:
        """Begin with nothing written."""
        self._rows, self._is_one = rows, is_one
        self._pieces = self._written(writer)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        row, piece = next(self._pieces)
        return piece if self._is_one else (row, piece)

    @property
    def text(self) -> str | list[str]:
        """What was written, without the prompt; of a model of bytes."""
        return self._whole(lambda row: text.decode(torch.tensor(row.made, dtype=torch.int64)))

    @property
    def tokens(self) -> Int64[Tensor, " tokens"] | list[Tensor]:
        """The tokens of what was written, without the prompt."""
        return self._whole(lambda row: torch.tensor(row.made, dtype=torch.int64))

    @property
    def stopped(self) -> str | list[str]:
        """Why it ended: "max_tokens", "stop", or "interrupted"."""
        return self._whole(lambda row: row.stopped)

    def __repr__(self) -> str:
        n = sum(len(row.made) for row in self._rows)
        going = sum(not row.stopped for row in self._rows)
        return f"Stream({len(self._rows)} texts, {going} going on; {n} tokens so far)"

    def _whole(self, of: Callable[[Row], Any]) -> Any:
        for _ in self._pieces:
            pass
        found = [of(row) for row in self._rows]
        return found[0] if self._is_one else found

    def _written(self, writer: Writer) -> Iterator[tuple[int, Piece]]:
        going = list(enumerate(self._rows))
        while going:
            told = f"{len(going)} texts at once"
            try:
                with within_memory(WHERE, told, remedy=SHORTEN):
                    new = writer.step()
            except KeyboardInterrupt:
                for i, row in going:
                    row.stopped = "interrupted"
                    yield from ((i, piece) for piece in row.pieces())
                return
            for (i, row), tokens in zip(going, new, strict=True):
                for token in tokens:
                    if not row.stopped:
                        yield from ((i, piece) for piece in row.take(token))
            left = [at for at, (_, row) in enumerate(going) if not row.stopped]
            if 0 < len(left) < len(going):
                writer.keep(left)
            going = [going[at] for at in left]
