"""Every repair as one Narwhals expression on one column, so that all engines compute the same.

What an expression may use was found by trying each engine: no look-around and no groups kept in a
pattern, no cast of a text that is not known to fit, no look-up in a dictionary.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

# engines disagree on what a blank is; these are stripped everywhere
BLANKS = " \t\n\r\x0b\x0c\u00a0\u2007\u202f\ufeff"
MAX_DIGITS = 15  # more are an identifier, and a float would change the last of them
EXPONENT = "(?:[eE][+-]?[0-9]{1,2})?"
CLOCK = "(?:[T ](?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?)?"
ISO = f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{CLOCK}$"
YEAR_FIRST = f"^[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}{CLOCK}$"
YEAR_LAST = f"^[0-9]{{1,2}}[-/.][0-9]{{1,2}}[-/.][0-9]{{4}}{CLOCK}$"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = f"(?:{'|'.join(MONTHS)})[a-z]*[.]?"
# a day that there was, leap years and all: engines do not agree on what 30 February is
DAY = (
    "^(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-(?:"
    "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    "02-(?:0[1-9]|1[0-9]|2[0-8]))|"
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|0[48]|[13579][26])00)-02-29)$"
)
NAMED = f"(?i)^(?:[0-9]{{1,2}}[- ]{MONTH}[- ]|{MONTH} [0-9]{{1,2}},? )[0-9]{{4}}{CLOCK}$"


@dataclass(frozen=True)
class Rule:
    """A kind of repair: how it is computed, on which columns, and what comes out."""

    build: Callable[..., nw.Expr]
    on: str  # columns it is for, others it leaves as they are
    makes: Any = None  # a Narwhals type; None keeps the one there is
    # text that means the same before and after is no repair: nothing for the ledger
    plain: Callable[[Mapping], str] | None = None
    loses: bool = False  # making values missing is what it is for


def strip(x: nw.Expr) -> nw.Expr:
    """Cut the blanks around a text, no-break spaces and byte-order marks included."""
    return x.str.strip_chars(BLANKS)


def missing(x: nw.Expr, *, values: Sequence) -> nw.Expr:
    """Turn the values listed into missing ones; text is compared without the blanks around it."""
    if not values:
        return x
    if isinstance(values[0], str):
        return nw.when(~strip(x).is_in(values)).then(x)
    is_one = functools.reduce(operator.or_, (_equals(x, value) for value in values))
    return nw.when(~is_one).then(x)


def _equals(x: nw.Expr, value: float) -> nw.Expr:
    # not is_in: Polars refuses whole numbers for a column of floats, and floats for one of integers
    if float(value).is_integer():
        return x == int(value)
    return x.cast(nw.Float64) == value  # Polars would make 0.1 a float of 32 bits for such a column


def limits(x: nw.Expr, *, low: float | None = None, high: float | None = None) -> nw.Expr:
    """Turn numbers below `low` or above `high` into missing ones."""
    inside = ~x.is_null()
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return nw.when(inside).then(x)


def merge(x: nw.Expr, *, values: Mapping[str, str]) -> nw.Expr:
    """Replace each old spelling by the new one."""
    olds: dict[str, list[str]] = {}
    for old, new in values.items():
        olds.setdefault(new, []).append(old)
    out = x
    for new, spellings in olds.items():
        out = nw.when(x.is_in(spellings)).then(nw.lit(new)).otherwise(out)
    return out


def pad(x: nw.Expr, *, width: int) -> nw.Expr:
    """Give numbers that are names their leading zeros back."""
    bare = strip(x)
    padded = nw.concat_str(nw.lit("0" * width), bare).str.slice(-width)
    return nw.when(bare.str.contains(f"^[0-9]{{1,{width}}}$")).then(padded).otherwise(x)


def yes_no(x: nw.Expr, *, yes: Sequence[str], no: Sequence[str]) -> nw.Expr:
    """Read true and false from the words listed, in any case; the rest becomes missing."""
    word = strip(x).str.to_lowercase()
    false = nw.when(word.is_in(as_read(no))).then(nw.lit(False))
    return nw.when(word.is_in(as_read(yes))).then(nw.lit(True)).otherwise(false)


def as_read(words: Sequence[str]) -> list[str]:
    """Return words as `yes_no` compares them: in lower case, without the blanks around them."""
    return [word.strip(BLANKS).lower() for word in words]


def number(
    x: nw.Expr, *, decimal: str, thousands: str, units: Mapping[str, float], whole: bool
) -> nw.Expr:
    """Read numbers with their marks, currencies, percents and units; the rest becomes missing."""
    text = strip(x)
    bare = _without_units(text, units)
    fits = bare.str.contains(_digits(decimal, thousands, whole, exponent=not units))
    digits: nw.Expr = nw.when(fits).then(bare.str.strip_chars("+"))
    for mark in thousands:
        digits = digits.str.replace_all(mark, "", literal=True)
    if "," in decimal:
        digits = digits.str.replace_all(",", ".", literal=True)
    for unit, factor in units.items():
        shift = round(math.log10(factor))
        if shift and factor == 10.0**shift:
            # not 35 / 100: Polars makes it 35 * 0.01, and that is no 0.35
            shifted = nw.concat_str(digits, nw.lit(f"e{shift}"))
            digits = nw.when(_has(text, unit)).then(shifted).otherwise(digits)
    # at most 15 digits: a float holds each whole number, and takes a gap on every engine
    value = digits.cast(nw.Float64)
    for unit, factor in units.items():
        if factor != 10.0 ** round(math.log10(factor)):
            value = nw.when(_has(text, unit)).then(value * factor).otherwise(value)
    return value


def date(x: nw.Expr, *, order: str) -> nw.Expr:
    """Read dates in several notations; `order` tells which comes first in 1/2/2013."""
    text = strip(x)
    clock: nw.Expr = nw.when(text.str.contains(":")).then(text.str.replace_all("^.*[T ]", ""))
    has_seconds = clock.str.contains(":.*:")
    clock = nw.when(has_seconds).then(clock).otherwise(nw.concat_str(clock, nw.lit(":00")))
    clock = clock.fill_null("00:00:00")
    day, month, year = _date_parts(text, order)
    iso = nw.concat_str(year, _two(month), _two(day), separator="-")
    clock = nw.concat_str(nw.lit("0"), clock).str.slice(-8)
    return (
        nw.when(iso.str.contains(DAY))
        .then(nw.concat_str(iso, clock, separator=" "))
        .str.to_datetime("%Y-%m-%d %H:%M:%S")
    )


def _date_parts(text: nw.Expr, order: str) -> tuple[nw.Expr, nw.Expr, nw.Expr]:
    """Return day, month and year as text, missing where the text is no date."""
    whole = text.str.replace_all("[T ][0-9]{1,2}:[0-9:]+$", "")
    first = whole.str.replace_all("[-/.].*$", "")
    last = whole.str.replace_all("^.*[-/.]", "")
    middle = whole.str.replace_all("^[0-9]+[-/.]", "").str.replace_all("[-/.].*$", "")
    numbers = whole.str.replace_all("[^0-9]+", " ").str.strip_chars(" ")
    name = whole
    for i, word in enumerate(MONTHS, start=1):
        name = name.str.replace_all(f"(?i)^.*{word}.*$", str(i))
    years_first, years_last = text.str.contains(YEAR_FIRST), text.str.contains(YEAR_LAST)
    named = text.str.contains(NAMED)
    day, month = (first, middle) if order == "day first" else (middle, first)

    def choose(by_year_first: nw.Expr, by_year_last: nw.Expr, by_name: nw.Expr) -> nw.Expr:
        by_name = nw.when(named).then(by_name)
        by_year_last = nw.when(years_last).then(by_year_last).otherwise(by_name)
        return nw.when(years_first).then(by_year_first).otherwise(by_year_last)

    return (
        choose(last, day, numbers.str.replace_all(" .*$", "")),
        choose(middle, month, name),
        choose(first, last, numbers.str.replace_all("^.* ", "")),
    )


def _two(x: nw.Expr) -> nw.Expr:
    return nw.concat_str(nw.lit("0"), x).str.slice(-2)


def _digits(decimal: str, thousands: str, whole: bool, *, exponent: bool) -> str:
    """Return the pattern of a number that is written with these marks."""
    grouped = f"|[0-9]{{1,3}}(?:[{thousands}][0-9]{{3}}){{1,4}}" if thousands else ""
    digits = f"(?:[0-9]{{1,{MAX_DIGITS}}}{grouped})"
    if whole:
        return f"^[+-]?{digits}$"
    return f"^[+-]?(?:{digits}(?:[{decimal}][0-9]*)?|[{decimal}][0-9]+){EXPONENT * exponent}$"


def _without_units(text: nw.Expr, units: Mapping[str, float]) -> nw.Expr:
    """Take units away: a sign anywhere, as in -$5, a word before or behind the number."""
    words = [unit for unit in units if not _is_sign(unit)]
    for sign in units:
        if _is_sign(sign):
            text = text.str.replace_all(sign, "", literal=True)
    text = text.str.replace_all(_affix(words), "") if words else text
    return strip(text) if units else text


def _is_sign(unit: str) -> bool:
    return len(unit) == 1 and not unit.isalnum()


def _has(text: nw.Expr, unit: str) -> nw.Expr:
    # a digit beside it: 5 km ends with m, too
    name = _named([unit])
    return text.str.contains(f"(?i)[0-9.][ \u00a0]*{name}$|^[+-]?{name}[ \u00a0]*[+-]?[0-9.]")


def _affix(units: Sequence[str]) -> str:
    """Return the pattern of units before or behind a number."""
    return f"(?i)^{_named(units)}[ \u00a0]*|[ \u00a0]*{_named(units)}$"


def _named(units: Sequence[str]) -> str:
    # a class for each mark: engines do not agree on what a backslash may stand before
    names = ("".join(c if c.isalnum() else f"[{c}]" for c in unit) for unit in units)
    return f"(?:{'|'.join(names)})"


def _plain_number(arguments: Mapping) -> str:
    tail = f"(?:[.][0-9]+)?{EXPONENT}" if "." in arguments["decimal"] else ""
    return f"^-?[0-9]+{tail}$"


RULES = {
    "strip": Rule(strip, "text"),
    "missing": Rule(missing, "text or number", loses=True),
    "merge": Rule(merge, "text"),
    "pad": Rule(pad, "text"),
    "number": Rule(number, "text", nw.Float64(), _plain_number),
    "date": Rule(date, "text", nw.Datetime("us"), lambda arguments: ISO),
    "yes_no": Rule(yes_no, "text", nw.Boolean(), lambda arguments: "(?i)^(?:true|false)$"),
    "limits": Rule(limits, "number", loses=True),
}
FRAME_RULES = ("drop_column", "drop_duplicates")  # of whole columns and rows
