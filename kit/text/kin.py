"""Files that are nearly the same, found from sketches of them (MinHash), never side by side."""

import re
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from kit.data.near import components

HASHES, BAND = 64, 4  # 16 bands: files that share half of their runs of words meet in one of them
RUN = 5  # words
BLOCK = 2**20  # bytes of a document whose words are hashed at once
GAP = re.compile(rb"\s")
ALIKE = 0.7  # estimated share of common runs, from which two files are kin
_DRAWS = np.random.default_rng(0).integers(1, 2**63, (2, HASHES), dtype=np.uint64) | np.uint64(1)

Sketch = UInt32[np.ndarray, " hashes"]


def sketch(document: bytes) -> Sketch:
    """Return the least hashes of a document's runs of words; the share in common estimates Jaccard.

    Source:
        Broder: On the Resemblance and Containment of Documents, 1997.
    """
    words, found = np.zeros(0, np.uint64), []
    for block in _blocks(document):
        hashed = np.array([zlib.crc32(word) for word in block.split()], dtype=np.uint64)
        words = np.concatenate([words[1 - RUN :], hashed])  # runs go on from block to block
        if len(words) >= RUN:
            found.append(_least(words))
    return np.min(found, axis=0) if found else _least(np.pad(words, (0, RUN - len(words))))


def _blocks(document: bytes) -> Iterator[bytes]:
    """Cut a document between words: all of them at once would take ten times its memory."""
    start = 0
    while start < len(document):
        gap = GAP.search(document, start + BLOCK)
        end = gap.start() if gap else len(document)
        yield document[start:end]
        start = end


def _least(words: UInt64[np.ndarray, " words"]) -> Sketch:
    runs = np.zeros(len(words) - RUN + 1, np.uint64)
    for i in range(RUN):  # a polynomial of the words; it wraps around at 2**64, as it may
        runs = runs * np.uint64(1_099_511_628_211) + words[i : len(runs) + i]
    least = np.full(HASHES, 2**32 - 1, np.uint32)
    for part in np.array_split(np.unique(runs), max(1, len(runs) // 4096)):
        mixed = (part[:, None] ^ (part[:, None] >> np.uint64(29))) * _DRAWS[0] + _DRAWS[1]
        least = np.minimum(
            least, (mixed >> np.uint64(32)).astype(np.uint32).min(0, initial=2**32 - 1)
        )
    return least


def groups(sketches: UInt32[np.ndarray, "documents hashes"]) -> Int64[np.ndarray, " documents"]:
    """Number the groups of documents that are nearly the same; most are alone in theirs."""
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, HASHES, BAND):
        band = np.ascontiguousarray(sketches[:, start : start + BAND])
        order = np.lexsort(band.T)
        meet = (band[order[1:]] == band[order[:-1]]).all(1)
        one, other = order[:-1][meet], order[1:][meet]
        alike = (sketches[one] == sketches[other]).mean(1) >= ALIKE
        left.append(one[alike])
        right.append(other[alike])
    return components(len(sketches), np.concatenate(left), np.concatenate(right)).astype(np.int64)
