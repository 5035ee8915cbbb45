"""Numbers that stand for something else, and numbers that cannot be."""

import re

import numpy as np

# a word of a column's name -> what its values can be; always a doubt, never a repair
LIMITS: dict[str, tuple[float, float]] = {
    "age": (0, 130),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 24),
    "minute": (0, 59),
    "year": (1000, 2200),
    "lat": (-90, 90),
    "latitude": (-90, 90),
    "lon": (-180, 180),
    "longitude": (-180, 180),
    "humid": (0, 100),
    "humidity": (0, 100),
}
SENTINELS = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999)
FEW_FRAC = 0.05  # fewer negative numbers than this look odd among positive ones
SPIKE = 10  # times as frequent as the numbers beside it
FAR = 10  # times the range of the middle 99 %


def sentinels(values: np.ndarray, counts: np.ndarray) -> tuple[list, list]:
    """Find numbers such as -999 that stand for "missing".

    Args:
        values: distinct numbers, ascending.
        counts: rows of each.

    Returns:
        Those that are surely sentinels (they are negative, come again and lie far from all others),
        and those that may be.
    """
    values = _wide(values)
    sure, unsure = [], []
    for value in SENTINELS:
        at = np.searchsorted(values, value)
        if at == len(values) or values[at] != value:
            continue
        others = np.delete(values, at)
        others = others[~np.isin(others, SENTINELS)]
        if len(others) < 2:
            continue
        low, high = _middle(values, counts, value)
        gap = max(others[0] - value, value - others[-1])
        is_far = abs(value) >= 99 and gap > 0 and gap >= (high - low) / 2
        # 999 may as well be the price of what is dear
        if value < 0 and is_far and counts[at] > 1:
            sure.append(value)
        elif (
            is_far
            or (gap > 0 and counts[at] > 1)
            or counts[at] >= SPIKE * np.delete(counts, at)[max(at - 1, 0) : at + 1].max()
        ):
            unsure.append(value)
    return sure, unsure


def impossible(name: str, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, str]:
    """Find numbers that cannot be, by the column's name or by all the others.

    Args:
        name: of the column.
        values: distinct numbers, ascending, without sentinels.
        counts: rows of each.

    Returns:
        True for each value that is in doubt, and why.
    """
    values = _wide(values)
    odd, why = np.zeros(len(values), bool), []
    for word in re.findall("[a-z]+", name.lower()):
        low, high = LIMITS.get(word, (-np.inf, np.inf))
        outside = (values < low) | (values > high)
        # hour may also be a delay in hours: what is mostly outside is something else
        if outside.any() and counts[outside].sum() <= FEW_FRAC * counts.sum():
            odd |= outside
            why.append(f"{word} is from {low} to {high}")
    negative = values < 0
    if negative.any() and counts[negative].sum() <= FEW_FRAC * counts.sum():
        positive = values[values > 0]
        # delays reach below zero, too, but not as far as above it
        if len(positive) and -values[0] >= np.median(positive):
            odd |= negative
            why.append("negative where nearly all are not")
    low, high = _middle(values, counts, None)
    far = (values > high + FAR * (high - low)) | (values < low - FAR * (high - low))
    if far.any() and high > low:
        odd |= far
        why.append(f"more than {FAR} times as far out as 99 % of the values")
    return odd, "; ".join(why)


def _wide(values: np.ndarray) -> np.ndarray:
    # a difference of small or unsigned numbers would run over
    return values.astype("float64", copy=False)


def _middle(values: np.ndarray, counts: np.ndarray, without: float | None) -> tuple[float, float]:
    """Return the quantiles 0.5 % and 99.5 %."""
    kept = counts * (values != without) if without is not None else counts
    share = np.cumsum(kept) / max(kept.sum(), 1)
    low, high = np.searchsorted(share, (0.005, 0.995)).clip(max=len(values) - 1)
    return float(values[low]), float(values[high])
