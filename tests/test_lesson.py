"""lesson.check tells what was tried and never the solution; lesson.hint goes one step at a time."""

from collections.abc import Iterator

import pytest

from kit import lesson
from kit.lesson import Exercise, Trial, Verdict


def _doubles(answer) -> Iterator[Trial]:
    for x in (2, 5):
        got = answer(x)
        yield Trial(f"the number {x}", str(2 * x), got, got == 2 * x)


@pytest.fixture(autouse=True)
def one_exercise(monkeypatch):
    exercises = {"double": Exercise(_doubles, ("What is twice?", "x + x"))}
    monkeypatch.setattr(lesson, "names", lambda: ["toy.double"])
    monkeypatch.setattr(lesson, "_load", lambda module: exercises)
    monkeypatch.setattr(lesson, "_hints_given", {})


def test_check_passes_an_answer_for_which_every_trial_holds():
    verdict = lesson.check("toy.double", lambda x: 2 * x)

    assert verdict == Verdict(True, "toy.double: passed. Held: the number 2; the number 5.")


def test_check_tells_the_first_trial_that_fails_and_stops_there():
    asked = []

    verdict = lesson.check("toy.double", lambda x: asked.append(x) or x * x + 1)

    assert asked == [2]
    assert verdict == Verdict(
        False,
        "toy.double: not yet: tried the number 2, expected 4, got 5. "
        "Stuck? lesson.hint('toy.double')",
    )


def test_check_is_not_content_with_the_first_trial():
    verdict = lesson.check("toy.double", lambda x: x * x)

    assert repr(verdict) == (
        "toy.double: not yet: tried the number 5, expected 10, got 25. "
        "Stuck? lesson.hint('toy.double')"
    )


def test_check_says_nothing_came_where_a_stub_returns_none():
    verdict = lesson.check("toy.double", lambda x: None)

    assert "expected 4, got nothing (None)" in verdict.text


def test_check_reports_what_the_answer_raises_instead_of_failing():
    verdict = lesson.check("toy.double", lambda x: x / 0)

    assert verdict == Verdict(
        False,
        "toy.double: not yet: running your answer, expected a value, "
        "got ZeroDivisionError: division by zero. Stuck? lesson.hint('toy.double')",
    )


def test_hints_come_one_at_a_time_and_the_last_one_stays():
    given = [lesson.hint("toy.double") for _ in range(3)]

    assert given == ["Hint 1 of 2: What is twice?", "Hint 2 of 2: x + x", "Hint 2 of 2: x + x"]


@pytest.mark.parametrize(
    ("where", "call"),
    [("lesson.check", lambda name: lesson.check(name, 1)), ("lesson.hint", lesson.hint)],
)
def test_an_unknown_exercise_is_refused_with_the_nearest_name(where, call):
    with pytest.raises(ValueError) as error:
        call("toy.doubel")

    assert str(error.value) == (
        f"{where}: expected a known exercise, got 'toy.doubel' (str). "
        "Did you mean 'toy.double'? Known: toy.double."
    )


def test_the_card_of_a_verdict_escapes_what_the_learner_made():
    card = Verdict(False, "got <script>")._repr_html_()

    assert "&lt;script&gt;" in card
    assert "<script>" not in card
