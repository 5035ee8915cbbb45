"""Spellings of one thing: case and blanks, which are certain, and near names, which are not."""

from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import pandas as pd

MOST = 5_000  # categories; more are names or texts, and each is its own
DOMINATES = 5  # a spelling that is this many times as frequent is the usual one
RARE = 20  # and this many times for a slip of the pen
LONGEST = 64  # letters of a word; more are a text, of which each letter would be left out in turn
SHORTEST = 5  # letters of a word in which a slip can be told from another word


def are_categories(words: pd.Series, counts: np.ndarray) -> bool:
    """Tell whether words come again often enough to be categories."""
    return 2 <= len(words) <= MOST and bool(counts.sum() >= 2 * len(words))


def variants(words: pd.Series, counts: np.ndarray) -> tuple[dict[str, str], dict[str, str]]:
    """Find words that differ in case and inner blanks alone.

    Args:
        words: distinct, stripped.
        counts: rows of each.

    Returns:
        Spelling -> usual spelling, once where one spelling is usual and once where none is.
    """
    same = words.str.lower().str.replace(r"\s+", " ", regex=True)
    frame = pd.DataFrame({"word": words, "same": same, "rows": counts})
    several = frame[frame["same"].duplicated(keep=False)]
    clear: dict[str, str] = {}
    unclear: dict[str, str] = {}
    for _, group in several.sort_values("rows", ascending=False, kind="stable").groupby("same"):
        usual, most = group["word"].iloc[0], group["rows"].iloc[0]
        for word, rows in zip(group["word"].iloc[1:], group["rows"].iloc[1:], strict=True):
            (clear if most >= DOMINATES * rows else unclear)[word] = usual
    return clear, unclear


def near(words: pd.Series, counts: np.ndarray) -> dict[str, str]:
    """Find rare words that are one slip, some marks or an added word away from a frequent one.

    Austria is no slip of Australia and Iran none of Iraq: so these are for a person to accept.

    Args:
        words: distinct, stripped.
        counts: rows of each.

    Returns:
        Rare word -> frequent word.
    """
    order = np.argsort(-counts, kind="stable")
    rows = dict(zip(words, counts.tolist(), strict=True))
    found: dict[str, str] = {}
    seen: dict[str, str] = {}  # key -> the most frequent word that left it
    for word in words.iloc[order]:
        if len(word) > LONGEST:
            continue
        near_ones = [seen[key] for key in _keys(word, asks=True) if key in seen]
        target = max(near_ones, key=rows.__getitem__, default=None)
        if target is not None and rows[target] >= _needed(word, target, rows):
            found[word] = target
            continue
        for key in _keys(word, asks=False):
            seen.setdefault(key, word)
    return found


def _needed(word: str, target: str, rows: dict[str, int]) -> float:
    a, b = _bare(word), _bare(target)
    is_longer = a.startswith(b) or b.startswith(a)
    return rows[word] * (1 if is_longer else RARE)


def _keys(word: str, *, asks: bool) -> Iterator[str]:
    """Yield what near words have in common: bare letters, words before others, a letter less.

    A word asks for those that begin it and those that it begins, not for those that begin alike:
    South Dakota is no South Carolina.
    """
    bare, parts = _bare(word), word.lower().split()
    heads = [head for head in accumulate(parts[:-1]) if len(head) >= SHORTEST]
    yield bare
    if asks:
        yield "began by " + bare
        yield from heads
    else:
        yield from ("began by " + head for head in heads)
    if len(bare) >= SHORTEST and bare.isalpha():
        yield from (f"less {bare[:i]}{bare[i + 1 :]}" for i in range(len(bare)))
        yield "less " + bare


def _bare(word: str) -> str:
    return "".join(filter(str.isalnum, word.lower()))
