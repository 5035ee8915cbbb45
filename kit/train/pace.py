"""The pace of a training: the loss of the steps since the last row, and tokens a second."""

import math
import time

import torch
from torch import Tensor

from kit.train.bits import NATS_PER_BIT


class Pace:
    """Count steps and seconds of a row and of all rows; what comes between two rows is no step."""

    def __init__(self, tokens: int) -> None:
        """Take the tokens of a step."""
        self.tokens, self.steps, self.seconds = tokens, 0, 0.0

    def begin(self) -> None:
        """Begin a row."""
        self.losses: list[Tensor] = []
        self.since = time.perf_counter()

    def add(self, loss: Tensor) -> None:
        """Count a step, and its loss in nats a token."""
        self.losses.append(loss)

    def end(self) -> dict[str, float]:
        """End a row; return its bits per byte and tokens per second."""
        bits = float(torch.stack(self.losses).mean()) / NATS_PER_BIT  # waits for the device, too
        seconds = time.perf_counter() - self.since
        self.steps += len(self.losses)
        self.seconds += seconds
        return {"bits_per_byte": bits, "tokens_per_s": len(self.losses) * self.tokens / seconds}

    def tokens_per_s(self) -> float:
        """Return that of all rows; NaN before there is one."""
        return self.steps * self.tokens / self.seconds if self.steps else math.nan
