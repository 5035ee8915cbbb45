"""A crash costs an epoch at the most, and not a bit of the result; a file is never executed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import in_a_process_that_is_killed
from torch import nn

from kit import models, train
from kit.base import storage

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(1))
Y = X.sum(dim=1)
VALIDATION = (X[:40], Y[:40] + 0.5)
EPOCHS, BATCHES = 4, 3  # 120 rows in batches of 40
OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "amsgrad": partial(torch.optim.AdamW, amsgrad=True),
    "Adam": torch.optim.Adam,
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


class Fragile(nn.Module):
    """A net with dropout and running statistics that kills its process after some batches."""

    def __init__(self, batches_to_live: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.batches_to_live = batches_to_live

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            if self.batches_to_live == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.batches_to_live -= 1
        return self.layers(x)


def fit(model: nn.Module, **settings) -> train.Fit:
    told = {"validation": VALIDATION, "epochs": EPOCHS, "lr": 0.05, "batch": 40, "seed": 3}
    torch.seed()  # a new process draws other global numbers; they are of no consequence
    return train.fit(model, X, Y, **told | settings)


def assert_the_same(one: train.Fit, two: train.Fit) -> None:
    assert one.table.equals(two.table)
    assert (one.best_epoch, one.best_loss, one.stopped) == (
        two.best_epoch,
        two.best_loss,
        two.stopped,
    )
    ours, theirs = one.model.state_dict(), two.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoint")


# ---- crashes


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=8)
@given(st.integers(0, EPOCHS * BATCHES - 1), st.integers(0, EPOCHS * BATCHES - 1))
def test_a_killed_training_goes_on_to_the_same_bits(folder, optimizer, first, second):
    path = folder / f"{optimizer}.safetensors"
    path.unlink(missing_ok=True)
    told = {"optimizer": OPTIMIZERS[optimizer], "clip": 1.0, "checkpoint": path}
    whole = fit(Fragile(), **told | {"checkpoint": None})
    done = first // BATCHES  # epochs on disk when it is killed

    in_a_process_that_is_killed(lambda: fit(Fragile(first), **told))
    if second < (EPOCHS - done) * BATCHES:
        in_a_process_that_is_killed(lambda: fit(Fragile(second), **told))
    resumed = fit(Fragile(), **told)

    assert_the_same(resumed, whole)


@pytest.mark.parametrize("moment", ["_sync", "replace"])
def test_a_training_that_is_killed_while_it_writes_goes_on_to_the_same_bits(tmp_path, moment):
    path = tmp_path / "run.safetensors"
    whole = fit(Fragile())
    fit(Fragile(), epochs=2, checkpoint=path)

    def killed_while_writing():
        owner = storage if moment == "_sync" else Path
        setattr(owner, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        fit(Fragile(), checkpoint=path)

    in_a_process_that_is_killed(killed_while_writing)

    assert_the_same(fit(Fragile(), checkpoint=path), whole)


def test_a_training_in_a_process_of_its_own_is_killed_from_outside_and_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    code = f"""
import sys, time, torch
torch.set_num_threads(1)  # as here: sums in another order would be other bits
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_train_checkpoint import Fragile, fit
class Slow(Fragile):
    def forward(self, x):
        time.sleep(0.01)
        return super().forward(x)
