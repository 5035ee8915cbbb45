"""Exercises of lesson 9: n of m weights, the refit of two layers, sizes under a budget of time."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from kit.lesson import Exercise, Trial, near

Answer = Callable[..., Any]
Sizes = list[list[tuple[float, float]]]  # of each layer: ms and loss


def _nm_mask(answer: Answer) -> Iterator[Trial]:
    scores = np.array([[0.1, 0.9, 0.4, 0.3, -5.0, -1.0, -3.0, -2.0]])
    right = np.array([[0, 1, 1, 0, 0, 1, 0, 1]], dtype=bool)
    got = answer(scores.copy(), 2, 4)
    kind = getattr(got, "dtype", type(got).__name__)
    yield Trial("the type of the mask", "bool", str(kind), str(kind) == "bool")
    yield Trial(f"two of four of {scores[0].tolist()}", str(right), *near(got, right))
    yield _counted("two of four scores that are all equal", answer(np.ones((3, 8)), 2, 4), 2, 4)
    drawn = np.random.default_rng(0).normal(size=(6, 24))
    yield _counted("one of four of 6 rows of 24 scores", answer(drawn.copy(), 1, 4), 1, 4)
    for n, m in [(1, 4), (2, 4), (5, 8)]:
        groups = drawn.reshape(6, -1, m)
        mask = groups >= np.sort(groups, axis=2)[:, :, m - n, None]
        got, is_right = near(answer(drawn.copy(), n, m), mask.reshape(drawn.shape))
        yield Trial(f"{n} of {m} of the same rows", "the highest of each", got, is_right)


def _counted(tried: str, got: Any, n: int, m: int) -> Trial:
    """Return whether just n of each m neighbours in a row are left."""
    left = np.asarray(got).reshape(-1, m).sum(1)
    return Trial(f"{tried}: how many are left", f"{n} in each group", left, bool((left == n).all()))


def _refit(answer: Answer) -> Iterator[Trial]:
    chance = np.random.default_rng(0)
    X, W1, W2 = (chance.normal(size=size) for size in [(200, 5), (8, 5), (3, 8)])
    b1, b2 = chance.normal(size=8), chance.normal(size=3)
    twins, keep = W1.copy(), [6, 1, 2, 4, 0]
    twins[[3, 5, 7]], same = W1[[1, 2, 4]], b1.copy()
    same[[3, 5, 7]] = b1[[1, 2, 4]]
    yield from _fitted("units whose twins went", answer, (X, twins, same, W2, b2), keep)
    still, level = W1.copy(), b1.copy()
    still[[3, 5, 7]], level[[3, 5, 7]] = 0.0, 2.0  # whatever comes in, they say 2
    told = "units that always say the same and went"
    yield from _fitted(told, answer, (X, still, level, W2, b2), keep)
    yield from _fitted("any three of eight units that went", answer, (X, W1, b1, W2, b2), keep)


def _fitted(tried: str, answer: Answer, net: tuple, keep: list[int]) -> Iterator[Trial]:
    """Yield whether the outputs are as near as least squares can bring them."""
    X, W1, b1, W2, b2 = net
    got = answer(*(each.copy() for each in net), list(keep))
    shapes = [np.shape(each) for each in got] if isinstance(got, tuple) else type(got).__name__
    wanted = [(len(W2), len(keep)), (len(W2),)]
    yield Trial(f"{tried}: the shapes of weights and bias", str(wanted), shapes, shapes == wanted)
    hidden = np.maximum(X @ W1.T + b1, 0)
    goal = hidden @ W2.T + b2
    given = np.column_stack([hidden[:, keep], np.ones(len(X))])
    nearest = given @ np.linalg.lstsq(given, goal, rcond=None)[0]
    least, off = (float(((out - goal) ** 2).mean()) for out in (nearest, _outputs(got, given)))
    tried = f"{tried}: mean square of what the outputs are off"
    yield Trial(tried, f"{least:.4f}", f"{off:.4f}", off <= least + 1e-9)


def _outputs(got: Any, given: np.ndarray) -> np.ndarray:
    weights, bias = got
    return given[:, :-1] @ np.asarray(weights).T + bias


def _under_budget(answer: Answer) -> Iterator[Trial]:
    two = [[(4.0, 0.0), (2.0, 0.5), (1.0, 3.0)], [(4.0, 0.0), (2.0, 0.1), (1.0, 0.2)]]
    cases: list[tuple[str, Sizes, float]] = [
        ("a budget that all can have", two, 8.0),
        ("a budget that is used to the last ms", two, 6.0),
        ("a layer that takes more than its share", two, 5.0),
        ("a budget below the fastest", two, 1.5),
    ]
    for tried, layers, budget in cases:
        right = _least_loss(layers, budget)
        got = answer([list(sizes) for sizes in layers], budget)
        yield Trial(f"{tried}, {budget:g} ms", str(right), got, _is_same(got, right))
    chance = np.random.default_rng(3)
    drawn = [[(float(a), float(b)) for a, b in chance.uniform(1, 9, (4, 2))] for _ in range(4)]
    right = _least_loss(drawn, 12.0)
    got = answer(drawn, 12.0)
    tried = "four layers of four sizes each, drawn at random, 12 ms"
    yield Trial(tried, str(right), got, _is_same(got, right))


def _least_loss(layers: Sizes, budget: float) -> list[int] | None:
    picks = [list(pick) for pick in product(*(range(len(sizes)) for sizes in layers))]
    ms, loss = np.array(
        [np.sum([layers[i][j] for i, j in enumerate(pick)], axis=0) for pick in picks]
    ).T
    if not (ms <= budget).any():
        return None
    return picks[int(np.where(ms <= budget, loss, np.inf).argmin())]


def _is_same(got: Any, right: list[int] | None) -> bool:
    return got is None if right is None else got is not None and list(got) == right


EXERCISES = {
    "nm_mask": Exercise(
        _nm_mask,
        (
            "Give the scores a third axis: rows, groups, the m of a group.",
            "A threshold lets ties through. Sort, and count places instead: np.argsort.",
            "From an empty mask, np.put_along_axis writes True at those places.",
        ),
    ),
    "refit": Exercise(
        _refit,
        (
            "In go the hidden units that stay, after the ReLU; out comes what all of them gave.",
            "The bias is one more weight, of an input that is always 1.",
            "Least squares of several outputs at once is a single np.linalg.lstsq.",
        ),
    ),
    "under_budget": Exercise(
        _under_budget,
        (
            "Equal shares waste what one layer leaves over and another could use.",
            "itertools.product or np.ndindex goes through every combination of one size a layer.",
            "Keep the best so far; it begins as None, with a loss that anything beats.",
        ),
    ),
}
