"""What all trials of a search share, what became of one of them, and how it is trained alone."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import train
from kit.base import seed as seeds
from kit.train.inputs import check_outputs
from kit.train.losses import Loss, loss_for
from kit.train.step import updater
from kit.tune import space as spaces

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """Everything that a trial needs but its configuration; it can be sent to another process."""

    model_fn: Callable[..., nn.Module]
    X: Tensor
    y: Tensor
    X_val: Tensor
    y_val: Tensor
    epochs: int
    batch: int
    seed: int
    loss: Loss | None  # None where the targets choose it

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the model of a configuration; equal shapes begin with equal weights."""
        with seeds.drawing(self.seed):
            made = self.model_fn(**spaces.split(config)[1])
        model = copy.deepcopy(made).to(self.X.device)  # it may be, or hold, the caller's own
        if self.loss is None:
            for X, y in ((self.X, self.y), (self.X_val, self.y_val)):
                check_outputs(spaces.WHERE, train.predict(model, X[:2]), y[:2], y)
        return model

    def walk(self, epoch: int, step: Callable[[Tensor, Tensor], None]) -> None:
        """Take a step on every batch of an epoch; dropout draws what it draws in any trial."""
        with seeds.drawing(self.seed, epoch, 1, where=self.X.device):
            for xb, yb in train.batches(
                self.X, self.y, batch=self.batch, seed=self.seed, epoch=epoch
            ):
                step(xb, yb)

    def judge(self, outputs: Tensor) -> Tensor:
        """Return the loss of outputs for all validation rows."""
        return (self.loss or loss_for(self.y))(outputs, self.y_val)

    def train_loss(self, outputs: Tensor, yb: Tensor, smoothing: Tensor | float) -> Tensor:
        """Return the loss of a batch, labels smoothed: a part `smoothing` says "any class"."""
        if self.loss is not None:
            return self.loss(outputs, yb)
        if yb.is_floating_point():
            return loss_for(yb)(outputs, yb)
        smooth = isinstance(smoothing, Tensor) or smoothing > 0
        if yb.dtype == torch.bool:
            logits, truth = outputs.reshape(yb.shape), yb.to(outputs.dtype)
            if smooth:
                truth = truth * (1 - smoothing) + smoothing / 2
            # binary cross-entropy from logits, in a fifth of the kernels that vmap makes of torch's
            return (F.softplus(logits) - truth * logits).mean()
        sure = loss_for(yb)(outputs, yb)
        if not smooth:
            return sure
        return (1 - smoothing) * sure - smoothing * F.log_softmax(outputs, dim=1).mean()


@dataclass
class Outcome:
    """What became of one trial, so far."""

    config: dict[str, Any]
    losses: list[float] = field(default_factory=list)  # on the validation rows, one an epoch
    state: str = "running"  # then "done", "pruned" or "failed"
    why: str = ""  # it did not end well
    weights: Weights = field(default_factory=dict)  # of the best epoch; empty once of no use

    @property
    def best(self) -> float:
        """The lowest loss of an epoch; infinite where there is none, or the trial failed."""
        return min(self.losses, default=math.inf) if self.state != "failed" else math.inf

    def note(self, loss: float, weights: Callable[[], Weights]) -> None:
        """Write down one epoch, and keep its weights if it is the best so far."""
        if not math.isfinite(loss):
            self.end("failed", f"diverged: the loss was {loss} in epoch {len(self.losses) + 1}")
        elif loss < self.best:
            self.weights = weights()
        self.losses.append(loss)

    def end(self, state: str, why: str = "") -> None:
        """Write down how it ended; nothing is kept of what failed."""
        self.state, self.why = state, why
        if state == "failed":
            self.weights = {}


class Alone:
    """One member, trained by the loop that everybody knows."""

    def __init__(self, job: Job, config: dict[str, Any], model: nn.Module) -> None:
        """Take the model as it was built; it is trained in place."""
        self._job, self._model = job, model
        training, _ = spaces.split(config)
        self._smoothing = training["label_smoothing"]
        self._update = updater(
            torch.optim.SGD(
                model.parameters(),
                lr=training["lr"],
                momentum=training["momentum"],
                weight_decay=training["weight_decay"],
                fused=job.X.device.type in ("cpu", "cuda"),
            )
        )

    def epoch(self, i: int) -> list[float]:
        """Train for epoch `i` and return the validation loss, the only one."""
        job = self._job
        self._model.train()
        job.walk(i, self.step)
        outputs = train.predict(self._model, job.X_val).to(job.y_val.device)
        return [float(job.judge(outputs))]

    def step(self, xb: Tensor, yb: Tensor) -> None:
        """Train on one batch."""
        self._job.train_loss(self._model(xb), yb, self._smoothing).backward()
        self._update()

    def weights(self, member: int = 0) -> Weights:
        """Return a copy of the weights as they are now."""
        state = self._model.state_dict()
        return {name: tensor.detach().clone() for name, tensor in state.items()}
