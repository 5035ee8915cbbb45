"""New rows of a table come from training rows alone and stay what their label says."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import augment, data
from kit.augment import rows as module

N = 300
WAYS = {
    "noise": augment.noise,
    "mixup": augment.mixup,
    "smote": augment.smote,
    "swap": augment.swap,
}
BY_ROWS = ["noise", "mixup", "swap"]


def table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "distance": rng.gamma(2, 400, N),
            "seats": rng.integers(20, 400, N),
            "engines": rng.integers(1, 5, N),
            "gust": np.where(rng.random(N) < 0.3, np.nan, rng.normal(20, 5, N)),
            "carrier": pd.Series(rng.choice(["AA", "UA", "WN"], N)).where(rng.random(N) < 0.9),
            "night": rng.random(N) < 0.2,
            "day": pd.Timestamp("2013-01-01") + pd.to_timedelta(rng.integers(0, 365, N), "D"),
            "late": rng.choice(["no", "yes", "very"], N, p=[0.7, 0.2, 0.1]),
        }
    )
    return frame.set_index(np.arange(N) + 1000)


PARTS = data.split(table(), target="late")
AMOUNTS = data.split(table(), target="distance")


@pytest.mark.parametrize("name", WAYS)
def test_growing_keeps_the_split_and_adds_rows_of_the_same_kind(name):
    before = PARTS.train.copy(), PARTS.validation.copy(), PARTS.test.copy()

    grown = WAYS[name](PARTS, seed=1)

    assert PARTS.train.equals(before[0])
    assert grown.split.train.iloc[: len(PARTS.train)].equals(before[0])
    assert grown.split.validation.equals(before[1])
    assert grown.split.test.equals(before[2])
    assert len(grown.rows) > 0
    assert grown.rows.dtypes.equals(PARTS.train.dtypes)
    assert grown.rows["seats"].between(*PARTS.train["seats"].agg(["min", "max"])).all()
    assert grown.split.train.index.is_unique
    assert not grown.rows.index.isin(table().index).any()
    counts = grown.table.set_index("late")
    assert counts["after"].to_dict() == grown.split.train["late"].value_counts().to_dict()
    assert counts["before"].to_dict() == PARTS.train["late"].value_counts().to_dict()
    assert grown.split.table["rows"].tolist() == [
        len(part) for part in (grown.split.train, PARTS.validation, PARTS.test)
    ]


@pytest.mark.parametrize("name", WAYS)
def test_every_new_row_names_its_parent_of_the_same_class(name):
    grown = WAYS[name](PARTS, seed=1)

    parents = grown.parents["parent"]
    assert parents.isin(PARTS.train.index).all()
    assert (grown.rows["late"].to_numpy() == PARTS.train["late"].loc[parents].to_numpy()).all()
    if name in ("smote", "mixup"):
        assert grown.parents["partner"].isin(PARTS.train.index).all()
        assert (grown.rows["day"].to_numpy() == PARTS.train["day"].loc[parents].to_numpy()).all()
    else:
        assert grown.parents["partner"].isna().all()


@pytest.mark.parametrize("name", WAYS)
def test_a_seed_gives_the_same_rows_and_another_gives_others(name):
    one, two, three = (WAYS[name](PARTS, seed=seed).rows for seed in (1, 1, 2))

    assert one.equals(two)
    assert not one.equals(three)


@pytest.mark.parametrize("name", BY_ROWS)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_rows_of_another_part_are_refused(name, part):
    stray = getattr(PARTS, part)

    with pytest.raises(ValueError) as caught:
        WAYS[name](PARTS, rows=pd.concat([PARTS.train.head(3), stray]))

    assert str(caught.value) == (
        f"augment.{name}: expected training rows alone: what is judged by must stay unseen, got "
        f"{len(stray)} of {part}. Pass rows of parts.train, or leave rows out to take them all."
    )


def test_test_rows_that_were_numbered_anew_are_refused_too():
    parts = data.split(table().reset_index(drop=True), target="late")
    # their labels are now those of training rows
    stray = parts.test.set_axis(parts.train.index[: len(parts.test)], axis=0)

    with pytest.raises(ValueError) as caught:
        augment.noise(parts, rows=stray)

    assert str(caught.value) == (
        "augment.noise: expected rows as they are in parts.train, at least one, got others under "
        "the same labels. Select them: rows=parts.train[parts.train[…] == …]."
    )


def test_a_bare_table_is_refused():
    with pytest.raises(TypeError) as caught:
        module.of_training("augment.noise", PARTS.test)

    assert str(caught.value) == (
        "augment.noise: expected a split, of which only the training rows grow, got DataFrame of "
        "shape (45, 8). Split first, and pass it whole: data.split(frame, target=…)."
    )


def test_labels_that_name_two_rows_are_refused():
    parts = data.split(table().set_index(np.arange(N) // 2), target="late")

    with pytest.raises(ValueError) as caught:
        augment.noise(parts)

    label = str(caught.value).split("got ")[1].split(" more")[0]
    assert str(caught.value) == (
        f"augment.noise: expected a label of its own for every row, got {label} more than once. "
        "Number the rows before the split: frame.reset_index(drop=True)."
    )


def test_chosen_rows_alone_grow():
    chosen = PARTS.train[PARTS.train["late"] == "very"]

    grown = augment.noise(PARTS, rows=chosen, copies=3)

    assert len(grown.rows) == 3 * len(chosen)
    assert set(grown.parents["parent"]) == set(chosen.index)


def test_growing_can_be_repeated_and_words_can_label_rows():
    frame = table().set_index(np.array([f"row {i}" for i in range(N)], dtype=object))
    parts = data.split(frame, target="late")

    twice = augment.swap(augment.noise(parts).split)

    assert len(twice.split.train) == 4 * len(parts.train)
    assert twice.split.train.index.is_unique
    assert twice.rows.index[0] == f"new {2 * len(parts.train)}"


# noise


def test_noise_leaves_codes_categories_dates_and_the_target():
    grown = augment.noise(PARTS, scale=3.0)

    parents = PARTS.train.loc[grown.parents["parent"]]
    for name in ("engines", "carrier", "night", "day", "late"):
        assert grown.rows[name].reset_index(drop=True).equals(parents[name].reset_index(drop=True))


def test_noise_moves_quantities_by_its_scale_and_keeps_gaps():
    grown = augment.noise(PARTS, scale=0.1, copies=20)

    parents = PARTS.train.loc[grown.parents["parent"]]
    assert (grown.rows["gust"].isna().to_numpy() == parents["gust"].isna().to_numpy()).all()
    moved = grown.rows["gust"].to_numpy() - parents["gust"].to_numpy()
    low, high = PARTS.train["gust"].quantile([0.25, 0.75])
    assert np.nanstd(moved) == pytest.approx(0.1 * (high - low) / 1.349, rel=0.05)
    assert abs(np.nanmean(moved)) < 0.05


def test_one_wild_value_does_not_make_the_noise_wild():
    frame = table()
    frame.iloc[0, 0] = 1e12
    parts = data.split(frame, target="late")

    grown = augment.noise(parts)

    parents = parts.train["distance"].loc[grown.parents["parent"]].to_numpy()
    assert np.abs(grown.rows["distance"].to_numpy() - parents)[parents < 1e12].max() < 1000


@pytest.mark.parametrize("way", [augment.noise, augment.mixup])
def test_an_infinite_value_stays_infinite_and_spoils_no_other(way):
    frame = table()
    wild = PARTS.train.index[PARTS.train["late"] == "very"][:3]
    frame.loc[wild, "distance"] = [np.inf, -np.inf, np.inf]
    parts = data.split(frame, target="late")

    grown = way(parts)

    infinite = np.isinf(parts.train["distance"].loc[grown.parents["parent"]].to_numpy())
    new, parents = grown.rows["distance"].to_numpy(), grown.parents["parent"]
    assert infinite.any()
    assert (new[infinite] == parts.train["distance"].loc[parents].to_numpy()[infinite]).all()
    assert np.abs(new[~infinite]).max() < 1e5


# mixup


def test_mixtures_lie_between_their_parents_in_the_shares_of_their_classes():
    grown = augment.mixup(PARTS, alpha=1.0)

    one, two = (PARTS.train.loc[grown.parents[who]] for who in ("parent", "partner"))
    soft = grown.soft.to_numpy()
    classes = list(grown.soft.columns)
    assert classes == ["no", "very", "yes"]
    at = np.arange(len(soft))
    share = soft[at, [classes.index(label) for label in one["late"]]]
    same = one["late"].to_numpy() == two["late"].to_numpy()
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    assert share[same] == pytest.approx(1)
    assert (share >= 0.5).all()
    a, b = one["distance"].to_numpy(), two["distance"].to_numpy()
    mixed = share * a + (1 - share) * b
    np.testing.assert_allclose(grown.rows["distance"].to_numpy()[~same], mixed[~same])
    carrier = grown.rows["carrier"].fillna("-").to_numpy()
    from_one = carrier == one["carrier"].fillna("-").to_numpy()
    assert (from_one | (carrier == two["carrier"].fillna("-").to_numpy())).all()


def test_weights_stand_for_soft_labels_in_the_log_loss():
    grown = augment.mixup(PARTS, alpha=1.0)
    rng = np.random.default_rng(0)
    logits = pd.DataFrame(
        np.log(rng.dirichlet([1, 1, 1], len(grown.rows))),
        index=grown.rows.index,
        columns=grown.soft.columns,
    )

    train, weights = grown.weighted()

    new = train.index.isin(grown.rows.index)
    assert (weights[~new] == 1).all()
    assert (~new).sum() == len(PARTS.train)
    each = [logits.loc[label, name] for label, name in train.loc[new, "late"].items()]
    assert (weights[new] * each).sum() == pytest.approx((grown.soft * logits).to_numpy().sum())
    assert train.dtypes.equals(PARTS.train.dtypes)


def test_a_quantity_is_mixed_itself_and_has_no_soft_labels():
    grown = augment.mixup(AMOUNTS, alpha=1.0)

    one, two = (AMOUNTS.train["distance"].loc[grown.parents[who]] for who in grown.parents)
    low, high = np.minimum(one.to_numpy(), two.to_numpy()), np.maximum(one, two.to_numpy())
    assert grown.soft is None
    assert grown.rows["distance"].between(low - 1e-9, high.to_numpy() + 1e-9).all()
    assert (grown.weighted()[1] == 1).all()


@pytest.mark.parametrize("name", WAYS)
def test_rows_with_soft_labels_are_not_grown_again(name):
    mixed = augment.mixup(PARTS)

    with pytest.raises(ValueError) as caught:
        WAYS[name](mixed.split)

    assert str(caught.value) == (
        f"augment.{name}: expected training rows of one class each, got rows with soft labels, "
        "which would be lost. Make mixtures last: augment.mixup(augment.noise(parts).split)."
    )


def test_mixtures_made_last_and_mixtures_of_quantities_grow_on():
    first = augment.noise(PARTS)
    amounts = augment.mixup(AMOUNTS)

    last, again = augment.mixup(first.split), augment.noise(amounts.split)

    assert last.soft.shape == (2 * len(PARTS.train), 3)
    assert len(again.split.train) == 4 * len(AMOUNTS.train)
    assert again.split.made.equals(amounts.parents.index.append(again.parents.index))


# smote


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_rare_classes_are_filled_up_to_the_ratio(ratio):
    before = PARTS.train["late"].value_counts()

    after = augment.smote(PARTS, ratio=ratio).split.train["late"].value_counts()

    wanted = {name: max(n, round(ratio * before.max())) for name, n in before.items()}
    assert after.to_dict() == wanted


def test_neighbours_are_the_nearest_of_the_class_by_a_naive_search():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=80), "b": 100 * rng.normal(size=80)})
    frame["c"] = rng.choice(["x", "y"], 80)
    frame["rare"] = np.arange(80) % 4 == 0
    parts = data.split(frame, target="rare")
    rare = parts.train[parts.train["rare"]]

    grown = augment.smote(parts, neighbours=3)

    z = [(rare[name] - 0) / parts.train[name].std(ddof=0) for name in ("a", "b")]
    for child, (parent, partner) in grown.parents.iterrows():
        far = sum((each - each[parent]) ** 2 for each in z) + (rare["c"] != rare["c"][parent])
        nearest = far.drop(parent).nsmallest(3).index
        assert partner in nearest
        assert grown.rows["c"][child] == rare["c"][nearest].mode().iloc[0]
        a = sorted([rare["a"][parent], rare["a"][partner]])
        assert a[0] <= grown.rows["a"][child] <= a[1]
        step = (grown.rows["a"][child] - rare["a"][parent]) / (
            rare["a"][partner] - rare["a"][parent]
        )
        b = rare["b"][parent] + step * (rare["b"][partner] - rare["b"][parent])
        assert grown.rows["b"][child] == pytest.approx(b)


def test_classes_that_are_equal_need_no_new_rows():
    frame = table()
    frame["late"] = np.arange(N) % 2 == 0

    grown = augment.smote(data.split(frame, target="late", seed=3), ratio=0.5)

    assert grown.rows.empty
    assert grown.facts()["new rows"] == "0"


# swap


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 1.0]))
def test_every_column_keeps_its_values_in_every_class(seed, frac):
    grown = augment.swap(PARTS, frac=frac, seed=seed)

    for name in PARTS.train.columns:
        for label in ("no", "yes", "very"):
            new = grown.rows.loc[grown.rows["late"] == label, name]
            old = PARTS.train.loc[PARTS.train["late"] == label, name]
            assert new.value_counts(dropna=False).equals(
                old.value_counts(dropna=False).reindex(new.value_counts(dropna=False).index)
            )


@given(st.integers(0, 1000))
def test_cells_so_few_that_chance_picks_none_are_no_trouble(seed):
    frame = pd.DataFrame({"a": np.arange(60.0), "late": ["no", "yes"] * 30})
    parts = data.split(frame, target="late")

    grown = augment.swap(parts, frac=0.01, seed=seed)

    parents = parts.train["a"].loc[grown.parents["parent"]].to_numpy()
    assert sorted(grown.rows["a"]) == sorted(parents)
    assert (grown.rows["a"].to_numpy() != parents).sum() <= 5


def test_as_many_cells_move_as_were_asked_for():
    grown = augment.swap(PARTS, frac=0.3, copies=5)

    parents = PARTS.train["distance"].loc[grown.parents["parent"]].to_numpy()
    moved = (grown.rows["distance"].to_numpy() != parents).mean()
    assert moved == pytest.approx(0.3, abs=0.05)


BAD = {
    "scale": (
        lambda: augment.noise(PARTS, scale=0),
        "augment.noise: expected scale above 0, got 0 (int). Leave scale out.",
    ),
    "alpha": (
        lambda: augment.mixup(PARTS, alpha=-1.0),
        "augment.mixup: expected alpha above 0, got -1.0 (float). Leave alpha out.",
    ),
    "ratio": (
        lambda: augment.smote(PARTS, ratio=2.0),
        (
            "augment.smote: expected 0 < ratio <= 1, got 2.0 (float). "
            "Pass ratio=1.0 for equal classes."
        ),
    ),
    "quantity": (
        lambda: augment.smote(AMOUNTS),
        (
            "augment.smote: expected a target of classes, got the quantity 'distance'. "
            "Use augment.noise or augment.mixup."
        ),
    ),
    "frac": (
        lambda: augment.swap(PARTS, frac=20.0),
        (
            "augment.swap: expected 0 < frac <= 1, got 20.0 (float). "
            "Pass frac=0.2 for a fifth of them."
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    call, message = BAD[case]

    with pytest.raises(ValueError) as caught:
        call()

    assert str(caught.value) == message


def test_a_rare_class_of_one_row_is_refused():
    frame = table()
    frame["late"] = "no"
    frame.loc[[1000, 1001, 1002], "late"] = "yes"
    parts = data.split(frame, target="late", validation=0.3, test=0.3)

    with pytest.raises(ValueError) as caught:
        augment.smote(parts)

    assert str(caught.value) == (
        "augment.smote: expected at least 2 training rows of each class, got 1 of 'yes'. "
        "Merge that class with another, or bring more rows."
    )
