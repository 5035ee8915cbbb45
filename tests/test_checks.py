"""Errors say what was expected, what came and what to type, in one line."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit.base import checks


@pytest.mark.parametrize(
    ("got", "shown"),
    [
        (0, "0 (int)"),
        ("a", "'a' (str)"),
        (None, "None (NoneType)"),
        (np.float64(0.5), "0.5 (float)"),
        (torch.tensor(3), "3 (int)"),
        (torch.zeros(2, 3), "Tensor of shape (2, 3)"),
        (pd.DataFrame({"a": [1, 2]}), "DataFrame of shape (2, 1)"),
        (checks.Described("3 columns"), "3 columns"),
    ],
    ids=str,
)
def test_a_value_is_shown_as_itself_and_a_table_by_its_shape(got, shown):
    error = checks.bad_value("module.function", expected="x", got=got, remedy="Do y.")

    assert type(error) is ValueError
    assert str(error) == f"module.function: expected x, got {shown}. Do y."


@given(st.text())
def test_any_text_makes_a_message_of_one_short_line(text):
    message = str(checks.bad_type("module.function", expected="x", got=text * 50, remedy="Do y."))

    assert len(message.splitlines()) == 1
    assert len(message) < 250


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=60, unique=True), st.data())
def test_a_name_with_one_letter_too_many_meets_the_name_that_was_meant(known, data):
    meant = "flights_" + data.draw(st.sampled_from(known))

    error = checks.unknown_name("m.f", "name", got=meant + "s", known=[*known, meant])

    assert f"Did you mean {meant!r}? " in str(error)


def test_of_many_names_the_first_twenty_are_listed():
    error = checks.unknown_name("m.f", "column", got="zzz", known=[f"c{i:02}" for i in range(25)])

    listed = ", ".join(f"c{i:02}" for i in range(20))
    expected = f"m.f: expected a known column, got 'zzz' (str). Known: {listed} and 5 more."
    assert str(error) == expected


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(ModuleNotFoundError) as caught:
        checks.need("no_such_package", purpose="train.fit", extra="test")

    assert str(caught.value) == (
        "train.fit: expected the package 'no_such_package', got none. "
        "Install it: pip install 'modelcare[test]'"
    )


def test_a_package_that_is_broken_inside_keeps_its_own_message(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError) as caught:
        checks.need("broken_inside", purpose="train.fit", extra="test")

    assert str(caught.value) == "No module named 'no_such_dependency'"


def test_a_package_that_is_there_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "there", types.ModuleType("there"))

    assert checks.need("there", purpose="m.f", extra="test") is sys.modules["there"]
