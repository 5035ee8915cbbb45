"""Which units go and what the rest make up for: against least squares, and against trying all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kit.prune import obs
from kit.prune.gram import Gram, Pairs, damped
from kit.prune.shrink import shrink


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed(rows, columns, seed=0):
    """Rows whose columns depend on one another."""
    return drawn(rows, columns, seed=seed) @ drawn(columns, columns, seed=seed + 1)


def moments_of(x):
    gram = Gram(x.shape[-1], "test")
    gram.add(x)
    return gram.second_moments()


def reader_of(x, matrix, units=None):
    units = torch.arange(x.shape[1]) if units is None else units
    return obs.Reader(matrix, units, moments_of(x))


def loss_without(x, matrix, units, gone):
    """The least squares that is left when the other columns do their best."""
    stays = ~torch.isin(units, torch.tensor(gone))
    wanted = x @ matrix.T
    best = torch.linalg.lstsq(x[:, stays], wanted).solution
    return float((x[:, stays] @ best - wanted).square().sum())


@pytest.fixture
def no_ridge(monkeypatch):
    monkeypatch.setattr(obs, "damped", lambda moments, damp=0.0: moments)
    monkeypatch.setattr(obs, "REFIT_DAMP", 0.0)


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=25)
def test_the_unit_that_goes_first_is_the_one_that_least_squares_misses_least(seed, width):
    x, matrix = mixed(200, 6 * width, seed=seed), drawn(4, 6 * width, seed=seed + 2)
    units = torch.arange(6).repeat_interleave(width)[torch.randperm(6 * width)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obs, "damped", lambda moments, damp=0.0: moments)
        kept = obs.order([reader_of(x, matrix, units)], units=6, keep=5)

    losses = [loss_without(x, matrix, units, [unit]) for unit in range(6)]
    (gone,) = set(range(6)) - set(kept.tolist())
    assert losses[gone] <= min(losses) * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_each_later_unit_is_the_least_loss_beside_those_that_have_gone(seed, no_ridge):
    x, matrix = mixed(300, 9, seed=seed), drawn(5, 9, seed=seed + 2)
    units, gone = torch.arange(9), []

    for keep in range(8, 3, -1):
        kept = obs.order([reader_of(x, matrix)], units=9, keep=keep).tolist()
        left = [unit for unit in range(9) if unit not in gone]
        losses = {unit: loss_without(x, matrix, units, [*gone, unit]) for unit in left}
        gone = [unit for unit in range(9) if unit not in kept]

        assert set(left) - set(kept) == {min(losses, key=losses.__getitem__)}


def test_readers_of_one_family_are_judged_together(no_ridge):
    x = torch.eye(3, dtype=torch.float64).repeat(50, 1)
    first = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    second = torch.diag(torch.tensor([9.0, 1.0, 0.0], dtype=torch.float64))

    alone = obs.order([reader_of(x, first)], units=3, keep=2)
    both = obs.order([reader_of(x, first), reader_of(x, second)], units=3, keep=2)

    assert (alone.tolist(), both.tolist()) == ([1, 2], [0, 2])


def test_columns_of_no_unit_stay_and_help_to_make_up(no_ridge):
    x = mixed(200, 4)
    x[:, 3] = x[:, 0] * 2
    matrix, units = drawn(2, 4, seed=2), torch.tensor([0, 1, 2, -1])
    x[:, 0] += 1e-3 * drawn(200, seed=5)

    kept = obs.order([reader_of(x, matrix, units)], units=3, keep=2)
    fitted = obs.refit(reader_of(x, matrix, units), kept)

    assert kept.tolist() == [1, 2]
    assert (fitted[:, 0] == 0).all()
    torch.testing.assert_close(x @ fitted.T, x @ matrix.T, atol=1e-2, rtol=0)


@given(st.integers(0, 1000), st.integers(1, 7))
@settings(max_examples=25)
def test_a_refit_without_a_ridge_is_least_squares(seed, n):
    x, matrix = mixed(100, 8, seed=seed), drawn(3, 8, seed=seed + 2)
    keep = torch.randperm(8, generator=torch.Generator().manual_seed(seed))[:n].sort().values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obs, "damped", lambda moments, damp=0.0: moments)
        fitted = obs.refit(reader_of(x, matrix), keep)

    best = torch.linalg.lstsq(x[:, keep], x @ matrix.T).solution
    torch.testing.assert_close(x @ fitted.T, x[:, keep] @ best, atol=1e-6, rtol=1e-6)
    assert torch.equal(fitted.any(0).nonzero()[:, 0], keep)


def test_the_best_matrix_is_least_squares_and_with_rows_too_few_it_stays_as_it_is(no_ridge):
    x, y, matrix = mixed(100, 5), drawn(100, 3, seed=7), drawn(3, 5, seed=2)

    best = obs.best(matrix, moments_of(x), x.T @ y / 100)

    torch.testing.assert_close(best.T, torch.linalg.lstsq(x, y).solution)


def test_a_ridge_pulls_towards_the_matrix_as_it_is():
    x, matrix = drawn(3, 8), drawn(2, 8, seed=2)

    best = obs.best(matrix, moments_of(x), x.T @ (x @ matrix.T) / 3)

    torch.testing.assert_close(best, matrix, atol=1e-9, rtol=0)


def test_a_ridge_is_a_share_of_the_mean_variance():
    moments = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))

    assert damped(moments, 0.1).diagonal().tolist() == [1.2, 3.2]


@pytest.mark.parametrize("method", ["obs", "activation"])
def test_a_dead_unit_goes_first(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].bias[3] = -1e3  # and with large weights on the way out
        model[2].weight[:, 3] = 1e3
    rows = torch.randn(200, 4)

    pruned = shrink(model, rows, keep=5 / 6, method=method)

    assert pruned.table["kept"].tolist() == [5]
    torch.testing.assert_close(pruned.model(rows), model(rows), atol=1e-3, rtol=1e-3)


def test_of_two_equal_neurons_one_goes_at_no_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = model[0].weight[2], model[0].bias[2]
    rows = torch.randn(500, 4)

    by = {name: shrink(model, rows, keep=5 / 6, method=name) for name in ("obs", "magnitude")}

    lost = {name: (each.model(rows) - model(rows)).square().mean() for name, each in by.items()}
    assert lost["obs"] < 1e-6
    assert lost["magnitude"] > 1e-4


def test_the_bias_takes_up_the_mean_of_what_goes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(8))
        model[0].weight[6:] = 0  # two units say the same for every row, and that loudly
        model[0].bias[6:] = torch.tensor([5.0, -7.0])
    rows = torch.randn(300, 8)

    smaller = shrink(model, rows, keep=0.75).model

    torch.testing.assert_close(smaller(rows), model(rows), atol=1e-3, rtol=1e-3)
    assert smaller[0].bias.abs().max() < 1
    assert (smaller[2].bias - model[2].bias).abs().max() > 0.1


def test_pairs_are_the_moments_of_all_rows_however_they_come():
    x, y = drawn(30, 4), drawn(30, 2, seed=3)
    pairs = Pairs(4, "test", outputs=2)

    for part in (slice(7), slice(7, 30)):
        pairs.add_pair(x[part], y[part])

    torch.testing.assert_close(pairs.covariance(), torch.cov(x.T, correction=0))
    both = torch.cov(torch.cat([x, y], 1).T, correction=0)
    torch.testing.assert_close(pairs.cross_covariance(), both[:4, 4:])
    torch.testing.assert_close(pairs.means_out(), y.mean(0))


def test_with_fewer_rows_than_columns_a_ridge_decides_and_that_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 2))
    few, many = torch.randn(10, 4), torch.randn(80, 4)

    short, enough = (shrink(model, rows, keep=0.5) for rows in (few, many))

    assert short.notes == ("fewer rows than columns: a ridge decides; 40 rows would do",)
    assert enough.notes == ()
    assert short.model(many).isfinite().all()
    torch.testing.assert_close(short.model(few), model(few), atol=0.05, rtol=0.05)
