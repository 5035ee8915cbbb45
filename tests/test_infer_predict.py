"""Predictions: the same for any batch, whatever memory holds, and the model as it was."""

import inspect
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kit import infer
from kit.base import memory
from kit.base import seed as seeds
from kit.infer.inputs import check_model, check_rows


class Seen(nn.Module):
    """Keep count of the rows of each batch."""

    def __init__(self, limit: int = 10**9, words: str = "") -> None:
        super().__init__()
        self.limit, self.words = limit, words
        self.rows: list[int] = []

    def forward(self, x):
        if len(x) > self.limit:
            raise RuntimeError(self.words)
        self.rows.append(len(x))
        return 2 * x


def rows(n: int, width: int = 3) -> torch.Tensor:
    return torch.randn(n, width, generator=seeds.generator(0))


@given(n=st.integers(0, 300), batch=st.one_of(st.just("auto"), st.integers(1, 400)))
def test_a_prediction_does_not_depend_on_the_batch(n, batch):
    model, X = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), rows(n)

    outputs = infer.predict(model, X, batch=batch)

    torch.testing.assert_close(outputs, model(X).detach())


def test_a_model_predicts_in_eval_mode_and_each_part_is_put_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    outputs = infer.predict(model, rows(50))

    assert not outputs.requires_grad
    assert torch.is_grad_enabled()
    assert [part.training for part in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(outputs, model.eval()(rows(50)).detach())


def test_a_model_that_fails_is_put_back_too():
    model = nn.Sequential(nn.Linear(5, 1))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        infer.predict(model, rows(4))

    assert model.training
    assert model[0].training


def test_auto_begins_small_and_computes_every_row_once():
    model = Seen()

    outputs = infer.predict(model, rows(5000))

    assert model.rows[0] == 64
    assert sum(model.rows) == 5000
    torch.testing.assert_close(outputs, 2 * rows(5000))


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [
        (lambda n: 1.0, [64, 128, 256, 512, 1024, 16]),  # the more rows the better
        (lambda n: float(n), [64, 128, 256, *[64] * 24, 16]),  # nothing is gained
        (lambda n: n * (2.0 if n == 128 else 1.0), [64, 128, 256, *[64] * 24, 16]),
        (lambda n: n**0.5 + 20.0 * (n == 128), [64, 128, 256, 512, 1024, 16]),  # one hiccup
    ],
)
def test_auto_doubles_while_rows_come_faster_and_goes_back_to_the_best(
    monkeypatch, seconds, batches
):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Timed(Seen):
        def forward(self, x):
            clock[0] += seconds(len(x))
            return super().forward(x)

    model = Timed()

    infer.predict(model, rows(2000))

    assert model.rows == batches


def test_auto_does_not_grow_into_memory_that_is_not_there(monkeypatch):
    model = Seen()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))

    infer.predict(model, rows(300))

    assert model.rows == [64, 64, 64, 64, 44]


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "MPS backend out of memory",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
    ],
)
def test_a_batch_that_runs_out_of_memory_is_halved_and_says_so(words):
    model = Seen(limit=30, words=words)

    with pytest.warns(UserWarning, match="infer.predict") as caught:
        outputs = infer.predict(model, rows(100), batch=100)

    assert [str(each.message) for each in caught] == [
        (
            "infer.predict: 100 rows at once ran out of memory, 25 did not. "
            "Pass batch=25 to silence this."
        )
    ]
    assert model.rows == [25, 25, 25, 25]
    torch.testing.assert_close(outputs, 2 * rows(100))


def test_a_batch_larger_than_the_rows_is_not_halved_in_vain():
    model = Seen(limit=30, words="out of memory")

    with pytest.warns(UserWarning, match="40 rows at once ran out of memory, 20 did not"):
        infer.predict(model, rows(40), batch=10_000)

    assert model.rows == [20, 20]


