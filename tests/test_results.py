"""Records are data first; as text they are one line, as HTML a card that escapes."""

import math
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.base.numbers import short
from kit.base.results import Result, result


@result
class Found(Result):
    names: tuple[str, ...] = ("a",)

    def facts(self) -> dict[str, str]:
        return {name: short(i) for i, name in enumerate(self.names)}


class Texts(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


def test_as_text_a_record_is_its_facts_and_the_size_of_its_table():
    found = Found(table=pd.DataFrame({"x": [1, 2]}), names=("a", "b"))

    assert str(found) == repr(found) == "Found(a 0, b 1; table of 2 rows)"


def test_a_record_is_frozen_and_compared_by_identity():
    found, twin = (Found(table=pd.DataFrame({"x": [1]})) for _ in range(2))

    with pytest.raises(AttributeError):
        found.names = ()
    assert found == found
    assert found != twin


@given(st.text("<>&\"'ab", min_size=1))
def test_the_card_shows_any_label_as_text_and_never_as_html(label):
    card = Found(table=pd.DataFrame({"x": [1.0, None]}), names=(label,))._repr_html_()

    assert label in "".join(Texts(card).seen)
    assert "–" in card


@given(st.floats(-1e15, 1e15))
def test_a_short_number_is_right_to_three_digits_and_has_no_exponent(value):
    text = short(value)

    assert "e" not in text
    assert math.isclose(float(text.replace(",", "")), value, rel_tol=0.00501, abs_tol=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("nan"), "–"), (float("inf"), "inf"), (-0.25, "-0.25"), (1234.5, "1,234"), (0, "0")],
)
def test_short_takes_what_a_metric_can_be(value, text):
    assert short(value) == text
