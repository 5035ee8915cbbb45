"""The loops that people write to train a model on tensors, each ready to be raced."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kit import train
from kit.train.losses import Loss

LR = 1e-3

Run = Callable[[], nn.Module]


@dataclass(frozen=True)
class Task:
    """What everyone trains: the same start weights, rows, loss, batch size and epochs."""

    model: Callable[[int], nn.Module]  # round -> with its start weights
    X: Tensor
    y: Tensor  # as train.fit takes them
    loss: Loss  # as the others write it
    targets: Tensor  # as that loss takes them
    batch: int
    epochs: int

    @property
    def rows(self) -> DataLoader:
        """Return the batches of the textbook, each epoch in another order."""
        return DataLoader(TensorDataset(self.X, self.targets), batch_size=self.batch, shuffle=True)

    @property
    def work(self) -> int:
        """Return the rows that a training gets through."""
        return self.epochs * len(self.X)


def ours(task: Task, seed: int) -> Run:
    """Train with the kit."""
    model, settings = task.model(seed), {"epochs": task.epochs, "batch": task.batch, "seed": seed}
    return lambda: train.fit(model, task.X, task.y, lr=LR, **settings).model


def plain(task: Task, seed: int) -> Run:
    """Train as textbooks write it."""
    model, loader = task.model(seed), task.rows
    opt = torch.optim.Adam(model.parameters(), lr=LR)

    def run() -> nn.Module:
        for _ in range(task.epochs):
            for xb, yb in loader:
                loss = task.loss(model(xb), yb)
                opt.zero_grad()
                loss.backward()
                opt.step()
        return model

    return run


def bare(task: Task, seed: int) -> Run:
    """Train with the fastest loop that one would write by hand: no loader, fused Adam."""
    model, X, y = task.model(seed), task.X, task.targets
    opt = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def run() -> nn.Module:
        for _ in range(task.epochs):
            for rows in torch.randperm(len(X)).split(task.batch):
                xb, yb = X.index_select(0, rows), y.index_select(0, rows)
                loss = task.loss(model(xb), yb)
                opt.zero_grad()
                loss.backward()
                opt.step()
        return model

    return run


def fabric(task: Task, seed: int) -> Run:
    """Train as the guide of Lightning Fabric turns the textbook loop into its own."""
    from lightning_fabric import Fabric

    engine, model = Fabric(accelerator="cpu", devices=1), task.model(seed)
    wrapped, opt = engine.setup(model, torch.optim.Adam(model.parameters(), lr=LR))
    loader = engine.setup_dataloaders(task.rows)

    def run() -> nn.Module:
        for _ in range(task.epochs):
            for xb, yb in loader:
                loss = task.loss(wrapped(xb), yb)
                opt.zero_grad()
                engine.backward(loss)
                opt.step()
        return model

    return run


def trainer(task: Task, seed: int) -> Run:
    """Train with Lightning's Trainer, without bar, log, checkpoints and validation."""
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model(seed)

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            xb, yb = batch
            return task.loss(self.model(xb), yb)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LR)

    # it tells what it found, and that loaders should have workers: slower with rows in memory
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    engine = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=task.epochs, **dict.fromkeys(off, False)
    )
    module, loader = Module(), task.rows

    def run() -> nn.Module:
        engine.fit(module, loader)
        return module.model

    return run


def fastai(task: Task, seed: int) -> Run:
    """Train with fastai's Learner, without bar, log, metrics and validation."""
    from fastai import basics

    class TrainOnly(basics.Callback):
        def before_validate(self) -> None:
            raise basics.CancelValidException

    basics.default_device(False)  # the CPU, as everyone here
    dataset = list(zip(task.X, task.targets, strict=True))
    dls = basics.DataLoaders.from_dsets(dataset, dataset, bs=task.batch, drop_last=False)
    model = task.model(seed)
    learner = basics.Learner(
        dls,
        model,
        loss_func=task.loss,
        # the constants of torch's Adam; fastai's own differ
        opt_func=partial(basics.Adam, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.0),
        lr=LR,
        cbs=TrainOnly(),
    )

    def run() -> nn.Module:
        with learner.no_logging():  # its bar is off until fastai.callback.progress is imported
            learner.fit(task.epochs)
        return model

    return run
