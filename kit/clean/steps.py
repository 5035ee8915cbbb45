"""A step of a plan, and what must hold for its arguments before any is carried out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.base import checks
from kit.clean.rules import FRAME_RULES, RULES, as_read

WHERE = "clean.plan"


@dataclass(frozen=True)
class Step:
    """One repair: a rule with its arguments, on a column or (None) on the whole table."""

    column: str | None
    rule: str
    arguments: Any = field(default_factory=dict)  # by name; whatever a person wrote, until checked
    why: str = ""
    rows: int = 0  # that it was planned for; another table may have more or fewer


def check(steps: Iterable[Step], where: str = "clean.apply") -> None:
    """Refuse steps that no rule could carry out.

    Raises:
        ValueError: an unknown rule or argument, a missing one, or one of a wrong value.
    """
    olds: dict[str | None, set[str]] = {}
    for i, step in enumerate(steps, start=1):
        at = f"step {i}"
        check_step(step, at, where)
        if step.rule != "merge":
            continue
        values, before = step.arguments["values"], olds.setdefault(step.column, set())
        again = [new for new in values.values() if new in before]
        if again:
            # the first merge would take them on the second time
            what = "no new word of a merge to be an old one of a merge before it"
            got = f"{again[0]!r} in {_named(step, at)}"
            raise bad(what, got, "Put it before that one.", where)
        before |= set(values)


def check_step(step: Step, at: str, where: str) -> None:
    """Refuse one step that no rule could carry out, called `at` in the message."""
    at, rules = _named(step, at), (*RULES, *FRAME_RULES)
    if step.rule not in rules:
        raise checks.unknown_name(where, "rule", got=step.rule, known=rules)
    if (step.column is None) != (step.rule == "drop_duplicates"):
        raise bad(f"a column for {step.rule!r}", at, "drop_duplicates alone has none.", where)
    _check_arguments(step, at, where)


def _check_arguments(step: Step, at: str, where: str) -> None:
    wanted = ARGUMENTS.get(step.rule, {})
    if not isinstance(step.arguments, dict):
        raise bad("arguments by name", at, 'Write {"name": value}.', where)
    unknown = [name for name in step.arguments if name not in wanted]
    if unknown:
        raise checks.unknown_name(where, f"argument in {at}", got=unknown[0], known=wanted)
    for name, (condition, holds) in wanted.items():
        value = step.arguments.get(name)
        if not holds(value):
            raise bad(f"{name} to be {condition}", f"{value!r} in {at}", "Mend the plan.", where)
    for condition, holds in TOGETHER.get(step.rule, ()):
        if not holds(step.arguments):
            raise bad(condition, f"{shown(step.arguments)} in {at}", "Mend the plan.", where)


def is_words(value: Any) -> bool:
    """Tell whether a value is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_values(value: Any) -> bool:
    return is_words(value) or (isinstance(value, list | tuple) and all(map(_is_number, value)))


def _is_merge(value: Any) -> bool:
    if not (isinstance(value, Mapping) and is_words([*value, *value.values()])):
        return False
    # a to b and b to c would give b once and c the second time
    return not set(value) & set(value.values())


def _is_units(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(unit, str) and unit.strip() and _is_number(factor) and factor > 0
        for unit, factor in value.items()
    )


def _differ(arguments: Mapping) -> bool:
    thousands = arguments["thousands"]
    return not thousands or thousands not in arguments["decimal"]


def _stay_whole(arguments: Mapping) -> bool:
    return not arguments["whole"] or all(factor == 1 for factor in arguments["units"].values())


def _is_range(arguments: Mapping) -> bool:
    low, high = arguments.get("low"), arguments.get("high")
    return low is None or high is None or low <= high


def _are_apart(arguments: Mapping) -> bool:
    return set(as_read(arguments["yes"])).isdisjoint(as_read(arguments["no"]))


def _is_limit(value: Any) -> bool:
    return value is None or _is_number(value)


ARGUMENTS: dict[str, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "strip": {},
    "missing": {"values": ("a list of words or of numbers", _is_values)},
    "merge": {"values": ("{old: new} in which no new word is an old one", _is_merge)},
    "pad": {"width": ("a whole number from 1 to 50", lambda v: type(v) is int and 1 <= v <= 50)},
    "number": {
        "decimal": ("one of '.', ',' and '.,'", lambda v: v in (".", ",", ".,")),
        "thousands": ("'' or a mark of , . ' and blank", lambda v: v in ("", *",. '\u00a0\u202f")),
        "units": ("{unit: factor} with factors above 0", _is_units),
        "whole": ("true or false", lambda v: isinstance(v, bool)),
    },
    "date": {
        "order": ("'day first' or 'month first'", lambda v: v in ("day first", "month first"))
    },
    "yes_no": {"yes": ("a list of words", is_words), "no": ("a list of words", is_words)},
    "limits": {"low": ("a number or null", _is_limit), "high": ("a number or null", _is_limit)},
}
# what holds for the arguments of a rule together
TOGETHER: dict[str, tuple[tuple[str, Callable[[Mapping], bool]], ...]] = {
    "number": (
        ("thousands to be no decimal mark", _differ),
        ("whole numbers to have units of factor 1", _stay_whole),
    ),
    "yes_no": (("no word to be both yes and no", _are_apart),),
    "limits": (("low to be at most high", _is_range),),
}


def _named(step: Step, at: str) -> str:
    return f"{at} ({step.rule} of {step.column!r})"


def shown(arguments: Mapping) -> str:
    """Write arguments on one line."""
    text = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return text if len(text) <= 80 else text[:79] + "…"


def bad(expected: str, got: str, remedy: str, where: str = WHERE) -> ValueError:
    """Return the error of a plan that makes no sense."""
    return checks.bad_value(where, expected=expected, got=checks.Described(got), remedy=remedy)
