"""Play games until their Shapley values are known well enough, block of rows by block of rows."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np

from kit.base import progress
from kit.explain import coalitions

BLOCK = 256  # rows that share their coalitions
SEEDS = 4  # sets of coalitions that blocks take in turn, so that their errors do not line up
HELD = 1 << 24  # worths held at once: 128 MiB
TOGETHER = 2048  # pairs in one system of equations; of more, several systems are averaged
BELIEF = 4  # in rows: how firmly to believe, before seeing, that a row's features err alike


@runtime_checkable
class Playable(Protocol):
    """What coalitions are played on: `game.Game` for rows, `hiding.Hider` for texts."""

    @property
    def players(self) -> Sized:
        """The players, whose number is what counts."""

    def odd(self, rows: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Return (v(S) - v(not S)) / 2 of each row and pair, (rows, pairs, outputs)."""


@dataclass(frozen=True)
class Effort:
    """How many pairs of coalitions to play, and when to stop earlier."""

    exact: bool
    first: int  # pairs
    most: int
    target: float | None = None  # mean error over mean |value|


@dataclass(frozen=True)
class Found:
    """Values of some rows with their errors, both (rows, players, outputs)."""

    values: np.ndarray
    error_std: np.ndarray
    n_pairs: int

    def reaches(self, target: float | None) -> bool:
        """Tell whether the mean error is within `target` of the mean size of a value."""
        return target is None or bool(self.error_std.mean() <= target * np.abs(self.values).mean())


def blocks(
    play: Playable, rows: np.ndarray, odd_all: np.ndarray, effort: Effort, *, seed: int
) -> Iterator[Found]:
    """Estimate the values of all rows, and yield them block by block.

    Args:
        play: the game.
        rows: rows to explain, (N, F).
        odd_all: (prediction - base value) / 2, (N, K).
        effort: how much to play.
        seed: of the coalitions.
    """
    together = max(TOGETHER, 2 * len(play.players))
    most = effort.most if effort.exact else min(effort.most, together)
    size = max(1, min(BLOCK, HELD // max(1, most * odd_all.shape[1])))
    n_blocks = ceil(len(rows) / size)
    places = np.array_split(np.arange(len(rows)), n_blocks)
    for i, place in enumerate(progress.track(places, label="explaining")):
        if len(play.players) <= 1:  # no coalitions to play: one player takes all
            values = np.repeat(2 * odd_all[place, None], len(play.players), axis=1)
            yield Found(values, np.zeros_like(values), 0)
        elif effort.exact:
            yield _exact(play, rows[place], odd_all[place])
        else:
            yield _sampled(play, rows[place], odd_all[place], effort, (seed, i % SEEDS))


def _exact(play: Playable, rows: np.ndarray, odd_all: np.ndarray) -> Found:
    operator = coalitions.exact(len(play.players))
    values = _apply(operator, play.odd(rows, operator.members), odd_all)
    return Found(values, np.zeros_like(values), len(operator.members))


def _sampled(
    play: Playable, rows: np.ndarray, odd_all: np.ndarray, effort: Effort, seed: tuple[int, int]
) -> Found:
    """Play until the target is reached; each system of equations starts from other pairs."""
    d = len(play.players)
    n_systems = ceil(effort.most / max(TOGETHER, 2 * d))
    each = ceil(effort.most / n_systems)
    done: list[Found] = []
    for i in range(n_systems):
        first = min(effort.first, each) if i == 0 else each
        done.append(_one_system(play, rows, odd_all, first, each, effort.target, (*seed, i)))
        so_far = _mean(done)
        if effort.target is not None and so_far.reaches(effort.target):
            break
    return so_far


def _one_system(
    play: Playable,
    rows: np.ndarray,
    odd_all: np.ndarray,
    n: int,
    most: int,
    target: float | None,
    seed: tuple[int, ...],
) -> Found:
    """Double the pairs until the target is reached, and play each of them once."""
    d = len(play.players)
    stream = int(np.random.SeedSequence(seed).generate_state(1)[0])
    odd = play.odd(rows, coalitions.draw(d, n, stream))
    while True:
        values = _apply(coalitions.sampled(d, n, stream), odd, odd_all)
        found = Found(values, _error_std(d, n, stream, odd, odd_all), n)
        if n == most or found.reaches(target):
            return found
        more = min(2 * n, most)
        odd = np.concatenate([odd, play.odd(rows, coalitions.draw(d, more, stream)[n:])], axis=1)
        n = more


def _error_std(d: int, n: int, seed: int, odd: np.ndarray, odd_all: np.ndarray) -> np.ndarray:
    """Return the standard error of each value, from estimates by parts of the pairs.

    The jackknife: for two halves the error is half of their difference. One difference says little
    about one value, so squares are averaged along features and along rows, and the error is taken
    as a row's size times a feature's. The whole converges faster than its parts, which makes the
    error larger than it is, by about a quarter.
    """
    parts = coalitions.parts(d, n, seed)
    found = np.stack([_apply(op, odd[:, places], odd_all) for places, op in parts])
    n_parts = len(parts)
    squares = ((found - found.mean(0)) ** 2).sum(0) * (n_parts - 1) / n_parts  # (rows, d, K)
    of_rows, overall = squares.mean(1, keepdims=True), squares.mean((0, 1), keepdims=True)
    tiny = np.finfo(float).tiny
    of_features = squares.mean(0, keepdims=True) / np.maximum(overall, tiny)
    # few rows say little about features
    of_features = (len(odd) * of_features + BELIEF) / (len(odd) + BELIEF)
    left = 1 - n / coalitions.all_pairs(d)  # drawn without replacement: nothing is left at the end
    return np.sqrt(of_rows * of_features * left)


def _mean(systems: list[Found]) -> Found:
    n = len(systems)
    return Found(
        np.mean([found.values for found in systems], axis=0),
        np.sqrt(np.mean([found.error_std**2 for found in systems], axis=0) / n),
        sum(found.n_pairs for found in systems),
    )


def _apply(operator: coalitions.Operator, odd: np.ndarray, odd_all: np.ndarray) -> np.ndarray:
    """Return the Shapley values (rows, d, K) of odd worths (rows, pairs, K)."""
    N, n, K = odd.shape
    games = odd.transpose(0, 2, 1).reshape(N * K, n)
    values = operator(games, odd_all.reshape(N * K))
    return values.reshape(N, K, -1).transpose(0, 2, 1)