fit(Slow(), epochs=1000, checkpoint={str(path)!r})
"""
    run = subprocess.Popen([sys.executable, "-c", code])
    while not path.exists() and run.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    done = storage.load(path)[1]["state"]["epoch"]

    resumed = fit(Fragile(), epochs=done + 2, checkpoint=path)

    assert_the_same(resumed, fit(Fragile(), epochs=done + 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["yes/no", "classes"])
def test_targets_of_any_kind_go_on_to_the_same_bits(tmp_path, kind):
    y = Y > 0 if kind == "yes/no" else torch.bucketize(Y, torch.tensor([-1.0, 1.0]))
    told = {"epochs": 6, "batch": 16, "lr": 0.01, "seed": 1}

    def model():
        torch.manual_seed(0)
        return models.MLP(4, 1 if kind == "yes/no" else 3, hidden=(16, 16), dropout=0.2)

    whole = train.fit(model(), X, y, **told)
    for epochs in range(1, 7):
        path = tmp_path / "run.safetensors"
        resumed = train.fit(model(), X, y, checkpoint=path, **told | {"epochs": epochs})

    assert_the_same(resumed, whole)


def test_the_weights_of_a_best_epoch_before_the_crash_come_back(tmp_path):
    path = tmp_path / "run.safetensors"
    worse_and_worse = {"validation": (X, -Y), "checkpoint": path, "batch": 8}

    in_a_process_that_is_killed(lambda: fit(Fragile(40), **worse_and_worse))
    resumed = fit(Fragile(), **worse_and_worse)

    assert resumed.best_epoch < 40 // 15
    assert_the_same(resumed, fit(Fragile(), **worse_and_worse | {"checkpoint": None}))


def test_going_on_does_not_depend_on_what_the_model_held(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(Fragile(), epochs=2, checkpoint=path)
    other = Fragile()
    for weight in other.parameters():
        nn.init.normal_(weight)

    resumed = fit(other, checkpoint=path)

    assert_the_same(resumed, fit(Fragile()))


def test_a_training_that_is_done_is_not_done_again(tmp_path):
    path = tmp_path / "run.safetensors"
    one = fit(Fragile(), checkpoint=path)
    written = path.stat().st_mtime_ns

    two = fit(Fragile(batches_to_live=0), checkpoint=path)

    assert_the_same(one, two)
    assert path.stat().st_mtime_ns == written
    assert two.rows_per_s == 0


def test_a_training_that_stopped_early_stays_stopped(tmp_path):
    told = {"checkpoint": tmp_path / "run.safetensors", "patience": 2, "epochs": 200, "lr": 0.3}
    one = fit(Fragile(), **told)

    two = fit(Fragile(batches_to_live=0), **told)

    assert one.stopped == "no better for 2 epochs"
    assert_the_same(one, two)


def test_a_checkpoint_that_cannot_be_written_ends_the_training_and_keeps_the_last(
    tmp_path, monkeypatch
):
    path = tmp_path / "run.safetensors"
    fit(Fragile(), epochs=1, checkpoint=path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_sync", full)

    with pytest.raises(OSError):
        fit(Fragile(), checkpoint=path)

    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == ["run.safetensors"]
    assert_the_same(fit(Fragile(), checkpoint=path), fit(Fragile()))


# ---- what does not belong together

ANEW = "or another checkpoint= to start anew."


@pytest.mark.parametrize(
    ("changed", "expected", "got"),
    [
        ({"lr": 0.1}, "lr=0.05", "lr=0.1"),
        ({"batch": 32}, "batch=40", "batch=32"),
        ({"seed": 4}, "seed=3", "seed=4"),
        ({"clip": 1.0}, "clip=None", "clip=1.0"),
        ({"patience": 9}, "patience=None", "patience=9"),
        ({"weight_decay": 0.1}, "weight_decay=0.0", "weight_decay=0.1"),
        ({"precision": "float32"}, "precision='auto'", "precision='float32'"),
        ({"loss": nn.L1Loss()}, "loss='_quantity'", "loss='L1Loss'"),
        ({"optimizer": torch.optim.Adam}, "optimizer='AdamW'", "optimizer='Adam'"),
        (
            {"optimizer": partial(torch.optim.AdamW, betas=(0.8, 0.9))},
            "betas=[0.9, 0.999]",
            "betas=(0.8, 0.9)",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_settings_than_those_of_the_checkpoint_are_refused(tmp_path, changed, expected, got):
    path = tmp_path / "run.safetensors"
    fit(Fragile(), epochs=1, checkpoint=path)
    model = Fragile()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(ValueError) as caught:
        fit(model, checkpoint=path, **changed)

    assert str(caught.value) == (
        f"train.fit: expected the settings of the checkpoint run.safetensors, {expected}, "
        f"got {got}. Pass {expected} to go on, {ANEW}"
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "rows",
    [(X[:100], Y[:100]), (X + 1, Y), (X, Y + 1), (X.flip(0), Y.flip(0)), (X, Y.double())],
    ids=["fewer", "inputs", "targets", "order", "type"],
)
def test_other_rows_than_those_of_the_checkpoint_are_refused(tmp_path, rows):
    path = tmp_path / "run.safetensors"
    told = {"epochs": 1, "batch": 40, "checkpoint": path}
    train.fit(Fragile(), X, Y, **told)

    with pytest.raises(ValueError) as caught:
        train.fit(Fragile(), *rows, **told)

    assert str(caught.value) == (
        "train.fit: expected the rows that run.safetensors was trained on, got other rows. "
        f"Pass the same ones, {ANEW}"
    )


def test_fewer_epochs_than_are_done_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(Fragile(), epochs=3, checkpoint=path)

    with pytest.raises(ValueError) as caught:
        fit(Fragile(), epochs=2, checkpoint=path)

    assert str(caught.value) == (
        "train.fit: expected epochs >= 3, as many as run.safetensors has done, got 2. "
        f"Pass more, {ANEW}"
    )


def test_another_model_than_that_of_the_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(Fragile(), epochs=1, checkpoint=path)

    with pytest.raises(ValueError) as caught:
        fit(models.MLP(4, 1, hidden=(8,)), checkpoint=path)

    assert str(caught.value) == (
        "train.fit: expected no layers.1.bias, as the model has it, "
        "got shape (8,) in run.safetensors. Build the model with the sizes it was saved with."
    )


def test_a_saved_model_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    train.save(path, Fragile())

    with pytest.raises(ValueError) as caught:
        fit(Fragile(), checkpoint=path)

    assert str(caught.value) == (
        "train.fit: expected a checkpoint that fit wrote, got model.safetensors, written by "
        "train.save. Pass another checkpoint=; train.load reads this one."
    )


@settings(max_examples=30)
@given(st.data())
def test_a_damaged_checkpoint_is_refused_in_one_line_and_the_model_stays(folder, data):
    path = folder / "damaged.safetensors"
    path.unlink(missing_ok=True)
    fit(Fragile(), epochs=1, checkpoint=path)
    whole = path.read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    path.write_bytes(data.draw(st.sampled_from([cut]) | st.binary(max_size=300)))
    size, model = path.stat().st_size, Fragile()

    with pytest.raises(ValueError) as caught:
        fit(model, checkpoint=path)

    message = str(caught.value)
    assert message.startswith(
        "storage.load: expected a whole checkpoint of this kit, format 1, "
        f"got damaged.safetensors ({size} bytes): "
    )
    assert message.endswith(". Delete the file, or restore it from a copy.")
    assert len(message.splitlines()) == 1
    assert all(map(torch.equal, model.state_dict().values(), Fragile().state_dict().values()))


# ---- models


def test_a_model_is_saved_and_loaded_with_what_is_told_about_it(tmp_path):
    path, model, twin = tmp_path / "model.safetensors", Fragile(), Fragile()
    fit(model)

    train.save(path, model, about={"hidden": [8], "name": "é"})
    about = train.load(path, twin)

    assert about == train.about(path) == {"hidden": [8], "name": "é"}
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))
    assert torch.equal(train.predict(twin, X), train.predict(model, X))


def test_weights_that_do_not_fit_are_refused_and_the_model_stays(tmp_path):
    train.save(tmp_path / "a.safetensors", models.MLP(4, 1, hidden=(8,)))
    model = models.MLP(4, 1, hidden=(9,))
    before = [tensor.clone() for tensor in model.state_dict().values()]

    with pytest.raises(ValueError) as caught:
        train.load(tmp_path / "a.safetensors", model)

    assert str(caught.value) == (
        "train.load: expected layers.0.bias of shape (9,), as the model has it, "
        "got shape (8,) in a.safetensors. Build the model with the sizes it was saved with."
    )
    assert all(map(torch.equal, model.state_dict().values(), before))


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    torch.save({"w": Evil()}, tmp_path / "evil.safetensors")

    with pytest.raises(ValueError) as caught:
        train.load(tmp_path / "evil.safetensors", Fragile())

    assert str(caught.value).startswith("storage.load: expected a whole checkpoint of this kit")
    assert not ran.exists()
