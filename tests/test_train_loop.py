"""The loop is the textbook's: same batches, same losses, same weights; and it tells what it did."""

import copy
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kit import models, train
from kit.base import seed as seeds
from kit.train.inputs import check_rows

N, WIDTH = 200, 4


def rows(n: int = N, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


X = rows()
SUM = X.sum(dim=1)
TARGETS = {
    "yes/no": SUM > 0,
    "classes": torch.bucketize(SUM, torch.tensor([-1.0, 1.0])),
    "quantity": SUM,
}
N_OUTPUTS = {"yes/no": 1, "classes": 3, "quantity": 1}


def fresh(n_outputs: int = 1, **settings) -> models.MLP:
    torch.manual_seed(0)
    return models.MLP(WIDTH, n_outputs, hidden=(8,), **settings)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


# ---- batches


@given(st.integers(1, 400), st.integers(1, 90), st.integers(0, 1000), st.integers(0, 50))
def test_every_row_comes_exactly_once_beside_its_target(n, batch, seed, epoch):
    numbers = torch.arange(n)

    parts = list(train.batches(numbers[:, None], -numbers, batch=batch, seed=seed, epoch=epoch))

    seen = torch.cat([xb[:, 0] for xb, _ in parts])
    assert torch.equal(seen.sort().values, numbers)
    assert all(torch.equal(xb[:, 0], -yb) for xb, yb in parts)
    assert {len(xb) for xb, _ in parts[:-1]} <= {batch}
    assert len(parts) == math.ceil(n / batch)


def test_an_epoch_has_its_own_order_and_always_the_same():
    def order(**which) -> list[int]:
        parts = train.batches(X, torch.arange(N), batch=7, **which)
        return torch.cat([yb for _, yb in parts]).tolist()

    assert order(seed=3, epoch=5) == order(seed=3, epoch=5)
    assert len({tuple(order(seed=s, epoch=e)) for s in range(3) for e in range(3)}) == 9


def test_batches_are_views_of_one_gather_in_the_shape_and_type_of_the_rows():
    images = torch.randint(0, 255, (10, 3, 4, 4), dtype=torch.uint8)

    parts = list(train.batches(images, torch.arange(10), batch=4))

    assert [xb.shape for xb, _ in parts] == [(4, 3, 4, 4), (4, 3, 4, 4), (2, 3, 4, 4)]
    assert all(torch.equal(xb, images[yb]) for xb, yb in parts)


# ---- the loop against the textbook


def naive(model, X, y, loss, *, epochs, lr, batch, seed, clip=None, make=torch.optim.AdamW):
    """The loop as a textbook writes it; only the order of the rows is the kit's."""
    opt = make(model.parameters(), lr=lr, weight_decay=0.0)
    history = []
    for epoch in range(epochs):
        order = torch.randperm(len(X), generator=seeds.generator(seed, epoch))
        losses = []
        for start in range(0, len(X), batch):
            chosen = order[start : start + batch]
            opt.zero_grad()
            value = loss(model(X[chosen]), y[chosen])
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            losses.append(value.item())
        history.append(np.mean(losses))
    return history


TEXTBOOK_LOSSES = {
    "yes/no": lambda logits, y: F.binary_cross_entropy_with_logits(logits[:, 0], y.float()),
    "classes": F.cross_entropy,
    "quantity": lambda outputs, y: F.mse_loss(outputs[:, 0], y),
}
OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("kind", TARGETS)
def test_the_weights_are_those_of_the_textbook_loop(kind, clip, optimizer):
    ours, theirs = fresh(N_OUTPUTS[kind]), fresh(N_OUTPUTS[kind])
    settings = {"epochs": 3, "lr": 0.01, "batch": 32, "seed": 7, "clip": clip}

    fitted = train.fit(ours, X, TARGETS[kind], optimizer=OPTIMIZERS[optimizer], **settings)
    history = naive(
        theirs,
        X,
        TARGETS[kind],
        TEXTBOOK_LOSSES[kind],
        make=OPTIMIZERS[optimizer],
        **settings,
    )

    assert all(map(partial(torch.allclose, atol=1e-6), weights(ours), weights(theirs)))
    assert np.allclose(fitted.table["train_loss"], history, atol=1e-6)
    assert fitted.model is ours
    assert not ours.training


@pytest.mark.parametrize("kind", TARGETS)
def test_the_loss_that_the_targets_choose_is_that_of_torch(kind):
    y, outputs = TARGETS[kind], torch.randn(N, N_OUTPUTS[kind])

    from kit.train.losses import loss_for

    assert torch.equal(loss_for(y)(outputs, y), TEXTBOOK_LOSSES[kind](outputs, y))


@pytest.mark.parametrize("kind", ["yes/no", "quantity"])
@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_targets_in_a_column_and_outputs_in_a_row_do_not_broadcast(shape, kind):
    """(rows, 1) beside (rows,) makes torch compare every row with every other."""
    flat, column, y = nn.Sequential(fresh(), nn.Flatten(0)), fresh(), TARGETS[kind]
    expected = train.fit(fresh(), X, y, epochs=1)

    one, two = (train.fit(model, X, y.reshape(shape), epochs=1) for model in (flat, column))

    assert one.table.equals(expected.table)
    assert two.table.equals(expected.table)


def test_several_quantities_at_once_and_narrow_integers_are_taken():
    train.fit(fresh(2), X, torch.stack([SUM, -SUM], dim=1), epochs=1)
    narrow = train.fit(fresh(3), X, TARGETS["classes"].to(torch.int32), epochs=1)

    assert narrow.table.equals(train.fit(fresh(3), X, TARGETS["classes"], epochs=1).table)


def test_a_loss_of_ones_own_replaces_the_chosen_one():
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    ours, theirs = fresh(3), fresh(3)
    settings = {"epochs": 2, "lr": 0.01, "batch": 32, "seed": 0}

    train.fit(ours, X, TARGETS["classes"], loss=weighted, **settings)
    naive(theirs, X, TARGETS["classes"], weighted, **settings)

    assert all(map(partial(torch.allclose, atol=1e-6), weights(ours), weights(theirs)))


class Pictures(nn.Module):
    """A user's own: convolution, batch norm, dropout, an output without its axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.norm(self.conv(images)).relu().mean(dim=(2, 3))
        return self.head(self.drop(seen))[:, 0]


def test_a_module_of_ones_own_is_trained_on_rows_of_any_shape():
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8)
    y = images.mean(dim=(1, 2, 3)) > 0
    model = Pictures()

    fitted = train.fit(model, images, y, validation=(images, y), epochs=30, lr=0.05, batch=16)

    assert train.evaluate(model, images, y)["accuracy"] > 0.8
    assert fitted.table["validation_loss"].iloc[-1] < fitted.table["validation_loss"].iloc[0]


def test_tied_and_frozen_weights_stay_tied_and_frozen():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1))
    model[2].weight = model[0].weight
    model[3].requires_grad_(False)
    before = model[3].weight.clone()

    train.fit(model, X, SUM, epochs=2)

    assert model[2].weight is model[0].weight
    assert torch.equal(model[3].weight, before)


# ---- settings


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    one, again, other = fresh(dropout=0.3), fresh(dropout=0.3), fresh(dropout=0.3)

    for drawn_before, (model, seed) in enumerate([(one, 1), (again, 1), (other, 2)]):
        torch.rand(drawn_before)  # what others drew is of no consequence
        train.fit(model, X, TARGETS["yes/no"], epochs=2, seed=seed)

    assert all(map(torch.equal, weights(one), weights(again)))
    assert not all(map(torch.equal, weights(one), weights(other)))


def test_the_global_random_numbers_are_left_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    train.fit(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)), X, SUM, epochs=1)

    torch.manual_seed(5)
    model = fresh(dropout=0.5)
    torch.manual_seed(5)
    train.fit(model, X, SUM, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_weights_of_the_best_epoch_are_kept_and_patience_ends_the_rest():
    y_val = -SUM  # the better the training, the worse the validation
    model = fresh()

    fitted = train.fit(model, X, SUM, validation=(X, y_val), epochs=50, lr=0.05, patience=3)

    losses = fitted.table["validation_loss"]
    assert fitted.stopped == "no better for 3 epochs"
    assert fitted.best_epoch == losses.idxmin() + 1 == len(losses) - 3
    assert fitted.best_loss == losses.min()
    now = F.mse_loss(train.predict(model, X)[:, 0], y_val).item()
    assert math.isclose(now, fitted.best_loss, rel_tol=1e-6)


def test_without_validation_the_last_epoch_is_kept():
    fitted = train.fit(fresh(), X, SUM, epochs=4)

    assert fitted.best_epoch == 4
    assert fitted.stopped == "after 4 epochs"
    assert fitted.table["epoch"].tolist() == [1, 2, 3, 4]
    assert fitted.rows_per_s > 0
    assert set(fitted.facts()) == {"best_loss", "best_epoch", "stopped"}


def test_clipping_bounds_the_step():
    plain = partial(torch.optim.SGD, momentum=0.0)
    model = fresh()
    before = weights(model)

    train.fit(model, X, 1e4 * SUM, epochs=1, batch=N, lr=1.0, clip=0.5, optimizer=plain)

    moved = [now - was for was, now in zip(before, weights(model), strict=True)]
    assert math.isclose(torch.cat([m.flatten() for m in moved]).norm(), 0.5, rel_tol=1e-3)


@pytest.mark.parametrize("with_validation", [True, False])
@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_training_that_diverges_is_reported_not_raised(lr, with_validation):
    sgd = partial(torch.optim.SGD, momentum=0.9)
    validation = (X, SUM) if with_validation else None

    fitted = train.fit(fresh(), X, SUM, validation=validation, lr=lr, optimizer=sgd, epochs=9)

    n_epochs = len(fitted.table)
    assert fitted.stopped == f"diverged in epoch {n_epochs}: pass a smaller lr"
    assert fitted.best_epoch < n_epochs < 9
    assert (fitted.best_epoch == 0) == math.isinf(fitted.best_loss)
    assert "diverged" in str(fitted)


def test_a_training_that_diverges_late_keeps_the_best_epoch():
    calls = iter(range(100))

    def loss(outputs, yb):
        blown_up = next(calls) >= 6  # two calls an epoch: a training and a validation batch
        return F.mse_loss(outputs[:, 0], yb) * (float("nan") if blown_up else 1)

    fitted = train.fit(fresh(), X, SUM, validation=(X, SUM), loss=loss, batch=N, epochs=9)

    assert fitted.stopped == "diverged in epoch 4: pass a smaller lr"
    assert fitted.best_epoch == 3
    assert all(torch.isfinite(tensor).all() for tensor in weights(fitted.model))


@pytest.mark.parametrize("kind", TARGETS)
def test_bfloat16_comes_near_to_float32(kind):
    settings = {"epochs": 5, "lr": 0.01, "batch": 32}

    exact = train.fit(fresh(N_OUTPUTS[kind]), X, TARGETS[kind], precision="float32", **settings)
    fast = train.fit(fresh(N_OUTPUTS[kind]), X, TARGETS[kind], precision="bfloat16", **settings)

    assert not fast.table.equals(exact.table)
    assert np.allclose(fast.table["train_loss"], exact.table["train_loss"], rtol=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights(fast.model))


def test_on_a_cpu_auto_precision_is_float32():
    settings = {"epochs": 2, "lr": 0.01}
    torch.manual_seed(0)
    wide = [nn.Sequential(nn.Linear(WIDTH, 512), nn.Linear(512, 512), nn.Linear(512, 1))]
    wide.append(copy.deepcopy(wide[0]))

    auto = train.fit(wide[0], X, SUM, **settings)
    exact = train.fit(wide[1], X, SUM, precision="float32", **settings)

    assert auto.table.equals(exact.table)


def test_a_model_of_doubles_stays_one():
    model = fresh().double()

    train.fit(model, X.double(), SUM.double(), validation=(X.double(), SUM.double()), epochs=1)

    assert all(tensor.dtype == torch.float64 for tensor in weights(model))


# ---- predict


@given(st.integers(1, 50))
def test_predictions_do_not_depend_on_the_batch(batch):
    model = fresh(3)

    assert torch.allclose(train.predict(model, X, batch=batch), model(X), atol=1e-6)


def test_predict_puts_back_the_mode_of_every_part_and_drops_nothing():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 1))
    model.train()
    model[2].eval()  # a user froze its statistics

    one, two = train.predict(model, X), train.predict(model, X)

    assert torch.equal(one, two)
    assert [part.training for part in model.modules()] == [True, True, True, False, True]
    assert not one.requires_grad


def test_predict_puts_back_the_mode_also_after_an_error():
    model = fresh().train()

    with pytest.raises(ValueError):
        train.predict(model, X[:, :2])

    assert model.training


class Remembers(nn.Module):
    """Keeps a tensor that it made in its first call, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 1), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = torch.ones(4)
        return (self.layer(x) * self.kept).sum(dim=1)


