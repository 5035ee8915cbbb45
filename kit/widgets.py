"""Controls over a function that already works without them."""

from collections.abc import Callable, Sequence

from kit.base import checks, progress


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
    from IPython.display import HTML, display
    from IPython.core.formatters import format_display_data

    controls = {
        name: widgets.SelectionSlider(
            options=list(options), description=name, continuous_update=False
        )
        for name, options in choices.items()
    }
    # a picture or an HTML box of our own: capturing into widgets.Output stalls batch runs
    place = widgets.HTML()
