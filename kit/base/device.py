"""Where to compute: the best device that is here, and why it was chosen."""

import os
from dataclasses import dataclass
from itertools import chain

import torch


@dataclass(frozen=True)
class Choice:
    """A device together with the reason it was chosen."""

    device: torch.device
    why: str

    def __str__(self) -> str:
        return f"{self.device} ({self.why})"


def choose() -> Choice:
    """Choose the fastest device of this machine and say why; KIT_DEVICE overrides.

    Returns:
        The choice; a CPU where no accelerator can be used.
    """
    asked = os.environ.get("KIT_DEVICE", "")
    if asked:
        return _asked_for(asked)
    if torch.cuda.is_available():
        return Choice(torch.device("cuda"), f"{torch.cuda.get_device_name()} is here")
    if torch.backends.mps.is_available():
        return Choice(torch.device("mps"), "Apple GPU is here")
    return Choice(torch.device("cpu"), "no GPU that this torch can use")


def pick() -> torch.device:
    """Return the device of `choose()`, to hand to `.to(...)`; it never fails without a GPU.

    Example:
        >>> pick().type in {"cpu", "cuda", "mps"}
        True
    """
    return choose().device


def of(model: torch.nn.Module) -> torch.device:
    """Return the device on which `model` lives; one that holds no tensor lives on the CPU."""
    weight = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if weight is None else weight.device


def wait_for(device: torch.device) -> None:
    """Block until `device` has finished: a bare clock would time the launch, not the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _asked_for(name: str) -> Choice:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Choice(torch.device("cpu"), f"KIT_DEVICE={name} cannot be used: {reason}")
    return Choice(device, f"KIT_DEVICE={name}")