def test_what_a_module_keeps_from_predict_can_be_trained_with():
    model = Remembers()
    train.predict(model, X)

    assert len(train.fit(model, X, SUM, epochs=1).table) == 1


# ---- interruptions


def script(body: str) -> str:
    return f"""
import os, signal, sys, time, torch
from functools import partial
from kit import models, train
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
X = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
y = X.sum(dim=1)
torch.manual_seed(0)
{body}
"""


def test_ctrl_c_ends_with_the_best_weights_so_far(tmp_path):
    ready = tmp_path / "ready"
    body = f"""
calls = 0
def loss(outputs, yb):
    global calls
    calls += 1
    if calls == 300:  # in the middle of an epoch, after some whole ones
        open({str(ready)!r}, "w").close()
    if calls >= 300:
        time.sleep(0.002)
    return (outputs[:, 0] - yb).square().mean()
model = models.MLP(4, 1, hidden=(8,))
fitted = train.fit(model, X, y, validation=(X, y), loss=loss, epochs=100_000, batch=20)
now = (train.predict(model, X)[:, 0] - y).square().mean().item()
best = fitted.table["validation_loss"]
print(fitted.stopped, len(best) >= 27, fitted.best_epoch - 1 - best.idxmin(), now - best.min())
"""
    run = subprocess.Popen(
        [sys.executable, "-c", script(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not ready.exists() and run.poll() is None:
        time.sleep(0.02)

    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)

    assert run.returncode == 0, err
    stopped, is_long, off, difference = out.split()
    assert (stopped, is_long, off) == ("interrupted", "True", "0")
    assert abs(float(difference)) < 1e-6


def test_ctrl_c_in_the_first_epoch_returns_what_there_is():
    def loss(outputs, yb):
        raise KeyboardInterrupt

    fitted = train.fit(fresh(), X, SUM, loss=loss)

    assert fitted.stopped == "interrupted"
    assert len(fitted.table) == fitted.best_epoch == 0
    assert str(fitted) == "Fit(best_loss inf, best_epoch 0, stopped interrupted; table of 0 rows)"


# ---- several processes


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


TOGETHER = """
import json
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
dist.init_process_group("gloo")
said = {"shares": []}
for n in (10, 11, 201):
    rows = torch.arange(n)
    for epoch in (0, 1):
        parts = [yb for _, yb in train.batches(rows, rows, batch=4, epoch=epoch)]
        said["shares"].append([n, torch.cat(parts).tolist()])
try:
    train.fit(models.MLP(4, 1), X, y, epochs=1)
except ValueError as error:
    said["refused"] = str(error)
torch.manual_seed(0)
model = models.MLP(4, 1, hidden=(8,))
train.fit(
    DDP(model), X, y, validation=(X, y), batch=25, epochs=3, lr=0.01, checkpoint=sys.argv[1],
    optimizer=partial(torch.optim.SGD, momentum=0.9),
)
said["weights"] = torch.cat([w.flatten() for w in model.state_dict().values()]).tolist()
print(json.dumps(said))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    """What two processes said that were joined by gloo, as torchrun would join them."""
    folder = tmp_path_factory.mktemp("together")
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script(TOGETHER), str(folder / "run.safetensors")],
            env={**os.environ, **world, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outs
    files = [path.name for path in folder.iterdir()]
    return [{**json.loads(out), "files": files} for out, _ in outs]


def test_two_processes_get_disjoint_shares_of_one_size_that_cover_all_but_the_remainder(together):
    ours, theirs = (said["shares"] for said in together)

    for (n, one), (_, two) in zip(ours, theirs, strict=True):
        assert len(one) == len(two) == n // 2
        assert len({*one, *two}) == 2 * (n // 2)
        assert {*one, *two} <= set(range(n))
    assert ours[0] != ours[1]


def test_two_processes_train_one_model_as_one_process_with_twice_the_batch(together):
    alone, sgd = fresh(), partial(torch.optim.SGD, momentum=0.9)

    train.fit(alone, X, SUM, validation=(X, SUM), batch=50, epochs=3, lr=0.01, optimizer=sgd)

    expected = torch.cat([tensor.flatten() for tensor in weights(alone)])
    ours, theirs = (torch.tensor(said["weights"]) for said in together)
    assert torch.equal(ours, theirs)
    assert torch.allclose(ours, expected, atol=1e-5)


def test_of_two_processes_one_writes_the_checkpoint(together):
    assert together[0]["files"] == ["run.safetensors"]


def test_a_bare_model_in_two_processes_is_refused(together):
    assert {said["refused"] for said in together} == {
        (
            "train.fit: expected a model that its 2 processes share, got MLP. "
            "Wrap it: torch.nn.parallel.DistributedDataParallel(model)."
        )
    }


# ---- what cannot be trained

YES = TARGETS["yes/no"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: train.fit(fresh(), X, SUM[:-1]),
            (
                "train.fit: expected as many targets as rows, at least one, "
                "got 200 rows and 199 targets. Pass X and y of the same rows."
            ),
        ),
        (
            lambda: train.fit(fresh(), X[:0], SUM[:0]),
            (
                "train.fit: expected as many targets as rows, at least one, "
                "got 0 rows and 0 targets. Pass X and y of the same rows."
            ),
        ),
        (
            lambda: train.fit(fresh(), X, SUM, validation=(X, SUM[:9])),
            (
                "train.fit: expected as many targets as rows, at least one, "
                "got 200 rows and 9 targets. Pass X and y of the same rows."
            ),
        ),
        (
            lambda: train.fit(fresh(), X / torch.tensor([1.0, 1, 1, 0]), SUM),
            (
                "train.fit: expected finite inputs, got 200 NaN or infinite cells. "
                "Fill the gaps first: data.Encoder does."
            ),
        ),
        (
            lambda: train.fit(fresh(), X, SUM.where(SUM > 0, torch.nan)),
            (
                f"train.fit: expected finite targets, got {int((SUM <= 0).sum())} NaN or infinite "
                "cells. Fill the gaps first: data.Encoder does."
            ),
        ),
        (
            lambda: train.fit(fresh(2), X, YES),
            (
                "train.fit: expected 1 output a row, as the targets of type torch.bool ask for, "
                "got Tensor of shape (2, 2). "
                "Build the model with n_outputs=encoder.n_outputs, or pass loss=…."
            ),
        ),
        (
            lambda: train.fit(fresh(2), X, TARGETS["classes"]),
            (
                "train.fit: expected an output for each class from 0 to 2, "
                "as the targets of type torch.int64 ask for, got Tensor of shape (2, 2). "
                "Build the model with n_outputs=encoder.n_outputs, or pass loss=…."
            ),
        ),
        (
            lambda: train.fit(fresh(3), X, TARGETS["classes"] - 1),
            (
                "train.fit: expected an output for each class from -1 to 1, "
                "as the targets of type torch.int64 ask for, got Tensor of shape (2, 3). "
                "Build the model with n_outputs=encoder.n_outputs, or pass loss=…."
            ),
        ),
        (
            lambda: train.fit(fresh(), X, SUM, epochs=0),
            "train.fit: expected epochs >= 1, got 0 (int). Pass epochs=10.",
        ),
        (
            lambda: train.fit(fresh(), X, SUM, batch=0),
            "train.fit: expected batch >= 1, got 0 (int). Pass batch=10.",
        ),
        (
            lambda: train.fit(fresh(), X, SUM, lr=float("nan")),
            "train.fit: expected lr > 0, got nan (float). Pass lr=0.001.",
        ),
        (
            lambda: train.fit(fresh(), X, SUM, clip=0.0),
            "train.fit: expected clip > 0, got 0.0 (float). Pass clip=1.0.",
        ),
        (
            lambda: train.fit(fresh(), X, SUM, patience=3),
            (
                "train.fit: expected validation rows to be patient with, "
                "got patience=3 and no validation. Pass validation=(X_val, y_val)."
            ),
        ),
        (
            lambda: train.fit(fresh(), X, SUM, precision="float3"),
            (
                "train.fit: expected a known precision, got 'float3' (str). "
                "Did you mean 'float32'? Known: auto, bfloat16, float32."
            ),
        ),
        (
            lambda: list(train.batches(X, SUM[:5], batch=4)),
            (
                "train.batches: expected as many targets as rows, at least one, "
                "got 200 rows and 5 targets. Pass X and y of the same rows."
            ),
        ),
        (
            lambda: list(train.batches(X, SUM, batch=0)),
            "train.batches: expected batch >= 1, got 0 (int). Pass batch=10.",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_step(call, message):
    with pytest.raises(ValueError) as caught:
        call()

    assert str(caught.value) == message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", TARGETS)
def test_on_a_gpu_the_weights_are_those_of_the_cpu(kind):
    here, there = fresh(N_OUTPUTS[kind]), fresh(N_OUTPUTS[kind]).cuda()
    y, settings = TARGETS[kind], {"epochs": 3, "lr": 0.01, "batch": 32, "precision": "float32"}

    train.fit(here, X, y, validation=(X, y), **settings)
    train.fit(there, X, y, validation=(X, y), **settings)

    assert all(tensor.is_cuda for tensor in there.state_dict().values())
    pairs = zip(weights(here), weights(there), strict=True)
    assert all(torch.allclose(one, two.cpu(), atol=1e-4) for one, two in pairs)
    assert not train.predict(there, X).is_cuda


def test_the_users_own_choice_of_kernel_is_left_alone():
    X = torch.randn(32, 3, generator=seeds.generator(0))
    adamw = partial(torch.optim.AdamW, foreach=True)

    fitted = train.fit(nn.Linear(3, 1), X, X[:, 0], epochs=1, optimizer=adamw)

    assert fitted.best_epoch == 1


def test_predictions_keep_the_precision_of_the_model():
    X = torch.randn(5, 3, generator=seeds.generator(0), dtype=torch.float64)
    model = nn.Linear(3, 1).double()

    torch.testing.assert_close(train.predict(model, X), model(X).detach(), rtol=0, atol=0)
    assert train.predict(model.bfloat16(), X.bfloat16()).dtype == torch.float32


def test_a_table_that_is_not_encoded_is_told():
    frame = pd.DataFrame({"x": [1.0, 2.0]})

    with pytest.raises(TypeError) as error:
        check_rows("train.fit", frame, torch.zeros(2))

    assert str(error.value) == (
        "train.fit: expected tensors, got DataFrame. "
        "Encode the table first: encoder.X(frame), encoder.y(frame)."
    )
