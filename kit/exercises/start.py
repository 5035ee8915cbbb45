"""Exercises of lesson 0: what late means, what may be known, when an alarm pays."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from kit.lesson import Exercise, Trial

LEAKS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
KNOWN = {"sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "distance", "tailnum"}


def _late_frac(answer: Callable[[pd.Series], float]) -> Iterator[Trial]:
    cases = [
        ("delays of 14 and 16 minutes", [14, 16], 0.5, "half of the flights late"),
        ("one delay of exactly 15 minutes", [15], 1.0, "15 minutes to count as late"),
        ("an early flight and a late one", [-20, 40], 0.5, "early flights not to count as late"),
        (
            "a late flight, a punctual one and two that never arrived",
            [30, 0, None, None],
            0.5,
            "only flights that arrived to be counted",
        ),
    ]
    for tried, delays, right, expected in cases:
        got = answer(pd.Series(delays, dtype="Int32"))
        ok = got is not None and bool(np.isclose(float(got), right))
        yield Trial(tried, f"{expected}: {right}", got, ok)


def _known_before(answer: set[str]) -> Iterator[Trial]:
    names = set(answer)
    leaked = sorted(names & LEAKS)
    yield Trial(
        "the columns an hour before departure",
        "none that is known only later",
        ", ".join(leaked) or "none",
        not leaked,
    )
    lost = sorted(KNOWN - names)
    yield Trial(
        "the columns of the schedule",
        "all of them kept: whoever sells the ticket knows them",
        f"no {', '.join(lost)}" if lost else "all",
        not lost,
    )


def _worth_an_alarm(answer: Callable[..., np.ndarray]) -> Iterator[Trial]:
    p = np.array([0.1, 0.3, 0.9])
    cases = [
        ("an alarm that costs a fifth of a surprise", (1.0, 5.0), [False, True, True]),
        ("an alarm that costs nothing", (0.0, 5.0), [True, True, True]),
        ("an alarm dearer than the surprise", (6.0, 5.0), [False, False, False]),
        ("both costs doubled", (2.0, 10.0), [False, True, True]),
    ]
    for tried, (alarm, surprise), right in cases:
        got = answer(p.copy(), alarm_cost=alarm, surprise_cost=surprise)
        ok = got is not None and np.asarray(got).tolist() == right
        yield Trial(f"{tried}, probabilities 0.1, 0.3, 0.9", str(right), got, ok)


EXERCISES = {
    "late_frac": Exercise(
        _late_frac,
        (
            "A flight is late from 15 minutes on: is 15 itself inside?",
            "Which rows have no delay at all, and should they be in the denominator?",
            "A comparison of a missing value is missing too; `.mean()` leaves missing values out.",
        ),
    ),
    "known_before": Exercise(
        _known_before,
        (
            "For each column ask: who could write this cell an hour before departure?",
            "Anything that the aircraft itself must first do (leave, fly, land) is out.",
        ),
    ),
    "worth_an_alarm": Exercise(
        _worth_an_alarm,
        (
            "What does a flight cost on average without alarm, late with probability p?",
            "Compare that with the cost of the alarm, which is paid for certain.",
        ),
    ),
}
