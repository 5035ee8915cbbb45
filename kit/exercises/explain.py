"""Exercises of lesson 6: the Shapley value of a player, and the straight line of LIME."""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from kit.lesson import Exercise, Trial

Game = dict[frozenset, float]


def _game(players: str, worth: Callable[[frozenset], float]) -> Game:
    sets = (frozenset(s) for n in range(len(players) + 1) for s in combinations(players, n))
    return {each: worth(each) for each in sets}


def _shapley(answer: Callable[[Game, str], float]) -> Iterator[Trial]:
    glove = _game("abc", lambda s: float("a" in s and bool(s & {"b", "c"})))
    additive = _game("abcd", lambda s: float(sum(ord(p) - 96 for p in s)))
    unpaid = _game("ab", lambda s: 5.0 + 2.0 * ("a" in s))
    cases = [
        ("a game in which each adds a fixed sum", additive, "c", 3.0),
        ("a player who never adds anything", unpaid, "b", 0.0),
        ("one left glove against two right ones", glove, "a", 2 / 3),
        ("one of the two right gloves", glove, "b", 1 / 6),
    ]
    for tried, game, player, right in cases:
        got = answer(game, player)
        ok = got is not None and bool(np.isclose(float(got), right))
        yield Trial(f"{tried}, player {player!r}", f"{right:.3g}", got, ok)
    total = sum(answer(glove, player) for player in "abc")
    yield Trial(
        "all players of one game", "values that add up to 1", total, bool(np.isclose(total, 1))
    )


def _slopes(answer: Callable[..., np.ndarray]) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 2))
    line, even = 3.0 + z @ np.array([2.0, -1.0]), np.ones(60)
    near = (z[:, 0] < 0).astype(float)
    bent = np.where(near > 0, 1.0 + 4.0 * z[:, 1], 100.0)
    cases = [
        ("answers on a straight line with a constant of 3", line, even, [2.0, -1.0]),
        ("the same with weights doubled", line, 2 * even, [2.0, -1.0]),
        ("answers that are a line only where the weight is 1", bent, near, [0.0, 4.0]),
    ]
    for tried, f, weight, right in cases:
        got = answer(z, f, weight)
        shown = None if got is None else np.round(np.asarray(got, float), 3).tolist()
        ok = shown is not None and np.shape(got) == (2,) and np.allclose(got, right, atol=1e-6)
        yield Trial(tried, f"slopes {right}", shown, bool(ok))


EXERCISES = {
    "shapley": Exercise(
        _shapley,
        (
            "Let the players arrive in every possible order.",
            "What counts is the difference that the player makes at the moment of arrival.",
            "`itertools.permutations` gives the orders; average the differences over all of them.",
        ),
    ),
    "slopes": Exercise(
        _slopes,
        (
            "A line has a constant: add a column of ones, and drop its coefficient at the end.",
            "A weight of 4 counts a row four times, so scale its equation by the square root, 2.",
        ),
    ),
}
