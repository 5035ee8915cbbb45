"""Adding and dropping features by Gram matrices chooses what fitting every model would choose."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import KFold, PredefinedSplit, cross_val_score

from kit import select

WAYS = {"forward": select.forward, "backward": select.backward}
SCORERS = {"r2": "r2", "mse": "neg_mean_squared_error"}


def table(seed: int, n: int = 120, n_features: int = 8) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, n_features)) @ rng.normal(size=(n_features, n_features))
    rows = rows * 10.0 ** rng.integers(-1, 2, n_features) + rng.normal(size=n_features) * 100
    weights = rng.normal(size=n_features) * (rng.random(n_features) < 0.6) / rows.std(axis=0)
    y = rows @ weights + rng.normal(size=n) * 2 + 7
    return pd.DataFrame(rows, columns=[f"f{j}" for j in range(n_features)]), y


def theirs(X, y, *, n, way, alpha, score, cv) -> set[str]:
    model = Ridge(alpha, solver="svd") if alpha else LinearRegression()
    selector = SequentialFeatureSelector(
        model, n_features_to_select=n, direction=way, scoring=SCORERS[score], cv=cv
    )
    return set(X.columns[selector.fit(X, y).get_support()])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("score", SCORERS)
@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([0.0, 3.0, 1e4]))
def test_the_choice_is_that_of_scikit_learn(way, score, seed, n, alpha):
    X, y = table(seed, n=118)  # folds of 30, 30, 29 and 29 rows

    found = WAYS[way](X, y, n=n, alpha=alpha, score=score, folds=4)

    expected = theirs(X, y, n=n, way=way, alpha=alpha, score=score, cv=KFold(4))
    assert set(found.chosen) == expected
    assert len(found.chosen) == n


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alpha", [0.0, 50.0])
@pytest.mark.parametrize("score", SCORERS)
def test_every_score_on_the_way_is_that_of_a_model_fitted_to_those_features(way, alpha, score):
    X, y = table(3)

    found = WAYS[way](X, y, n=4, alpha=alpha, score=score)

    model = Ridge(alpha, solver="svd") if alpha else LinearRegression()
    details = found.details[way]
    for step, row in details.iterrows():
        if way == "forward":
            names = list(details["feature"][: step + 1])
        else:
            names = [name for name in X if name not in set(details["dropped"][: step + 1])]
        expected = cross_val_score(model, X[names], y, cv=5, scoring=SCORERS[score]).mean()
        assert row[score] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_units_do_not_matter(way):
    X, y = table(4)

    one, two = (WAYS[way](each, y, n=4) for each in (X, X * 10.0 ** np.arange(-8, 8, 2)))

    assert one.chosen == two.chosen
    np.testing.assert_allclose(one.table[way], two.table[way], rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_folds_can_be_given_row_by_row(way):
    X, y = table(5)
    fold = np.random.default_rng(0).integers(0, 3, len(X))

    found = WAYS[way](X, y, n=3, folds=fold.tolist())

    cv = PredefinedSplit(fold)
    assert set(found.chosen) == theirs(X, y, n=3, way=way, alpha=0, score="r2", cv=cv)


@pytest.mark.parametrize("way", WAYS)
def test_yes_and_no_are_one_and_nought(way):
    X, y = table(6)
    late = y > np.median(y)

    found = WAYS[way](X, pd.Series(np.where(late, "yes", "no")), n=3)

    expected = theirs(X, late.astype(float), n=3, way=way, alpha=0, score="r2", cv=5)
    assert set(found.chosen) == expected


@pytest.mark.parametrize("way", WAYS)
def test_without_a_number_it_stops_at_the_highest_score_of_the_whole_way(way):
    X, y = table(7)

    found = WAYS[way](X, y)

    ways = {n: WAYS[way](X, y, n=n).chosen for n in range(1, 9)}
    scores = {
        n: cross_val_score(LinearRegression(), X[list(names)], y, cv=5).mean()
        for n, names in ways.items()
    }
    best = max(scores, key=scores.get)
    assert set(found.chosen) == set(ways[best])
    assert 1 < len(found.chosen) < 8


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("score", SCORERS)
def test_nothing_is_chosen_where_the_mean_scores_highest(way, score):
    n_empty = 0

    for seed in range(6):
        X, y = table(seed)[0], np.random.default_rng(seed).normal(size=120)
        chosen = WAYS[way](X, y, score=score).chosen
        scores = {(): cross_val_score(DummyRegressor(), X, y, cv=5, scoring=SCORERS[score]).mean()}
        for n in range(1, 9):
            names = WAYS[way](X, y, n=n, score=score).chosen
            model = LinearRegression()
            scores[names] = cross_val_score(
                model, X[list(names)], y, cv=5, scoring=SCORERS[score]
            ).mean()
        n_empty += chosen == ()
        assert set(chosen) == set(max(scores, key=scores.get))

    assert 0 < n_empty < 6


@pytest.mark.parametrize("way", WAYS)
def test_whole_numbers_are_a_quantity_however_few(way):
    X, y = table(6)
    rooms = pd.Series(pd.cut(y, 10, labels=False) + 1)

    found = WAYS[way](X, rooms, n=3)

    assert set(found.chosen) == theirs(X, rooms, n=3, way=way, alpha=0, score="r2", cv=5)


@pytest.mark.parametrize("way", WAYS)
def test_folds_may_be_counted_and_numbered_by_numpy(way):
    X, y = table(5)
    fold = np.arange(len(X)) * 4 // len(X)

    found = [WAYS[way](X, y, n=3, folds=folds) for folds in (4, np.int64(4), fold)]

    assert found[0].chosen == found[1].chosen == found[2].chosen


def test_a_column_that_says_what_another_said_adds_nothing():
    X, y = table(8)
    X["f0 again"] = 2 * X["f0"] + 5
    y = y + 4 * (X["f0"] - X["f0"].mean()) / X["f0"].std()

    found = select.forward(X, y, n=9)

    assert found.chosen.index("f0") < found.chosen.index("f0 again")
    assert found.table.set_index("feature").loc["f0 again", "forward"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_combination_of_others_does_no_harm(seed):
    X, y = table(seed)
    X["sum"] = X["f0"] - 3 * X["f1"] + X["f2"]
    X["half"] = X["sum"] / 2 + 1

    found = select.forward(X, y, n=10)

    details = found.details["forward"]
    for step, row in details.iterrows():
        names = list(details["feature"][: step + 1])
        expected = cross_val_score(LinearRegression(), X[names], y, cv=5).mean()
        assert row["r2"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_combination_of_others_is_refused_going_backward(seed):
    X, y = table(seed)
    X["sum"] = X["f0"] - 3 * X["f1"] + X["f2"]
    X["sum"] *= 1 + 1e-8 * np.random.default_rng(seed).normal(size=len(X))

    with pytest.raises(ValueError, match="a combination of others, got 'sum', which is"):
        select.backward(X, y)
    assert len(select.backward(X, y, alpha=1.0, n=3).chosen) == 3


def test_a_constant_column_adds_nothing():
    X, y = table(9)
    X["one"] = 1.0

    found = select.forward(X, y, n=9)

    assert found.table.set_index("feature").loc["one", "forward"] == pytest.approx(0, abs=1e-12)


def test_gains_and_losses_stand_in_the_table():
    X, y = table(10)

    forward = select.forward(X, y, n=3)
    backward = select.backward(X, y, n=3)

    gains = forward.table.set_index("feature")["forward"]
    assert gains.notna().sum() == 3
    scores = forward.details["forward"]["r2"]
    # before the first feature, the mean is the model
    nothing = [
        1 - ((y[test] - y[train].mean()) ** 2).sum() / ((y[test] - y[test].mean()) ** 2).sum()
        for train, test in KFold(5).split(y)
    ]
    assert gains[forward.chosen[0]] == pytest.approx(scores[0] - np.mean(nothing))
    assert gains[forward.chosen[2]] == pytest.approx(scores[2] - scores[1])
    losses = backward.table.set_index("feature")["backward"]
    left = list(backward.chosen)
    score = cross_val_score(LinearRegression(), X[left], y, cv=5).mean()
    for name in left:
        without = X[[other for other in left if other != name]]
        expected = score - cross_val_score(LinearRegression(), without, y, cv=5).mean()
        assert losses[name] == pytest.approx(expected, rel=1e-6)
    assert losses[left].is_monotonic_decreasing


def test_what_is_handed_in_stays_as_it_is():
    X, y = table(0)
    before = X.copy()

    select.forward(X, y)
    select.backward(X, y)

    assert X.equals(before)


def collinear():
    X, y = table(0)
    return select.backward(X.assign(g=X["f0"] + X["f1"]), y)


X8, Y8 = table(0)
BAD = {
    "collinear": (
        collinear,
        (
            "select.backward: expected columns of which none is a combination of others, got 'g', "
            "which is, among the rows of some fold. "
            "Drop it, or pass alpha=1.0, or use select.forward."
        ),
    ),
    "n": (
        lambda: select.forward(X8, Y8, n=9),
        (
            "select.forward: expected 1 <= n <= 8, got 9 (int). "
            "Pass n=None to let the method decide."
        ),
    ),
    "folds": (
        lambda: select.forward(X8, Y8, folds=1),
        (
            "select.forward: expected 2 folds or more, of 2 rows or more each, got 1 (int). "
            "Pass folds=5, or a fold number for every row."
        ),
    ),
    "folds of too few rows": (
        lambda: select.forward(X8, Y8, folds=[0, 1]),
        (
            "select.forward: expected 2 folds or more, of 2 rows or more each, got folds that are "
            "not. Pass folds=5, or a fold number for every row."
        ),
    ),
    "score": (
        lambda: select.forward(X8, Y8, score="R2"),
        ("select.forward: expected a known score, got 'R2' (str). Known: mse, r2."),
    ),
    "alpha": (
        lambda: select.backward(X8, Y8, alpha=-1.0),
        (
            "select.backward: expected alpha >= 0, got -1.0 (float). "
            "Pass alpha=0.0 for least squares."
        ),
    ),
    "words": (
        lambda: select.forward(X8.assign(w="a"), Y8),
        (
            "select.forward: expected columns of numbers, got 'w' of type str. "
            "Encode it: pd.get_dummies(X), or encoder.X(frame) of data.Encoder."
        ),
    ),
    "gaps": (
        lambda: select.forward(X8.assign(w=[np.nan] * 2 + [1.0] * 118), Y8),
        (
            "select.forward: expected finite numbers, got 2 missing or infinite in 'w'. "
            "Fill them: X['w'].fillna(X['w'].median())."
        ),
    ),
    "twice": (
        lambda: select.forward(X8[["f0", "f0"]], Y8),
        (
            "select.forward: expected column names that differ, got 'f0' more than once. "
            "Rename them."
        ),
    ),
    "few rows": (
        lambda: select.forward(X8.head(3), Y8[:3]),
        (
            "select.forward: expected at least 4 rows and a column, got DataFrame of shape (3, 8). "
            "Pass the training rows."
        ),
    ),
    "rows": (
        lambda: select.forward(X8, Y8[:9]),
        (
            "select.forward: expected a target for each of 120 rows, got 9. "
            "Pass X and y of the same rows, those without a target left out."
        ),
    ),
    "constant": (
        lambda: select.forward(X8, Y8 * 0),
        (
            "select.forward: expected a target of two values or more, got one. "
            "Choose another target."
        ),
    ),
    "classes": (
        lambda: select.forward(X8, np.array(["a", "b", "c"] * 40)),
        (
            "select.forward: expected a quantity or yes/no, got 3 classes. "
            "Ask for one at a time: y == 'a'."
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    call, message = BAD[case]

    with pytest.raises(ValueError) as caught:
        call()

    assert str(caught.value) == message
