"""Parameters are read without running anything; what is typed becomes a value of the right type."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.base import params
from kit.base.params import Parameter, typeable

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# of a text, the words for None and blanks around list items cannot be told from what they mean
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
VALUES = {
    "int": st.integers(),
    "float": FLOATS,
    "str": TEXTS,
    "bool": st.booleans(),
    "list[int]": st.lists(st.integers()),
    "list[float]": st.lists(FLOATS),
    "list[str]": st.lists(TEXTS),
    "list[bool]": st.lists(st.booleans()),
}
NONE_WORDS = {"none", "null", ""}


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_what_typeable_writes_parse_reads_back(kind, data):
    value = data.draw(VALUES[kind])

    read = Parameter("x", kind, value).parse(typeable(value))

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_an_optional_parameter_reads_back_values_and_none(kind, data):
    value = data.draw(VALUES[kind].filter(lambda v: str(v).strip().lower() not in NONE_WORDS))
    parameter = Parameter("x", f"{kind} | None", None)

    assert parameter.parse(typeable(value)) == value
    assert parameter.parse(typeable(None)) is None


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(-2000, 2000))
def test_a_value_passes_exactly_if_it_lies_in_the_range_of_the_comment(a, b, value):
    low, high = sorted((a, b))
    (parameter,) = params.from_source(f"n: int = {low}  # how many ({low:,} to {high:,})")

    if low <= value <= high:
        assert parameter.parse(str(value)) == value
    else:
        with pytest.raises(ValueError) as caught:
            parameter.parse(str(value))
        assert str(caught.value) == (
            f"kit report: expected n from {low:,} to {high:,}, got {value}. Type: -p n={low}"
        )


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("YES", True), ("1", True), ("on", True), ("False", False), ("no", False)],
)
def test_words_for_true_and_false_are_understood(word, value):
    assert Parameter("x", "bool", False).parse(word) is value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "3.5"),
        ("int", "many"),
        ("int", ""),
        ("int", "1e3"),
        ("float", "fast"),
        ("float", "nan"),
        ("float", "inf"),
        ("float", "1e999"),
        ("bool", "maybe"),
        ("bool", "2"),
        ("list[int]", "1,x"),
        ("list[int]", "[1, 2"),
        ("list[int]", "[1.5]"),
        ("list[float]", "[null]"),
        ("list[float]", "[[1]]"),
        ("list[str]", '[{"a": 1}]'),
        ("list[int]", "[" * 100_000),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_line(kind, text):
    with pytest.raises(ValueError) as caught:
        Parameter("x", kind, [] if "list" in kind else 5).parse(text)

    assert str(caught.value) == (
        f"kit report: expected x of type {kind}, got {text!r}. "
        f"Type: -p x={'[]' if 'list' in kind else 5}"
    )


def test_scientific_notation_is_a_float():
    assert Parameter("lr", "float", 0.1).parse("1e-3") == 0.001


def test_a_cell_gives_name_type_default_comment_and_range_of_every_line():
    source = """
