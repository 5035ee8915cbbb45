"""What leaks across a split is found: rows on both sides, columns that know, later rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder

from kit import clean

BANKING = Path(__file__).parents[2] / "shared" / "data"
N = 400


def table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": rng.normal(size=N),
            "word": rng.choice(["Red", "green", "blue"], N),
            "late": rng.random(N) < 0.3,
        }
    )


def test_a_clean_split_has_no_leak():
    found = clean.leaks(table(0), table(1), target="late")

    assert found.table.empty
    assert found.facts() == {
        "exact": "0 of 400 test rows",
        "near": "0",
        "telling columns": "0",
        "training rows later than the test": "0",
    }


def test_planted_doubles_are_found_in_spite_of_case_spaces_and_punctuation():
    train, test = table(0), table(1).set_index(np.arange(1000, 1000 + N))
    test.iloc[[3, 30, 31]] = train.iloc[[5, 7, 7]]
    test.iloc[3, 1] = f" {train.iloc[5, 1].upper()}! "
    test["late"] = ~test["late"]  # the answer may differ: the row is still known

    found = clean.leaks(train, test, target="late")

    assert found.exact[["test", "train"]].to_numpy().tolist() == [[1003, 5], [1030, 7], [1031, 7]]
    assert found.table[["kind", "where", "rows"]].to_numpy().tolist() == [["exact", "a, word", 3]]
    assert found.table["example"][0] == "test row 1003 is like training row 5"


def test_rows_with_nothing_in_them_are_no_doubles():
    empty = pd.DataFrame({"text": [None, "  ", "?!"], "late": [0, 1, 0]})

    assert clean.leaks(empty, empty, text="text").exact.empty


def test_near_duplicate_texts_are_found_and_not_counted_twice():
    train = pd.DataFrame({"text": ["How do I top up my card?", "Where is my money?", "Hello"]})
    test = pd.DataFrame({"text": ["how do i top up my card", "Where is my own money?", "Goodbye"]})

    found = clean.leaks(train, test, text="text", threshold=0.7)

    assert found.exact[["test", "train"]].to_numpy().tolist() == [[0, 0]]
    assert found.near[["test", "train"]].to_numpy().tolist() == [[1, 1]]
    assert found.near["similarity"].between(0.7, 0.99).all()


def test_a_text_that_comes_often_makes_a_pair_a_test_row():
    train = pd.DataFrame({"text": ["How do I top up my card?"] * 50, "late": 0})
    test = pd.DataFrame({"text": ["How do I top up my cards?"] * 50, "late": 0})

    found = clean.leaks(train, test, text="text", threshold=0.6)

    assert found.near["train"].tolist() == [0] * 50
    assert found.near["test"].tolist() == list(range(50))


def test_a_table_of_nothing_but_the_target_has_nothing_to_leak():
    frame = table()[["late"]]

    assert clean.leaks(frame, frame, target="late").table.empty


def test_rows_of_one_key_are_near_duplicates():
    train, test = table(0), table(1)
    train["patient"] = [f"P {i}" for i in range(N)]
    test["patient"] = [f"Q {i}" for i in range(N)]
    test.loc[[10, 20, 21], "patient"] = ["p 7", "P  7", "P 9"]

    found = clean.leaks(train, test, keys=["patient"])

    assert found.near[["test", "train"]].to_numpy().tolist() == [[10, 7], [20, 7], [21, 9]]
    assert found.exact.empty


@pytest.mark.parametrize("sign", [1, -1])
def test_a_column_that_knows_the_answer_is_reported(sign):
    train, test = table(0), table(1)
    for part in (train, test):
        part["delay"] = sign * (part["late"] * 10 + part["a"])
        part["remark"] = np.where(part["late"], "sorry", "thanks")
        part["refund"] = part["a"].where(part["late"])

    found = clean.leaks(train, test, target="late")

    told = found.table[found.table["kind"] == "target"]
    assert set(told["where"]) == {"delay", "remark", "refund"}
    assert set(told["example"].str.split(" by its ").str[1]) == {"values", "categories", "gaps"}
    assert (told["worst"] >= 0.999).all()


def test_the_auc_of_numbers_is_scikit_learns():
    train = table(0)
    train["a"] = (train["a"] + train["late"]).round(1)

    found = clean.leaks(train, table(1), target="late").columns.set_index("column")

    assert found.loc["a", "auc"] == pytest.approx(roc_auc_score(train["late"], train["a"]))


@pytest.mark.parametrize("dtype", ["int64", "Int8", "float64", "datetime64[ns]"])
def test_a_code_in_the_middle_that_tells_all_is_found(dtype):
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"code": rng.integers(0, 10, N), "age": rng.integers(0, 9999, N)})
    train["y"] = train["code"] == 5
    train["code"] = train["code"].astype(dtype)

    found = clean.leaks(train, train.head(5).assign(code=train["code"].max()), target="y")

    told = found.columns.set_index("column")
    assert told.loc["code"].tolist() == [1.0, "categories"]
    assert told.loc["age", "by"] == "values"
    assert 0.4 < told.loc["age", "auc"] < 0.65
    assert found.table.loc[found.table["kind"] == "target", "where"].tolist() == ["code"]


def test_the_auc_of_several_classes_is_the_largest_of_any_against_the_rest():
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"class": rng.choice(list("abcd"), N), "gone": rng.random(N) < 0.5})
    train["a"] = rng.normal(size=N).round(2) - 2 * (train["class"] == "c")
    train["a"] = train["a"].mask(train["gone"] | (train["class"] == "d"))

    found = clean.leaks(train, train.head(9), target="class").columns.set_index(["column", "by"])

    there = train.dropna()
    each = [roc_auc_score(there["class"] == name, there["a"]) for name in "abc"]
    assert found.loc[("a", "values"), "auc"] == pytest.approx(1 - min(each))
    gaps = [roc_auc_score(train["class"] == name, train["a"].isna()) for name in "abcd"]
    assert found.loc[("a", "gaps"), "auc"] == pytest.approx(max(gaps))


def test_a_category_is_judged_by_rows_of_other_folds():
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"id": [f"r{i}" for i in range(N)], "late": rng.random(N) < 0.5})
    train["shop"] = rng.choice(list("abcdefgh"), N)
    train["late"] |= train["shop"].isin(["a", "b"])

    found = clean.leaks(train, train.iloc[:0:-1], target="late").columns.set_index("column")

    assert 0.45 < found.loc["id", "auc"] < 0.55  # its own answer would have made this 1
    encoder = TargetEncoder(smooth=1, cv=KFold(5, shuffle=True, random_state=0))
    theirs = encoder.fit_transform(train[["shop"]], train["late"])[:, 0]
    assert found.loc["shop", "auc"] == pytest.approx(roc_auc_score(train["late"], theirs), abs=0.02)


@pytest.mark.parametrize("target", ["class", "amount"])
def test_several_classes_and_quantities_are_judged_too(target):
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"amount": rng.normal(size=N), "noise": rng.normal(size=N)})
    train["class"] = pd.cut(train["amount"], [-9, -0.5, 0.5, 9], labels=["low", "mid", "high"])

    found = clean.leaks(train, train.head(9), target=target).columns.set_index("column")

    assert found["auc"].drop("noise").min() > 0.9
    assert found.loc["noise", "auc"] < 0.6


@pytest.mark.parametrize("as_dates", [True, False])
def test_training_rows_after_the_first_test_row_are_counted(as_dates):
    hours = pd.Series(np.arange(N))
    train, test = table(0), table(1)
    moments = pd.Timestamp("2013-01-01") + pd.to_timedelta(hours, "h") if as_dates else hours
    train["at"], test["at"] = moments, moments + (moments.iloc[350] - moments.iloc[0])

    found = clean.leaks(train, test, target="late", time="at")

    row = found.table.set_index("kind").loc["time"]
    assert (row["rows"], row["worst"]) == (N - 351, (N - 351) / N)


def test_what_is_handed_in_stays_as_it_is():
    train, test = table(0), table(1)
    before = train.copy(), test.copy()

    clean.leaks(train, test, target="late", keys=["word"])

    assert train.equals(before[0])
    assert test.equals(before[1])


@pytest.mark.skipif(not (BANKING / "banking77_test.csv").exists(), reason="banking77 is not here")
def test_all_doubles_of_banking77_are_found():
    train, test = (pd.read_csv(BANKING / f"banking77_{part}.csv") for part in ("train", "test"))

    found = clean.leaks(train, test, text="text")

    words = {part: frame["text"].str.lower() for part, frame in (("a", train), ("b", test))}
    plain = {
        part: each.str.replace(r"[^\w\s]", " ", regex=True).str.split().str.join(" ")
        for part, each in words.items()
    }
    expected = plain["b"].index[plain["b"].isin(set(plain["a"]))]
    assert found.exact["test"].tolist() == expected.tolist()
    assert len(expected) == 25
    assert found.near["test"].nunique() > 400


BAD = {
    "target": (
        {"target": "lat"},
        (
            "clean.leaks: expected a known column, got 'lat' (str). Did you mean 'late'? "
            "Known: a, at, late, word."
        ),
    ),
    "auc": (
        {"auc": 0.4},
        "clean.leaks: expected 0.5 < auc <= 1, got 0.4 (float). Pass auc=0.95.",
    ),
    "time": (
        {"time": "word"},
        (
            "clean.leaks: expected dates or numbers in 'word', got columns of type str and str. "
            "Convert both: pd.to_datetime(train['word'])."
        ),
    ),
    "zones": (
        {"time": "at"},
        (
            "clean.leaks: expected dates or numbers in 'at', got columns of type datetime64[us] "
            "and datetime64[us, UTC]. Convert both: pd.to_datetime(train['at'])."
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    settings, message = BAD[case]
    train, test = table(0), table(1)
    train["at"] = pd.Timestamp("2013-01-01")
    test["at"] = pd.Timestamp("2013-01-01", tz="UTC")

    with pytest.raises(ValueError) as caught:
        clean.leaks(train, test, **settings)

    assert str(caught.value) == message


def test_sides_that_do_not_fit_get_one_line():
    train = table(0)
    messages = []

    for test in (train.iloc[:0], train.drop(columns="word"), train[["a", "a"]]):
        with pytest.raises(ValueError) as caught:
            clean.leaks(train, test)
        messages.append(str(caught.value))

    assert messages == [
        (
            "clean.leaks: expected at least one test row and column, got DataFrame of shape "
            "(0, 3). Split first: data.split(frame, target=…)."
        ),
        (
            "clean.leaks: expected the same columns on both sides, got 'word' on one only. "
            "Take the common ones: train[test.columns]."
        ),
        "clean.leaks: expected column names that differ, got 'a' more than once. Rename them.",
    ]


def test_a_target_of_too_many_classes_gets_one_line():
    train = pd.DataFrame({"name": [f"n{i}" for i in range(201)], "a": 1.0})

    with pytest.raises(ValueError) as caught:
        clean.leaks(train, train, target="name")

    assert str(caught.value) == (
        "clean.leaks: expected at most 200 classes in the target 'name', got 201 different words. "
        "Group them."
    )
