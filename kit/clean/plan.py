"""A plan: ordered steps that a person can read, edit, drop and save, and the doubts beside them."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.clean.rules import FRAME_RULES, RULES, as_read

WHERE = "clean.plan"
VERSION = 1


@dataclass(frozen=True)
class Step:
    """One repair: a rule with its arguments, on a column or (None) on the whole table."""

    column: str | None
    rule: str
    arguments: Any = field(default_factory=dict)  # by name; whatever a person wrote, until checked
    why: str = ""
    rows: int = 0  # that it was planned for; another table may have more or fewer


@dataclass(frozen=True)
class Doubt:
    """What looks wrong and may be right: left alone until a person accepts the step for it."""

    column: str | None
    kind: str
    values: tuple = ()  # that are meant; none where rows or a column are
    why: str = ""
    rows: int = 0
    step: Step | None = None  # that would repair it, if there is one


@result
class Plan(Result):
    """Hold the steps in order, and what was left alone; `table` has a row a step."""

    steps: tuple[Step, ...]
    doubts: tuple[Doubt, ...]
    columns: tuple[str, ...]  # of the table that was looked at

    def facts(self) -> dict[str, str]:
        """Return how many steps there are, on how many columns, and what was left alone."""
        return {
            "steps": short(len(self.steps)),
            "columns": short(len({step.column for step in self.steps} - {None})),
            "doubts left alone": short(len(self.doubts)),
        }

    def drop(self, *, column: str | None = None, rule: str | None = None) -> "Plan":
        """Return a plan without the steps of a column, of a rule, or of a rule on a column.

        Raises:
            ValueError: there is no such step.
        """
        kept = [step for step in self.steps if not _is(step, column, rule)]
        if len(kept) == len(self.steps):
            named = [f"of {column!r}"] * (column is not None) + [f"{rule!r}"] * (rule is not None)
            what = " ".join(["a step", *named])
            remedy = "Look at plan.table for those there are."
            raise _bad(what, "none in this plan", remedy, "plan.drop")
        return make(kept, self.doubts, self.columns)

    def accept(self, kind: str, *, column: str | None = None) -> "Plan":
        """Return a plan that also takes the steps proposed for doubts of a kind.

        Args:
            kind: of the doubts, such as "near duplicates".
            column: of the doubts; None takes all columns.

        Raises:
            ValueError: there is no such doubt, or nothing is proposed for it.
        """
        known = sorted({doubt.kind for doubt in self.doubts if doubt.step})
        if kind not in known:
            raise checks.unknown_name("plan.accept", "doubt with a step", got=kind, known=known)
        taken = [
            doubt
            for doubt in self.doubts
            if doubt.kind == kind and doubt.step and column in (None, doubt.column)
        ]
        if not taken:
            with_it = [repr(d.column) for d in self.doubts if d.kind == kind and d.step]
            raise _bad(
                f"a doubt about {kind} in column {column!r}",
                "none",
                f"Pass one of: {checks.listed(with_it)}.",
                "plan.accept",
            )
        left = [doubt for doubt in self.doubts if doubt not in taken]
        added = [doubt.step for doubt in taken if doubt.step]
        return make(_ordered(_in_turn([*self.steps, *added])), left, self.columns)

    def to_json(self) -> str:
        """Write the plan as JSON, for a person to edit and for `Plan.from_json` to read."""
        content = {
            "plan": VERSION,
            "columns": self.columns,
            "steps": [asdict(step) for step in self.steps],
            "doubts": [asdict(doubt) for doubt in self.doubts],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan, and check each step of it.

        Raises:
            ValueError: no JSON, no plan, one of another version, an unknown rule, or arguments that
                make no sense.
        """
        try:
            content = json.loads(text)
            doubts = [
                Doubt(**{**doubt, "values": tuple(doubt["values"]), "step": _step(doubt["step"])})
                for doubt in content["doubts"]
            ]
            steps = [_step(step) for step in content["steps"]]
            columns = tuple(content["columns"])
        except (ValueError, TypeError, KeyError) as error:
            what = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise _bad(
                "the JSON of a plan", what, "Write it with plan.to_json(), and edit that."
            ) from None
        version = content.get("plan", VERSION)
        if version != VERSION:
            remedy = "Read it with the modelcare that wrote it, or plan anew."
            raise _bad(f"a plan of version {VERSION}", repr(version), remedy)
        read = [step for step in steps if step]
        check(read)
        for i, doubt in enumerate(doubts, start=1):
            if doubt.step:
                _check_step(doubt.step, f"the step of doubt {i}", "clean.apply")
        return make(read, doubts, columns)


def plan(audit: Any) -> Plan:
    """Plan the repairs that are sure, in an order in which each can rely on those before it.

    Args:
        audit: as `clean.look` returned it.

    Returns:
        The steps, and the doubts that `plan.accept(kind)` turns into steps.

    Raises:
        TypeError: it is no audit.
    """
    if not isinstance(getattr(audit, "steps", None), tuple) or not hasattr(audit, "n_rows"):
        remedy = "Pass clean.look(frame)."
        raise checks.bad_type(WHERE, expected="an audit", got=audit, remedy=remedy)
    return make(_ordered(audit.steps), audit.doubts, tuple(audit.columns["column"]))


