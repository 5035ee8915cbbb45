"""Learning rates, landscapes and sizes: what they measure is what a loop over the same measures."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import models, train, tune
from kit.tune.sizes import _knee, _record

X = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
Y = X[:, 0] * X[:, 1] + 0.5 * X[:, 2] > 0
DATA = (X[:200], Y[:200], X[200:], Y[200:])


def net(width: int = 8, depth: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return models.MLP(4, 1, hidden=(width,) * depth)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def same(one, two) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


# ---- learning rates


def test_on_a_line_of_known_curvature_it_flies_off_above_the_limit():
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, -2.0)
    x, y = torch.ones(2, 1), torch.tensor([0.0, 2.0])  # (w - 1)² + 1: L = 2, the limit is 1
    batches = [(x, y), (x, y + 0.2)]  # two, so that no batch is ever at rest

    found = tune.lr_range(line, batches, low=1e-3, high=100.0, steps=200)

    assert 0.001 < found.lr < 1.0
    assert 1.0 < found.diverged_at < 10.0
    assert found.lr <= found.lr_at_lowest < found.diverged_at


def test_every_step_takes_its_own_rate_and_the_model_is_left_as_it_was():
    model = net()
    before, batches = state(model), list(train.batches(X, Y, batch=32))

    found = tune.lr_range(model, iter(batches), low=1e-4, high=1e-2, steps=20)

    trained, losses = copy.deepcopy(model), []
    for lr, (xb, yb) in zip(found.table["lr"], batches * 2, strict=False):
        loss = F.binary_cross_entropy_with_logits(trained(xb).squeeze(1), yb.float())
        losses.append(float(loss.detach()))
        for weight, slope in zip(
            trained.parameters(), torch.autograd.grad(loss, list(trained.parameters())), strict=True
        ):
            weight.data -= lr * slope
    assert found.table["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    assert found.table["lr"].tolist() == pytest.approx(np.geomspace(1e-4, 1e-2, 20).tolist())
    assert math.isnan(found.diverged_at)
    assert same(before, model.state_dict())


# ---- landscape


def test_every_point_is_the_loss_of_a_model_that_was_moved_there():
    model = net()
    before, batches = state(model), list(train.batches(X, Y, batch=77))
    g = torch.Generator().manual_seed(3)
    a, b = (
        {name: torch.randn(w.shape, generator=g) for name, w in model.named_parameters()}
        for _ in range(2)
    )

    found = tune.landscape(model, batches, span=0.5, points=3, directions=(a, b))

    for row in found.table.to_dict(orient="records"):
        moved = copy.deepcopy(model)
        for name, weight in moved.named_parameters():
            weight.data += row["along_a"] * a[name] + row["along_b"] * b[name]
        loss = F.binary_cross_entropy_with_logits(moved(X).squeeze(1), Y.float())
        assert row["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert (
        found.losses[0, 2] == found.table.query("along_b == -0.5 and along_a == 0.5")["loss"].item()
    )
    assert found.at_centre == found.losses[1, 1]
    assert same(before, model.state_dict())
    assert model.training


def test_a_net_of_the_same_function_and_larger_weights_has_the_same_landscape():
    small, large = net(), net()
    with torch.no_grad():  # a ReLU passes a factor on
        large.layers[0].weight *= 10
        large.layers[0].bias *= 10
        large.layers[2].weight /= 10

    one, two = (tune.landscape(model, [(X, Y)], points=5) for model in (small, large))

    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-3)


def test_a_trained_net_lies_lower_than_the_plane_around_it():
    model = net()
    train.fit(model, X, Y, epochs=30, lr=0.02, batch=64)

    found = tune.landscape(model, [(X, Y)], points=5)

    assert (found.losses > 0.95 * found.at_centre).all()
    assert 1 / 25 <= found.flat_frac < 1


# ---- sizes


def test_sizes_measure_every_width_and_depth_and_choose_within_one_standard_error():
    found = tune.sizes(net, DATA, widths=[16, 2], depths=[2, 1], epochs=3)

    table = found.table
    assert sorted(zip(table["width"], table["depth"], strict=True)) == [
        (2, 1), (2, 2), (16, 1), (16, 2)
    ]  # fmt: skip
    assert table["parameters"].is_monotonic_increasing
    assert (table["latency_ms"] > 0).all()
    line = table["loss"].min() + table.loc[table["loss"].idxmin(), "std_error"]
    first = table[table["loss"] <= line].iloc[0]
    assert found.choice == {"width": first["width"], "depth": first["depth"]}
    row = table.loc[table["role"].str.contains("choice")].iloc[0]
    outputs = train.predict(found.model, DATA[2]).squeeze(1)
    each = F.binary_cross_entropy_with_logits(outputs, DATA[3].float(), reduction="none")
    assert row["loss"] == pytest.approx(float(each.mean()), rel=1e-5)
    assert row["std_error"] == pytest.approx(float(each.std()) / 10, rel=1e-4)


def sized(parameters, losses, std_error=0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "width": parameters,
            "depth": 1,
            "parameters": parameters,
            "loss": losses,
            "std_error": std_error,
        }
    )


def test_the_knee_is_where_more_parameters_begin_to_buy_little():
    assert _knee(sized([10, 100, 1000, 10000], [1.0, 0.3, 0.25, 0.2])) == 1
    assert _knee(sized([10, 100, 1000], [1.0, 2.0, 0.2])) == 2  # no front to bend


def test_a_record_says_which_size_is_what_and_what_it_saves():
    table = sized([100, 10, 1000], [0.3, 1.0, 0.29], 0.02)

    found = _record(table, [nn.Identity(), nn.Linear(1, 1), nn.Identity()])

    assert found.facts() == {
        "choice": "width 100, depth 1",
        "best": "width 1000, depth 1",
        "knee": "width 100, depth 1",
        "saves": "90 % of the parameters",
    }
    assert found.table["role"].tolist() == ["", "choice, knee", "best"]


# ---- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tune.lr_range(net(), [], low=1.0, high=0.1),
            "tune.lr_range: expected 0 < low < high, got 1.0 and 0.1. Pass low=1e-6.",
        ),
        (
            lambda: tune.lr_range(net(), []),
            "tune.lr_range: expected one batch at least, got none. Pass train.batches(X, y, …).",
        ),
        (
            lambda: tune.lr_range(net(), [(X, Y)], steps=3),
            "tune.lr_range: expected steps >= 10, got 3 (int). Pass steps=100.",
        ),
        (
            lambda: tune.lr_range(net(), [(X / 0, Y)]),
            (
                "tune.lr_range: expected a finite loss at the lowest lr, got nan (float). "
                "Pass a lower low=, such as 1e-8."
            ),
        ),
        (
            lambda: tune.landscape(net(), [(X, Y)], points=4),
            (
                "tune.landscape: expected an odd number of points, 3 or more, got 4 (int). "
                "Pass points=21."
            ),
        ),
        (
            lambda: tune.landscape(net(), [(X, Y)], span=0),
            "tune.landscape: expected span > 0, got 0 (int). Pass span=1.0.",
        ),
        (
            lambda: tune.landscape(net(), [(X, Y)], directions=[{"a": X}, {}]),
            (
                "tune.landscape: expected directions with no a, as the model has it, "
                "got shape (300, 4). Take the differences of two models' named_parameters()."
            ),
        ),
        (
            lambda: tune.sizes(net, DATA, widths=[]),
            "tune.sizes: expected widths of 1 or more, got [] (list). Pass widths=[1, 2].",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(ValueError) as error:
        call()

    assert str(error.value) == message
