"""Every row is in one part; no part knows what another one is asked about."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import data
from kit.data.split import is_quantity

SHARED = Path(__file__).parents[2] / "shared" / "data"
FRACTIONS = st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4))


def parts_of(split: data.Split) -> list[pd.DataFrame]:
    return [split.train, split.validation, split.test]


@given(st.integers(30, 300), FRACTIONS, st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_every_row_is_in_exactly_one_part_and_the_parts_have_their_sizes(n, sizes, gaps, seed):
    validation, test = sizes
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": range(n), "y": rng.normal(size=n)})
    frame.loc[: min(gaps, n - 21), "y"] = np.nan
    kept = frame.dropna()

    split = data.split(frame, target="y", validation=validation, test=test, seed=seed)

    together = pd.concat(parts_of(split)).sort_index()
    assert together.equals(kept)
    assert abs(len(split.validation) - validation * len(kept)) <= 1
    assert abs(len(split.test) - test * len(kept)) <= 1
    assert split.table["rows"].tolist() == [len(part) for part in parts_of(split)]


@given(st.lists(st.integers(3, 60), min_size=2, max_size=12), st.integers(0, 1000))
def test_classes_keep_their_shares_to_within_a_row(sizes, seed):
    words = [f"class {i}" for i, size in enumerate(sizes) for _ in range(size)]
    frame = pd.DataFrame({"x": range(len(words)), "y": words})
    if len(frame) < 20:
        return

    split = data.split(frame, target="y", seed=seed)

    for i, size in enumerate(sizes):
        counts = [(part["y"] == f"class {i}").sum() for part in parts_of(split)]
        assert sum(counts) == size
        assert np.abs(np.array(counts) - size * np.array([0.7, 0.15, 0.15])).max() < 1.001


def test_many_small_classes_reach_every_part():
    frame = pd.DataFrame({"x": range(120), "y": [f"class {i % 40}" for i in range(120)]})

    split = data.split(frame, target="y")

    assert all(10 <= len(part) <= 26 for part in (split.validation, split.test))
    assert split.train["y"].nunique() == 40


@given(
    st.lists(st.integers(0, 15), min_size=30, max_size=200).filter(lambda t: len(set(t)) > 8),
    st.integers(0, 9),
)
def test_a_time_falls_whole_into_one_part_and_the_parts_follow_each_other(times, n_missing):
    frame = pd.DataFrame({"t": pd.array(times, "Int64"), "x": range(len(times))})
    frame["y"] = np.arange(len(times)) % 2 == 0
    frame.loc[: n_missing - 1, "t"] = pd.NA
    try:
        split = data.split(frame, target="y", time="t")
    except ValueError as error:
        assert "at least one row in each" in str(error)  # noqa: PT017  one time holds too many
        return

    train, validation, test = parts_of(split)
    assert train["t"].max() < validation["t"].min()
    assert validation["t"].max() < test["t"].min()
    assert train["t"].isna().sum() == frame["t"].isna().sum()
    assert pd.concat(parts_of(split)).sort_index().equals(frame)


def test_the_same_seed_gives_the_same_split_and_the_frame_stays_as_it_was():
    frame = pd.DataFrame({"x": range(100), "y": np.arange(100) % 2 == 0})
    before = frame.copy()

    one, again, other = (data.split(frame, target="y", seed=seed) for seed in (1, 1, 2))

    assert one.test.equals(again.test)
    assert not one.test.equals(other.test)
    assert frame.equals(before)


def test_the_summary_and_the_facts_say_what_was_done():
    frame = pd.DataFrame({"t": range(100), "y": [None] * 10 + [True, False] * 45})

    split = data.split(frame.astype({"y": "boolean"}), target="y", time="t")

    assert split.how == "by time (t); 10 rows without y left out"
    assert split.table.columns.tolist() == ["part", "rows", "mean_y", "from", "to"]
    assert not split.table.isna().any(axis=None)
    assert str(split) == (
        "Split(train 63, validation 13, test 14, "
        "split by time (t); 10 rows without y left out; table of 3 rows)"
    )


def test_a_count_that_is_a_quantity_is_one_in_every_part_and_in_the_encoder():
    """By its training rows alone a count with a rare tail would look like classes."""
    counts = [n for n in range(48) for _ in range(40)] + list(range(48, 60)) * 3
    frame = pd.DataFrame({"x": np.arange(len(counts)) / 7, "y": counts})

    split = data.split(frame, target="y", time="x")
    encoder = data.Encoder.fit(split.train, target="y", quantity=split.quantity)

    assert split.quantity
    assert not is_quantity(split.train["y"])
    assert encoder.classes == ()
    assert encoder.y(split.test).tolist() == split.test["y"].tolist()
    assert split.table.columns.tolist() == ["part", "rows", "mean_y", "from", "to"]
    assert not split.table.isna().any(axis=None)


@pytest.mark.parametrize(
    ("values", "quantity"),
    [
        ([0, 1] * 50, False),
        ([0.0, 1.0, None] * 50, False),
        ([1, 2, 3] * 50, False),
        ([0.5, 1.5] * 50, True),
        (range(100), True),
        (["a", "b"] * 50, False),
        ([True, False] * 50, False),
        (pd.array([True, None] * 50, "boolean"), False),
        (pd.array([1, None, 2] * 50, "Int64"), False),
        (pd.array(range(500), "Int64"), True),
    ],
    ids=str,
)
def test_a_quantity_is_told_from_classes(values, quantity):
    assert is_quantity(pd.Series(values)) is quantity


N = 40
ONE = {"x": range(N)}
BIG = {"x": range(300)}


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {**ONE, "late": [True, False] * 20},
            {"target": "lat"},
            "expected a known column, got 'lat' (str). Did you mean 'late'? Known: late, x.",
        ),
        (
            ONE,
            {"target": "x"},
            "expected a column beside the target, got a table of one column. Add a column.",
        ),
        (
            {**ONE, "y": [None] * N},
            {"target": "y"},
            (
                "expected values in the target 'y', got nothing but missing cells. "
                "Choose another target."
            ),
        ),
        (
            {**ONE, "y": [1] * 19 + [None] * 21},
            {"target": "y"},
            (
                "expected at least 20 rows in the target 'y', got 19 rows that have it. "
                "Bring more rows."
            ),
        ),
        (
            {**ONE, "y": [7] * N},
            {"target": "y"},
            (
                "expected two values or more in the target 'y', got 7 in every row. "
                "Choose another target."
            ),
        ),
        (
            {**ONE, "y": ["a"] * 39 + ["b"]},
            {"target": "y"},
            (
                "expected at least 3 rows of each class in the target 'y', got 1 of 'b'. "
                "Merge or drop it: frame[frame['y'] != 'b']."
            ),
        ),
        (
            {**ONE, "y": [0] * 39 + [1]},
            {"target": "y"},
            (
                "expected at least 3 rows of each class in the target 'y', got 1 of 1. "
                "Merge or drop it: frame[frame['y'] != 1]."
            ),
        ),
        (
            {**BIG, "y": [f"name {i}" for i in range(300)]},
            {"target": "y"},
            "expected at most 200 classes in the target 'y', got 300 different words. Group them.",
        ),
        (
            {**ONE, "y": [float("inf"), *range(39)]},
            {"target": "y"},
            "expected finite numbers in the target 'y', got 1 infinities. Replace them.",
        ),
        (
            {**ONE, "y": [[1], [2]] * 20},
            {"target": "y"},
            (
                "expected single values in the target 'y', got cells such as [1]. "
                "Choose another target."
            ),
        ),
        (
            {**ONE, "y": [True, False] * 20},
            {"target": "y", "time": "tim"},
            "expected a known column, got 'tim' (str). Known: x, y.",
        ),
        (
            {"day": ["01/02/2013"] * N, "y": [True, False] * 20},
            {"target": "y", "time": "day"},
            (
                "expected dates or numbers in 'day', got a column of type str. "
                "Convert it: frame['day'] = pd.to_datetime(frame['day'], format=…)."
            ),
        ),
        (
            {"day": [1, 2] * 20, "y": [True, False] * 20},
            {"target": "y", "time": "day"},
            (
                "expected a time column that tells enough moments apart, got 2 different values in "
                "'day'. Pass time=None for a random split."
            ),
        ),
        (
            {"day": [1] * 38 + [2, 3], "y": [True, False] * 20},
            {"target": "y", "time": "day"},
            (
                "expected at least one row in each of training, validation and test, "
                "got [0, 0, 40] with validation=0.15, test=0.15. "
                "Pass larger fractions, more rows, or time=None for a random split."
            ),
        ),
        (
            {**ONE, "y": np.arange(N) / 7},
            {"target": "y", "test": 0.001},
            (
                "expected at least one row in each of training, validation and test, "
                "got [34, 6, 0] with validation=0.15, test=0.001. "
                "Pass larger fractions, more rows, or time=None for a random split."
            ),
        ),
        (
            {**ONE, "y": [True, False] * 20},
            {"target": "y", "test": 1.5},
            (
                "expected fractions between 0 and 1 that leave rows to train on, "
                "got validation=0.15, test=1.5. Pass validation=0.15, test=0.15."
            ),
        ),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(columns, settings, message):
    with pytest.raises(ValueError) as caught:
        data.split(pd.DataFrame(columns), **settings)

    assert str(caught.value) == f"data.split: {message}"


def test_columns_of_one_name_are_refused():
    frame = pd.DataFrame(np.zeros((N, 3)), columns=["y", "x", "x"])

    with pytest.raises(ValueError) as caught:
        data.split(frame, target="y")

    assert str(caught.value) == (
        "data.split: expected column names that differ, got 'x' more than once. Rename them."
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not on this machine")
def test_seventy_seven_intents_of_customers_are_split_by_class():
    frame = data.read(SHARED / "banking77_train.csv").frame

    split = data.split(frame, target="category")

    assert [part["category"].nunique() for part in parts_of(split)] == [77, 77, 77]
    assert not split.quantity
