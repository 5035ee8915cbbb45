"""Exercises of lesson 1: a reader of amounts, and a key for names that mean the same."""

from collections.abc import Callable, Hashable, Iterator

from kit.lesson import Exercise, Trial

AMOUNTS = {
    "12": 12.0,
    "$12.50": 12.5,
    "12,50 €": 12.5,
    "$1,234.50": 1234.5,
    "1.234,50 €": 1234.5,
    "1,234": 1234.0,
    "12 %": 0.12,
    "n/a": None,
    "-3.5": -3.5,
}
SAME = [
    ("Boeing", "BOEING"),
    ("AIRBUS INDUSTRIE", "Airbus"),
    ("Bombardier, Inc.", "BOMBARDIER INC"),
    ("McDonnell Douglas Corporation", "MCDONNELL DOUGLAS"),
]
OTHER = [("DOUGLAS", "MCDONNELL DOUGLAS"), ("BOEING", "BEECH"), ("CANADAIR", "CANADAIR LEARJET")]


def _amount(answer: Callable[[str], float | None]) -> Iterator[Trial]:
    for text, right in AMOUNTS.items():
        got = answer(text)
        ok = got is None if right is None else got is not None and bool(abs(got - right) < 1e-9)
        yield Trial(f"{text!r}", str(right), got, ok)


def _key(answer: Callable[[str], Hashable]) -> Iterator[Trial]:
    for one, other in SAME:
        got = answer(one), answer(other)
        ok = got[0] is not None and got[0] == got[1]
        yield Trial(f"{one!r} and {other!r}", "equal keys", got, ok)
    for one, other in OTHER:
        got = answer(one), answer(other)
        yield Trial(f"{one!r} and {other!r}", "keys that differ", got, got[0] != got[1])


EXERCISES = {
    "amount": Exercise(
        _amount,
        (
            "First decide which mark is the decimal one: of a point and a comma, the last.",
            "A single comma before exactly three digits, as in 1,234, marks thousands.",
            "Where no digit is left, there is no amount: None.",
        ),
    ),
    "key": Exercise(
        _key,
        (
            "Take the words, without punctuation and case: re.findall(r'\\w+', name.lower()).",
            "Leave out the words that say only what kind of firm it is: INC, CO, CORPORATION …",
        ),
    ),
}
