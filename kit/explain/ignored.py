"""Find the players that a model ignores, so that they get exactly 0 and cost nothing."""

from collections.abc import Sequence

import numpy as np

from kit.explain.scorer import Scorer

FIRST, ALL = 16, 4096  # contexts in which a player is toggled: to suspect it, and to be sure
HELD = 1 << 22  # numbers of contexts held at once


def active(
    asked: Scorer,
    rows: np.ndarray,
    background: np.ndarray,
    columns: Sequence[list[int]],
    *,
    seed: int,
) -> list[int]:
    """Return the players whose toggling ever changes a score, to the last bit.

    A player is toggled between a row's value and one from the background, while the row's other
    features are there or not by a coalition of any size. One that never changes any of 4,096 scores
    is taken as ignored: a score that it does change is rarer than 1 in 1,300 (at 95 % confidence).

    Args:
        asked: the model.
        rows: rows to explain, (N, F).
        background: rows that stand for "unknown", (B, F).
        columns: the columns of each player.
        seed: of the contexts.
    """
    rng = np.random.default_rng((seed, len(columns)))
    together = max(1, HELD // (FIRST * rows.shape[1]))
    suspects = []
    for start in range(0, len(columns), together):
        some = range(start, min(start + together, len(columns)))
        moved = _moved(asked, rows, background, [columns[p] for p in some], FIRST, rng)
        suspects += [p for p, moves in zip(some, moved, strict=True) if not moves]
    idle = {p for p in suspects if not _moved(asked, rows, background, [columns[p]], ALL, rng)[0]}
    return [p for p in range(len(columns)) if p not in idle]


def _moved(
    asked: Scorer,
    rows: np.ndarray,
    background: np.ndarray,
    columns: Sequence[list[int]],
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Tell of each player whether any of `n` contexts changes its score when it is toggled."""
    pick = rng.integers(len(rows), size=len(columns) * n)
    if n == ALL:
        # every value once before any twice, each among its own row's others: a rare one counts too
        once = np.unique(rows[:, columns[0]], axis=0, return_index=True)[1]
        pick = np.resize(np.r_[rng.permutation(once), rng.permutation(len(rows))], n)
    x, b = rows[pick], background[rng.integers(len(background), size=len(pick))]
    # coalitions of every size alike: what takes nearly everyone to be seen is met as well
    inside = np.where(rng.random(x.shape) < rng.random((len(x), 1)), x, b)
    outside = inside.copy()
    for place, own in enumerate(columns):
        here = slice(place * n, (place + 1) * n)
        inside[here, own], outside[here, own] = x[here, own], b[here, own]
    # two calls of one shape: a row then takes the same way through the same kernels
    changed = asked.scores(inside) != asked.scores(outside)
    return changed.reshape(len(columns), -1).any(1)
