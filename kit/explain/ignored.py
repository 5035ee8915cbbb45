"""Find the players that a model ignores, so that they get exactly 0 and cost nothing."""

from collections.abc import Sequence

import numpy as np

from kit.explain.scorer import Scorer

FIRST, ALL = 64, 4096  # contexts in which a player is toggled: to suspect it, and to be sure


def active(
    asked: Scorer,
    rows: np.ndarray,
    background: np.ndarray,
    columns: Sequence[list[int]],
    *,
    seed: int,
) -> list[int]:
    """Return the players whose toggling ever changes a score, to the last bit.

    A player is toggled between a value from the rows and one from the background, while the other
    features are of a random coalition. One that never changes any of 4,096 scores is taken as
    ignored: a score that it does change is rarer than 1 in 1,300 (at 95 % confidence).

    Args:
        asked: the model.
        rows: rows to explain, (N, F).
        background: rows that stand for "unknown", (B, F).
        columns: the columns of each player.
        seed: of the contexts.
    """
    rng = np.random.default_rng((seed, len(columns)))
    suspects = [
        p for p, own in enumerate(columns) if not _moves(asked, rows, background, own, FIRST, rng)
    ]
    idle = {p for p in suspects if not _moves(asked, rows, background, columns[p], ALL, rng)}
    return [p for p in range(len(columns)) if p not in idle]


def _moves(
    asked: Scorer,
    rows: np.ndarray,
    background: np.ndarray,
    own: list[int],
    n: int,
    rng: np.random.Generator,
) -> bool:
    x, b = rows[rng.integers(len(rows), size=n)], background[rng.integers(len(background), size=n)]
    context = np.where(rng.random(x.shape) < 0.5, x, b)
    inside, outside = context.copy(), context
    # every value once before any twice: a rare one must not be missed
    values = np.unique(rows[:, own], axis=0) if n == ALL else x[:, own]
    inside[:, own] = np.resize(values, (n, len(own)))
    outside[:, own] = b[:, own]
    # two calls of one shape: a row then takes the same way through the same kernels
    return bool((asked.scores(inside) != asked.scores(outside)).any())