def test_auto_settles_on_what_memory_holds():
    model = Seen(limit=40, words="out of memory")

    with pytest.warns(UserWarning, match="64 rows at once ran out of memory, 32 did not"):
        infer.predict(model, rows(100))

    assert model.rows == [32, 32, 32, 4]


def test_a_single_row_that_memory_does_not_hold_is_an_error():
    with pytest.raises(RuntimeError, match="not enough memory"):
        infer.predict(Seen(limit=0, words="not enough memory"), rows(8))


def test_other_errors_are_not_taken_for_memory():
    model = Seen(limit=0, words="mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        infer.predict(model, rows(8))

    assert not memory.ran_out(RuntimeError("mat1 and mat2"))


def test_outputs_are_no_lower_than_float32_and_whole_numbers_stay():
    X = rows(6)

    assert infer.predict(nn.Linear(3, 1).double(), X.double()).dtype == torch.float64
    assert infer.predict(nn.Linear(3, 1).bfloat16(), X.bfloat16()).dtype == torch.float32
    assert infer.predict(Seen(), X.long()).dtype == torch.int64


class Returns(nn.Module):
    def __init__(self, outputs) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return self.outputs(x)


@pytest.mark.parametrize(
    ("model", "batch", "error", "message"),
    [
        (
            Seen(),
            0,
            ValueError,
            'infer.predict: expected batch >= 1 or "auto", got 0 (int). Pass batch=1024.',
        ),
        (
            Seen(),
            "all",
            ValueError,
            "infer.predict: expected batch >= 1 or \"auto\", got 'all' (str). Pass batch=1024.",
        ),
        (
            Seen(),
            None,
            ValueError,
            'infer.predict: expected batch >= 1 or "auto", got None (NoneType). Pass batch=1024.',
        ),
        (
            Seen(),
            2.5,
            ValueError,
            'infer.predict: expected batch >= 1 or "auto", got 2.5 (float). Pass batch=1024.',
        ),
        (
            Returns(lambda x: (x, x)),
            2,
            TypeError,
            (
                "infer.predict: expected a model that returns one tensor, got tuple. "
                "Wrap it in a module whose forward returns the one you want."
            ),
        ),
        (
            Returns(lambda x: x.sum(0)),
            2,
            ValueError,
            (
                "infer.predict: expected one row of outputs for each of 2 inputs, "
                "got Tensor of shape (3,). Pass a model that keeps the rows apart."
            ),
        ),
        (
            Returns(lambda x: x.sum()),
            2,
            ValueError,
            (
                "infer.predict: expected one row of outputs for each of 2 inputs, "
                f"got {float(rows(2).sum())!r} (float). Pass a model that keeps the rows apart."
            ),
        ),
        (
            Returns(lambda x: x @ x.T),
            3,
            ValueError,
            (
                "infer.predict: expected outputs of shape (3,) in every row, "
                "got Tensor of shape (2, 2). Pass rows of one shape, or predict them one by one."
            ),
        ),
    ],
)
def test_what_cannot_be_predicted_is_told_in_one_line(model, batch, error, message):
    X = rows(5)

    with pytest.raises(error) as caught:
        # as outside of the tests, where nothing checks types before
        inspect.unwrap(infer.predict)(model, X, batch=batch)

    assert str(caught.value) == message


def test_what_are_no_rows_and_no_model_is_told():
    with pytest.raises(ValueError, match="rows") as no_axis:
        check_rows("infer.predict", torch.tensor(1.0))
    with pytest.raises(TypeError) as no_tensor:
        check_rows("infer.predict", [[1.0]])
    with pytest.raises(TypeError) as no_model:
        check_model("infer.predict", "gpt")

    assert str(no_axis.value) == (
        "infer.predict: expected rows, got 1.0 (float). Add the axis of rows: x[None]."
    )
    assert str(no_tensor.value) == (
        "infer.predict: expected a tensor of rows, got list. "
        "Encode the table first: encoder.X(frame)."
    )
    assert str(no_model.value) == (
        "infer.predict: expected a torch.nn.Module, got str. Pass the model itself."
    )
