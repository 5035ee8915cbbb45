"""Bytes are the tokens: nothing is unknown, and nothing has to be trained first."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from kit.base import checks
from kit.base import seed as seeds

VOCABULARY = 256
END = 0  # between two documents; no text holds it


def encode(text: str) -> Int64[Tensor, " tokens"]:
    """Return the UTF-8 bytes of a text.

    Example:
        >>> encode("hé").tolist()
        [104, 195, 169]
    """
    return torch.tensor(list(text.encode("utf-8")), dtype=torch.int64)


def decode(tokens: Int64[Tensor, " tokens"]) -> str:
    """Return the text of bytes; where a character was cut in two, a � stands.

    Args:
        tokens: 0 to 255.

    Raises:
        ValueError: a number that is no byte.

    Example:
        >>> decode(encode("hé")), decode(encode("hé")[:2])
        ('hé', 'h�')
    """
    numbers = tokens.tolist()
    wrong = [number for number in numbers if not 0 <= number < VOCABULARY]
    if wrong:
        raise checks.bad_value(
            "text.decode",
            expected="tokens from 0 to 255",
            got=wrong[0],
            remedy="Decode what a model of bytes has made.",
        )
    return bytes(numbers).decode("utf-8", errors="replace")


def windows(
    tokens: UInt8[np.ndarray, " tokens"], *, context: int, batch: int, seed: int, step: int
) -> tuple[Int64[Tensor, "batch context"], Int64[Tensor, "batch context"]]:
    """Draw windows at random: inputs, and the token that follows each of theirs.

    Args:
        tokens: of one part of a corpus; only what is drawn is read from disk.
        context: length of a window.
        batch: windows.
        seed: of the run.
        step: of the training; the same step of the same seed draws the same windows.

    Raises:
        ValueError: fewer tokens than one window and the token after it.
    """
    last = len(tokens) - context - 1
    if last < 0:
        raise checks.bad_value(
            "text.windows",
            expected=f"{context + 1:,} tokens or more, a context and one",
            got=checks.Described(f"{len(tokens):,}"),
            remedy="Pass a longer text or a shorter context.",
        )
    starts = torch.randint(last + 1, (batch,), generator=seeds.generator(seed, step)).tolist()
    drawn = np.stack([tokens[start : start + context + 1] for start in starts])
    found = torch.from_numpy(drawn.astype(np.int64))
    return found[:, :-1], found[:, 1:]
