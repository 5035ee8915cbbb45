"""Exercises of lesson 2: mixing two rows, and a verdict that asks for more than a mean."""

from collections.abc import Callable, Iterator

import numpy as np

from kit.lesson import Exercise, Trial


def _mixup(answer: Callable[..., tuple[np.ndarray, float]]) -> Iterator[Trial]:
    xa, xb = np.array([0.0, 10.0]), np.array([4.0, 20.0])
    cases = [
        ("a share of 1", (1, 0, 1.0), ([0.0, 10.0], 1.0)),
        ("a share of one quarter", (1, 0, 0.25), ([3.0, 17.5], 0.25)),
        ("two rows of the same class", (1, 1, 0.5), ([2.0, 15.0], 1.0)),
    ]
    for tried, (ya, yb, lam), (row, label) in cases:
        got = answer(xa.copy(), xb.copy(), ya, yb, lam)
        is_pair = isinstance(got, tuple) and len(got) == 2
        ok = is_pair and np.allclose(got[0], row) and np.isclose(float(got[1]), label)
        shown = (np.round(got[0], 3).tolist(), round(float(got[1]), 3)) if is_pair else got
        yield Trial(
            f"{tried}, rows [0, 10] and [4, 20], answers {ya} and {yb}",
            f"row {row} and answer {label:g}",
            shown,
            bool(ok),
        )


def _worth_it(answer: Callable[..., bool]) -> Iterator[Trial]:
    cases = [
        ("gains that agree", [0.02, 0.03, 0.02, 0.03], 2.8, True),
        ("one lucky seed among losses", [-0.01, -0.01, -0.01, 0.2], 2.8, False),
        ("losses that agree", [-0.02, -0.03, -0.02], 2.8, False),
        ("gains that scatter, told apart by many seeds", [0.0, 0.04] * 32, 2.0, True),
        ("the same scatter in four seeds", [0.0, 0.04] * 2, 2.0, False),
    ]
    for tried, gains, t, right in cases:
        got = answer(list(gains), t)
        ok = got is not None and bool(got) == right
        yield Trial(f"{tried}, t = {t:g}", str(right), got, ok)


EXERCISES = {
    "mixup": Exercise(
        _mixup,
        (
            "Mix the answers in the same shares as the rows.",
            "The share of the second row is what the first one leaves: 1 - lam.",
        ),
    ),
    "worth_it": Exercise(
        _worth_it,
        (
            "A mean above zero may be luck: compare it with its own uncertainty.",
            "The standard error of a mean is the standard deviation (of a sample: ddof=1) over √n.",
        ),
    ),
}
