"""An explorer is a function that works alone; controls only call it again."""

import base64
import re

import IPython.display
import ipywidgets
import pytest

from kit import show, widgets


@pytest.fixture
def displayed(monkeypatch) -> list:
    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    return shown


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("KIT_QUIET", "0")


def test_in_a_batch_the_first_choice_is_shown_once(displayed):
    calls = []

    def view(**chosen):
        calls.append(chosen)
        return "seen"

    widgets.explore(view, rate=[0.1, 0.2], size=(8, 16))

    assert calls == [{"rate": 0.1, "size": 8}]
    assert displayed == ["seen"]


def test_for_a_person_there_is_a_control_for_every_choice_and_the_first_view(displayed, live):
    widgets.explore(lambda rate, size: f"{rate} & {size}", rate=[0.1, 0.2], size=["s", "m"])

    (box,) = displayed
    *controls, place = box.children
    assert [control.description for control in controls] == ["rate", "size"]
    assert [list(control.options) for control in controls] == [[0.1, 0.2], ["s", "m"]]
    assert place.value == "<pre>0.1 &amp; s</pre>"


def test_moving_a_control_draws_again_with_what_is_chosen_now(displayed, live):
    widgets.explore(lambda rate, size: (rate, size), rate=[0.1, 0.2], size=[8, 16])
    rate, size, place = displayed[0].children

    rate.value = 0.2
    size.value = 16

    assert place.value == "<pre>(0.2, 16)</pre>"


def test_nothing_is_captured_into_an_output_widget(displayed, live):
    widgets.explore(lambda n: n, n=[1, 2])

    assert not any(isinstance(part, ipywidgets.Output) for part in displayed[0].children)


def test_a_figure_is_shown_as_the_picture_that_it_is_with_its_alt_text(displayed, live):
    def view(n):
        return show.digest(show.bars({"a": n}, title='Bar "a" <is> long', xlabel="n"))

    widgets.explore(view, n=[1, 2])

    control, place = displayed[0].children
    first = place.value
    alt, picture = re.fullmatch(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]+)">', first
    ).groups()
    assert alt == "Bar &quot;a&quot; &lt;is&gt; long"
    assert base64.b64decode(picture) == show.png(view(1).figure)
    control.value = 2
    assert place.value != first


def test_what_has_html_of_its_own_is_shown_by_it(displayed, live):
    class Card:
        def _repr_html_(self):
            return "<b>card</b>"

    widgets.explore(lambda n: Card(), n=[1, 2])

    assert displayed[0].children[-1].value == "<b>card</b>"


@pytest.mark.parametrize("quiet", ["0", "1"])
def test_a_choice_without_values_is_refused(displayed, monkeypatch, quiet):
    monkeypatch.setenv("KIT_QUIET", quiet)

    with pytest.raises(ValueError) as caught:
        widgets.explore(lambda n: n, n=[])

    assert str(caught.value) == (
        "widgets.explore: expected values for n, got [] (list). Pass n=[0.1, 0.2]."
    )
    assert displayed == []