def make(steps: Iterable[Step], doubts: Iterable[Doubt], columns: Sequence[str]) -> Plan:
    """Put steps together to a plan, in the order given."""
    steps = tuple(steps)
    table = pd.DataFrame(
        [(step.column, step.rule, _shown(step.arguments), step.rows, step.why) for step in steps],
        columns=["column", "rule", "arguments", "rows", "why"],
    )
    return Plan(table=table, steps=steps, doubts=tuple(doubts), columns=tuple(columns))


def check(steps: Iterable[Step], where: str = "clean.apply") -> None:
    """Refuse steps that no rule could carry out.

    Raises:
        ValueError: an unknown rule or argument, a missing one, or one of a wrong value.
    """
    olds: dict[str | None, set[str]] = {}
    for i, step in enumerate(steps, start=1):
        at = f"step {i}"
        _check_step(step, at, where)
        if step.rule != "merge":
            continue
        values, before = step.arguments["values"], olds.setdefault(step.column, set())
        again = [new for new in values.values() if new in before]
        if again:
            # the first merge would take them on the second time
            what = "no new word of a merge to be an old one of a merge before it"
            got = f"{again[0]!r} in {_named(step, at)}"
            raise _bad(what, got, "Put it before that one.", where)
        before |= set(values)


def _check_step(step: Step, at: str, where: str) -> None:
    at, rules = _named(step, at), (*RULES, *FRAME_RULES)
    if step.rule not in rules:
        raise checks.unknown_name(where, "rule", got=step.rule, known=rules)
    if (step.column is None) != (step.rule == "drop_duplicates"):
        raise _bad(f"a column for {step.rule!r}", at, "drop_duplicates alone has none.", where)
    _check_arguments(step, at, where)


def _check_arguments(step: Step, at: str, where: str) -> None:
    wanted = ARGUMENTS.get(step.rule, {})
    if not isinstance(step.arguments, dict):
        raise _bad("arguments by name", at, 'Write {"name": value}.', where)
    unknown = [name for name in step.arguments if name not in wanted]
    if unknown:
        raise checks.unknown_name(where, f"argument in {at}", got=unknown[0], known=wanted)
    for name, (condition, holds) in wanted.items():
        value = step.arguments.get(name)
        if not holds(value):
            raise _bad(f"{name} to be {condition}", f"{value!r} in {at}", "Mend the plan.", where)
    for condition, holds in TOGETHER.get(step.rule, ()):
        if not holds(step.arguments):
            raise _bad(condition, f"{_shown(step.arguments)} in {at}", "Mend the plan.", where)


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_values(value: Any) -> bool:
    return _is_words(value) or (isinstance(value, list | tuple) and all(map(_is_number, value)))


def _is_merge(value: Any) -> bool:
    if not (isinstance(value, Mapping) and _is_words([*value, *value.values()])):
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
    "yes_no": {"yes": ("a list of words", _is_words), "no": ("a list of words", _is_words)},
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
# the order in which repairs make sense: each can rely on those before it
ORDER = ("strip", "missing", "merge", "pad", "number", "date", "yes_no", "limits", *FRAME_RULES)


def _ordered(steps: Collection[Step]) -> list[Step]:
    """Order steps by column and rule; numbers are missing only once they are numbers."""

    def place(step: Step) -> tuple:
        by_frame = step.rule in FRAME_RULES
        column = "" if by_frame else firsts[step.column]
        numeric = step.rule == "missing" and not _is_words(step.arguments["values"])
        return by_frame, column, ORDER.index("limits" if numeric else step.rule)

    firsts: dict[str | None, int] = {}
    for step in steps:
        firsts.setdefault(step.column, len(firsts))
    return sorted(steps, key=place)


def _in_turn(steps: Iterable[Step]) -> list[Step]:
    """Put a merge before the first one that takes its new words on."""
    done: list[Step] = []
    for step in steps:
        at = next((i for i, other in enumerate(done) if _feeds(step, other)), len(done))
        done.insert(at, step)
    return done


def _feeds(step: Step, other: Step) -> bool:
    if not (step.rule == other.rule == "merge" and step.column == other.column):
        return False
    return not set(step.arguments["values"].values()).isdisjoint(other.arguments["values"])


def _is(step: Step, column: str | None, rule: str | None) -> bool:
    return (column is None or step.column == column) and (rule is None or step.rule == rule)


def _step(content: Mapping | None) -> Step | None:
    if content is None:
        return None
    for name in ("column", "rule"):
        if not isinstance(content[name], str | None):
            raise TypeError(f"{name} of a step is {content[name]!r}, which is no text")
    return Step(**content)


def _named(step: Step, at: str) -> str:
    return f"{at} ({step.rule} of {step.column!r})"


def _shown(arguments: Mapping) -> str:
    text = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return text if len(text) <= 80 else text[:79] + "…"


def _bad(expected: str, got: str, remedy: str, where: str = WHERE) -> ValueError:
    return checks.bad_value(where, expected=expected, got=checks.Described(got), remedy=remedy)
