"""Descents go where torch's optimizers go, and the record knows the limit that algebra knows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import tune

OPTIMIZERS = {
    "gd": lambda weights, lr: torch.optim.SGD(weights, lr=lr),
    "momentum": lambda weights, lr: torch.optim.SGD(weights, lr=lr, momentum=0.9),
    "adagrad": lambda weights, lr: torch.optim.Adagrad(weights, lr=lr),
    "adam": lambda weights, lr: torch.optim.Adam(weights, lr=lr),
}


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def bowl(*curvatures):
    h = torch.tensor(curvatures, dtype=torch.float64)
    turn = torch.linalg.qr(
        torch.randn(len(h), len(h), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ).Q
    return lambda x: 0.5 * (h * (turn @ x) ** 2).sum()


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_every_point_is_where_the_optimizer_of_torch_goes(method):
    weights = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    opt, theirs = OPTIMIZERS[method]([weights], lr=0.01), []
    for _ in range(31):
        theirs.append(weights.detach().clone())
        opt.zero_grad()
        rosenbrock(weights).backward()
        opt.step()

    path = tune.descend(rosenbrock, [-1.0, 1.0], lr=0.01, steps=30, method=method)

    torch.testing.assert_close(path.points, torch.stack(theirs), rtol=1e-6, atol=1e-9)
    assert path.table["loss"].tolist() == [float(rosenbrock(point)) for point in path.points]


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.1, 50), min_size=1, max_size=6),
    st.sampled_from(["gd", "momentum"]),
    st.sampled_from([0.5, 0.95, 1.05, 2.0]),
)
def test_on_a_bowl_it_flies_off_exactly_above_the_limit(curvatures, method, factor):
    largest = max(curvatures)
    limit = {"gd": 2.0, "momentum": 3.8}[method] / largest

    path = tune.descend(
        bowl(*curvatures), [1.0] * len(curvatures), lr=factor * limit, steps=400, method=method
    )

    assert path.curvature == pytest.approx(largest, rel=1e-3)
    assert path.limit == pytest.approx(limit, rel=1e-3)
    assert (path.outcome == "diverged") == (factor > 1)


def test_the_curvature_that_counts_is_upward_even_where_a_stronger_one_bends_down():
    def saddle(x):
        return x[0] ** 2 - 5 * x[1] ** 2

    path = tune.descend(saddle, [1.0, 0.0], lr=0.1, steps=20)

    assert path.curvature == pytest.approx(2.0)


def test_the_record_says_why_in_one_sentence():
    def told(lr):
        return tune.descend(lambda x: (x**2).sum(), [1.0], lr=lr, steps=50).why

    assert told(0.4) == "lr 0.4 < 2/L = 1, L = 2: arrived"
    assert told(1e-3) == ("lr 0.001 < 2/L = 1, L = 2: every direction shrinks, the flattest slowly")
    assert told(1.0) == "lr 1 = 2/L = 1, L = 2: the steepest direction neither grows nor shrinks"
    assert told(1.1) == "lr 1.1 > 2/L = 1, L = 2: the steepest direction grows"


@pytest.mark.parametrize("steps", [1, 3, 5, 60])
def test_below_its_limit_momentum_may_rise_at_first_and_has_not_diverged(steps):
    path = tune.descend(lambda x: (x**2).sum(), [1.0], lr=1.5, steps=steps, method="momentum")

    assert path.outcome != "diverged"


def test_an_arrival_above_the_limit_is_told_as_one():
    def valley(x):
        return x[0] ** 2 + 50 * x[1] ** 2

    path = tune.descend(valley, [1.0, 0.0], lr=0.5, steps=20)

    assert path.outcome == "converged"
    assert path.why == (
        "lr 0.5 > 2/L = 0.02, L = 100: "
        "it arrived all the same, where it is flatter, or not by the steepest way"
    )


def test_whole_numbers_are_a_start():
    path = tune.descend(lambda x: (x**2).sum(), torch.tensor([2]), lr=0.25, steps=1)

    assert path.points.tolist() == [[2.0], [1.0]]


def test_adam_has_no_such_limit_and_a_plane_has_no_curvature():
    adam = tune.descend(rosenbrock, [0.0, 0.0], lr=0.1, steps=5, method="adam")
    plane = tune.descend(lambda x: x.sum(), [0.0, 0.0], lr=0.1, steps=5)

    assert math.isnan(adam.limit)
    assert adam.why == "adam rescales every direction: no limit of lr is known"
    assert plane.curvature == 0.0
    assert plane.why == "gd met no curvature: no limit of lr is known"


def test_a_descent_ends_where_the_loss_is_no_number_any_more():
    path = tune.descend(lambda x: (x**4).sum(), [2.0], lr=1.0, steps=100)

    assert path.outcome == "diverged"
    assert len(path.points) == len(path.table) < 101
    assert np.isfinite(path.table["loss"]).all()


def test_points_of_any_shape_are_descended_from_in_their_own_precision():
    start = torch.ones(2, 3, dtype=torch.float32)

    path = tune.descend(lambda w: (w**2).sum(), start, lr=0.1, steps=3)

    assert path.points.shape == (4, 2, 3)
    assert path.points.dtype == torch.float32
    assert torch.equal(start, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "adams"},
            (
                "tune.descend: expected a known method, got 'adams' (str). "
                "Did you mean 'adam'? Known: adagrad, adam, gd, momentum."
            ),
        ),
        ({"lr": 0.0}, "tune.descend: expected a finite lr > 0, got 0.0 (float). Pass lr=0.1."),
        ({"steps": 0}, "tune.descend: expected steps >= 1, got 0 (int). Pass steps=50."),
        (
            {"objective": lambda x: x},
            (
                "tune.descend: expected an objective that returns one number, computed by torch "
                "from the point, got Tensor of shape (2,). Return for example (point**2).sum()."
            ),
        ),
        (
            {"objective": lambda x: 3.0},
            (
                "tune.descend: expected an objective that returns one number, computed by torch "
                "from the point, got 3.0 (float). Return for example (point**2).sum()."
            ),
        ),
        (
            {"objective": lambda x: x.log().sum() - torch.inf},
            (
                "tune.descend: expected a finite loss at the start, got -inf (float). "
                "Start where the objective is defined."
            ),
        ),
    ],
)
def test_what_cannot_be_descended_is_told_in_one_line(given, message):
    told = {"objective": rosenbrock, "start": [1.0, 2.0], "lr": 0.1, "steps": 5} | given

    with pytest.raises(ValueError) as error:
        tune.descend(told.pop("objective"), told.pop("start"), **told)

    assert str(error.value) == message
