"""What this machine has, asked without loading torch: cores, memory, the peak of a process."""

import os
from pathlib import Path

import psutil

MIB = 2**20


def cores() -> int:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mib() -> int:
    """Return the memory of the machine, in MiB."""
    return psutil.virtual_memory().total // MIB


def peak_mib(pid: int) -> float | None:
    """Return the largest memory that a running process has held, in MiB.

    Linux and Windows keep the peak; elsewhere it is what the process holds now.

    Args:
        pid: of the process.

    Returns:
        The peak, or None if the process is gone.

    Example:
        >>> peak_mib(os.getpid()) > 1
        True
    """
    status = Path(f"/proc/{pid}/status")
    try:
        for line in status.read_text().splitlines() if status.exists() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024  # the kernel counts in KiB
        memory = psutil.Process(pid).memory_info()
    except (psutil.Error, OSError):
        return None
    return getattr(memory, "peak_wset", memory.rss) / MIB
