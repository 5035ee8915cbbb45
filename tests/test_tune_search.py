"""Searches find, tell what failed and why, keep to budgets, and are held against the simple."""

import concurrent.futures
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import models, train, tune
from kit.tune import race
from kit.tune.tuning import UNTUNED

SPACE = {"lr": (1e-2, 1.0, "log"), "momentum": (0.0, 0.9), "hidden": [4, 8]}


def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    X = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return X, X[:, 0] * X[:, 1] + 0.5 * X[:, 2] > 0


DATA = (*rows(240, 1), *rows(120, 2))
TEST = rows(200, 3)


def net(hidden: int = 8, n_outputs: int = 1) -> nn.Module:
    return models.MLP(4, n_outputs, hidden=(hidden,))


@pytest.fixture(scope="module")
def simple():
    return tune.search(net, DATA, SPACE, method="random", trials=1, epochs=1).baselines


@pytest.fixture
def search(simple):
    def call(model_fn=net, data=DATA, space=SPACE, **told) -> tune.Tuning:
        settings = {"trials": 8, "epochs": 4, "batch": 32, "baselines": simple} | told
        return tune.search(model_fn, data, space, **settings)

    return call


@pytest.mark.parametrize("method", ["random", "tpe", "gp", "population", "auto"])
def test_every_method_tries_as_many_and_returns_the_best_of_them(search, method):
    found = search(method=method, trials=12)

    assert len(found.table) == 12
    assert set(found.table["state"]) <= {"done", "pruned"}
    lowest = found.table.loc[found.table["loss"].idxmin()]
    assert found.best_loss == lowest["loss"]
    assert found.best == {name: lowest[name] for name in SPACE}
    outputs = train.predict(found.best_model, DATA[2])
    loss = F.binary_cross_entropy_with_logits(outputs.squeeze(1), DATA[3].float())
    assert float(loss) == pytest.approx(found.best_loss, rel=1e-4)
    assert not found.best_model.training


@pytest.mark.parametrize("method", ["random", "tpe", "population"])
def test_the_same_seed_finds_the_same_and_another_seed_something_else(search, method):
    one, two, other = (search(method=method, seed=seed) for seed in (4, 4, 5))

    assert one.table.equals(two.table)
    assert not one.table.equals(other.table)


def test_every_configuration_lies_in_the_space(search):
    space = {
        "lr": (1e-3, 1e-1, "log"),
        "hidden": (4, 9),
        "momentum": (0, 0.5),
        "label_smoothing": [0.0, 0.1],
    }

    table = search(space=space, method="random", trials=20, epochs=1).table

    assert table["lr"].between(1e-3, 1e-1).all()
    assert (table["lr"] < 1e-2).sum() > 4  # half of them, on a logarithmic scale
    assert set(table["hidden"]) <= set(range(4, 10))
    assert table["momentum"].between(0, 0.5).all()
    assert table["momentum"].nunique() == 20
    assert set(table["label_smoothing"]) == {0.0, 0.1}


def test_choices_may_be_anything(search):
    def build(act, layers):
        return nn.Sequential(nn.Linear(4, layers[0]), act(), nn.Linear(layers[0], 1))

    space = {"act": [nn.Tanh, nn.ReLU], "layers": [(4,), (8,)]}

    found = search(build, space=space, method="population")

    assert found.best["act"] in space["act"]
    assert found.best["layers"] in space["layers"]


@pytest.mark.parametrize("pruner", ["hyperband", "asha"])
def test_optuna_stops_what_falls_behind(search, pruner):
    found = search(method="tpe", pruner=pruner, trials=16, epochs=9)
    whole = search(method="tpe", pruner="none", trials=16, epochs=9)

    assert (found.table["state"] == "pruned").sum() >= 4
    assert found.table.loc[found.table["state"] == "pruned", "epochs"].max() < 9
    assert set(whole.table["state"]) == {"done"}


def test_what_matters_is_told_from_those_that_were_dropped_too(search):
    space = {"lr": (1e-4, 1.0, "log"), "weight_decay": (0.0, 1e-9), "hidden": [8]}

    found = search(space=space, method="population", trials=24)

    assert next(iter(found.importances)) == "lr"
    assert found.importances["lr"] > 0.9
    assert sum(found.importances.values()) == pytest.approx(1.0)


# ---- failures


def test_a_configuration_that_cannot_be_built_has_failed_and_the_rest_go_on(search):
    def picky(hidden):
        if hidden == 4:
            raise ValueError("no four here\nand more")
        return net(hidden)

    for method in ("random", "population"):
        found = search(picky, method=method, trials=10)

        failed = found.table[found.table["hidden"] == 4]
        assert set(failed["state"]) == {"failed"}
        assert set(failed["why"]) == {"ValueError: no four here"}
        assert failed["loss"].isna().all()
        assert found.best["hidden"] == 8
        assert (found.table["state"] != "failed").sum() == 10 - len(failed)


