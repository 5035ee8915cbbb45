"""Exercises of lesson 4: the limit of the learning rate, a step of AdamW, successive halving."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from kit.lesson import Exercise, Trial

Arrays = tuple[np.ndarray, ...]


def _limit(answer: Callable[..., float]) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(50, 1)) + 0.1 * rng.normal(size=(50, 3))
    cases = [
        ("one column of ones: each step multiplies the error by 1 − 2η", np.ones((5, 1)), 1.0),
        ("the same column, in a unit ten times as small", np.full((5, 1), 10.0), 0.01),
        ("three columns that say the same", alike, 1 / _largest(alike)),
        ("the same rows twice", np.vstack([alike, alike]), 1 / _largest(alike)),
    ]
    for tried, A, right in cases:
        got = answer(A.copy())
        yield Trial(tried, f"{right:.4g}", got, _is_close(got, right))


def _largest(A: np.ndarray) -> float:
    return float(np.linalg.norm(A, 2) ** 2 / len(A))


def _adamw(answer: Callable[..., Arrays]) -> Iterator[Trial]:
    w, nought = np.array([1.0, -2.0]), np.zeros(2)
    told = {"lr": 0.1, "decay": 0.0}
    got = answer(w.copy(), np.array([0.5, -3.0]), nought.copy(), nought.copy(), 1, **told)
    is_three = isinstance(got, tuple) and len(got) == 3
    yield Trial("what comes back", "three arrays: w, m, s", got, is_three)
    right = w - 0.1 * np.array([1.0, -1.0])
    tried = "a first step without decay: every weight moves by lr, whatever its slope"
    yield Trial(tried, str(right), got[0], _is_close(got[0], right, atol=1e-6))
    told = {"lr": 0.1, "decay": 0.2}
    got = answer(w.copy(), nought.copy(), nought.copy(), nought.copy(), 1, **told)
    tried = "no slope at all: only the decay is left"
    yield Trial(tried, str(0.98 * w), got[0], _is_close(got[0], 0.98 * w))
    slopes = np.random.default_rng(0).normal(size=(5, 2))
    leaf = torch.nn.Parameter(torch.tensor(w))
    optimizer = torch.optim.AdamW([leaf], lr=0.1, weight_decay=0.2)
    mine, m, s = w, nought, nought
    for k, g in enumerate(slopes, start=1):
        leaf.grad = torch.tensor(g)
        optimizer.step()
        mine, m, s = answer(mine.copy(), g.copy(), m.copy(), s.copy(), k, **told)
    right = leaf.detach().numpy()
    yield Trial("five steps beside torch.optim.AdamW", str(right), mine, _is_close(mine, right))


def _halving(answer: Callable[..., Sequence[int]]) -> Iterator[Trial]:
    losses = [[0.9, 0.2, 0.1], [0.5, 0.6, 0.7], [0.4, 0.5, 0.6], [0.8, 0.3, 0.2]]
    rising = [[0.5, 0.9, 0.9], [0.6, 0.7, 0.1], [0.8, 0.8, 0.8]]
    many = np.random.default_rng(0).random((9, 4)).tolist()
    cases = [
        ("four members, one rung after the first epoch, keep a half", (losses, [1], 0.5), [1, 2]),
        ("no rung: all go on", (losses, [], 0.5), [0, 1, 2, 3]),
        ("a member that was better before", (rising, [2], 1 / 3), [0]),
        ("who fell behind at the first rung stays out", (losses, [1, 3], 0.5), [2]),
        ("nine members, rungs after 2 and 4, keep a third", (many, [2, 4], 1 / 3), None),
        ("three members, keep a half: two go on", (rising, [1], 0.5), [0, 1]),
    ]
    for tried, (rows, rungs, keep), known in cases:
        right = known or _survivors(rows, rungs, keep)
        got = answer([list(row) for row in rows], list(rungs), keep)
        ok = got is not None and [int(i) for i in got] == right
        yield Trial(tried, str(right), got, ok)


def _survivors(losses: list[list[float]], rungs: list[int], keep: float) -> list[int]:
    lowest = np.minimum.accumulate(losses, axis=1)
    left = np.arange(len(losses))
    for rung in rungs:
        n = int(np.ceil(keep * len(left) - 1e-9))
        left = left[lowest[left, rung - 1].argsort(kind="stable")[:n]]
    return sorted(left.tolist())


def _is_close(got: Any, right: Any, atol: float = 1e-9) -> bool:
    return (
        got is not None and np.shape(got) == np.shape(right) and np.allclose(got, right, atol=atol)
    )


EXERCISES = {
    "limit": Exercise(
        _limit,
        (
            "A step multiplies the error along an eigenvector of H by 1 − ηλ.",
            "The largest λ is the first to leave (−1, 1): at η = 2/λ.",
            "H is the second derivative of the loss: 2/n AᵀA, the 2 included.",
        ),
    ),
    "adamw": Exercise(
        _adamw,
        (
            "m and s never see the decay: they are means of slopes.",
            "The weights lose lr · decay · w, beside Adam's own step.",
            "m / (1 − b1ᵏ) and s / (1 − b2ᵏ) undo the start at zero; eps is added to the root.",
        ),
    ),
    "halving": Exercise(
        _halving,
        (
            "Keep a list of those that run; at each rung, sort it and cut it.",
            "After rung epochs, a member's lowest loss so far is min(losses[i][:rung]).",
            "math.ceil(keep * len(running)) go on, of those that still run.",
        ),
    ),
}
