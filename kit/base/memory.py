"""Work that may not fit: half as much at once, each time that memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# only CUDA has an error of its own: the CPU's and Apple's allocators raise a RuntimeError
WORDS = ("out of memory", "not enough memory", "can't allocate memory")


def halved(
    attempt: Callable[[int], T], at_once: int, device: torch.device, *, least: int = 1
) -> tuple[T, int]:
    """Attempt something with so much at once, and half as much each time that memory runs out.

    Args:
        attempt: what to do, given how much to hold at once.
        at_once: how much to begin with.
        device: whose memory it is.
        least: of which no half is tried.

    Returns:
        What `attempt` returned, and how much it then held.

    Raises:
        OutOfMemoryError: the least is still too much; on a CPU a RuntimeError.
    """
    while True:
        try:
            return attempt(at_once), at_once
        except RuntimeError as error:
            if at_once <= least or not ran_out(error):
                raise
        # outside the except block: the traceback there still holds the tensors
        at_once //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()


def ran_out(error: RuntimeError) -> bool:
    """Tell whether memory was what an operation lacked.

    Example:
        >>> ran_out(RuntimeError("MPS backend out of memory")), ran_out(RuntimeError("bad shape"))
        (True, False)
    """
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(each in words for each in WORDS)
