"""Bars are for people; a batch is silent and loses no item."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.base import progress


@given(st.lists(st.integers()))
def test_every_item_comes_through_in_order(items):
    assert list(progress.track(iter(items), label="x", total=len(items))) == items


@pytest.mark.parametrize(
    ("value", "is_quiet"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_the_switch_is_an_environment_variable(monkeypatch, value, is_quiet):
    monkeypatch.setenv("KIT_QUIET", value)

    assert progress.quiet() is is_quiet


def test_a_batch_prints_nothing_and_a_person_sees_the_label(monkeypatch, capsys):
    monkeypatch.setenv("KIT_QUIET", "1")
    silent = list(progress.track(range(3), label="counting"))
    nothing = capsys.readouterr()
    monkeypatch.setenv("KIT_QUIET", "0")
    watched = list(progress.track(range(3), label="counting"))
    bar = capsys.readouterr()

    assert silent == watched == [0, 1, 2]
    assert nothing == ("", "")
    assert "counting" in bar.err
    assert bar.out == ""
