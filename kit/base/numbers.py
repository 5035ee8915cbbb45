"""Numbers as people read them; apart from `results`, whose pandas a command line can do without."""

import math


def short(value: float) -> str:
    """Format a number for people: three significant digits, thousands marked, no exponent.

    Example:
        >>> short(0.45678), short(336776), short(12.0), short(0.00001234)
        ('0.457', '336,776', '12', '0.0000123')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    if "e" in text:
        from decimal import Decimal

        text = f"{Decimal(text):f}"
    return text
