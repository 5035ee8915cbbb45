"""Cut texts into the units that an explanation speaks of: tokens, words or sentences."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64

from kit.base import checks

UNITS = ("token", "word", "sentence")
WORD = re.compile(r"\w+|[^\w\s]")
SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|[。！？]|\n|$)", re.DOTALL)
PARTIAL = "\ufffd"  # what the first bytes of a character decode to


class Tokenizer(Protocol):
    """The least that a tokenizer is: decoding what it encoded gives the text back."""

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""


@dataclass(frozen=True, eq=False)
class Text:
    """The tokens of a text and the unit that each belongs to."""

    ids: Int64[np.ndarray, " tokens"]
    owner: Int64[np.ndarray, " tokens"]  # number of the unit; -1: not of the text
    spans: list[tuple[int, int]]  # of each unit, in characters
    text: str

    @property
    def words(self) -> list[str]:
        """The units as they stand in the text."""
        return [self.text[start:end] for start, end in self.spans]


def cut(where: str, tokenizer: Any, text: str, *, unit: str) -> Text:
    """Encode a text and find its units.

    Args:
        where: the public function that was called, for errors.
        tokenizer: a `Tokenizer`; a fast tokenizer of transformers; or a function from a text to
            its ids and the (start, end) of each in the text, empty for tokens that are added; a
            dictionary of "input_ids" and "offset_mapping", as for shap's masker, does too.
        text: any text.
        unit: one of `UNITS`. A token belongs to the word or sentence in which it has its first
            character that is no space.

    Raises:
        ValueError: no tokens, a tokenizer whose tokens do not add up to the text, or an unknown
            unit.
        TypeError: something that is no tokenizer.

    Example:
        >>> letters = lambda text: (list(map(ord, text)), [(i, i + 1) for i in range(len(text))])
        >>> cut("explain.text", letters, "to be, or not", unit="word").words
        ['to ', 'be', ', ', 'or ', 'not']
    """
    ids, offsets = _encoded(where, tokenizer, text)
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    real = ends > starts
    if not real.any():
        raise checks.bad_value(
            where,
            expected="texts with at least one token",
            got=text,
            remedy="Drop it: [text for text in texts if text.strip()].",
        )
    group = _groups(text, starts[real], ends[real], unit)
    owner = np.full(len(ids), -1)
    owner[real] = np.unique(group, return_inverse=True)[1]
    spans = [
        (int(starts[owner == u].min()), int(ends[owner == u].max())) for u in range(owner.max() + 1)
    ]
    return Text(np.asarray(ids, np.int64), owner, spans, text)


def _groups(text: str, starts: np.ndarray, ends: np.ndarray, unit: str) -> np.ndarray:
    if unit == "token":
        # tokens that share a character, as the bytes of one, are one unit
        return np.cumsum(starts >= np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]))
    pattern = WORD if unit == "word" else SENTENCE
    begins = [match.start() for match in pattern.finditer(text)]
    anchors = [
        start + len(piece) - len(piece.lstrip()) if piece.strip() else start
        for start, piece in ((s, text[s:e]) for s, e in zip(starts, ends, strict=True))
    ]
    return np.maximum(np.searchsorted(begins, anchors, side="right"), 1)


def _encoded(where: str, tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    is_fast = getattr(tokenizer, "is_fast", False)  # of transformers
    if not is_fast and hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode"):
        ids = [int(i) for i in tokenizer.encode(text)]
        return ids, _offsets(where, tokenizer.decode, ids, text)
    if not callable(tokenizer):
        raise checks.bad_type(
            where,
            expected="a tokenizer with encode and decode, or a function that gives ids and offsets",
            got=checks.Described(type(tokenizer).__name__),
            remedy="Pass for example lambda text: (ids, [(start, end), ...]).",
        )
    found = tokenizer(text, return_offsets_mapping=True) if is_fast else tokenizer(text)
    if not isinstance(found, tuple):
        found = found["input_ids"], found["offset_mapping"]
    ids, offsets = found
    return [int(i) for i in ids], [(int(start), int(end)) for start, end in offsets]


def _offsets(
    where: str, decode: Callable[[list[int]], str], ids: list[int], text: str
) -> list[tuple[int, int]]:
    """Find where tokens stand from what the first 1, 2, 3, … of them decode to."""
    pieces = [decode([i]) for i in ids]
    if "".join(pieces) == text:
        ends: Iterable[int] = np.cumsum([len(piece) for piece in pieces])
    elif decode(ids) == text:
        lengths = [len(decode(ids[: n + 1]).rstrip(PARTIAL)) for n in range(len(ids) - 1)]
        ends = np.maximum.accumulate([*lengths, len(text)])
    else:
        raise checks.bad_value(
            where,
            expected="a tokenizer whose decode(encode(text)) is the text",
            got=decode(ids),
            remedy="Pass a function instead: lambda text: (ids, [(start, end), ...]).",
        )
    ends = [int(end) for end in ends]
    starts = [0, *ends[:-1]]
    # the first bytes of a character stand where the byte stands that completes it
    for i in range(len(ids) - 2, -1, -1):
        if starts[i] == ends[i]:
            starts[i], ends[i] = starts[i + 1], ends[i + 1]
    return list(zip(starts, ends, strict=True))