@pytest.mark.parametrize("method", ["random", "population"])
def test_a_loss_that_is_no_number_stops_its_trial_and_is_said_so(search, method):
    space = {"lr": [0.1, 1e30], "hidden": [8]}

    found = search(space=space, method=method)

    wild = found.table[found.table["lr"] == 1e30]
    assert set(wild["why"]) == {"diverged: the loss was nan in epoch 1"}
    assert set(wild["epochs"]) == {1}
    assert found.best["lr"] == 0.1
    assert math.isfinite(found.best_loss)


def test_a_model_with_other_outputs_fails_with_the_remedy(search):
    with pytest.raises(ValueError) as error:
        search(lambda hidden: net(hidden, 3), trials=2)

    assert str(error.value) == (
        "tune.search: expected one trial at least that ends well, got 2 failed; the first: "
        "ValueError: tune.search: expected 1 output a row, as the targets of type torch.bool ask "
        "for, got Tensor of shape (2, 3). Build the model with n_outputs=encoder.n_outputs, or "
        "pass loss=…. Mend model_fn, or narrow the space."
    )


def test_when_every_trial_fails_the_first_reason_is_told(search):
    def broken(hidden):
        raise RuntimeError("no memory")

    with pytest.raises(ValueError) as error:
        search(broken, trials=3)

    assert str(error.value) == (
        "tune.search: expected one trial at least that ends well, got 3 failed; the first: "
        "RuntimeError: no memory. Mend model_fn, or narrow the space."
    )


