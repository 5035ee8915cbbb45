"""Exercises that check themselves: properties are tried, and the first that fails is told."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from kit.base import checks


@dataclass(frozen=True)
class Trial:
    """One property that was tried on a learner's answer."""

    tried: str  # in words, with the input
    expected: str
    got: object
    ok: bool


@dataclass(frozen=True)
class Exercise:
    """What an answer must do, and the hints on the way, the gentlest first."""

    trials: Callable[[Any], Iterator[Trial]]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What a check found, for a cell to show."""

    passed: bool
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        mark, colour = ("✓", "#65a169") if self.passed else ("…", "#d47907")
        return (
            f'<div style="border-left:4px solid {colour};padding:.4em .8em">'
            f"<b>{mark}</b> {escape(self.text)}</div>"
        )


def near(got: Any, right: Any) -> tuple[Any, bool]:
    """Return what came and whether it is right: numbers of the same shape, up to rounding."""
    is_same = got is not None and np.shape(got) == np.shape(right)
    return got, is_same and bool(np.allclose(got, right))


_hints_given: dict[str, int] = {}


def check(name: str, answer: object) -> Verdict:
    """Try an answer; say what was tried, what was expected and what came, never the solution.

    Args:
        name: of the exercise, as `lesson.exercise`.
        answer: what the exercise asks for, most often a function.

    Returns:
        "passed" with what held, or "not yet" with the first property that did not.

    Raises:
        ValueError: no exercise of that name.
    """
    exercise = _find(name, "lesson.check")
    held: list[str] = []
    trials = exercise.trials(answer)
    while True:
        try:
            trial = next(trials)
        except StopIteration:
            return Verdict(True, f"{name}: passed. Held: {'; '.join(held)}.")
        except Exception as error:  # whatever the learner's code raises is an answer to report
            came = f"{type(error).__name__}: {error}"
            return _not_yet(name, f"running your answer, expected a value, got {came}")
        if not trial.ok:
            came = "nothing (None)" if trial.got is None else str(trial.got)
            return _not_yet(name, f"tried {trial.tried}, expected {trial.expected}, got {came}")
        held.append(trial.tried)


def hint(name: str) -> str:
    """Return the next hint of an exercise; from the last one on, the last one again.

    Args:
        name: of the exercise, as `lesson.exercise`.

    Raises:
        ValueError: no exercise of that name.
    """
    hints = _find(name, "lesson.hint").hints
    number = min(_hints_given.get(name, 0) + 1, len(hints))
    _hints_given[name] = number
    return f"Hint {number} of {len(hints)}: {hints[number - 1]}"


def names() -> list[str]:
    """Return the names of all exercises."""
    import kit.exercises

    modules = [module.name for module in pkgutil.iter_modules(kit.exercises.__path__)]
    return [f"{module}.{name}" for module in sorted(modules) for name in _load(module)]


def _find(name: str, where: str) -> Exercise:
    module, _, exercise = name.partition(".")
    known = names()
    if name not in known:
        raise checks.unknown_name(where, "exercise", got=name, known=known)
    return _load(module)[exercise]


def _load(module: str) -> dict[str, Exercise]:
    return importlib.import_module(f"kit.exercises.{module}").EXERCISES


def _not_yet(name: str, why: str) -> Verdict:
    return Verdict(False, f"{name}: not yet: {why}. Stuck? lesson.hint({name!r})")
