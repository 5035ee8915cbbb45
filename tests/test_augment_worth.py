"""A way of growing is worth it only where its gain is beyond chance."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from kit import augment, data


def table(seed: int = 0, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    return frame.assign(late=frame["a"] + rng.normal(size=n) > 1)


PARTS = data.split(table(), target="late")
WAYS = {
    "noise": lambda parts, seed: augment.noise(parts, seed=seed),
    "smote": lambda parts, seed: augment.smote(parts, seed=seed),
}


def planted(gain, spread=0.1):
    """Return a model function whose score rises by `gain` where rows were added."""

    def model_fn(train, weights, validation, seed):
        luck = np.random.default_rng([seed, len(train)]).normal() * spread
        grown = len(train) > len(PARTS.train)
        weighted = weights.std() > 0
        return luck + gain * grown + 0.2 * weighted

    return model_fn


def test_a_planted_gain_is_found_and_its_size_told():
    found = augment.worth(planted(1.0), PARTS, ways=WAYS, seeds=12)

    table = found.table
    assert table[["way", "against"]].to_numpy().tolist() == [
        ["noise", "none"],
        ["noise", "class weights"],
        ["smote", "none"],
        ["smote", "class weights"],
    ]
    assert (table["verdict"] == "worth it").all()
    assert table["gain"].to_numpy() == pytest.approx([1.0, 0.8, 1.0, 0.8], abs=0.1)
    assert (table["low"] < table["gain"]).all()
    assert (table["gain"] < table["high"]).all()
    assert found.facts()["verdict"] == "worth it"


@pytest.mark.parametrize("gain", [0.0, -1.0])
def test_no_gain_and_a_loss_are_not_worth_it(gain):
    found = augment.worth(planted(gain), PARTS, ways=WAYS)

    assert (found.table["verdict"] == "not worth it").all()
    assert found.facts()["verdict"] == "not worth it"


def test_a_gain_over_nothing_that_class_weights_bring_too_is_not_worth_it():
    found = augment.worth(planted(0.15, spread=0.01), PARTS, ways=WAYS)

    verdicts = found.table.groupby("against")["verdict"].unique().map(list).to_dict()
    assert verdicts == {"none": ["worth it"], "class weights": ["not worth it"]}
    assert found.facts()["verdict"] == "not worth it"


def test_the_interval_is_students_paired_one():
    found = augment.worth(planted(0.3), PARTS, ways={"noise": WAYS["noise"]}, seeds=6)

    scores = found.scores
    each = stats.ttest_rel(scores["noise"], scores["none"]).confidence_interval(0.975)
    row = found.table.iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((each.low, each.high))


def test_splits_of_their_own_widen_the_interval_for_the_rows_they_share():
    model_fn = planted(0.3)

    one = augment.worth(model_fn, PARTS, ways=WAYS, seeds=6)
    many = augment.worth(model_fn, lambda seed: PARTS, ways=WAYS, seeds=6)

    ratio = (many.table["high"] - many.table["gain"]) / (one.table["high"] - one.table["gain"])
    share = len(PARTS.validation) / len(PARTS.train)
    assert ratio.to_numpy() == pytest.approx(np.sqrt((1 / 6 + share) / (1 / 6)))


def test_by_chance_alone_few_of_many_runs_say_worth_it():
    calls = iter(range(10**6))

    def luck(train, weights, validation, seed):
        return np.random.default_rng(next(calls)).normal()

    ways = {"swap": lambda parts, seed: augment.swap(parts, seed=seed)}
    said = [
        augment.worth(luck, PARTS, ways=ways, seeds=4).table["verdict"].eq("worth it").any()
        for _ in range(60)
    ]

    assert sum(said) <= 6  # 5 % one- and two-sided, over two rivals; more than 6 of 60: under 1 %


def test_where_seeds_change_nothing_nothing_is_claimed():
    found = augment.worth(planted(1.0, spread=0.0), PARTS, ways=WAYS)

    assert np.isinf(found.table["high"]).all()
    assert (found.table["verdict"] == "not worth it").all()


def test_a_real_model_gets_rows_weights_and_validation_rows_and_never_the_test():
    seen = []

    def model_fn(train, weights, validation, seed):
        seen.append((set(train.index), set(validation.index)))
        model = LogisticRegression().fit(train[["a", "b"]], train["late"], sample_weight=weights)
        train["late"] = None  # what is done to the rows here must not reach the next one
        return model.score(validation[["a", "b"]], validation["late"])

    ways = {**WAYS, "mixup": lambda parts, seed: augment.mixup(parts, seed=seed)}
    found = augment.worth(model_fn, PARTS, ways=ways, seeds=3)

    assert list(found.scores) == ["none", "class weights", "noise", "smote", "mixup"]
    assert found.scores.shape == (3, 5)
    for train, validation in seen:
        assert not (train | validation) & set(PARTS.test.index)
        assert validation == set(PARTS.validation.index)


def test_a_quantity_has_no_class_weights_to_beat():
    parts = data.split(table(), target="a")

    found = augment.worth(planted(1.0), parts, ways={"noise": WAYS["noise"]}, seeds=3)

    assert found.table["against"].tolist() == ["none"]


BAD = {
    "no way": (
        {"ways": {}},
        (
            "augment.worth: expected ways under names other than 'none' and 'class weights', at "
            "least one, got none. "
            "Pass ways={'smote': lambda parts, seed: augment.smote(parts, seed=seed)}."
        ),
    ),
    "seeds": (
        {"seeds": 1},
        "augment.worth: expected 3 seeds or more, got 1 (int). Pass seeds=8.",
    ),
    "level": (
        {"level": 95.0},
        "augment.worth: expected 0 < level < 1, got 95.0 (float). Pass level=0.95.",
    ),
    "score": (
        {"model_fn": lambda *_: float("nan")},
        (
            "augment.worth: expected a score from model_fn, got nan for 'none', seed 0. "
            "Return a finite number, higher is better, such as -log_loss."
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    wrong, message = BAD[case]
    settings = {"model_fn": planted(1.0), "ways": WAYS, **wrong}

    with pytest.raises(ValueError) as caught:
        augment.worth(settings.pop("model_fn"), PARTS, **settings)

    assert str(caught.value) == message
