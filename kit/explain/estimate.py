"""Play games until their Shapley values are known well enough, block of rows by block of rows."""

import warnings
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

import numpy as np

from kit.base import progress
from kit.explain import coalitions

BLOCK = 256  # rows that share their coalitions
SEEDS = 4  # sets of coalitions that blocks take in turn, so that their errors do not line up
HELD = 1 << 24  # worths held at once: 128 MiB
TOGETHER = 2048  # pairs in one system of equations; of more, several systems are averaged
BELIEF = 4  # in rows: how firmly to believe, before seeing, that a row's features err alike


# (v(S) - v(not S)) / 2 of each row and pair, (rows, pairs, outputs), given rows and coalitions
Odd = Callable[[np.ndarray, np.ndarray], np.ndarray]
Step = TypeVar("Step", bound=Sized)


@dataclass(frozen=True)
class Effort:
    """How many pairs of coalitions of `d` players to play, and when to stop earlier."""

    d: int
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

    def __len__(self) -> int:
        return len(self.values)

    def reaches(self, target: float | None) -> bool:
        """Tell whether the mean error is within `target` of the mean size of a value."""
        return target is None or bool(self.error_std.mean() <= target * np.abs(self.values).mean())


def blocks(
    odd: Odd, rows: np.ndarray, odd_all: np.ndarray, effort: Effort, *, seed: int
) -> Iterator[Found]:
    """Estimate the values of all rows, and yield them block by block.

    Args:
        odd: plays the game: `game.Game.odd` for rows, `hiding.Hider.odd` for texts.
        rows: rows to explain, (N, F).
        odd_all: (prediction - base value) / 2, (N, K).
        effort: how much to play.
        seed: of the coalitions.
    """
    d, together = effort.d, max(TOGETHER, 2 * effort.d)
    most = effort.most if effort.exact else min(effort.most, together)
    size = max(1, min(BLOCK, HELD // max(1, most * odd_all.shape[1])))
    n_blocks = ceil(len(rows) / size)
    places = np.array_split(np.arange(len(rows)), n_blocks)
    for i, place in enumerate(progress.track(places, label="explaining")):
        if d <= 1:  # no coalitions to play: one player takes all
            values = np.repeat(2 * odd_all[place, None], d, axis=1)
            yield Found(values, np.zeros_like(values), 0)
        elif effort.exact:
            yield _exact(odd, rows[place], odd_all[place], d)
        else:
            yield _sampled(odd, rows[place], odd_all[place], effort, (seed, i % SEEDS))


def finished(where: str, steps: Iterator[Step], n: int, *, what: str) -> list[Step]:
    """Collect steps; an interrupt keeps those that are done, if there are any, and says so.

    Args:
        where: the public function that was called, and that calls this one.
        steps: pieces of the work, as long as they have rows.
        n: rows of all steps.
        what: what a row is: "rows" or "texts".
    """
    found: list[Step] = []
    try:
        # one by one: an interrupted extend() may lose steps
        for step in steps:
            found.append(step)
    except KeyboardInterrupt:
        if not found:
            raise
        n_done = sum(map(len, found))
        warnings.warn(
            f"{where}: interrupted after {n_done} of {n} {what}; those are returned.", stacklevel=3
        )
    return found


def _exact(odd: Odd, rows: np.ndarray, odd_all: np.ndarray, d: int) -> Found:
    operator = coalitions.exact(d)
    values = _apply(operator, odd(rows, operator.members), odd_all)
    return Found(values, np.zeros_like(values), len(operator.members))


def _sampled(
    odd: Odd, rows: np.ndarray, odd_all: np.ndarray, effort: Effort, seed: tuple[int, int]
) -> Found:
    """Play until the target is reached; each system of equations starts from other pairs."""
    n_systems = ceil(effort.most / max(TOGETHER, 2 * effort.d))
    each = ceil(effort.most / n_systems)
    done: list[Found] = []
    for i in range(n_systems):
        first = min(effort.first, each) if i == 0 else each
        system = replace(effort, first=first, most=each)
        done.append(_one_system(odd, rows, odd_all, system, (*seed, i)))
        so_far = _mean(done)
        if effort.target is not None and so_far.reaches(effort.target):
            break
    return so_far


def _one_system(
    odd: Odd, rows: np.ndarray, odd_all: np.ndarray, effort: Effort, seed: tuple[int, ...]
) -> Found:
    """Double the pairs until the target is reached, and play each of them once."""
    d, n = effort.d, effort.first
    stream = int(np.random.SeedSequence(seed).generate_state(1)[0])
    worth = odd(rows, coalitions.draw(d, n, stream))
    while True:
        values = _apply(coalitions.sampled(d, n, stream), worth, odd_all)
        found = Found(values, _error_std(d, n, stream, worth, odd_all), n)
        if n == effort.most or found.reaches(effort.target):
            return found
        more = min(2 * n, effort.most)
        worth = np.concatenate([worth, odd(rows, coalitions.draw(d, more, stream)[n:])], axis=1)
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
