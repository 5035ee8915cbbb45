"""Show a text with its units coloured by what they did: static HTML that any notebook keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from kit.base import checks

if TYPE_CHECKING:
    from kit.explain.attribution import Attribution

RAISES, LOWERS = (200, 100, 27), (42, 120, 181)  # orange and blue, told apart by every vision
DEEPEST = 0.6  # share of the colour in the strongest unit: dark text on it stays readable
ROUNDING = 1e-6  # of the largest value: less is not said
NAMED = 3  # units that have their value written beside them, for whom colours do not tell


@dataclass(frozen=True)
class Html:
    """A piece of HTML whose text form says the same in words."""

    html: str
    words: str

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return self.html


def of(attribution: "Attribution", row: int, output: int) -> Html:
    """Colour the units of one text by what they did to one output.

    Args:
        attribution: of texts.
        row: number of the text.
        output: number of the output.

    Raises:
        TypeError: an attribution of a table.
    """
    a = attribution
    if a.texts is None or a.spans is None:
        raise checks.bad_type(
            "explain.Attribution.highlight",
            expected="an attribution of texts",
            got=checks.Described("one of a table"),
            remedy=f"Draw it: attribution.waterfall({row}).",
        )
    n = len(a.spans[row])
    return render(
        a.texts[row],
        a.spans[row],
        a.values.reshape(*a.values.shape[:2], -1)[row, :n, output],
        label="" if a.outputs is None else a.outputs[output],
        prediction=float(a.predictions.reshape(len(a.values), -1)[row, output]),
    )


def render(
    text: str,
    spans: Sequence[tuple[int, int]],
    values: Float64[np.ndarray, " units"],
    *,
    label: str,
    prediction: float,
) -> Html:
    """Colour the units of a text: orange raises the score, blue lowers it, deeper is stronger.

    Args:
        text: all of it; what is in no unit is shown without a colour.
        spans: of the units, in characters and in their order.
        values: one a unit.
        label: name of the output, "" where there is one.
        prediction: the model's score of the text.

    Returns:
        HTML with each unit's value as its tooltip, the strongest written beside it, and a line of
        words below; as text, that line.

    Example:
        >>> render("so good", [(0, 2), (3, 7)], np.array([0.1, -2.0]), label="", prediction=-1.9)
        score -1.9; raised by 'so' +0.1; lowered by 'good' -2
    """
    largest = max(float(np.abs(values).max()), np.finfo(float).tiny)
    values = np.where(np.abs(values) < ROUNDING * largest, 0, values)
    strongest = np.argsort(-np.abs(values), kind="stable")[:NAMED]
    pieces, done = [], 0
    for unit, ((start, end), value) in enumerate(zip(spans, values, strict=True)):
        note = f"<sup>{value:+.2g}</sup>" if unit in strongest and value else ""
        pieces += [escape(text[done:start]), _unit(text[start:end], float(value), largest), note]
        done = end
    pieces.append(escape(text[done:]))
    words = _words(text, spans, values, label, prediction)
    html = (
        '<p style="background-color:#ffffff;color:#222222;line-height:1.9;white-space:pre-wrap;'
        f'padding:4px">{"".join(pieces)}<br><small>{escape(words)}</small></p>'
    )
    return Html(html, words)


def _unit(piece: str, value: float, largest: float) -> str:
    depth = DEEPEST * abs(value) / largest
    mixed = (round(255 + depth * (c - 255)) for c in (RAISES if value > 0 else LOWERS))
    colour = "#" + "".join(f"{c:02x}" for c in mixed)
    return f'<span style="background-color:{colour}" title="{value:+.3g}">{escape(piece)}</span>'


def _words(
    text: str,
    spans: Sequence[tuple[int, int]],
    values: np.ndarray,
    label: str,
    prediction: float,
) -> str:
    order = np.argsort(-np.abs(values), kind="stable")
    said = [f"score of {label} {prediction:.3g}" if label else f"score {prediction:.3g}"]
    for verb, sign in (("raised", 1), ("lowered", -1)):
        units = [j for j in order if sign * values[j] > 0][:NAMED]
        named = [f"{text[slice(*spans[j])].strip()!r} {values[j]:+.2g}" for j in units]
        said += [f"{verb} by {', '.join(named)}"] if named else []
    return "; ".join(said)
