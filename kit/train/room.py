"""Room for so many windows at once: what may be halved, and one line where it is too little."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kit.base import checks, memory
from kit.train import processes


def least(at_once: int) -> int:
    """Return of how many windows no half is tried."""
    # one of many processes cannot try again: the others are waiting for it
    return 1 if processes.world() == 1 else at_once


@contextmanager
def told(caller: str, what: str, *, where: torch.device, remedy: str) -> Iterator[None]:
    """Say in one line that memory ran out inside the block, in place of the allocator's many.

    Args:
        caller: the public function.
        what: that there was no memory for.
        where: the device.
        remedy: what to type.

    Raises:
        MemoryError: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not memory.ran_out(error):
            raise
        line = checks.bad_value(
            caller,
            expected=f"memory for {what}",
            got=checks.Described(f"too little on {where}"),
            remedy=remedy,
        )
        raise MemoryError(str(line)) from None
