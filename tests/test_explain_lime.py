import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lime.lime_tabular import LimeTabularExplainer
from torch import nn

from kit.base import progress
from kit.explain import local, quartiles, ridge
from kit.explain.lime import lime

RNG = np.random.default_rng(0)
# three quantities, one of them skewed and one mostly zero, and two columns of codes
TRAIN = np.column_stack(
    [
        RNG.normal(size=400),
        RNG.exponential(size=400),
        RNG.poisson(0.8, size=400),
        RNG.integers(0, 3, 400),
        RNG.choice([0, 5, 9], 400, p=[0.7, 0.2, 0.1]),
    ]
)
ROWS = TRAIN[:6]
FRAME = pd.DataFrame(TRAIN, columns=list("abcde"))


def tangled(X):
    """Every order of interaction, so that no shortcut of the estimate goes unnoticed."""
    z = X[:, 0] * (X[:, 3] == 1) - X[:, 1] + (X[:, 4] == 0) * X[:, 2] * (1 + X[:, 0])
    return 1 / (1 + np.exp(-z))


def net(n_outputs=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, n_outputs)).eval()


def test_values_intercept_and_fit_are_those_of_the_mean_stock_run():
    def predict(X):
        p = tangled(X)
        return np.stack([1 - p, p], axis=1)

    runs = []
    for seed in range(12):
        stock = LimeTabularExplainer(
            TRAIN, categorical_features=[3, 4], feature_selection="none", random_state=seed
        )
        found = [stock.explain_instance(row, predict, num_samples=5000) for row in ROWS]
        runs.append(
            [
                [*(dict(one.local_exp[1])[j] for j in range(5)), one.intercept[1], one.score]
                for one in found
            ]
        )
    mean, error = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))

    ours = lime(tangled, ROWS, train=TRAIN, categorical=[3, 4], num_features=5, samples=65536)

    both = np.column_stack([ours.values, ours.base_values, ours.extra["r2"]])
    distance = np.abs(both - mean) / (error + 5e-4)
    assert distance.max() < 4
    assert np.sqrt((distance**2).mean()) < 1.3


def test_values_are_those_of_ridge_regression_on_the_same_perturbations():
    space = quartiles.space(TRAIN, names=list("abcde"), categorical=[3, 4])
    engine = torch.quasirandom.SobolEngine(5, scramble=True, seed=0)
    level = (engine.draw(16384).numpy() * quartiles.LEVELS).astype(int)
    Z = np.take_along_axis(space.values, level, axis=0)
    bins = np.take_along_axis(space.bins, level, axis=0)
    slow = []
    for row in ROWS:
        match = np.vstack([bins == space.find(row[None]), np.ones((1, 5))]).astype(float)
        y = tangled(np.vstack([Z, row]))
        w = np.exp(-(5 - match.sum(1)) / (2 * 0.75**2 * 5))
        w[:-1] *= ridge.NEIGHBOURS / len(Z)
        match, y = match - np.average(match, 0, w), y - np.average(y, weights=w)
        gram = match.T @ (w[:, None] * match) + np.eye(5)
        values = np.linalg.solve(gram, match.T @ (w * y))
        slow.append([*values, 1 - w @ (y - match @ values) ** 2 / (w @ y**2)])

    fast = lime(tangled, ROWS, train=TRAIN, categorical=[3, 4], num_features=5)

    slow = np.array(slow)
    np.testing.assert_allclose(fast.values, slow[:, :5], atol=2.5e-3)
    np.testing.assert_allclose(fast.extra["r2"], slow[:, 5], atol=2e-3)


def test_three_features_that_act_only_together_are_weighed_by_the_exact_kernel():
    train = RNG.normal(size=(400, 3))
    edges = np.percentile(train, 75, axis=0)
    row = edges[None] + 1

    found = lime(lambda X: (edges < X).all(1), row, train=train, num_features=3, samples=2**17)

    # a quarter of perturbations is in the bin; those outside weigh q, so the others' share grows
    q = np.exp(-1 / (2 * 0.75**2 * 3))
    share = 0.25 / (0.25 + 0.75 * q)
    np.testing.assert_allclose(found.values[0], share**2, rtol=0.01)


