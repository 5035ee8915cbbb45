"""A plan: ordered steps that a person can read, edit, drop and save, and the doubts beside them."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.clean.rules import FRAME_RULES
from kit.clean.steps import WHERE, Step, bad, check, check_step, is_words, shown

VERSION = 1


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
            raise bad(what, "none in this plan", remedy, "plan.drop")
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
            raise bad(
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
            raise bad(
                "the JSON of a plan", what, "Write it with plan.to_json(), and edit that."
            ) from None
        version = content.get("plan", VERSION)
        if version != VERSION:
            remedy = "Read it with the modelcare that wrote it, or plan anew."
            raise bad(f"a plan of version {VERSION}", repr(version), remedy)
        read = [step for step in steps if step]
        check(read)
        for i, doubt in enumerate(doubts, start=1):
            if doubt.step:
                check_step(doubt.step, f"the step of doubt {i}", "clean.apply")
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
        [(step.column, step.rule, shown(step.arguments), step.rows, step.why) for step in steps],
        columns=["column", "rule", "arguments", "rows", "why"],
    )
    return Plan(table=table, steps=steps, doubts=tuple(doubts), columns=tuple(columns))


# the order in which repairs make sense: each can rely on those before it
ORDER = ("strip", "missing", "merge", "pad", "number", "date", "yes_no", "limits", *FRAME_RULES)


def _ordered(steps: Collection[Step]) -> list[Step]:
    """Order steps by column and rule; numbers are missing only once they are numbers."""

    def place(step: Step) -> tuple:
        by_frame = step.rule in FRAME_RULES
        column = "" if by_frame else firsts[step.column]
        numeric = step.rule == "missing" and not is_words(step.arguments["values"])
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
