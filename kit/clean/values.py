"""What the words of a text column really are: numbers, dates, yes and no, or text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kit.clean import rules

CURRENCIES = ("$", "€", "£", "¥", "₹", "USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR")
# unit -> how many of its base unit; only units of one base can be turned into one another
UNITS: dict[str, tuple[str, float]] = {
    **{"mm": ("m", 0.001), "cm": ("m", 0.01), "m": ("m", 1.0), "km": ("m", 1000.0)},
    **{"mi": ("m", 1609.344), "miles": ("m", 1609.344), "ft": ("m", 0.3048)},
    **{"mg": ("g", 0.001), "g": ("g", 1.0), "kg": ("g", 1000.0)},
    **{"lb": ("g", 453.59237), "lbs": ("g", 453.59237), "oz": ("g", 28.349523125)},
    **{"s": ("s", 1.0), "sec": ("s", 1.0), "min": ("s", 60.0), "mins": ("s", 60.0)},
    **{"h": ("s", 3600.0), "hr": ("s", 3600.0), "hrs": ("s", 3600.0), "hours": ("s", 3600.0)},
    **{"mph": ("m/s", 0.44704), "km/h": ("m/s", 1 / 3.6), "kn": ("m/s", 0.514444)},
    **{"KB": ("B", 1e3), "MB": ("B", 1e6), "GB": ("B", 1e9), "TB": ("B", 1e12)},
    **{"ml": ("l", 0.001), "l": ("l", 1.0), "°C": ("°C", 1.0), "°F": ("°F", 1.0)},
}
YES, NO = ("yes", "y", "true", "t", "on", "1"), ("no", "n", "false", "f", "off", "0")
PARTS = (
    "^(?P<before>[^0-9+.,-]*)(?P<sign>[+-]?)(?P<inner>[^0-9+.,-]?)"
    "(?P<digits>[0-9.,](?:[0-9.,' \u00a0\u202f]*[0-9])?[.]?(?:[eE][+-]?[0-9]{1,2})?)"
    "(?P<after>[^0-9]*)$"
)
NAMES = ("before", "sign", "inner", "digits", "after")
GROUPS = "[0-9]{{1,3}}(?:[{mark}][0-9]{{3}})+"
NAME_MARKS = (".", " ", "\u00a0", "\u202f")  # of thousands, and of names made of digits
SAMPLE = 1_000  # distinct words that tell whether it is worth to look at all of them


@dataclass
class Reading:
    """How a column can be read: by which rule, what is odd in it, and what remains in doubt."""

    kind: str  # "numbers", "dates", "yes/no" or "text"
    rule: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    # kind of dirt -> which words have it, in the order of the words
    odd: dict[str, pd.Series] = field(default_factory=dict)
    doubt: tuple[str, str, pd.Series] | None = None  # kind, why, which words


def read(words: pd.Series) -> Reading:
    """Find out what all of the words are.

    Args:
        words: distinct, stripped of blanks, none of them missing.
    """
    if words.empty:
        return Reading("text")
    readers: list[Callable[[pd.Series], Reading | None]] = [_yes_no, _numbers, _dates]
    few = words.iloc[:SAMPLE]
    for reader in readers:
        if reader(few) is None:
            continue
        reading = reader(words)
        if reading is not None:
            return reading
    return Reading("text")


def _yes_no(words: pd.Series) -> Reading | None:
    lower = words.str.lower()
    is_yes, is_no = lower.isin(YES), lower.isin(NO)
    if not ((is_yes | is_no).all() and is_yes.any() and is_no.any()):
        return None
    if lower.isin(["1", "0"]).all():
        return None  # numbers until somebody says otherwise
    arguments = {"yes": sorted(set(lower[is_yes])), "no": sorted(set(lower[is_no]))}
    odd = {}
    if lower.nunique() > 2:
        usual = lower.isin(["true", "false"]) if lower.isin(["true", "false"]).any() else None
        odd["yes/no variants"] = ~usual if usual is not None else lower.notna()
    elif not lower.isin(["true", "false"]).all():
        odd["yes/no variants"] = lower.notna()
    return Reading("yes/no", "yes_no", arguments, odd)


def _numbers(words: pd.Series) -> Reading | None:
    found = pc.extract_regex(pa.array(words), PARTS)
    if found.null_count:
        return None
    parts = pd.DataFrame(
        {
            name: pd.Series(part, dtype="str")
            for name, part in zip(NAMES, found.flatten(), strict=True)
        }
    )
    parts.index = words.index
    unit = _unit(parts)
    if unit is None:
        return None
    digits = parts["digits"]
    if _names_of_digits(parts, unit):
        return None
    marks = _marks(digits)
    if isinstance(marks, str):
        return Reading("text", doubt=("number marks", marks, digits.str.contains("[.,]")))
    decimal, thousands, grouped = marks
    if _may_be_names(parts, unit, thousands):
        why = "digits by threes in every word: it may be a name, as 601 234 100 is of a phone"
        return Reading("text", doubt=("number marks", why, grouped))
    factors, doubt = _factors(parts, unit, decimal)
    odd = {"number marks": grouped | (digits.str.contains(",") if "," in decimal else False)}
    odd["currency"] = unit.isin(CURRENCIES)
    odd["percent"] = unit == "%"
    odd["units"] = (unit != "") & ~odd["currency"] & ~odd["percent"]
    if doubt:
        return Reading("text", doubt=(*doubt, unit != ""))
    plain = digits.str.replace(f"[{thousands}]", "", regex=True) if thousands else digits
    whole = bool(plain.str.fullmatch("[0-9]+").all()) and all(f == 1 for f in factors.values())
    arguments = {"decimal": decimal, "thousands": thousands, "units": factors, "whole": whole}
    return Reading("numbers", "number", arguments, {k: m for k, m in odd.items() if m.any()})


def _unit(parts: pd.DataFrame) -> pd.Series | None:
    """Return the unit of each number, "" for none; None where some word is no unit."""
    before, after = parts["before"].str.strip(), parts["after"].str.strip()
    unit = before + parts["inner"].str.strip() + after
    known = {*CURRENCIES, "%", ""}
    by_lower = {name.lower(): name for name in (*CURRENCIES, *UNITS, "%")}
    names = {word: by_lower.get(word.lower(), word) for word in unit.unique()}
    if not known | set(UNITS) >= set(names.values()):
        return None
    named = unit.map(names)
    # 5 % and 5 mi, but not % 5 and mi 5
    if ((before != "") & ~named.isin(known - {"%", ""})).any():
        return None
    letters = {name for name in UNITS if len(name) == 1}
    # 12A and 5m may as well be seats or sizes
    if named.isin(letters).all() and not words_have_blank(parts):
        return None
    return named


def words_have_blank(parts: pd.DataFrame) -> bool:
    """Tell whether a blank stands between number and unit."""
    return bool(parts["after"].str.startswith(" ").all())


def _names_of_digits(parts: pd.DataFrame, unit: pd.Series) -> bool:
    """Tell whether these are names: 007 and +4420 would lose their zeros and their sign."""
    digits = parts["digits"]
    if digits.str.contains("^0[0-9]").any():
        return True
    is_phone = (parts["sign"] == "+") & digits.str.fullmatch("[0-9]+") & (unit == "")
    too_long = digits.str.contains(f"^[0-9]{{{rules.MAX_DIGITS + 1}}}")
    return bool(is_phone.any() or too_long.any())


def _may_be_names(parts: pd.DataFrame, unit: pd.Series, thousands: str) -> bool:
    """Tell whether all are groups of three digits alone, as phones and addresses are, too."""
    if thousands not in NAME_MARKS or (unit != "").any() or (parts["sign"] == "-").any():
        return False
    return bool(parts["digits"].str.fullmatch(GROUPS.format(mark=thousands)).all())


def _marks(digits: pd.Series) -> tuple[str, str, pd.Series] | str:
    """Return decimal marks, thousands mark and who has it; or a sentence why nobody can tell."""
    comma, dot = digits.str.contains(","), digits.str.contains(".", regex=False)
    none = pd.Series(False, index=digits.index)
    for blank in "' \u00a0\u202f":
        with_blank = digits.str.contains(blank, regex=False)
        if with_blank.any():
            if comma.any() or not digits[with_blank].str.contains(_grouped(blank, "[.]")).all():
                return f"a {blank!r} inside numbers that does not part thousands"
            return ".", blank, with_blank
    if not comma.any():
        several = digits.str.count("[.]") > 1
        if not several.any():
            return ".", "", none
        if digits[dot].str.fullmatch(GROUPS.format(mark=".")).all():
            return ",", ".", dot
        return "several points in one number"
    both = comma & dot
    if both.any():
        return _by_both(digits, both, comma, dot)
    return _by_comma(digits, comma, dot)


def _by_both(
    digits: pd.Series, both: pd.Series, comma: pd.Series, dot: pd.Series
) -> tuple[str, str, pd.Series] | str:
    # every comma stands as in 1,234.5, or every point as in 1.234,5
    if digits[both | comma].str.contains(_grouped(",", "[.]")).all():
        return ".", ",", comma
    if digits[both | dot].str.contains(_grouped(".", ",")).all():
        return ",", ".", dot
    return "1,234.5 and 1.234,5 in one column"


def _by_comma(
    digits: pd.Series, comma: pd.Series, dot: pd.Series
) -> tuple[str, str, pd.Series] | str:
    none = pd.Series(False, index=digits.index)
    groups = comma & digits.str.fullmatch(GROUPS.format(mark=","))
    if (digits.str.count(",") > 1).any():
        if groups[comma].all():
            return ".", ",", comma
        return "several commas in one number"
    if not groups.any():
        return ".," if dot.any() else ",", "", none
    if not groups[comma].all():
        if dot.any():
            return "1,234 beside 1,5 and 1.5: a comma of either kind"
        return ",", "", none
    return _by_size(digits, comma, dot)


def _by_size(
    digits: pd.Series, comma: pd.Series, dot: pd.Series
) -> tuple[str, str, pd.Series] | str:
    """Read 1,234 as the plain numbers around it are: 1234 if they reach that far, else 1.234."""
    plain = digits[~comma].astype("float64")
    if plain.empty:
        return "1,234 may be 1234 and 1.234"
    large = digits[comma].str.replace(",", "").astype("float64")
    none = pd.Series(False, index=digits.index)
    if large.median() <= 10 * max(plain.max(), 999 if not dot.any() else 0):
        return ".", ",", comma
    return ".,", "", none


def _grouped(mark: str, decimal: str) -> str:
    return f"^{GROUPS.format(mark=mark)}(?:{decimal}[0-9]*)?$"


def _factors(
    parts: pd.DataFrame, unit: pd.Series, decimal: str
) -> tuple[dict[str, float], tuple[str, str] | None]:
    """Return what each unit is multiplied by, or why it cannot be told."""
    names = sorted(set(unit.unique()) - {""})
    if not names:
        return {}, None
    if len(names) == 1 and names[0] != "%":
        return {names[0]: 1.0}, None
    if names == ["%"]:
        plain = _floats(parts["digits"][unit == ""], decimal)
        return {"%": 0.01 if plain.max() <= 1 or plain.empty else 1.0}, None
    if any(name in CURRENCIES for name in names):
        return {}, ("currency", f"{', '.join(names)} in one column: rates differ by day")
    bases = {UNITS[name][0] for name in names if name in UNITS}
    if "%" in names or len(bases) > 1:
        return {}, ("units", f"{', '.join(names)} in one column measure different things")
    if (unit == "").any():
        return {}, ("units", f"{', '.join(names)} in one column, and numbers without a unit")
    main = unit.value_counts().index[0]
    return {name: UNITS[name][1] / UNITS[main][1] for name in names}, None


def _floats(digits: pd.Series, decimal: str) -> pd.Series:
    plain = digits.str.replace(",", "." if "," in decimal else "", regex=False)
    return pd.to_numeric(plain, errors="coerce")


def _dates(words: pd.Series) -> Reading | None:
    iso = words.str.contains(rules.ISO)
    year_first = words.str.contains(rules.YEAR_FIRST)
    year_last = words.str.contains(rules.YEAR_LAST)
    named = words.str.contains(rules.NAMED)
    if not (year_first | year_last | named).all():
        return None
    order = "month first"
    odd = {"date notations": ~iso} if not iso.all() else {}
    if year_last.any():
        firsts = words[year_last].str.extract("^([0-9]+)[-/.]([0-9]+)").astype("int64")
        day_first, month_first = (firsts[0] > 12).any(), (firsts[1] > 12).any()
        same = (firsts[0] == firsts[1]).all()
        if day_first == month_first and not same:
            why = (
                "day and month in both orders" if day_first else "1/2 may be of January or February"
            )
            return Reading("text", doubt=("date order", why, year_last))
        order = "day first" if day_first else "month first"
    return Reading("dates", "date", {"order": order}, odd)