@settings(max_examples=20, deadline=None)
@given(effects=st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_effect_of_one_column_is_its_quartile_against_the_others(effects):
    edges = np.percentile(TRAIN[:, 0], [25, 50, 75])
    steps = np.array(effects)

    found = lime(
        lambda X: steps[np.searchsorted(edges, X[:, 0])],
        ROWS[:, :3],
        train=TRAIN[:, :3],
        num_features=3,
        samples=2048,
    )

    own = np.searchsorted(edges, ROWS[:, 0])
    expected = steps[own] - (steps.sum() - steps[own]) / 3
    np.testing.assert_allclose(found.values[:, 0], expected, atol=0.02)
    np.testing.assert_allclose(found.values[:, 1:], 0, atol=0.02)


def test_a_row_gets_the_same_alone_as_among_others():
    together = lime(tangled, ROWS, train=TRAIN, categorical=[3, 4], num_features=5, samples=4096)

    alone = lime(tangled, ROWS[2:3], train=TRAIN, categorical=[3, 4], num_features=5, samples=4096)

    np.testing.assert_allclose(alone.values[0], together.values[2], atol=1e-6)
    np.testing.assert_allclose(alone.extra["r2"][0], together.extra["r2"][2], atol=1e-5)


def test_memory_is_bounded_by_walking_through_the_rows(monkeypatch):
    whole = lime(tangled, TRAIN, train=TRAIN, num_features=5, samples=1024)
    monkeypatch.setattr(local, "CELLS", 4096)

    in_parts = lime(tangled, TRAIN, train=TRAIN, num_features=5, samples=1024)

    np.testing.assert_allclose(in_parts.values, whole.values, atol=1e-6)


def test_a_model_that_runs_out_of_memory_is_asked_about_fewer_rows():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.failures = net(), 0

        def forward(self, x):
            if len(x) > 100:
                self.failures += 1
                raise torch.OutOfMemoryError("out of memory")
            return self.inner(x)

    model = Small()

    found = lime(model, TRAIN, train=TRAIN, samples=1024, output="raw")

    assert model.failures > 0
    expected = lime(model.inner, TRAIN, train=TRAIN, samples=1024, output="raw")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


def test_error_std_covers_the_distance_to_the_converged_values():
    truth = lime(net(), TRAIN[:100], train=TRAIN, num_features=5, samples=2**18, seed=9)

    found = [lime(net(), TRAIN[:100], train=TRAIN, num_features=5, seed=s) for s in range(4)]

    distance = np.stack([np.abs(one.values - truth.values) / one.error_std for one in found])
    assert (distance < 2).mean() >= 0.9
    assert (distance < 0.2).mean() < 0.5  # and does not hide behind bars that are far too wide


def test_stability_promises_no_more_overlap_than_two_seeds_have():
    found = [
        lime(net(), TRAIN[:100], train=TRAIN, num_features=2, samples=256, seed=seed)
        for seed in range(6)
    ]
    chosen = [one.values != 0 for one in found]

    overlap = np.mean(
        [((a & b).sum(1) / (a | b).sum(1)).mean() for i, a in enumerate(chosen) for b in chosen[:i]]
    )

    promised = np.mean([one.extra["stability"].mean() for one in found])
    assert overlap < 0.99
    assert overlap - 0.15 < promised < overlap + 0.02


def test_weights_of_all_classes_cancel_and_one_class_is_its_column():
    model = net(3)

    every = lime(model, ROWS, train=TRAIN, num_features=5, samples=1024)
    one = lime(model, ROWS, train=TRAIN, num_features=5, samples=1024, target=2)

    assert every.values.shape == (6, 5, 3)
    assert every.extra["r2"].shape == every.base_values.shape == (6, 3)
    np.testing.assert_allclose(every.values.sum(2), 0, atol=1e-5)
    np.testing.assert_allclose(every.base_values.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(one.values, every.values[:, :, 2], atol=1e-6)
    kept_axis = lime(net(), ROWS, train=TRAIN, num_features=5, samples=512, target="all")
    assert kept_axis.values.shape == (6, 5, 1)


def test_a_module_of_one_logit_is_explained_as_its_probability():
    model = net()

    def function(X):
        with torch.inference_mode():
            return torch.sigmoid(model(torch.tensor(X, dtype=torch.float32)))[:, 0].numpy()

    ours = lime(model, ROWS, train=TRAIN, samples=1024, num_features=5)
    same = lime(function, ROWS, train=TRAIN, samples=1024, num_features=5)
    raw = lime(model, ROWS, train=TRAIN, samples=1024, num_features=5, output="raw")

    np.testing.assert_allclose(ours.values, same.values, atol=1e-6)
    np.testing.assert_allclose(ours.predictions, function(ROWS), atol=1e-6)
    assert not np.allclose(ours.values, raw.values, atol=1e-2)


def test_only_num_features_are_kept_and_they_are_the_strongest():
    every = lime(net(), ROWS, train=TRAIN, num_features=5, samples=4096)

    two = lime(net(), ROWS, train=TRAIN, num_features=2, samples=4096)

    assert ((two.values != 0).sum(1) == 2).all()
    assert (two.error_std[two.values == 0] == 0).all()
    strongest = np.sort(np.argsort(-np.abs(every.values), axis=1)[:, :2], axis=1)
    np.testing.assert_array_equal(np.nonzero(two.values)[1].reshape(6, 2), strongest)


def test_a_table_of_fewer_columns_than_num_features_keeps_them_all():
    found = lime(net(), ROWS, train=TRAIN, samples=512)

    expected = lime(net(), ROWS, train=TRAIN, samples=512, num_features=5)
    np.testing.assert_array_equal(found.values, expected.values)


def test_an_interrupt_returns_what_the_perturbations_done_say(monkeypatch):
    whole = lime(tangled, ROWS, train=TRAIN, samples=4096)

    def track(items, *, label):
        yield from list(items)[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "track", track)
    with pytest.warns(UserWarning, match="interrupted") as caught:
        found = lime(tangled, ROWS, train=TRAIN, samples=4096)

    assert str(caught[0].message) == (
        "explain.lime: interrupted after 1,024 of 4,096 perturbations; "
        "what is returned rests on those."
    )
    assert found.method == "LIME, 1,024 samples"
    off = np.abs(found.values - whole.values)
    assert 0 < off.mean() < 0.1 * np.abs(whole.values).mean()


def test_an_interrupt_at_the_first_perturbations_is_an_interrupt(monkeypatch):
    def track(items, *, label):
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "track", track)

    with pytest.raises(KeyboardInterrupt):
        lime(tangled, ROWS, train=TRAIN, samples=4096)


def test_what_is_shown_may_be_another_table_than_the_models():
    raw = pd.DataFrame({name: [f"{name}{i}" for i in range(6)] for name in "abcde"})

    found = lime(tangled, FRAME[:6], train=FRAME, shown=raw, samples=512)

    assert found.top(3)["data"].str.endswith("3").all()
    assert found.rows.equals(FRAME[:6])
    assert found.rerun(tangled).values.tolist() == found.values.tolist()


def test_a_bin_of_one_value_is_perturbed_to_that_value():
    # three of four rows are 7 in the first column; lime_tabular would ask the model about 0
    train = np.column_stack([np.repeat([7, 7, 7, 9], 50), np.arange(200)])
    asked = []

    def model(X):
        asked.append(X)
        return X[:, 0]

    lime(model, train[:2], train=train, num_features=1, samples=256)

    assert set(np.unique(np.concatenate(asked)[:, 0])) == {7, 9}


def test_conditions_say_the_bin_and_a_new_category_is_said_to_be_new():
    row = np.array([[0.0, 99.0, 0.0, 1.0, 4.0]])

    found = lime(tangled, row, train=TRAIN, categorical=[3, 4], num_features=5, samples=256)

    conditions = found.extra["conditions"][0]
    assert conditions[1].startswith("x1 > ")
    assert list(conditions[3:]) == ["x3 = 1", "not in training"]


def test_a_frame_gives_the_names_and_lime_gets_its_own_object():
    frame = pd.DataFrame(TRAIN, columns=["a", "b", "c", "d", "e"])

    found = lime(tangled, frame[:2], train=frame, categorical=["d", "e"], num_features=3)

    assert found.names == ["a", "b", "c", "d", "e"]
    stock = found.to_lime(1, num_features=3)
    assert stock.local_pred == pytest.approx(found.base_values[1] + found.values[1].sum())
    assert [name for name, _ in stock.as_list()] == found.top(1, 3)["feature"].tolist()
    assert stock.score == found.extra["r2"][1]


@pytest.mark.parametrize("alone", [False, True])
def test_lime_takes_the_explanation_of_several_classes_or_of_one_of_them(alone):
    found = lime(net(3), ROWS, train=TRAIN, samples=512)
    kept = found.one(2) if alone else found

    stock = kept.to_lime(4)

    label = 1 if alone else 2
    assert dict(stock.as_list(label=label)) == pytest.approx(
        dict(zip(found.names, found.values[4, :, 2], strict=True))
    )
    assert stock.score == pytest.approx(found.extra["r2"][4, 2] if alone else found.extra["r2"][4])
    assert stock.as_pyplot_figure(label=label).axes
    assert "x1" in stock.as_html()
    if alone:
        np.testing.assert_array_equal(kept.extra["stability"], found.extra["stability"][:, 2])


def test_rerun_explains_another_model_with_the_same_settings():
    found = lime(net(), ROWS, train=TRAIN, num_features=5, samples=512, seed=3)

    again = found.rerun(tangled)

    expected = lime(tangled, ROWS, train=TRAIN, num_features=5, samples=512, seed=3)
    np.testing.assert_array_equal(again.values, expected.values)


def test_a_model_in_training_mode_is_explained_without_dropout_and_put_back():
    model = nn.Sequential(net(), nn.Dropout(0.5)).train()

    with pytest.warns(UserWarning, match="train mode"):
        found = lime(model, ROWS, train=TRAIN, num_features=5, samples=512)

    assert model.training
    np.testing.assert_array_equal(
        found.values, lime(model.eval(), ROWS, train=TRAIN, num_features=5, samples=512).values
    )


def test_a_column_that_never_varies_is_named_and_gets_nothing():
    train = np.column_stack([TRAIN, np.ones(400)])

    with pytest.warns(UserWarning, match="does not vary") as said:
        found = lime(tangled, train[:3], train=train, num_features=6, samples=512)

    assert (found.values[:, 5] == 0).all()
    assert str(said[0].message) == (
        "explain.lime: train does not vary in 'x5', which gets 0. "
        "Pass training rows that vary to silence this."
    )


def test_one_prediction_for_everything_is_fitted_by_the_base_value():
    found = lime(lambda X: np.full(len(X), 0.25), ROWS, train=TRAIN, num_features=5, samples=512)

    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(found.base_values, 0.25)
    np.testing.assert_array_equal(found.extra["r2"], 1)


def holed(array):
    array = array.copy()
    array[1, 2] = np.nan
    return array


def test_samples_are_a_whole_number():
    unchecked = inspect.unwrap(lime)  # without the check of types that tests put around it

    with pytest.raises(TypeError) as caught:
        unchecked(tangled, ROWS, train=TRAIN, samples=1e3)

    assert str(caught.value) == (
        "explain.lime: expected a whole number of samples, got 1000.0 (float). Pass samples=16384."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"X": holed(ROWS)},
            (
                "explain.lime: expected finite numbers in X, got 1 NaN or infinite cells, in x2. "
                "Fill the gaps first: data.Encoder does."
            ),
        ),
        (
            {"train": holed(TRAIN)},
            (
                "explain.lime: expected finite numbers in train, got 1 NaN or infinite cells, "
                "in x2. Fill the gaps first: data.Encoder does."
            ),
        ),
        (
            {"X": ROWS[:, :4]},
            (
                "explain.lime: expected X with the 5 columns of train, "
                "got ndarray of shape (6, 4). Pass the same columns, in the same order."
            ),
        ),
        (
            {"X": ROWS[0]},
            (
                "explain.lime: expected X of shape (rows, features) with at least one of each, "
                "got ndarray of shape (5,). Add the axis of rows: X[None]."
            ),
        ),
        (
            {"train": TRAIN[:1]},
            (
                "explain.lime: expected two rows of train or more, got ndarray of shape (1, 5). "
                "Pass the training rows: train=X_train."
            ),
        ),
        (
            {"num_features": 0},
            "explain.lime: expected num_features >= 1, got 0 (int). Pass num_features=10.",
        ),
        (
            {"X": FRAME[:6], "train": FRAME[["a", "c", "b", "d", "e"]]},
            (
                "explain.lime: expected train's columns in the order of X, got a, c, b, d, e. "
                "Pass train[X.columns]."
            ),
        ),
        (
            {"samples": 100},
            (
                "explain.lime: expected samples >= 256, got 100 (int). "
                "Pass samples=16384; powers of two serve best."
            ),
        ),
        (
            {"X": np.zeros((2, 21_202)), "train": np.ones((3, 21_202))},
            (
                "explain.lime: expected at most 21,201 columns, got ndarray of shape (2, 21202). "
                "Pass fewer, such as those that a quick model finds useful."
            ),
        ),
        (
            {"target": 3},
            (
                "explain.lime: expected a class from 0 to 0, 'all' or None, got 3 (int). "
                "Pass target=0 for the first class."
            ),
        ),
        (
            {"output": "probabilty"},
            (
                "explain.lime: expected a known output, got 'probabilty' (str). "
                "Did you mean 'probability'? Known: auto, logit, probability, raw."
            ),
        ),
        (
            {"categorical": ["x4x"]},
            (
                "explain.lime: expected a known column, got 'x4x' (str). "
                "Did you mean 'x4'? Known: x0, x1, x2, x3, x4."
            ),
        ),
        (
            {"categorical": [7]},
            (
                "explain.lime: expected a column from 0 to 4, got 7 (int). "
                "Pass its name or its number."
            ),
        ),
        (
            {"X": pd.DataFrame({"a": [1.0], "b": ["red"], "c": [0], "d": [0], "e": [0]})},
            (
                "explain.lime: expected numbers in X, got 'red' in column b. "
                "Encode it first: data.Encoder does."
            ),
        ),
        (
            {"model": lambda X: np.where(X[:, 0] > -0.5, np.nan, 1.0)},
            (
                "explain.lime: expected finite outputs of the model on these rows, "
                "got 5 NaN or infinite of 6. Look for a log, a root or a division in the model."
            ),
        ),
        (
            {"model": lambda X: np.full(len(X), 1.0 if len(X) == 6 else np.inf)},
            (
                "explain.lime: expected finite outputs of the model on perturbed rows, got 2048 "
                "NaN or infinite of 2048. Look for a log, a root or a division in the model."
            ),
        ),
        (
            {"model": lambda X: np.ones(3)},
            (
                "explain.lime: expected outputs of shape (6,) or (6, classes), got Tensor of shape "
                "(3,). Wrap the model so that it returns one row of scores a row of input."
            ),
        ),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(arguments, message):
    arguments = {"model": tangled, "X": ROWS, "train": TRAIN, "num_features": 5} | arguments

    with pytest.raises(ValueError) as caught:
        lime(arguments.pop("model"), arguments.pop("X"), **arguments)

    assert str(caught.value) == message
