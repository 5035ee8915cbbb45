"""Planted dirt is where the truth says, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import data
from kit.data.soil import KINDS

PLAIN = pd.DataFrame({"row": range(300), "word": [f"w{i}" for i in range(300)]})


def test_all_kinds_are_planted_whatever_the_table():
    truth = data.soil(PLAIN, seed=0)

    assert tuple(truth.table["kind"].unique()) == KINDS
    assert len(KINDS) == 15


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.01, 0.05, 0.2]))
def test_every_cell_that_differs_is_in_the_truth_and_no_other(seed, frac):
    truth = data.soil(PLAIN, seed=seed, frac=frac)

    cells = truth.table.dropna(subset=["row", "column"])
    assert len(cells) + 2 + (truth.table["kind"] == "duplicated rows").sum() == len(truth.table)
    for name, planted in cells.groupby("column"):
        before = truth.clean[name].iloc[truth.rows].reset_index(drop=True)
        if pd.api.types.is_datetime64_any_dtype(before):
            before = before.dt.strftime("%Y-%m-%d")
        same = truth.frame[name].astype(str) == before.astype(str)
        copied = np.isin(truth.rows, truth.rows[planted["row"].to_numpy(dtype=int)])
        assert not same[planted["row"]].any(), name
        assert same[~copied].all(), name
        assert truth.frame[name][planted["row"]].tolist() == planted["dirty"].tolist()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "Int8", "float32", "int64"])
def test_impossible_values_have_room_in_a_small_type(dtype):
    values = pd.Series(np.arange(300) % 100 + 10).astype(dtype)

    truth = data.soil(pd.DataFrame({"p": values, "q": values, "r": values}), seed=0)

    planted = truth.table[truth.table["kind"] == "impossible values"]
    before, after = planted["clean"].astype(int), planted["dirty"].astype(int)
    assert len(planted) > 3
    assert planted["column"].isin(["p", "q", "r"]).all()
    assert ((after == -before - 1) | (after == before * 1000 + 1000)).all()


@pytest.mark.parametrize("values", [range(5), list("ABCDE"), ["a b", "c d"]], ids=str)
def test_categories_of_numbers_are_no_words_and_categories_of_words_are(values):
    column = pd.Series(np.resize(np.array(values), 300))

    truth, plain = (
        data.soil(pd.DataFrame({"c": each})) for each in (column.astype("category"), column)
    )

    kinds = (each.table.loc[each.table["column"] == "c", "kind"] for each in (truth, plain))
    assert next(kinds).tolist() == next(kinds).tolist()


def test_a_column_may_be_named_by_a_number():
    frame = PLAIN.assign(**{"0": np.arange(300) * 30}).set_axis([0, 1, 2], axis=1)

    truth = data.soil(frame)

    assert list(truth.frame.columns[:3]) == [0, 1, 2]
    planted = truth.table[truth.table["column"] == 0]
    assert len(planted) > 3
    assert truth.frame[0][planted["row"].astype(int)].tolist() == planted["dirty"].tolist()


def test_doubled_rows_are_copies_of_an_earlier_row():
    truth = data.soil(PLAIN, seed=1)
    rows = truth.table.loc[truth.table["kind"] == "duplicated rows", "row"]

    is_copy = truth.frame.duplicated()

    assert np.flatnonzero(is_copy).tolist() == rows.tolist()
    assert len(truth.frame) == len(PLAIN) + len(rows)


def test_the_table_that_was_given_stays_as_it_is_and_a_seed_gives_one_result():
    frame = PLAIN.copy()

    first, again, other = (data.soil(frame, seed=seed).frame for seed in (0, 0, 1))

    pd.testing.assert_frame_equal(frame, PLAIN)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("frame", "frac", "message"),
    [
        (PLAIN, 0, "expected 0 < frac <= 0.2, got 0 (int). Pass frac=0.02."),
        (
            PLAIN.head(5),
            0.02,
            (
                "expected at least 100 rows, got DataFrame of shape (5, 2). "
                "Pass more: pd.concat([frame] * 10)."
            ),
        ),
        (
            PLAIN.rename(columns={"word": "zip"}),
            0.02,
            (
                "expected a table without the columns that are added (booked, branch, colour, "
                "fare, height, load, maker, member, points, remarks, source, team, trip, visits, "
                "zip), "
                "got one with zip. Rename it: frame.rename(columns={'zip': 'zip_1'})."
            ),
        ),
    ],
    ids=["frac", "rows", "names"],
)
def test_a_table_that_cannot_be_soiled_is_refused(frame, frac, message):
    with pytest.raises(ValueError) as caught:
        data.soil(frame, frac=frac)

    assert str(caught.value) == f"data.soil: {message}"
