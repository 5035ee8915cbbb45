"""Exercises of lesson 3: the slope of a logistic regression, a step, an honest probability."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kit.lesson import Exercise, Trial

CLOSE = 1e-6  # differences over 2e-6 are themselves right to about 1e-9


def _gradient(answer: Callable[..., Any]) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(6, 3)), rng.normal(size=3), 0.5
    t = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    got = answer(x, t, w, b)
    yield _pair("6 rows of 3 features", got, "the slope of w, and the slope of b")
    slope_w, slope_b = got
    yield _close("the slope of b on them, against differences", slope_b, _slope(x, t, w, b)[3])
    yield _close("the slopes of w on them, against differences", slope_w, _slope(x, t, w, b)[:3])
    sure = answer(np.array([[1.0], [-1.0]]), np.array([1.0, 0.0]), np.array([1000.0]), 0.0)[0]
    yield _close("two rows, both sure and right", sure, np.zeros(1))


def _slope(x: np.ndarray, t: np.ndarray, w: np.ndarray, b: float, h: float = 1e-6) -> np.ndarray:
    """Return the slopes of w and of b, by turning each of them a little."""

    def loss(theta: np.ndarray) -> float:
        z = x @ theta[:-1] + theta[-1]
        return float(np.mean(np.logaddexp(0, z) - t * z))

    theta, turns = np.append(w, b), h * np.eye(len(w) + 1)
    return np.array([(loss(theta + turn) - loss(theta - turn)) / (2 * h) for turn in turns])


def _step(answer: Callable[..., Any]) -> Iterator[Trial]:
    w, g, v = np.array([1.0, -2.0]), np.array([0.5, 4.0]), np.zeros(2)
    got = answer(w, g, v, lr=0.1, momentum=0.0)
    yield _pair("one step", got, "the new weights, and the new velocity")
    new_w, new_v = got
    yield _close("no momentum: weights 1, -2, slopes 0.5, 4, lr 0.1", new_w, [0.95, -2.4])
    yield _close("no momentum: the velocity after it", new_v, g)
    untouched = (w.tolist(), v.tolist()) == ([1.0, -2.0], [0.0, 0.0])
    shown = "unchanged" if untouched else f"w = {w.tolist()}, v = {v.tolist()}"
    yield Trial("the arrays that were passed in", "unchanged", shown, untouched)
    first_w, first_v = answer(w, g, v, lr=0.1, momentum=0.5)
    second_w, second_v = answer(first_w, g, first_v, lr=0.1, momentum=0.5)
    yield _close("two steps of momentum 0.5: the velocity", second_v, [0.75, 6.0])
    yield _close("two steps of momentum 0.5: the weights", second_w, [0.875, -3.0])
    still_w, _ = answer(w, np.zeros(2), np.ones(2), lr=0.1, momentum=0.5)
    yield _close("no slope, velocity 1: it goes on rolling", still_w, [0.95, -2.05])


def _calibration_error(answer: Callable[..., Any]) -> Iterator[Trial]:
    p, truth = np.repeat([0.25, 0.75], 4), np.array([0, 0, 0, 1, 1, 1, 1, 0], bool)
    yield _close("one yes in 4 at 0.25, three in 4 at 0.75, 2 bins", answer(p, truth, 2), 0.0)
    told = np.full(20, 0.8)
    yield _close("20 times 0.8, all yes", answer(told, np.ones(20, bool)), 0.2)
    yield _close("20 times 0.8, all no", answer(told, np.zeros(20, bool)), 0.8)
    mixed = answer(np.repeat([0.1, 0.9], 10), np.repeat([True, False], 10), 2)
    yield _close("wrong both ways: 0.1 for every yes, 0.9 for every no", mixed, 0.9)
    order = np.random.default_rng(0).permutation(8)
    shuffled = answer(p[order], truth[order], 2)
    yield _close("the first rows in another order", shuffled, 0.0)
    uneven = answer(np.array([0.0, 0.1, 0.2, 0.3]), np.zeros(4, bool), 2)
    yield _close("0, 0.1, 0.2, 0.3, never yes, 2 bins", uneven, 0.15)


def _pair(tried: str, got: Any, parts: str) -> Trial:
    ok = isinstance(got, tuple | list) and len(got) == 2
    return Trial(tried, f"a pair: {parts}", "a pair" if ok else got, ok)


def _close(tried: str, got: Any, right: Any) -> Trial:
    expected = str(np.round(right, 3))
    if np.asarray(got).dtype.kind not in "fiub":
        return Trial(tried, expected, got, False)
    if np.shape(got) != np.shape(right):
        return Trial(tried, f"shape {np.shape(right)}", f"shape {np.shape(got)}", False)
    return Trial(tried, expected, np.round(got, 3), bool(np.allclose(got, right, atol=CLOSE)))


EXERCISES = {
    "gradient": Exercise(
        _gradient,
        (
            "Section 2 has it: this network has an output layer and nothing below.",
            "Start with delta, one number a row. What cancels when p(1 - p) meets dL/dp?",
            "A weight's slope is what came in times the error that went out, summed over rows.",
        ),
    ),
    "step": Exercise(
        _step,
        (
            "Two assignments, in the order of the formulas: the velocity is renewed first.",
            "`v += g` changes the caller's array; `v = momentum * v + g` makes a new one.",
        ),
    ),
    "calibration_error": Exercise(
        _calibration_error,
        (
            "`np.argsort(p, kind='stable')` gives the rows from the lowest prediction up.",
            "`np.array_split(rows, n_bins)` cuts them into bins.",
            "In each bin: the mean of p, the mean of truth, and how far apart they are.",
        ),
    ),
}
