"""Simple models are trained on the same rows and judged on the same test rows as ours."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from kit import data, train

N = 600
GENERATOR = torch.Generator().manual_seed(0)
NUMBERS = torch.randn(N, 3, generator=GENERATOR)
CODES = torch.randint(0, 4, (N, 2), generator=GENERATOR)
SUM = NUMBERS.sum(dim=1) + (CODES[:, 0] == 2) * 2.0
TARGETS = {
    "yes/no": SUM > 0.5,
    "classes": torch.bucketize(SUM, torch.tensor([-0.5, 1.5])),
    "quantity": SUM,
}
INPUTS = {
    "numbers": (NUMBERS, ()),
    "numbers and codes": (torch.cat([NUMBERS, CODES], dim=1), (4, 4)),
    "codes": (CODES.float(), (4, 4)),
}
CLASSIFIERS = ["majority", "naive Bayes", "logistic regression", "boosted trees"]
REGRESSORS = ["mean", "ridge", "boosted trees"]


def compared(X, y, *, cardinalities=(), **settings) -> train.Baselines:
    half = len(X) // 2
    return train.baselines(
        X[:half], y[:half], X[half:], y[half:], cardinalities=cardinalities, **settings
    )


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_every_model_beats_the_one_that_knows_nothing(kind, inputs):
    X, cardinalities = INPUTS[inputs]

    found = compared(X, TARGETS[kind], cardinalities=cardinalities)

    assert found.table["model"].tolist() == (REGRESSORS if kind == "quantity" else CLASSIFIERS)
    first = found.table.iloc[:, 1]
    assert (first.iloc[1:] < first.iloc[0]).all()
    assert not found.table.isna().any(axis=None)
    assert {each.kind for each in found.evaluations.values()} == {kind}
    assert found.facts()["best"] in found.table["model"].tolist()


@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_seed_gives_the_same_scores(kind):
    X, cardinalities = INPUTS["numbers and codes"]

    one, two = (compared(X, TARGETS[kind], cardinalities=cardinalities, seed=3) for _ in range(2))

    assert one.table.equals(two.table)


def test_what_knows_nothing_says_the_share_of_the_training_rows():
    y = TARGETS["yes/no"]
    share = y[: N // 2].double().mean().item()

    found = compared(NUMBERS, y)

    test = y[N // 2 :].double()
    expected = -(test * math.log(share) + (1 - test) * math.log(1 - share)).mean()
    assert math.isclose(found.evaluations["majority"]["log_loss"], expected)


def test_linear_models_are_those_of_scikit_learn_on_numbers_and_one_hot_codes():
    X, cardinalities = INPUTS["numbers and codes"]
    one_hot = torch.nn.functional.one_hot(CODES, 4).flatten(1)
    wide = torch.cat([NUMBERS, one_hot], dim=1).numpy()
    half = N // 2
    y, quantity = TARGETS["yes/no"].numpy(), TARGETS["quantity"].numpy()

    classes = compared(X, TARGETS["yes/no"], cardinalities=cardinalities)
    values = compared(X, TARGETS["quantity"], cardinalities=cardinalities)

    logistic = LogisticRegression(max_iter=1000).fit(wide[:half], y[:half])
    expected = train.score(
        TARGETS["yes/no"][half:], torch.tensor(logistic.predict_proba(wide[half:]))
    )
    ours = classes.evaluations["logistic regression"]
    assert math.isclose(ours["log_loss"], expected["log_loss"], rel_tol=1e-3)
    ridge = Ridge().fit(wide[:half], quantity[:half]).predict(wide[half:])
    error = np.abs(ridge - quantity[half:]).mean()
    assert math.isclose(values.evaluations["ridge"]["mae"], error, rel_tol=1e-3)


def test_ours_stand_in_the_same_table():
    y = TARGETS["classes"]
    perfect = torch.nn.functional.one_hot(y[N // 2 :], 3).double()

    found = compared(NUMBERS, y, ours={"network": perfect})

    assert found.table["model"].tolist() == ["network", *CLASSIFIERS]
    assert found.facts() == {"best": "network", "log_loss": found.facts()["log_loss"]}
    assert found.evaluations["network"]["accuracy"] == 1


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_class_that_training_lacks_costs_but_does_not_crash(missing):
    y = TARGETS["classes"].clone()
    y[: N // 2][y[: N // 2] == missing] = (missing + 1) % 3

    found = compared(NUMBERS, y)

    assert np.isfinite(found.table["log_loss"]).all()
    models = found.models["boosted trees"].classes_
    assert missing not in models


def test_a_code_that_training_lacks_is_taken():
    X = torch.cat([NUMBERS, CODES], dim=1)
    X[: N // 2][X[: N // 2, 3] == 3, 3] = 0

    found = compared(X, TARGETS["yes/no"], cardinalities=(4, 4))

    assert np.isfinite(found.table["log_loss"]).all()


def test_a_category_too_large_for_trees_to_split_is_a_number_to_them():
    codes = torch.randint(0, 300, (N, 1), generator=GENERATOR)
    X = torch.cat([NUMBERS, codes], dim=1)

    found = compared(X, TARGETS["yes/no"], cardinalities=(300,))

    assert np.isfinite(found.table["log_loss"]).all()


@pytest.mark.slow
def test_a_class_of_one_row_among_more_than_ten_thousand_does_not_crash():
    X = torch.randn(12_000, 2, generator=GENERATOR)
    y = (X[:, 0] > 0).long()
    y[0] = 2

    found = train.baselines(X, y, X, y)

    assert np.isfinite(found.table["log_loss"]).all()


def test_columns_that_hardly_vary_give_no_warning(recwarn):
    X = NUMBERS.clone()
    X[:, 1] = 0
    X[:, 2] = (X[:, 2] > 2).float()

    compared(X, TARGETS["yes/no"])

    assert [str(warning.message) for warning in recwarn] == []


def test_training_rows_of_one_class_are_refused():
    y = torch.zeros(N, dtype=torch.bool)
    y[-1] = True

    with pytest.raises(ValueError) as caught:
        compared(NUMBERS, y)

    assert str(caught.value) == (
        "train.baselines: expected training rows of at least two classes, got 300 rows of one. "
        "Bring rows of another class."
    )


@pytest.mark.slow
def test_on_flights_every_model_beats_the_majority():
    parts = data.split(data.flights(rows=8_000).frame, target="late", time="departure")
    encoder = data.Encoder.fit(parts.train, target="late")

    found = train.baselines(
        encoder.X(parts.train),
        encoder.y(parts.train),
        encoder.X(parts.test),
        encoder.y(parts.test),
        cardinalities=encoder.cardinalities,
    )

    assert (found.table["roc_auc"].iloc[1:] > 0.6).all()
    assert found.table["roc_auc"].iloc[0] == 0.5
