"""Exercises of lesson 5: mutual information, and least squares without the rows."""

from collections.abc import Callable, Iterator

import numpy as np

from kit.lesson import Exercise, Trial

LOG2 = float(np.log(2))


def _information(answer: Callable[..., float]) -> Iterator[Trial]:
    x = ["a", "b"] * 8
    cases: list[tuple[str, list, list, float]] = [
        ("a column and itself", x, x, LOG2),
        ("a column and itself under other names", x, [0 if each == "a" else 7 for each in x], LOG2),
        ("two columns that have nothing to do with each other", x, ["u", "u", "v", "v"] * 4, 0.0),
        (
            "three words, of which one leaves the answer open",
            ["a", "a", "b", "b", "c", "c", "c", "c"],
            [0, 0, 1, 1, 0, 1, 0, 1],
            LOG2 / 2,
        ),
    ]
    for tried, one, other, right in cases:
        got = answer(list(one), list(other))
        ok = got is not None and bool(np.isclose(float(got), right, atol=1e-9))
        yield Trial(tried, f"{right:.4f} nats", got, ok)
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 3, 200).tolist(), rng.integers(0, 4, 200).tolist()
    pair = answer(one, other), answer(other, one)
    is_same = None not in pair and bool(np.isclose(*pair))
    yield Trial("the two columns exchanged", "the same", pair, is_same)


def _rss(answer: Callable[..., float]) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 4))
    X[:, 1] += X[:, 0]
    y = X @ np.array([1.0, -2.0, 0.0, 0.5]) + rng.normal(size=40)
    G, c, yy = X.T @ X, X.T @ y, float(y @ y)
    for tried, columns in [
        ("one column", [2]),
        ("two that overlap", [0, 1]),
        ("all", [0, 1, 2, 3]),
    ]:
        w = np.linalg.lstsq(X[:, columns], y, rcond=None)[0]
        right = float(((y - X[:, columns] @ w) ** 2).sum())
        got = answer(G.copy(), c.copy(), yy, list(columns))
        ok = got is not None and bool(np.isclose(float(got), right))
        yield Trial(f"{tried} of four, 40 rows", f"{right:.3f}", got, ok)


EXERCISES = {
    "information": Exercise(
        _information,
        (
            "Count the pairs: pd.crosstab(x, y, normalize=True) gives p(x, y).",
            "If the two had nothing to do with each other, p(x, y) would be p(x) p(y).",
            "Sum p log(p / independent) over the pairs that occur; 0 log 0 is 0.",
        ),
    ),
    "rss": Exercise(
        _rss,
        (
            "The coefficients of some columns solve a part of the normal equations: G w = c.",
            "At the solution, the residual sum of squares is y'y − w'c.",
        ),
    ),
}
