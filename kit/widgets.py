"""Controls over a function that already works without them."""

import base64
from collections.abc import Callable, Sequence
from html import escape

from kit.base import checks, progress
from kit.show import Digest, png


def explore(view: Callable[..., object], **choices: Sequence) -> None:
    """Show `view(**one_of_each)`: behind controls for a person, its first choice in a batch.

    Args:
        view: a pure function of the choices that returns what a cell would show.
        choices: name of an argument -> its values; the first one is shown first.

    Raises:
        ValueError: an argument without values.
    """
    for name, options in choices.items():
        if len(options) == 0:
            raise checks.bad_value(
                "widgets.explore",
                expected=f"values for {name}",
                got=options,
                remedy=f"Pass {name}=[0.1, 0.2].",
            )
    from IPython.display import display

    if progress.quiet():
        display(view(**{name: options[0] for name, options in choices.items()}))
        return
    _live(view, choices)


def _live(view: Callable[..., object], choices: dict[str, Sequence]) -> None:
    import ipywidgets as widgets
    from IPython.display import display

    controls = {
        name: widgets.SelectionSlider(
            options=list(options), description=name, continuous_update=False
        )
        for name, options in choices.items()
    }
    # a box of HTML of our own: capturing into widgets.Output stalls about one batch run in 100
    place = widgets.HTML()

    def redraw(_: object = None) -> None:
        place.value = _as_html(view(**{name: c.value for name, c in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    display(widgets.VBox([*controls.values(), place]))


def _as_html(value: object) -> str:
    """Return what a notebook would show of `value`, as HTML."""
    if isinstance(value, Digest):
        picture = base64.b64encode(png(value.figure)).decode()
        return f'<img alt="{escape(value.alt)}" src="data:image/png;base64,{picture}">'
    make = getattr(value, "_repr_html_", None)
    return make() if make else f"<pre>{escape(str(value))}</pre>"
