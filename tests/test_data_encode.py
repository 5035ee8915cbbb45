"""The encoder learns from training rows alone and gives finite numbers for any later row."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import data
from kit.data import Encoder

WORDS = st.none() | st.sampled_from(["ash", "oak", "elm", "fir"])
NUMBERS = st.none() | st.floats(-1e6, 1e6)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, WORDS, st.booleans()), min_size=5, max_size=40)


def frame_of(rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["x", "z", "tree", "y"])
    return frame.astype({"x": float, "z": float})


def fitted(frame: pd.DataFrame) -> Encoder | None:
    try:
        return Encoder.fit(frame, target="y")
    except ValueError as error:
        assert "expected a column that varies" in str(error)  # noqa: PT017  all rows are alike
        return None


# ---- rules


@given(ROWS, ROWS)
def test_what_a_row_becomes_does_not_depend_on_the_rows_beside_it(train, later):
    encoder = fitted(frame_of(train))
    if encoder is None:
        return

    alone, together = encoder.X(frame_of(later)), encoder.X(frame_of(later + train))

    assert torch.equal(together[: len(later)], alone)
    assert torch.isfinite(together).all()


@given(ROWS)
def test_the_rules_survive_json_to_the_last_bit(train):
    frame = frame_of(train)
    encoder = fitted(frame)
    if encoder is None:
        return

    twin = Encoder.from_state(json.loads(json.dumps(encoder.state())))

    assert twin == encoder
    assert torch.equal(twin.X(frame), encoder.X(frame))
    assert torch.equal(twin.y(frame), encoder.y(frame))


@given(st.lists(st.floats(-1e6, 1e6), min_size=30, max_size=60).filter(lambda v: np.std(v) > 1e-3))
def test_numbers_are_standardised_by_the_training_rows(values):
    frame = pd.DataFrame({"x": values, "y": np.arange(len(values)) % 2 == 0})

    X = Encoder.fit(frame, target="y").X(frame).double()

    assert abs(X.mean()) < 1e-4
    assert abs(X.std(correction=0) - 1) < 1e-4


def test_columns_come_in_order_and_the_model_learns_their_sizes():
    frame = pd.DataFrame(
        {
            "tree": ["ash", "oak"] * 50,
            "x": [1.0, None, 2.0, None] * 25,
            "at": pd.date_range("2013-01-01", periods=100, freq="17h"),
            "ok": pd.array([True, False] * 50, "boolean"),
            "y": [True, False] * 50,
        }
    )

    encoder = Encoder.fit(frame, target="y")

    assert encoder.names == ["x", "ok", "at hour", "x missing", "tree", "at weekday"]
    assert encoder.n_numeric == 4
    assert encoder.cardinalities == (3, 8)
    assert encoder.n_outputs == 1
    assert encoder.X(frame)[:3, 4].tolist() == [1, 2, 1]
    assert encoder.X(frame)[:2, 3].tolist() == [0, 1]


def test_unknown_rare_and_missing_words_share_code_zero():
    frame = pd.DataFrame({"tree": ["ash"] * 60 + ["oak"] * 39 + ["yew"], "y": [1.5, 2.5] * 50})
    encoder = Encoder.fit(frame, target="y")

    later = pd.DataFrame({"tree": ["ash", "oak", "yew", "palm", None, ""]})

    assert encoder.X(later)[:, 0].tolist() == [1, 2, 0, 0, 0, 0]


def test_a_gap_is_the_median_and_a_flag_and_equal_patterns_share_one_flag():
    frame = pd.DataFrame({"a": [1.0, 2, 9, None] * 10, "y": [True, False] * 20})
    frame["b"] = frame["a"] * 2
    encoder = Encoder.fit(frame, target="y")

    X = encoder.X(frame)

    assert encoder.names == ["a", "b", "a missing"]
    assert X[3, 2] == 1
    assert X[3, 0] == X[1, 0]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ([7] * 100, "one value in every row"),
        ([0.1] * 100, "one value in every row"),
        (["ash"] * 100, "one value in every row"),
        ([None] * 100, "nothing but missing cells"),
        ([np.nan] * 100, "nothing but missing cells"),
        ([f"name {i}" for i in range(100)], "100 different words, hardly one twice"),
        ([1e200, -1e200] * 50, "numbers too large to square"),
    ],
    ids=["whole", "float", "word", "none", "nan", "names", "huge"],
)
def test_a_column_that_tells_nothing_is_dropped_with_the_reason(column, why):
    frame = pd.DataFrame({"x": range(100), "odd": column, "y": [True, False] * 50})

    encoder = Encoder.fit(frame, target="y")

    assert encoder.dropped == {"odd": why}
    assert encoder.names == ["x"]


def test_one_value_and_gaps_is_a_flag_and_no_noise():
    frame = pd.DataFrame({"x": [0.1, None] * 50, "y": [True, False] * 50})

    encoder = Encoder.fit(frame, target="y")

    assert encoder.names == ["x missing"]
    assert encoder.X(frame)[:2, 0].tolist() == [0, 1]


def test_a_value_far_out_of_the_training_rows_stays_finite():
    frame = pd.DataFrame({"x": [1e-30, 2e-30] * 50, "y": [True, False] * 50})

    X = Encoder.fit(frame, target="y").X(pd.DataFrame({"x": [1e30, -1e300]}))

    assert X[:, 0].tolist() == [1e6, -1e6]


# ---- types

TYPED = {
    "Int64": pd.array([1, 2, None, 4] * 25, "Int64"),
    "Float64": pd.array([1.0, 2.0, None, 4.0] * 25, "Float64"),
    "float64": np.array([1.0, 2.0, np.nan, 4.0] * 25),
    "object": np.array([1, 2.0, None, 4] * 25, dtype=object),
    "decimal": np.array([Decimal(1), Decimal(2), None, Decimal(4)] * 25, dtype=object),
    "arrow": pd.array([1, 2, None, 4] * 25, "int64[pyarrow]"),
}


@pytest.mark.parametrize("kind", TYPED)
def test_a_number_is_the_same_in_every_type_that_can_hold_it(kind):
    y = [True, False] * 50
    expected = pd.DataFrame({"x": TYPED["float64"], "y": y})
    frame = pd.DataFrame({"x": TYPED[kind], "y": y})

    encoder = Encoder.fit(frame, target="y")

    assert encoder == Encoder.fit(expected, target="y")
    assert torch.equal(encoder.X(frame), encoder.X(expected))


WORD_TYPES = ["object", "str", "string", "category", "string[pyarrow]"]


@pytest.mark.parametrize("kind", WORD_TYPES)
def test_a_word_is_the_same_in_every_type_that_can_hold_it(kind):
    words, y = ["ash", "oak", None, "elm"] * 25, [True, False] * 50
    expected = pd.DataFrame({"x": words, "y": y})
    frame = pd.DataFrame({"x": pd.Series(words).astype(kind), "y": y})

    encoder = Encoder.fit(frame, target="y")

    assert encoder == Encoder.fit(expected, target="y")
    assert torch.equal(encoder.X(frame), encoder.X(expected))


@pytest.mark.parametrize("kind", ["boolean", "object", "bool"])
def test_yes_and_no_are_numbers_in_every_type(kind):
    frame = pd.DataFrame({"x": pd.Series([True, False] * 50).astype(kind), "y": range(100)})

    encoder = Encoder.fit(frame, target="y")

    assert encoder.X(frame)[:2, 0].tolist() == [1, -1]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT], ids=str)
def test_rows_without_any_value_are_encoded(nothing):
    frame = pd.DataFrame(
        {
            "tree": ["ash", "oak"] * 50,
            "x": [1.0, None, 3, 4] * 25,
            "n": pd.array([1, 2] * 50, "Int64"),
            "at": pd.date_range("2013-01-01", periods=100, freq="17h", tz="UTC"),
            "y": [True, False] * 50,
        }
    )
    encoder = Encoder.fit(frame, target="y")

    X = encoder.X(pd.DataFrame({name: [nothing] * 3 for name in frame.columns.drop("y")}))

    assert torch.isfinite(X).all()
    assert X[0, encoder.names.index("x missing")] == 1
    assert X[0, encoder.n_numeric :].tolist() == [0, 0]


def test_names_that_are_numbers_and_frames_without_rows_are_taken():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=[0, 1, "y"])
    encoder = Encoder.fit(frame, target="y")

    assert encoder.X(frame).shape == (40, 2)
    assert encoder.X(frame[:0]).shape == (0, 2)


def test_the_frame_stays_as_it_was():
    frame = frame_of([(1.0, None, "ash", True), (2.0, 3.0, None, False)] * 20)
    before = frame.copy()

    Encoder.fit(frame, target="y").X(frame)

    assert frame.equals(before)


# ---- targets


@pytest.mark.parametrize(
    ("target", "classes", "y", "dtype"),
    [
        (["no", "yes"], ("no", "yes"), [False, True], torch.bool),
        ([True, False], (False, True), [True, False], torch.bool),
        ([1.0, 0.0], (0.0, 1.0), [True, False], torch.bool),
        (["b", "a", "c"], ("a", "b", "c"), [1, 0, 2], torch.int64),
        ([10, 9, 8], (8, 9, 10), [2, 1, 0], torch.int64),
        ([0.5, 1.5], (), [0.5, 1.5], torch.float32),
    ],
    ids=str,
)
def test_the_target_becomes_what_its_loss_takes(target, classes, y, dtype):
    frame = pd.DataFrame({"x": range(60), "y": (target * 30)[:60]})

    encoder = Encoder.fit(frame, target="y")

    assert encoder.classes == classes
    assert encoder.y(frame)[: len(y)].tolist() == y
    assert encoder.y(frame).dtype == dtype
    assert encoder.n_outputs == (len(classes) if len(classes) > 2 else 1)


def test_words_and_numbers_may_be_mixed_in_a_target_of_objects():
    frame = pd.DataFrame({"x": range(60), "y": pd.Series([2, "a", 10] * 20, dtype=object)})

    encoder = Encoder.fit(frame, target="y")

    assert encoder.classes == (2, 10, "a")
    assert encoder.y(frame)[:3].tolist() == [0, 2, 1]


# ---- what cannot be encoded

GOOD = pd.DataFrame(
    {
        "x": [1.0, 2.0] * 30,
        "tree": ["ash", "oak"] * 30,
        "at": pd.date_range("2013-01-01", periods=60, freq="17h"),
        "y": ["no", "yes"] * 30,
    }
)
HAS = "got a table with"


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (
            GOOD.drop(columns="x"),
            (
                f"expected the column 'x' of the training rows, {HAS} tree, at hour, at weekday. "
                "Add it, empty where it is not known: frame['x'] = None."
            ),
        ),
        (
            GOOD.drop(columns="at"),
            (
                f"expected the column 'at' of the training rows, {HAS} x, tree. "
                "Add it, empty where it is not known: frame['at'] = None."
            ),
        ),
        (
            GOOD.assign(x=["12"] * 60),
            (
                "expected numbers in 'x', as in the training rows, got a column of type str. "
                "Convert it: pd.to_numeric(frame['x'])."
            ),
        ),
        (
            GOOD.assign(at="2013-01-01"),
            (
                "expected dates in 'at', as in the training rows, got a column of type str. "
                "Convert it: pd.to_datetime(frame['at'])."
            ),
        ),
        (
            GOOD.assign(x=[np.inf, -np.inf] + [1] * 58),
            (
                "expected finite numbers in 'x', got 2 infinities. "
                "Replace them: frame['x'].replace([inf, -inf], nan)."
            ),
        ),
        (
            pd.concat([GOOD, GOOD[["x"]]], axis=1),
            "expected column names that differ, got x. Rename those that come twice.",
        ),
    ],
    ids=["no column", "no date", "text", "text date", "infinite", "twice"],
)
def test_rows_that_differ_from_the_training_rows_are_refused(later, message):
    encoder = Encoder.fit(GOOD, target="y")

    with pytest.raises(ValueError) as caught:
        encoder.X(later)

    assert str(caught.value) == f"data.Encoder: {message}"


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (
            GOOD.drop(columns="y"),
            (
                f"expected the column 'y' of the training rows, {HAS} x, tree, at. "
                "Add it, empty where it is not known: frame['y'] = None."
            ),
        ),
        (
            GOOD.assign(y=["no", None] * 30),
            (
                "expected a value of 'y' in every row, got 30 rows without. "
                "Leave them out: frame.dropna(subset='y')."
            ),
        ),
        (
            GOOD.assign(y=["no", "yess"] * 30),
            "expected a known class, got 'yess' (str). Did you mean 'yes'? Known: no, yes.",
        ),
    ],
    ids=["no target", "gaps", "unknown"],
)
def test_targets_that_training_did_not_have_are_refused(later, message):
    encoder = Encoder.fit(GOOD, target="y")

    with pytest.raises(ValueError) as caught:
        encoder.y(later)

    assert str(caught.value) == f"data.Encoder: {message}"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pd.DataFrame(np.zeros((30, 2_001))).rename(columns={0: "y"}),
            (
                "expected at most 2,000 columns, got 2,001. "
                "Pass the ones that matter: frame[[…]] (in a report: -p columns=a,b,c)."
            ),
        ),
        (
            pd.DataFrame({"a": [1] * 30, "b": "x", "y": range(30)}),
            (
                "expected a column that varies, got none of a, b. "
                "Add a column that can tell rows apart."
            ),
        ),
        (
            pd.DataFrame({"a": range(30), "why": range(30)}),
            "expected a known column, got 'y' (str). Known: a, why.",
        ),
        (
            pd.DataFrame({"a": [np.inf, *range(29)], "y": range(30)}),
            (
                "expected finite numbers in 'a', got 1 infinities. "
                "Replace them: frame['a'].replace([inf, -inf], nan)."
            ),
        ),
    ],
    ids=["wide", "constant", "unknown", "infinite"],
)
def test_training_rows_that_nothing_can_be_learned_from_are_refused(frame, message):
    with pytest.raises(ValueError) as caught:
        Encoder.fit(frame, target="y")

    assert str(caught.value) == f"data.Encoder: {message}"


def test_a_quantity_of_the_whole_table_is_no_class_in_a_part():
    frame = pd.DataFrame({"x": range(60), "y": [0, 1] * 30})

    assert Encoder.fit(frame, target="y", quantity=True).y(frame).dtype == torch.float32
    assert Encoder.fit(frame, target="y", quantity=False).classes == (0, 1)


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_flights_are_encoded_finite_whatever_the_sample(seed):
    frame = data.flights(rows=300, seed=seed).frame
    encoder = Encoder.fit(frame[:200], target="late")

    X = encoder.X(frame[200:])

    assert torch.isfinite(X).all()
    codes = X[:, encoder.n_numeric :]
    assert (codes >= 0).all()
    assert (codes < torch.tensor(encoder.cardinalities)).all()


def test_an_hour_is_that_of_the_training_rows_time_zone():
    times = pd.date_range("2026-03-01 06:00", periods=60, freq="7h", tz="America/New_York")
    train = pd.DataFrame({"at": times, "late": [True, False] * 30})
    later = train.assign(at=train["at"].dt.tz_convert("UTC"))
    encoder = Encoder.fit(train, target="late")

    torch.testing.assert_close(encoder.X(later), encoder.X(train), rtol=0, atol=0)
    with pytest.raises(ValueError) as error:
        encoder.X(train.assign(at=train["at"].dt.tz_localize(None)))

    assert str(error.value) == (
        "data.Encoder: expected dates of the time zone America/New_York in 'at', as in the "
        "training rows, got a column of type datetime64[us]. "
        "Convert it: frame['at'].dt.tz_localize('America/New_York')."
    )


def test_names_that_are_alike_as_words_are_refused():
    frame = pd.DataFrame([[1, 2, True], [3, 4, False]] * 20, columns=[1, "1", "late"])

    with pytest.raises(ValueError) as error:
        Encoder.fit(frame, target="late")

    assert str(error.value) == (
        "data.Encoder: expected column names that differ, got 1. Rename those that come twice."
    )