# knobs
data: str = "a # b"  # a path; "" means #1, the bundled data
rows: int | None = None  # rows to read (1 or more)
rates: list[float] = [
    0.1,
    0.2,
]  # to try (1e-6 to 1.5)
fast: bool = True
share: float = .5  # of the rows (.1 to .9)
"""

    found = params.from_source(source)

    assert found == [
        Parameter("data", "str", "a # b", 'a path; "" means #1, the bundled data'),
        Parameter("rows", "int | None", None, "rows to read (1 or more)", 1, math.inf),
        Parameter("rates", "list[float]", [0.1, 0.2], "to try (1e-6 to 1.5)", 1e-6, 1.5),
        Parameter("fast", "bool", True),
        Parameter("share", "float", 0.5, "of the rows (.1 to .9)", 0.1, 0.9),
    ]


@pytest.mark.parametrize("comment", ["... or more)", "(a or more)", "(... to ...)", "(1,2 to x)"])
def test_a_comment_without_a_range_sets_none(comment):
    (found,) = params.from_source(f"x: float = 0.0  # {comment}")

    assert (found.low, found.high) == (-math.inf, math.inf)


FORM = "lines of the form `name: type = literal`"
KNOWN = "int, float, str, bool, list[…] of one of these, or any of them | None"
MOVE, SUCH = "Move other code to the next cell.", "Write for example `lr: float = 0.001`."
LITERAL, COMPUTE = "a literal as the default of x", "Compute it in the next cell."
DEFAULT = "a default of x of type"


@pytest.mark.parametrize(
    ("source", "expected", "got", "remedy"),
    [
        ("x = 5", FORM, "`x = 5`", MOVE),
        ("import os", FORM, "`import os`", MOVE),
        ("x: int", FORM, "`x: int`", MOVE),
        ("if x:\n    y = 1", FORM, "`if x:`", MOVE),
        (
            "%matplotlib inline",
            "lines of Python",
            "`%matplotlib inline` in line 1",
            "Move it to the next cell.",
        ),
        ("x: dict = {}", KNOWN, "dict", SUCH),
        ("x: int | str = 5", KNOWN, "int | str", SUCH),
        ("x: list = []", KNOWN, "list", SUCH),
        ("x: None = None", KNOWN, "None", SUCH),
        ("x: int = f()", LITERAL, "`f()`", COMPUTE),
        ("x: int = 2 * 3", LITERAL, "`2 * 3`", COMPUTE),
        ("x: int = 0.5", f"{DEFAULT} int", "0.5", "Write for example `x: int = 5`."),
        ("x: int = True", f"{DEFAULT} int", "True", "Write for example `x: int = 5`."),
        ("x: str = None", f"{DEFAULT} str", "None", 'Write for example `x: str = "a"`.'),
        (
            "x: list[int] = 5",
            f"{DEFAULT} list[int]",
            "5",
            "Write for example `x: list[int] = [5]`.",
        ),
        (
            "x: list[int] = ['a']",
            f"{DEFAULT} list[int]",
            "['a']",
            "Write for example `x: list[int] = [5]`.",
        ),
        ("x: float = 1e999", f"{DEFAULT} float", "inf", "Write for example `x: float = 0.1`."),
        ("x: int = 0  # (1 or more)", "a default of x of 1 or more", "0", "Change one."),
    ],
)
def test_a_cell_that_is_more_than_literals_is_refused(source, expected, got, remedy):
    with pytest.raises(ValueError) as caught:
        params.from_source(source)

    assert str(caught.value) == f"params.read: expected {expected}, got {got}. {remedy}"


def notebook(*cells: tuple[list[str], str]) -> dict:
    return {
        "cells": [
            {"cell_type": "code", "metadata": {"tags": tags}, "source": source.splitlines(True)}
            for tags, source in cells
        ]
    }


def test_a_notebook_is_read_from_its_file_and_only_the_tagged_cell_counts(tmp_path):
    path = tmp_path / "a.ipynb"
    content = notebook(([], "1/0"), (["x", "parameters"], "n: int = 5  # how many\nm: str = ''"))
    path.write_text(json.dumps(content))

    assert params.read(path) == params.read(content) == [
        Parameter("n", "int", 5, "how many"),
        Parameter("m", "str", ""),
    ]  # fmt: skip
    assert params.read(notebook(([], "n: int = 5"))) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("", "not a notebook of format 4"),
        ("[1]", "not a notebook of format 4"),
        ('{"worksheets": []}', "not a notebook of format 4"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path, content, why):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ValueError) as caught:
        params.read(path)

    assert str(caught.value) == (
        f"params.read: expected a notebook, got '{path}' ({why}). Check the path."
    )


EPOCHS = [Parameter("epochs", "int", 5), Parameter("data", "str", "")]


def test_pairs_become_values_and_a_value_may_hold_an_equals_sign():
    assert params.parse_all(["epochs = 3", "data=a=b"], EPOCHS) == {"epochs": 3, "data": "a=b"}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            "epoch=3",
            (
                "kit report: expected a known parameter, got 'epoch' (str). "
                "Did you mean 'epochs'? Known: data, epochs."
            ),
        ),
        ("epochs", "kit report: expected name=value after -p, got 'epochs'. Type: -p epochs=…"),
        (
            "epochs=many",
            "kit report: expected epochs of type int, got 'many'. Type: -p epochs=5",
        ),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(pair, message):
    with pytest.raises(ValueError) as caught:
        params.parse_all([pair], EPOCHS)

    assert str(caught.value) == message
