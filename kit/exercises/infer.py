"""Exercises of lesson 8: weights in int8, texts that fit into memory, the least time of a model."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kit.lesson import Exercise, Trial, near

Answer = Callable[..., Any]
LLAMA = {"layers": 32, "groups": 8, "head": 128, "tokens": 8192, "size": 2}  # 1 GiB a text
SMALL = {"layers": 2, "groups": 3, "head": 4, "tokens": 5, "size": 4}  # 960 bytes a text


def _quantise(answer: Answer) -> Iterator[Trial]:
    w = np.array([[1.27, -0.63, 0.0, 0.01], [-254.0, 100.0, 2.0, 4.0]])
    whole = np.array([[127, -63, 0, 1], [-127, 50, 1, 2]])
    got = answer(w.copy())
    is_pair = isinstance(got, tuple) and len(got) == 2
    yield Trial("what comes back", "two arrays: q, steps", got, is_pair)
    q, steps = got
    kind = getattr(q, "dtype", type(q).__name__)
    yield Trial("the type of q", "int8", kind, kind == np.int8)
    right = np.array([0.01, 2.0])
    tried = "the steps of two rows whose largest magnitudes are 1.27 and 254"
    yield Trial(tried, str(right), *near(steps, right))
    is_right = np.shape(q) == w.shape and bool(np.all(q == whole))
    yield Trial("the whole numbers of the same two rows", str(whole), q, is_right)
    drawn = np.random.default_rng(0).normal(size=(20, 50))
    q, steps = answer(drawn.copy())
    off = float(np.abs(np.asarray(q) * np.asarray(steps)[:, None] - drawn).max())
    most = float(np.abs(drawn).max() / 254)
    tried = "a thousand weights: how far q times its step is from them"
    yield Trial(tried, f"at most half a step, {most:.4f}", f"{off:.4f}", off <= most + 1e-12)
    tried = "rows of zeros: q times the step"
    try:
        # in int8, what is not a number becomes 0 on one machine and something else on another
        with np.errstate(invalid="raise"):
            q, steps = answer(np.zeros((2, 3)))
    except FloatingPointError:
        yield Trial(tried, "zeros", "0 / 0, which is not a number", False)
    back = np.asarray(q) * np.asarray(steps)[:, None]
    yield Trial(tried, "zeros", back, bool((back == 0).all()))


def _texts_that_fit(answer: Answer) -> Iterator[Trial]:
    cases = [
        ("10 texts of 960 bytes beside weights of 400 bytes", 10_000, 400, SMALL, 10),
        ("one byte less than 10 texts need: whole texts only", 9_999, 400, SMALL, 9),
        ("24 GiB, weights of 15 GiB, 1 GiB a text", 24 * 2**30, 15 * 2**30, LLAMA, 9),
        ("weights that do not fit themselves", 2_000, 5_000, SMALL, 0),
    ]
    for tried, memory, weights, shape, right in cases:
        got = answer(memory, weights=weights, **shape)
        yield Trial(tried, str(right), *near(got, right))


def _least_time(answer: Answer) -> Iterator[Trial]:
    wide, long = [(1000, 1000)], [(1000, 1000), (1000, 10), (10, 1000)]
    quick = {"bytes_per_s": 1e9, "flop_per_s": 1e12}
    slow = {"bytes_per_s": 1e12, "flop_per_s": 1e9}
    level = {"bytes_per_s": 6.0, "flop_per_s": 1.0}
    # the first layer waits for the processor, the narrow ones for memory
    mixed = {"bytes_per_s": 1e9, "flop_per_s": 2e10}
    cases = [
        ("one row, a slow memory", wide, 1, quick),
        ("one row, a slow processor", wide, 1, slow),
        ("a layer of one weight whose limits are equal", [(1, 1)], 1, level),
        ("three layers, 100 rows", long, 100, mixed),
    ]
    for tried, layers, rows, machine in cases:
        seconds, limits = _least(layers, rows, **machine)
        got = answer(list(layers), rows, **machine)
        is_pair = isinstance(got, tuple) and len(got) == 2
        is_right = is_pair and near(got[0], seconds)[1] and list(got[1]) == limits
        yield Trial(tried, f"{seconds:.4g} s, {limits}", got, is_right)


def _least(
    layers: list[tuple[int, int]], rows: int, *, bytes_per_s: float, flop_per_s: float
) -> tuple[float, list[str]]:
    n, m = np.array(layers).T
    times = np.stack([4 * (n * m + rows * (n + m)) / bytes_per_s, 2 * rows * n * m / flop_per_s])
    return float(times.max(0).sum()), [("memory", "compute")[i] for i in times.argmax(0)]


EXERCISES = {
    "quantise": Exercise(
        _quantise,
        (
            "The step of a row is its largest magnitude over 127: np.abs first, then the maximum.",
            "Divide each row by its own step, [:, None], round, and only then convert to np.int8.",
            "Where a step is 0, divide by 1 instead: 0 times anything is 0 again.",
        ),
    ),
    "texts_that_fit": Exercise(
        _texts_that_fit,
        (
            "Two things are kept of every token: which?",
            "What is left beside the weights may be less than nothing; texts are not.",
        ),
    ),
    "least_time": Exercise(
        _least_time,
        (
            "The limits hold for each layer: take the larger time of each, then add.",
            "An inputs × outputs layer has that many weights; every row brings both sides.",
            "A float32 has 4 bytes; a weight does 2 operations for each row.",
        ),
    ),
}
