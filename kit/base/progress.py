"""A progress bar for a person, and silence for a batch."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def quiet() -> bool:
    """Tell whether nobody watches: KIT_QUIET is set, as reports, CI and the tests do."""
    return os.environ.get("KIT_QUIET", "") not in ("", "0")


def track(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a bar, or without one when quiet.

    Args:
        items: anything to iterate over.
        label: what is being done, shown before the bar.
        total: number of items, where `items` has no length.

    Example:
        >>> list(track([1, 2], label="counting"))
        [1, 2]
    """
    if quiet():
        yield from items
        return
    from tqdm.auto import tqdm  # here, not above: it pulls in IPython's widgets

    yield from tqdm(items, desc=label, total=total, leave=False)
