import inspect
import itertools
import math
import re
import subprocess
import sys
import warnings
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import shap as stock
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kit import explain, models
from kit.base import progress
from kit.explain import coalitions, estimate, game, ignored, scorer


def by_definition(f, x, background):
    """Average a player's gain over all coalitions of the others, one at a time."""
    d = len(x)
    values = np.zeros(d)
    for i in range(d):
        others = [j for j in range(d) if j != i]
        for size in range(d):
            weight = math.factorial(size) * math.factorial(d - size - 1) / math.factorial(d)
            for chosen in itertools.combinations(others, size):
                without = background.copy()
                without[:, chosen] = x[list(chosen)]
                with_i = without.copy()
                with_i[:, i] = x[i]
                values[i] += weight * (f(with_i).mean() - f(without).mean())
    return values


def tangled(seed):
    """Return a function in which all features interact."""
    weights = np.random.default_rng(seed).normal(size=(2, 64))

    def f(x):
        first, second = (x @ w[: x.shape[1]] for w in weights)
        return np.sin(first) * second + np.maximum(first, second) ** 2

    return f


def mlp(*widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).eval()
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(2)  # far from linear, so that there is something to get wrong
    return net


def rows_of(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


class Residual(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.first, self.norm, self.mix = nn.Linear(d, 16), nn.LayerNorm(16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + F.silu(self.mix(self.norm(x))))


@settings(max_examples=20, deadline=None)
@given(d=st.integers(1, 6), n=st.integers(1, 3), n_back=st.integers(1, 4), seed=st.integers(0, 99))
def test_few_features_get_what_the_definition_says(d, n, n_back, seed):
    X, background = np.split(rows_of(n + n_back, d, seed).astype(float), [n])
    f = tangled(seed)

    found = explain.shap(f, X, background=background)

    expected = [by_definition(f, x, background) for x in X]
    np.testing.assert_allclose(found.values, expected, atol=1e-9)


@pytest.mark.slow  # shap compiles its loops
def test_twelve_features_agree_with_shap_exact():
    model, X, background = mlp(12, 20, 10, 2), rows_of(2, 12), rows_of(10, 12, seed=1)

    found = explain.shap(model, X, background=background)

    def call(x):
        return model(torch.as_tensor(x, dtype=torch.float32)).detach().numpy()

    expected = stock.explainers.Exact(call, stock.maskers.Independent(background))(X)
    assert found.method == "Shapley, exact"
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    np.testing.assert_allclose(found.to_shap().base_values, expected.base_values, atol=1e-5)


@pytest.mark.parametrize("d", [4, 7, 8])
def test_the_estimate_from_all_pairs_is_exact(d):
    rng = np.random.default_rng(d)
    worth = rng.normal(size=2**d)
    n_pairs = coalitions.all_pairs(d)

    def odd(members):
        code = members @ (1 << np.arange(d))
        return (worth[code] - worth[2**d - 1 - code])[None] / 2

    exact, sampled = coalitions.exact(d), coalitions.sampled(d, n_pairs, seed=0)
    everyone = np.array([worth[-1] - worth[0]]) / 2

    np.testing.assert_allclose(
        sampled(odd(sampled.members), everyone), exact(odd(exact.members), everyone), atol=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(d=st.integers(4, 40), n=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_draw_begins_with_the_smaller_draw_and_repeats_no_pair(d, n, seed):
    n = min(n, coalitions.all_pairs(d))

    members = coalitions.draw(d, n, seed)

    both = {row.tobytes() for row in np.concatenate([members, ~members])}
    assert len(both) == 2 * n
    np.testing.assert_array_equal(members[: n // 2], coalitions.draw(d, n // 2, seed))


def test_an_additive_model_is_explained_exactly_by_few_pairs():
    X, background = rows_of(3, 25).astype(float), rows_of(8, 25, seed=1).astype(float)
    weights = np.arange(25.0)

    found = explain.shap(lambda x: np.sin(x) @ weights, X, background=background, pairs=30)

    expected = weights * (np.sin(X) - np.sin(background).mean(0))
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("d", [6, 20])
def test_values_add_up_to_the_prediction_minus_the_base(output, d):
    model, X = mlp(d, 16, 3), rows_of(5, d)

    found = explain.shap(model, X, background=rows_of(9, d, seed=1), output=output)

    total = found.values.sum(1) + found.base_values
    logits = model(torch.from_numpy(X)).detach()
    expected = logits if output == "logit" else logits.softmax(1)
    np.testing.assert_allclose(total, expected, atol=1e-5)
    if output == "probability":
        np.testing.assert_allclose(found.values.sum(2), 0, atol=1e-5)


@pytest.mark.parametrize("pairs", ["exact", 60])
def test_a_feature_that_the_model_ignores_gets_exactly_zero(pairs):
    model, X = mlp(14, 16, 1), rows_of(5, 14)
    with torch.no_grad():
        model[0].weight[:, 3] = 0

    def blind(x):
        return model(torch.as_tensor(x * (np.arange(14) != 5), dtype=torch.float32)).numpy()

    by_weight = explain.shap(model, X, background=rows_of(9, 14, seed=1), pairs=pairs)
    with torch.inference_mode():
        by_code = explain.shap(blind, X, background=rows_of(9, 14, seed=1), pairs=pairs)

    assert (by_weight.values[:, 3] == 0).all()
    assert (by_code.values[:, [3, 5]] == 0).all()
    assert (by_code.error_std[:, [3, 5]] == 0).all()
    assert np.abs(by_code.values).max(axis=0).astype(bool).sum() == 12


def test_a_value_that_is_rare_among_the_rows_is_not_taken_for_ignored():
    X = rows_of(6000, 3).astype(float)
    X[:, 1] = 0
    X[4321, 1] = 1

    found = explain.shap(lambda x: x[:, 0] + 5 * x[:, 1], X, background=np.zeros((2, 3)))

    assert found.values[4321, 1] == pytest.approx(5)
    np.testing.assert_allclose(np.delete(found.values[:, 1], 4321), 0, atol=1e-9)
    assert (found.values[:, 2] == 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_players_that_count_only_all_together_are_not_taken_for_ignored(seed):
    X, background = np.ones((4, 12)), np.zeros((10, 12))

    found = explain.shap(lambda x: x.all(1).astype(float), X, background=background, seed=seed)

    np.testing.assert_allclose(found.values, 1 / 12, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("d", [6, 20])
def test_one_row_among_many_may_be_all_that_a_player_counts_for(d, seed):
    X = np.random.default_rng(seed).normal(size=(200, d))
    X[100] = 10

    def alarm(x):
        return x[:, 0] + 50 * (x[:, 1:6] > 5).all(1)

    found = explain.shap(alarm, X, background=np.zeros((10, d)), seed=seed)

    np.testing.assert_allclose(found.values[100, :6], 10, atol=1e-9)
    assert (found.values[:, 6:] == 0).all()


@lru_cache
def trained(kind):
    """Return one of the three models of the benchmark, smaller, with rows and background."""
    rng = np.random.default_rng(0)
    if kind == 12:
        X = rng.normal(size=(1500, 12))
        y = 2 * X[:, 0] + X[:, 1] * X[:, 2] + np.sin(2 * X[:, 3]) * X[:, 4] + X[:, 5] * X[:, 6]
        net, loss = mlp(12, 100, 50, 10, 1), F.mse_loss
    elif kind == 30:
        from sklearn.datasets import load_breast_cancer

        table = load_breast_cancer()
        order = rng.permutation(len(table.data))
        X = ((table.data - table.data.mean(0)) / table.data.std(0))[order]
        y, net, loss = table.target[order], mlp(30, 64, 32, 1), F.binary_cross_entropy_with_logits
    else:
        X = rng.normal(size=(3000, 100))
        weights = rng.normal(size=(100, 10)) / np.sqrt(np.arange(1, 101))[:, None]
        y = (X @ weights + np.tanh(X[:, :10]) * X[:, 10:20]).argmax(1)
        net, loss = mlp(100, 50, 10), F.cross_entropy
    X = torch.tensor(X, dtype=torch.float32)
    y = torch.tensor(y) if kind == 100 else torch.tensor(y, dtype=torch.float32)[:, None]
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(12):
        for batch in torch.randperm(len(X) - 16).split(64):
            value = loss(net(X[batch]), y[batch])
            opt.zero_grad()
            value.backward()
            opt.step()
    return net.eval(), X[-16:].numpy(), X[:25].numpy()


@pytest.mark.parametrize(("kind", "pairs"), [(12, 60), (12, 240), (30, 60), (30, 480), (100, 480)])
def test_nine_in_ten_true_errors_are_within_twice_the_error_that_is_told(kind, pairs):
    model, X, background = trained(kind)
    given = {"background": background, "target": "all"}
    if kind == 12:
        truth = explain.shap(model, X, **given).values
    else:
        runs = [explain.shap(model, X, pairs=1024, seed=seed, **given) for seed in range(1, 5)]
        truth = np.mean([run.values for run in runs], axis=0)

    found = explain.shap(model, X, pairs=pairs, **given)

    off = np.abs(found.values - truth)
    assert (off <= 2 * found.error_std).mean() >= 0.9
    # honest is not the same as large: what is told is of the size of what is
    assert found.error_std.mean() <= 8 * off.mean()


@pytest.mark.parametrize("n_rows", [1, 40])
def test_errors_are_honest_for_few_pairs_and_for_a_single_row(n_rows):
    model, background = mlp(14, 32, 16, 1), rows_of(20, 14, seed=1)
    X = rows_of(n_rows, 14)
    truth = explain.shap(model, X, background=background, pairs="exact").values

    within = []
    for seed in range(6):
        found = explain.shap(model, X, background=background, pairs=20, seed=seed)
        within.append(np.abs(found.values - truth) <= 2 * found.error_std)

    assert np.mean(within) >= 0.85


CHAINS = {
    "plain": lambda: mlp(14, 16, 8, 2),
    "one layer": lambda: nn.Sequential(nn.Linear(14, 2)),
    "nested, without bias": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(14, 8, bias=False), nn.GELU()), nn.Linear(8, 2, bias=False)
    ),
    "norms and dropout": lambda: nn.Sequential(
        nn.Linear(14, 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        nn.Dropout(),
        nn.BatchNorm1d(8),
        nn.Linear(8, 2),
    ),
    "no last linear": lambda: nn.Sequential(
        nn.Linear(14, 8), nn.ReLU(), nn.Linear(8, 2), nn.Tanh()
    ),
    "the kit's": lambda: models.MLP(14, 2, hidden=(8, 8), dropout=0.2),
}


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("name", CHAINS)
def test_the_shortcut_gives_what_the_model_gives(name, target):
    torch.manual_seed(0)
    model, X = CHAINS[name]().eval(), rows_of(3, 14)
    asked = scorer.make("test", model, X, output="logit", target=target, dtype="auto")
    assert asked.chain is not None
    given = {"background": rows_of(7, 14, seed=1), "pairs": 60, "target": target}

    quick = explain.shap(model, X, **given)
    slow = explain.shap(Hidden(model), X, **given)

    np.testing.assert_allclose(quick.values, slow.values, atol=1e-5)


class Hidden(nn.Module):
    """The same model, without layers to be seen."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def test_a_model_that_is_not_its_layers_takes_the_long_way():
    model, X = mlp(6, 8, 1), rows_of(3, 6)
    model.register_forward_hook(lambda module, args, out: out**2)

    found = explain.shap(model, X, background=rows_of(5, 6, seed=1))

    expected = explain.shap(Hidden(model), X, background=rows_of(5, 6, seed=1))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert np.abs(found.values).max() > 0.01


@pytest.mark.parametrize("at_once", [1, 50, 3000])
@pytest.mark.parametrize("model", [mlp(14, 16, 2), Residual(14).eval()])
def test_memory_is_bounded_and_changes_nothing(model, at_once, monkeypatch):
    X, background = rows_of(3, 14), rows_of(11, 14, seed=1)
    expected = explain.shap(model, X, background=background, pairs=40)
    monkeypatch.setitem(game.AT_ONCE, "cpu", at_once)
    monkeypatch.setattr(ignored, "HELD", 1)  # players are looked at one by one: few rows a call
    seen = []
    first = next(module for module in model.modules() if isinstance(module, nn.Linear))
    hook = first.register_forward_hook(lambda m, args, out: seen.append(out.numel()))

    found = explain.shap(model, X, background=background, pairs=40)

    hook.remove()
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    if isinstance(model, Residual):  # but for the probes at the beginning, all goes in small parts
        assert max(seen[-100:]) <= max(at_once, 2 * 16)


class Small(nn.Module):
    """A model on a device that holds 300 rows."""

    def __init__(self, most=300):
        super().__init__()
        self.inner, self.most, self.failures = mlp(14, 16, 1), most, 0

    def forward(self, x):
        if len(x) > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(x)


def test_out_of_memory_halves_what_is_held_at_once_and_goes_on():
    model, X = Small(), rows_of(4, 14)

    found = explain.shap(model, X, background=rows_of(50, 14, seed=1), pairs=40)

    expected = explain.shap(model.inner, X, background=rows_of(50, 14, seed=1), pairs=40)
    assert 0 < model.failures < 10
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


def test_predictions_of_more_rows_than_fit_are_asked_for_in_parts():
    model, X = Small(most=50), rows_of(700, 3)
    model.inner = mlp(3, 16, 1)

    found = explain.shap(model, X, background=rows_of(60, 3, seed=1)[:50])

    assert model.failures > 0
    np.testing.assert_allclose(
        found.predictions, model.inner(torch.from_numpy(X))[:, 0].detach(), atol=1e-6
    )


def test_out_of_memory_is_raised_when_a_single_row_does_not_fit():
    model = Small(most=64)

    def fails_from_now_on(module, args):
        if len(args[0]) != 64:  # the probes
            module.most = 0

    model.register_forward_pre_hook(fails_from_now_on)
    with pytest.raises(torch.OutOfMemoryError):
        explain.shap(model, rows_of(64, 14), background=rows_of(64, 14, seed=1), pairs=40)


def test_groups_play_as_one():
    X, background = rows_of(3, 6).astype(float), rows_of(5, 6, seed=1).astype(float)
    f = tangled(0)

    found = explain.shap(f, X, background=background, groups={"left": [0, 3], "right": ["x4", 5]})

    def of_players(x, row):
        # players left, x1, x2, right as one number each: 1 for the row's own, 0 for background's
        owner = [0, 1, 2, 0, 3, 3]
        return lambda z: f(np.where(z[:, owner] == 1, row, x))

    assert found.names == ["left", "x1", "x2", "right"]
    for row, values in zip(X, found.values, strict=True):
        each = [by_definition(of_players(b, row), np.ones(4), np.zeros((1, 4))) for b in background]
        np.testing.assert_allclose(values, np.mean(each, axis=0), atol=1e-9)


def test_outputs_keep_their_axis_where_there_are_several_or_all_are_asked_for():
    X, background = rows_of(4, 5), rows_of(3, 5, seed=1)
    three, one = mlp(5, 8, 3), mlp(5, 8, 1)

    def flat(x):
        return x @ np.ones(5)

    given = {"background": background}

    shapes = {
        "several": explain.shap(three, X, **given).values.shape,
        "a class": explain.shap(three, X, target=2, **given).values.shape,
        "(N, 1)": explain.shap(one, X, **given).values.shape,
        "(N, 1), all": explain.shap(one, X, target="all", **given).values.shape,
        "(N,)": explain.shap(flat, X, **given).values.shape,
    }

    assert shapes == {
        "several": (4, 5, 3),
        "a class": (4, 5),
        "(N, 1)": (4, 5),
        "(N, 1), all": (4, 5, 1),
        "(N,)": (4, 5),
    }
    whole, part = explain.shap(three, X, **given), explain.shap(three, X, target=2, **given)
    np.testing.assert_allclose(whole.values[:, :, 2], part.values, atol=1e-6)


def test_a_model_that_ends_in_probabilities_is_not_squashed_twice():
    ends, X = nn.Sequential(mlp(5, 8, 3), nn.Softmax(dim=1)), rows_of(4, 5)
    given = {"background": rows_of(3, 5, seed=1), "output": "probability"}

    found = explain.shap(ends, X, **given)

    expected = explain.shap(ends[0], X, **given)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_a_function_is_explained_as_it_is_whatever_its_name(output):
    def predict_proba(x):
        return 1 / (1 + np.exp(-tangled(0)(x)))

    given = {"background": rows_of(3, 5, seed=1), "output": output}

    named = explain.shap(predict_proba, rows_of(4, 5), **given)
    nameless = explain.shap(lambda x: predict_proba(x), rows_of(4, 5), **given)

    np.testing.assert_array_equal(named.values, nameless.values)
    np.testing.assert_allclose(named.predictions, predict_proba(rows_of(4, 5).astype(float)))


@pytest.mark.parametrize("kind", [int, bool])
def test_a_function_may_return_integers_or_truths(kind):
    X, background = rows_of(4, 5), rows_of(6, 5, seed=1)

    def counts(x):
        return (x > 0).sum(1) - 2 if kind is int else (x > 0).all(1)

    found = explain.shap(counts, X, background=background)

    expected = explain.shap(lambda x: counts(x).astype(float), X, background=background)
    np.testing.assert_array_equal(found.values, expected.values)
    assert np.abs(found.values).max() > 0


def test_a_module_may_return_integers():
    class Votes(nn.Module):
        def forward(self, x):
            return (x > 0).sum(1)

    X, background = rows_of(4, 5), rows_of(6, 5, seed=1)

    found = explain.shap(Votes(), X, background=background)

    np.testing.assert_allclose(found.values, (X > 0) - (background > 0).mean(0), atol=1e-6)


def test_more_is_played_until_the_error_is_as_small_as_asked():
    model, X = mlp(20, 32, 16, 1), rows_of(6, 20)
    given = {"background": rows_of(10, 20, seed=1)}

    rough = explain.shap(model, X, target_error=0.05, **given)
    fine = explain.shap(model, X, target_error=0.01, **given)

    for found, target in ((rough, 0.05), (fine, 0.01)):
        assert found.error_std.mean() <= target * np.abs(found.values).mean()
    assert rough.extra["pairs"].max() < fine.extra["pairs"].min()


def test_an_error_that_is_asked_for_ends_the_play_before_all_is_tried():
    model, X = mlp(14, 32, 16, 1), rows_of(6, 14)

    found = explain.shap(model, X, background=rows_of(10, 14, seed=1), target_error=0.05)

    assert found.extra["pairs"].max() < coalitions.all_pairs(14) / 10
    assert found.error_std.mean() <= 0.05 * np.abs(found.values).mean()


def test_an_error_that_is_not_reached_is_said():
    model, X = mlp(20, 32, 16, 1), rows_of(2, 20)

    with pytest.warns(UserWarning, match="not 1e-06. Pass more pairs, or a larger target_error"):
        found = explain.shap(
            model, X, background=rows_of(5, 20, seed=1), pairs=100, target_error=1e-6
        )

    assert set(found.extra["pairs"]) == {100}


def test_many_pairs_are_averaged_over_several_systems(monkeypatch):
    model, X, given = mlp(14, 32, 1), rows_of(4, 14), {"background": rows_of(6, 14, seed=1)}
    truth = explain.shap(model, X, pairs="exact", **given).values
    monkeypatch.setattr(estimate, "TOGETHER", 100)

    one = explain.shap(model, X, pairs=100, **given)
    ten = explain.shap(model, X, pairs=1000, **given)

    assert set(ten.extra["pairs"]) == {1000}
    assert np.abs(ten.values - truth).mean() < 0.6 * np.abs(one.values - truth).mean()
    assert ten.error_std.mean() < 0.5 * one.error_std.mean()


def test_blocks_of_rows_have_coalitions_of_their_own_and_a_seed_fixes_them():
    model, background = mlp(16, 32, 1), rows_of(6, 16, seed=1)
    X = np.repeat(rows_of(1, 16), 2 * estimate.BLOCK, axis=0)

    found = explain.shap(model, X, background=background, pairs=60)
    again = explain.shap(model, X, background=background, pairs=60)
    other = explain.shap(model, X, background=background, pairs=60, seed=1)

    first, second = found.values[: estimate.BLOCK], found.values[estimate.BLOCK :]
    assert np.ptp(first, axis=0).max() < 1e-5
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(found.values, again.values)
    assert np.abs(found.values - other.values).max() > 1e-3


def test_a_hundred_thousand_rows_go_in_blocks_behind_a_bar(monkeypatch):
    X, labels = rows_of(100_000, 3).astype(float), []

    def track(items, *, label, total=None):
        labels.append((label, len(items)))
        return iter(items)

    monkeypatch.setattr(progress, "track", track)
    found = explain.shap(lambda x: x[:, 0] * x[:, 1] + x[:, 2], X, background=np.zeros((1, 3)))

    assert labels == [("explaining", 391)]
    np.testing.assert_allclose(found.values[:, 0], X[:, 0] * X[:, 1] / 2, atol=1e-9)


@pytest.mark.parametrize("n_blocks", [0, 2])
def test_an_interrupt_returns_the_rows_that_are_done(n_blocks, monkeypatch):
    X = rows_of(5 * estimate.BLOCK, 3)

    def track(items, *, label, total=None):
        yield from items[:n_blocks]
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "track", track)
    if n_blocks == 0:
        with pytest.raises(KeyboardInterrupt):
            explain.shap(tangled(0), X, background=X[:2])
        return
    with pytest.warns(UserWarning, match="interrupted") as caught:
        found = explain.shap(tangled(0), X, background=X[:2])

    assert str(caught[0].message) == (
        "explain.shap: interrupted after 512 of 1280 rows; those are returned."
    )
    assert len(found.values) == len(found.data) == len(found.predictions) == 512


def test_a_model_in_train_mode_is_put_in_eval_mode_and_back():
    model, X = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)), rows_of(3, 4)
    model[0].eval()
    expected = explain.shap(model.eval(), X, background=X[:2])
    model.train()
    model[0].eval()

    with pytest.warns(UserWarning, match="train mode") as caught:
        found = explain.shap(model, X, background=X[:2])

    assert str(caught[0].message) == (
        "explain.shap: the model was in train mode. It is explained in eval mode and put back; "
        "call model.eval() first to silence this."
    )
    assert [module.training for module in model] == [False, True, True]
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_model_that_fails_is_put_back_in_train_mode():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    model = nn.Sequential(nn.Linear(4, 1), Broken()).train()

    with pytest.raises(RuntimeError, match="broken"):
        explain.shap(model, rows_of(3, 4), background=rows_of(2, 4))

    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "layer",
    [nn.LSTM(4, 4, num_layers=2, dropout=0.5), nn.MultiheadAttention(4, 1, dropout=0.5)],
    ids=["lstm", "attention"],
)
def test_dropout_inside_a_layer_counts_as_well(layer):
    class Within(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return x.sum(1)

    with pytest.warns(UserWarning, match="the model was in train mode"):
        explain.shap(Within(), rows_of(3, 4), background=rows_of(2, 4))


def test_a_fresh_model_without_dropout_is_explained_without_a_word():
    model = nn.Sequential(nn.Linear(4, 1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain.shap(model, rows_of(3, 4), background=rows_of(3, 4, seed=1))

    assert model.training


def test_a_constant_background_is_one_row_and_that_is_said():
    X = rows_of(3, 4).astype(float)

    with pytest.warns(UserWarning, match="equal") as caught:
        found = explain.shap(tangled(0), X, background=np.ones((50, 4)))

    assert str(caught[0].message) == (
        "explain.shap: all 50 background rows are equal, so values are against that one row. "
        "Pass rows that differ, or only one to silence this."
    )
    expected = explain.shap(tangled(0), X, background=np.ones((1, 4)))
    np.testing.assert_array_equal(found.values, expected.values)


def test_warnings_point_to_the_line_of_the_call(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WARNED)

    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    # without the checks of types that tests put around every function, which are levels, too
    said = re.findall(rf"{re.escape(str(script))}:(\d+): UserWarning: explain\.(\w+)", ran.stderr)
    lines = WARNED.splitlines()
    assert len(said) == ran.stderr.count("UserWarning: ") == 8
    assert all(lines[int(number) - 1].startswith(f"explain.{name}") for number, name in said)


WARNED = """
import numpy as np
import torch
from kit import explain
from kit.base import progress
X, same = np.random.default_rng(0).normal(size=(600, 20)), np.ones((5, 20))
net = torch.nn.Sequential(torch.nn.Linear(20, 1), torch.nn.Dropout())
letters = lambda text: (list(map(ord, text)), [(i, i + 1) for i in range(len(text))])
explain.shap(net, X[:1], background=X[:2])
explain.lime(net, X[:1], train=X[:5], samples=256)
explain.text(torch.nn.Dropout(), letters, ["a"], mask_id=0, output="raw")
explain.compare(net, X[:1], background=X[:2], methods=["kit shap"])
explain.shap(net.eval(), X[:1], background=same)
explain.shap(net, X[:1] ** 2, background=X[:2], target_error=1e-99, pairs=24)
explain.lime(net, X[:1], train=same, samples=256)
def track(items, label):
    yield next(iter(items))
    raise KeyboardInterrupt
progress.track = track
explain.shap(net, X, background=X[:2])
"""


def test_tables_give_their_names_and_integers_are_numbers():
    frame = pd.DataFrame({"age": [30, 40], "codes": [1, 2], "member": [True, False]})

    found = explain.shap(lambda x: x @ np.array([1.0, 2.0, 3.0]), frame, background=frame[:1])

    assert found.names == ["age", "codes", "member"]
    np.testing.assert_allclose(found.values, [[0, 0, 0], [10, 2, -3]])


def test_pictures_show_what_the_caller_has_them_show():
    X = pd.DataFrame(rows_of(5, 3), columns=["distance", "carrier", "hour"])
    raw = pd.DataFrame(
        {"distance": [2475.0, 733, 1089, 200, 94], "carrier": [*"ABCD", None], "hour": range(5)}
    )
    given = {"background": X, "groups": {"where": ["distance", "hour"]}}

    found = explain.shap(tangled(0), X, background=X, shown=raw)
    grouped = explain.shap(tangled(0), X, shown=raw[["distance", "carrier"]], **given)

    assert set(found.top(0).set_index("feature")["data"].items()) == {
        ("distance", 2475.0),
        ("carrier", "A"),
        ("hour", 0),
    }
    labels = {label.get_text() for label in found.waterfall(0).get_yticklabels()}
    assert labels == {"distance = 2,475", "carrier = A", "hour = 0"}
    assert len(found.beeswarm().collections) == 3
    assert found.to_shap().data[1].tolist() == [733.0, "B", 1]
    assert grouped.data.tolist() == raw[["distance", "carrier"]].to_numpy().tolist()
    assert explain.check(found, n_rows=2).table["holds"].all()
    with pytest.raises(ValueError, match=r"Pass shown\[X.columns\]"):
        explain.shap(tangled(0), X, background=X, shown=raw[["carrier", "distance", "hour"]])


def test_what_is_shown_must_have_the_columns_of_X_and_not_only_as_many():
    X, raw = rows_of(4, 2), pd.DataFrame({"age": [1, 2, 3, 4], "late": ["no"] * 4})

    with pytest.raises(ValueError) as error:
        explain.shap(mlp(2, 4, 1), X, background=X, shown=raw)

    assert str(error.value) == (
        "explain.shap: expected shown with the columns of X, got age, late, which X has not. "
        "Pass X as a DataFrame with columns=encoder.names, and shown[X.columns]."
    )


def test_types_are_kept_and_can_be_chosen():
    model, X = mlp(5, 8, 1), rows_of(4, 5)
    given = {"background": rows_of(3, 5, seed=1)}
    expected = explain.shap(model.double(), X.astype(float), **given).values

    single = explain.shap(model.float(), X, **given)
    double = explain.shap(model, X, dtype="float64", **given)
    rough = explain.shap(model, X, dtype="bfloat16", **given)

    assert next(model.parameters()).dtype == torch.float32
    np.testing.assert_allclose(double.values, expected, atol=1e-12)
    np.testing.assert_allclose(single.values, expected, atol=1e-5)
    np.testing.assert_allclose(rough.values, expected, atol=0.05)


def test_nothing_that_is_handed_over_is_changed():
    model, X, background = mlp(5, 8, 1), rows_of(4, 5), rows_of(3, 5, seed=1)
    before = X.copy(), background.copy(), {k: v.clone() for k, v in model.state_dict().items()}

    explain.shap(model, X, background=background)

    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(background, before[1])
    assert all(torch.equal(before[2][k], v) for k, v in model.state_dict().items())


def test_a_model_that_writes_into_its_input_does_not_reach_ours():
    X, background = rows_of(4, 5).astype(float), rows_of(3, 5, seed=1).astype(float)

    def rude(x):
        x[:, 0] *= 2
        return x.sum(1)

    found = explain.shap(rude, X, background=background)

    expected = explain.shap(lambda x: x.sum(1) + x[:, 0], X, background=background)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-9)
    np.testing.assert_allclose(found.predictions, X.sum(1) + X[:, 0])


class Pair(nn.Module):
    def forward(self, x):
        return x, x


FRAME = pd.DataFrame({"a": [1, 2], "b": [1, 3], "c": [4, 2], "d": [1, 2]})
BAD = {
    "columns in another order": (
        {"X": FRAME, "background": FRAME[["b", "a", "c", "d"]]},
        (
            "explain.shap: expected background's columns in the order of X, got b, a, c, d. "
            "Pass background[X.columns]."
        ),
    ),
    "a function that returns words": (
        {"model": lambda x: np.array(["yes", "no"])[(x[:, 0] > 9).astype(int)]},
        (
            "explain.shap: expected a function that returns numbers, got 'yes' (str). "
            "Pass its method: model.predict_proba."
        ),
    ),
    "pairs": (
        {"pairs": 20, "d": 20},
        (
            "explain.shap: expected at least 24 pairs for 20 players (1.2 a player), got 20 (int). "
            "Pass pairs='auto'."
        ),
    ),
    "all of too many": (
        {"pairs": "exact", "d": 21},
        (
            "explain.shap: expected at most 20 players for pairs='exact', got 21 (int). "
            "Pass pairs='auto', or groups={...} of features."
        ),
    ),
    "words further down": (
        {"X": pd.DataFrame({"a": [1, "x"], "b": [1, 2], "c": [1, 2], "d": [1, 2]})},
        (
            "explain.shap: expected numbers in X, got 'x' in column a. "
            "Encode it first: data.Encoder does."
        ),
    ),
    "a group named like a column": (
        {"groups": {"x3": [0, 1]}},
        (
            "explain.shap: expected groups with names of their own, got 'x3', a column that is in "
            "no group. Name the group otherwise, or put that column into it."
        ),
    ),
    "something else to show": (
        {"shown": pd.DataFrame({"a": [1, 2]})},
        (
            "explain.shap: expected shown as a DataFrame of shape (2, 4), a row a row of X, "
            "a column a player, got DataFrame of shape (2, 1). "
            "Pass the rows of X as they were before they were encoded."
        ),
    ),
    "pairs in words": (
        {"pairs": "many"},
        "explain.shap: expected a known pairs, got 'many' (str). Known: auto, exact.",
    ),
    "target error": (
        {"target_error": 0},
        (
            "explain.shap: expected target_error > 0, got 0 (int). "
            "Pass target_error=0.01 for 1 % of the mean value."
        ),
    ),
    "empty background": (
        {"background": np.zeros((0, 4))},
        (
            "explain.shap: expected background of shape (rows, features) with at least one of each,"
            " got ndarray of shape (0, 4). Pass at least one row."
        ),
    ),
    "narrow background": (
        {"background": np.zeros((2, 3))},
        (
            "explain.shap: expected a background of 4 columns, as X has, got ndarray of shape "
            "(2, 3). Pass rows of the same table: background=X_train[:100]."
        ),
    ),
    "one row without its axis": (
        {"X": np.zeros(4)},
        (
            "explain.shap: expected X of shape (rows, features) with at least one of each, "
            "got ndarray of shape (4,). Add the axis of rows: X[None]."
        ),
    ),
    "NaN": (
        {"X": pd.DataFrame({"a": [1, np.nan], "b": [1, 2], "c": [1, 2], "d": [np.inf, 1]})},
        (
            "explain.shap: expected finite numbers in X, got 2 NaN or infinite cells, in a, d. "
            "Fill the gaps first: data.Encoder does."
        ),
    ),
    "words": (
        {"X": pd.DataFrame({"a": [1, 2], "b": [1, 2], "c": ["red", "blue"], "d": [1, 2]})},
        (
            "explain.shap: expected numbers in X, got 'red' in column c. "
            "Encode it first: data.Encoder does."
        ),
    ),
    "class": (
        {"model": mlp(4, 8, 3), "target": 3},
        (
            "explain.shap: expected a class from 0 to 2, 'all' or None, got 3 (int). "
            "Pass target=0 for the first class."
        ),
    ),
    "scale": (
        {"output": "logits"},
        (
            "explain.shap: expected a known output, got 'logits' (str). Did you mean 'logit'? "
            "Known: logit, probability, raw."
        ),
    ),
    "type": (
        {"dtype": "float16"},
        (
            "explain.shap: expected a known dtype, got 'float16' (str). Did you mean 'bfloat16'? "
            "Known: auto, bfloat16, float32, float64."
        ),
    ),
    "tuple": (
        {"model": Pair()},
        (
            "explain.shap: expected a model that returns one tensor, got tuple. "
            "Wrap it in a module whose forward returns the scores alone."
        ),
    ),
    "three axes": (
        {"model": lambda x: x[:, :, None]},
        (
            "explain.shap: expected outputs of shape (2,) or (2, classes), got Tensor of shape "
            "(2, 4, 1). Wrap the model so that it returns one row of scores a row of input."
        ),
    ),
    "NaN from the model": (
        {"model": lambda x: x[:, 0] * np.nan},
        (
            "explain.shap: expected finite outputs of the model on these rows, got 2 NaN or "
            "infinite of 2. Look for a log, a root or a division in the model."
        ),
    ),
    "no model": (
        {"model": "model.pt"},
        (
            "explain.shap: expected a torch module or a function of rows, got str. "
            "Pass its method: model.predict_proba."
        ),
    ),
    "group of a stranger": (
        {"groups": {"all": ["x0", "x9"]}},
        "explain.shap: expected a known column, got 'x9' (str). Known: x0, x1, x2, x3.",
    ),
    "twice in groups": (
        {"groups": {"a": [0, 1], "b": [1]}},
        (
            "explain.shap: expected groups that have columns, each column in one group, "
            "got 'x1' twice. Pass for example groups={'colour': ['red', 'blue']}."
        ),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line_with_a_remedy(name):
    changes, message = BAD[name]
    d = changes.get("d", 4)
    given = {"model": tangled(0), "X": rows_of(2, d), "background": rows_of(3, d, seed=1)}
    given |= {key: value for key, value in changes.items() if key != "d"}

    with pytest.raises((ValueError, TypeError)) as caught:
        explain.shap(given.pop("model"), given.pop("X"), **given)

    assert str(caught.value) == message


@pytest.mark.parametrize(("pairs", "got"), [(100.5, "100.5 (float)"), (None, "None (NoneType)")])
def test_pairs_are_a_whole_number(pairs, got):
    shap = inspect.unwrap(explain.shap)  # without the check of types that tests put around it

    with pytest.raises(TypeError) as caught:
        shap(tangled(0), rows_of(2, 4), background=rows_of(2, 4), pairs=pairs)

    assert str(caught.value) == (
        f"explain.shap: expected a whole number of pairs, got {got}. Pass pairs='auto'."
    )


def test_worths_that_are_not_finite_are_refused():
    """NaN may show on masked rows alone, which are none of the user's."""
    X = np.array([[1.0, 1.0], [2.0, 2.0]])

    with pytest.raises(ValueError) as caught:
        explain.shap(lambda x: np.where(x[:, 0] == x[:, 1], 1.0, np.nan), X, background=X + 5)

    assert str(caught.value) == (
        "explain.shap: expected finite outputs of the model on rows that are part background, got "
        "2 NaN or infinite of 2. Look for a log, a root or a division in the model."
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", [mlp(14, 64, 2), Residual(14).eval()])
def test_a_gpu_gives_what_the_cpu_gives(model):
    X, background = rows_of(5, 14), rows_of(20, 14, seed=1)
    expected = explain.shap(model, X, background=background, pairs=60)

    found = explain.shap(model.cuda(), X, background=background, pairs=60)

    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
