"""Seeds: the same number gives the same run on the same machine."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from kit.base import checks


def everything(seed: int) -> None:
    """Seed Python, NumPy and torch at once, for a notebook's own random lines.

    Args:
        seed: any integer from 0 to 2**32 - 1.

    Raises:
        ValueError: an integer out of that range.
    """
    if not 0 <= seed < 2**32:
        raise _bad("seed.everything", "0 <= seed < 2**32", seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  for libraries that still draw from the global state
    torch.manual_seed(seed)


def generator(seed: int, *stream: int) -> torch.Generator:
    """Return a fresh CPU generator for one stream of random numbers.

    Args:
        seed: the run's seed.
        stream: integers from 0 that name the stream, such as the epoch: streams are independent.

    Returns:
        A generator whose draws depend on `seed` and `stream` alone.

    Raises:
        ValueError: a negative integer.

    Example:
        >>> a, b = (torch.rand(1, generator=generator(0, 7)) for _ in range(2))
        >>> bool(a == b)
        True
    """
    if min(seed, *stream, 0) < 0:
        raise _bad("seed.generator", "seed >= 0", min((seed, *stream)))
    # a spawn key, not more entropy: that is padded with zeros, and (seed, 0) would be (seed,)
    state = np.random.SeedSequence(seed, spawn_key=stream).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@contextmanager
def drawing(seed: int, *stream: int, where: torch.device | None = None) -> Iterator[None]:
    """Let torch's global numbers come from one stream inside the block, and as before after it.

    Args:
        seed: the run's seed.
        stream: integers from 0 that name the stream.
        where: the device whose numbers are drawn; None is the CPU.

    Example:
        >>> with drawing(0, 7):
        ...     a = torch.rand(1)
        >>> bool(a == torch.rand(1, generator=generator(0, 7)))
        True
    """
    devices = [where] if where is not None and where.type == "cuda" else []
    is_cpu = where is None or where.type == "cpu"
    # torch's own notes the call stack for GPUs that may yet come: a hundred times as long
    reseed = torch.default_generator.manual_seed if is_cpu else torch.manual_seed
    with torch.random.fork_rng(devices=devices):
        reseed(generator(seed, *stream).initial_seed())
        yield


def _bad(where: str, expected: str, got: int) -> ValueError:
    return checks.bad_value(where, expected=expected, got=got, remedy="Pass seed=0.")
