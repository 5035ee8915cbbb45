"""Exercises of lesson 7: causal attention, bits per byte, the nucleus of a distribution."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from kit.lesson import Exercise, Trial, near

Answer = Callable[..., Any]


def _attend(answer: Answer) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 5, 4))
    one = answer(q[:1].copy(), k[:1].copy(), v[:1].copy())
    yield Trial("one token: it can only look at itself", str(v[:1].round(3)), *near(one, v[:1]))
    level = np.cumsum(v, axis=0) / np.arange(1, 6)[:, None]
    got = answer(np.zeros((5, 4)), k.copy(), v.copy())
    tried = "queries of zeros: each token receives the mean of the values up to its own"
    yield Trial(tried, str(level.round(3)), *near(got, level))
    scores = np.where(np.tri(5, dtype=bool), q @ k.T / 2, -np.inf)
    right = softmax(scores, axis=1) @ v
    got = answer(q.copy(), k.copy(), v.copy())
    yield Trial("five tokens of four numbers", str(right.round(3)), *near(got, right))
    later = np.vstack([v[:3], 100 * v[3:]])
    got = answer(q.copy(), k.copy(), later)
    tried = "other values of the last two tokens: the first three receive what they did"
    yield Trial(tried, str(right[:3].round(3)), *near(np.asarray(got)[:3], right[:3]))
    got = answer(1e3 * q, k.copy(), v.copy())
    large = softmax(1e3 * scores, axis=1) @ v
    yield Trial("large scores", str(large.round(3)), *near(got, large))


def _bits(answer: Answer) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    got = answer(np.zeros((3, 256)), np.array([0, 7, 255]))
    yield Trial("256 equal logits: nothing is known", "8.0", *near(got, 8.0))
    got = answer(np.log([[0.5, 0.25, 0.25]]), np.array([1]))
    yield Trial("a byte of probability 1/4", "2.0", *near(got, 2.0))
    logits, targets = rng.normal(size=(20, 8)), rng.integers(0, 8, 20)
    right = -log_softmax(logits, axis=1)[np.arange(20), targets].mean() / np.log(2)
    got = answer(logits.copy(), targets.copy())
    yield Trial("twenty bytes of an alphabet of eight", f"{right:.4f}", *near(got, right))
    got = answer(logits + 5000, targets.copy())
    tried = "the same logits and 5,000 more: the probabilities are the same"
    yield Trial(tried, f"{right:.4f}", *near(got, right))


def _nucleus(answer: Answer) -> Iterator[Trial]:
    p = np.array([0.1, 0.5, 0.15, 0.25])
    cases = [
        ("top_p = 1: all stay", p, 1.0, p),
        ("top_p = 0.5: the likeliest holds it alone", p, 0.5, [0, 1, 0, 0]),
        ("top_p = 0.6: two are needed", p, 0.6, [0, 2 / 3, 0, 1 / 3]),
        ("top_p = 0.8: three are needed", p, 0.8, [0, 5 / 9, 1.5 / 9, 2.5 / 9]),
        ("a tiny top_p: one stays, always", p, 1e-9, [0, 1, 0, 0]),
    ]
    for tried, given, top_p, right in cases:
        got = answer(np.array(given), top_p)
        yield Trial(tried, str(np.asarray(right).round(3)), *near(got, right))


EXERCISES = {
    "attend": Exercise(
        _attend,
        (
            "q @ k.T holds every query against every key; divide by the root of d, not of tokens.",
            "Before the softmax, what lies above the diagonal must become minus infinity.",
            "The softmax goes along a row: subtract the row's largest, and nothing overflows.",
        ),
    ),
    "bits": Exercise(
        _bits,
        (
            "Take logarithms of probabilities, pick those of the targets, and average.",
            "log softmax(z) = z − log Σ exp(z); subtract the largest logit of each row first.",
            "np.log counts in nats: a bit has log 2 of them.",
        ),
    ),
    "nucleus": Exercise(
        _nucleus,
        (
            "Sort from the likeliest on, and look at the running sum.",
            "A byte stays if the mass of those before it is still below top_p.",
            "Put zeros elsewhere, in the places where they were, and divide by the sum.",
        ),
    ),
}