class Slow(nn.Module):
    """A line that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)

    def forward(self, x):
        torch.linalg.svd(torch.ones(60, 60))
        return self.line(x)


def test_a_budget_ends_the_search_and_leaves_what_was_found(search):
    found = search(Slow, space={"lr": (0.01, 1.0)}, method="random", trials=10**4, budget_s=1.5)

    assert found.stopped == "budget_s used up"
    assert 1 <= len(found.table) < 10**4
    assert found.seconds < 10


def test_a_budget_smaller_than_one_trial_is_told_with_one_that_would_do(search):
    with pytest.raises(ValueError) as error:
        search(Slow, space={"lr": (0.01, 1.0)}, method="random", budget_s=1e-6)

    start, _, rest = str(error.value).partition("about ")
    assert start == "tune.search: expected a budget for one trial at least, "
    assert rest.partition(" s, got ")[2].startswith("1e-06 (float). Pass budget_s=")


def test_ctrl_c_leaves_what_was_found(search, monkeypatch):
    calls = iter(range(100))

    def build(hidden):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return net(hidden)

    found = search(build, method="random")

    assert found.stopped == "interrupted"
    assert len(found.table) == 5


def test_ctrl_c_in_a_population_keeps_those_who_lead(search, monkeypatch):
    whole, epoch, calls = search(method="population"), race.Race.epoch, iter(range(100))

    def interrupted(self):
        if next(calls) == 3:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(race.Race, "epoch", interrupted)
    found = search(method="population")

    assert found.stopped == "interrupted"
    assert len(found.table) == 8
    running = whole.table["epochs"] > 3
    assert (found.table.loc[running, "why"] == "interrupted").all()
    assert found.best_loss == min(min(each.losses[:3]) for each in whole.outcomes.values())


def test_a_population_that_gets_through_no_trial_in_its_budget_is_told(search):
    with pytest.raises(ValueError, match="expected a budget for one trial at least"):
        search(Slow, space={"lr": (0.01, 1.0)}, method="population", budget_s=1e-6)


# ---- executors


def test_trials_may_be_trained_by_processes_with_the_same_losses(search):
    here = search(method="random")

    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        there = search(method="random", executor=executor)

    assert there.table["loss"].tolist() == pytest.approx(here.table["loss"].tolist(), rel=1e-4)
    assert there.best == here.best
    assert there.how == "each to its end by ProcessPoolExecutor"


def test_what_cannot_be_sent_to_another_process_is_told(search):
    with concurrent.futures.ProcessPoolExecutor(1) as executor, pytest.raises(ValueError) as error:
        search(lambda hidden: net(hidden), method="random", trials=2, executor=executor)

    assert "got 2 failed; the first: " in str(error.value)
    assert "pickle" in str(error.value)


# ---- beside the simple models


def test_the_simple_models_stand_beside_in_the_same_measure(search, simple):
    found = search(method="random", trials=2, baselines=None, epochs=1, batch=256)

    losses = dict(zip(simple["model"], simple["validation_loss"], strict=True))
    assert list(losses) == [
        UNTUNED, "majority", "naive Bayes", "logistic regression", "boosted trees"
    ]  # fmt: skip
    held = train.baselines(*DATA)
    assert losses["boosted trees"] == held.evaluations["boosted trees"]["log_loss"]
    assert found.baselines.equals(simple)
    assert list(found.facts())[3:] == simple.sort_values("validation_loss")["model"].tolist()[:2]


def test_quantities_are_held_against_in_squared_errors():
    X = DATA[0]

    found = tune.search(net, (X, X[:, 0], X, X[:, 0]), SPACE, trials=2, epochs=1, method="random")

    losses = found.baselines.set_index("model")["validation_loss"]
    assert losses["mean"] == pytest.approx(float(X[:, 0].var(correction=0)), rel=1e-5)
    assert losses["ridge"] < 0.01


def test_a_loss_of_ones_own_is_minimised_and_no_other_model_knows_it(search):
    def absolute(outputs, y):
        return (outputs.squeeze(-1) - y.float()).abs().mean()

    found = search(loss=absolute, method="population", baselines=None)

    assert found.baselines["model"].tolist() == [UNTUNED]
    guess = train.predict(found.best_model, DATA[2])
    assert found.best_loss == pytest.approx(float(absolute(guess, DATA[3])), rel=1e-4)


def test_the_test_rows_are_looked_at_once_and_show_what_choosing_flattered(search):
    found = search(method="random")

    tested = found.test(*TEST)

    assert tested.loss == pytest.approx(train.evaluate(found.best_model, *TEST)["log_loss"])
    assert tested.optimism == pytest.approx(tested.loss - found.best_loss, abs=1e-6)
    assert tested.table["model"].tolist()[:2] == ["tuned", UNTUNED]
    assert tested.table["validation_loss"].notna().all()
    assert found.test(*TEST) is tested
    with pytest.raises(ValueError) as error:
        found.test(*rows(50, 9))
    assert str(error.value) == (
        "Tuning.test: expected one look at test rows, got a second, at other rows. "
        "Go by the first one: choosing between two would be tuning again."
    )


def test_a_model_that_is_the_callers_own_is_neither_changed_nor_handed_on(search):
    mine = nn.Linear(4, 1)
    before = mine.weight.clone()

    found = search(lambda: mine, space={"lr": [0.1]}, method="random", trials=3)

    assert found.table["loss"].nunique() == 1
    assert torch.equal(mine.weight, before)


def test_when_the_untuned_model_fails_the_search_is_not_lost(search):
    def picky(hidden):
        if hidden == 4:
            raise ValueError("no four")
        return net(hidden)

    found = search(picky, method="random", baselines=None)

    losses = found.baselines.set_index("model")["validation_loss"]
    assert math.isnan(losses.pop(UNTUNED))
    assert losses.notna().all()
    assert math.isnan(found.test(*TEST).table["test_loss"][1])


def test_training_rows_of_one_class_leave_the_simple_models_out(search):
    X, y, *validation = DATA

    found = search(data=(X[y], y[y], *validation), method="random", baselines=None)

    assert found.baselines["model"].tolist() == [UNTUNED]


@pytest.mark.parametrize("method", ["random", "auto", "population"])
def test_a_model_without_weights_has_failed_and_the_rest_go_on(search, method):
    class First(nn.Module):
        def forward(self, x):
            return x[:, :1]

    found = search(
        lambda flat: First() if flat else nn.Linear(4, 1),
        space={"flat": [True, False]},
        method=method,
    )

    failed = found.table["flat"].astype(bool)
    assert found.table["state"].eq("failed").equals(failed)
    assert 0 < failed.sum() < 8


def test_optimism_compares_one_and_the_same_model(search, simple):
    found = search(method="random", epochs=2)  # with the simple models of another search

    table = found.test(*TEST).table.set_index("model")

    fresh = search(method="random", epochs=2, baselines=None).baselines.set_index("model")
    assert table["validation_loss"][UNTUNED] == fresh["validation_loss"][UNTUNED]


def test_where_all_trials_do_alike_nothing_matters(search):
    assert search(space={"lr": [0.1, 0.1]}, method="random").importances == {}


def test_numbers_of_numpy_make_a_range(search):
    space = {"lr": (np.float64(0.01), np.float64(0.1)), "hidden": (np.int64(4), np.int64(5))}

    assert set(search(space=space, method="random").table["hidden"]) == {4, 5}


# ---- bad input


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {},
            (
                "expected a space with at least one name, got none. "
                'Pass at least one name: space={"lr": (1e-4, 1e-1, "log")}.'
            ),
        ),
        (
            {"lr": (0.1, 0.01)},
            (
                "expected low <= high for 'lr', got (0.1, 0.01) (tuple). "
                'Turn it round: "lr": (0.01, 0.1).'
            ),
        ),
        (
            {"lr": (0, 0.1, "log")},
            (
                "expected low > 0 for 'lr', whose scale is logarithmic, got (0, 0.1, 'log') "
                '(tuple). Begin above 0: "lr": (1e-6, 0.1, "log").'
            ),
        ),
        (
            {"lr": (0.1, 0.2, "logg")},
            "expected a known scale of 'lr', got 'logg' (str). Did you mean 'log'? Known: log.",
        ),
        (
            {"hidden": 16},
            (
                "expected a range (low, high), (low, high, 'log') or a list for 'hidden', "
                'got 16 (int). Pass "hidden": [16] for a fixed value.'
            ),
        ),
        (
            {"hidden": []},
            "expected a choice for 'hidden', got [] (list). Pass some: \"hidden\": [16, 32].",
        ),
        (
            {"momentum": (0.5, 1.0)},
            "expected 0 <= momentum < 1, got 1.0 (float). Narrow the range of 'momentum' in space.",
        ),
        (
            {"lr": ["fast"]},
            "expected lr > 0, got 'fast' (str). Narrow the range of 'lr' in space.",
        ),
        (
            {"lr": (0.1, math.inf)},
            (
                "expected a range (low, high), (low, high, 'log') or a list for 'lr', "
                'got (0.1, inf) (tuple). Pass "lr": [(0.1, inf)] for a fixed value.'
            ),
        ),
    ],
)
def test_a_space_that_is_none_is_told_in_one_line(search, space, message):
    with pytest.raises(ValueError) as error:
        search(space=space)

    assert str(error.value) == f"tune.search: {message}"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"method": "populaton"},
            (
                "expected a known method, got 'populaton' (str). Did you mean 'population'? "
                "Known: auto, gp, population, random, tpe."
            ),
        ),
        (
            {"pruner": "asa"},
            (
                "expected a known pruner, got 'asa' (str). Did you mean 'asha'? "
                "Known: asha, hyperband, none."
            ),
        ),
        ({"trials": 0}, "expected trials >= 1, got 0 (int). Pass trials=10."),
        ({"epochs": 0}, "expected epochs >= 1, got 0 (int). Pass epochs=10."),
        ({"budget_s": 0}, "expected budget_s > 0, got 0 (int). Pass budget_s=60."),
        (
            {"method": "population", "executor": concurrent.futures.ThreadPoolExecutor(1)},
            (
                "expected a method whose trials are independent beside executor=, got 'population' "
                '(str). Pass method="tpe": a population trains its members in one process.'
            ),
        ),
        (
            {"method": "random", "executor": concurrent.futures.ThreadPoolExecutor(1)},
            (
                "expected an executor of processes, got ThreadPoolExecutor. "
                "Pass ProcessPoolExecutor(): threads would draw from one random stream."
            ),
        ),
        (
            {"storage": "sqlite:///trials.db"},
            (
                "expected a file for a journal, or a storage of Optuna's, got "
                "'sqlite:///trials.db' (str). "
                "Pass storage=optuna.storages.RDBStorage('sqlite:///trials.db')."
            ),
        ),
        (
            {"space": {"label_smoothing": (0, 0.1)}, "loss": F.mse_loss},
            (
                "expected label_smoothing with labels and the kit's own loss alone, got a "
                "quantity, or a loss that was passed. Take label_smoothing out of space."
            ),
        ),
        (
            {"data": (DATA[0], DATA[1][:5], *DATA[2:])},
            (
                "expected as many targets as rows, at least one, got 240 rows and 5 targets. "
                "Pass X and y of the same rows."
            ),
        ),
        (
            {"data": (DATA[0] / 0, *DATA[1:])},
            (
                "expected finite inputs, got 960 NaN or infinite cells. "
                "Fill the gaps first: data.Encoder does."
            ),
        ),
    ],
)
def test_settings_out_of_range_are_told_in_one_line(search, told, message):
    with pytest.raises(ValueError) as error:
        search(**told)

    assert str(error.value) == f"tune.search: {message}"


def test_data_of_other_things_are_told(search):
    with pytest.raises(TypeError) as error:
        search(data=DATA[:3])

    assert str(error.value) == (
        "tune.search: expected data of four tensors, got Tensor, Tensor, Tensor. "
        "Pass (X_train, y_train, X_val, y_val)."
    )
