"""Rows that say the same are found: after normalising, by nearly the same letters, by keys."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from kit.data import near

SENTENCES = [
    "Where is my card?",
    "where is  my card",
    "Where's my new card?",
    "How do I top up?",
    "How can I top up!",
    "",
    "…",
]


@given(st.text(max_size=20))
def test_case_spaces_and_punctuation_make_no_difference(text):
    # upper() and casefold() part for a few letters that have no small form of their own
    noisy = f"  {text.casefold()}  !?"

    one, two = near.normalise(pd.Series([text.casefold(), noisy]))

    assert one == two


@given(st.lists(st.text(max_size=8) | st.none(), max_size=8))
def test_normalising_twice_changes_nothing(texts):
    once = near.normalise(pd.Series(texts, dtype=object))

    assert near.normalise(once).tolist() == once.tolist()


def test_cells_that_are_no_text_are_taken_as_they_are_written():
    assert near.normalise(pd.Series([1.5, ["a", "B"], True])).tolist() == ["1 5", "a b", "true"]


def some_texts(seed: int) -> pd.Series:
    rng = np.random.default_rng(seed)
    words = ["where", "is", "my", "card", "money", "top", "up", "lost", "a", "new", "transfer"]
    often = 1 / np.arange(1, 12)
    drawn = [rng.choice(words, n, p=often / often.sum()) for n in rng.integers(1, 9, 40)]
    return pd.Series([*SENTENCES, *(" ".join(each) for each in drawn)])


@pytest.mark.parametrize("block", [1, 100, 4_000_000])
@pytest.mark.parametrize("most", [-1, 50, 10**9], ids=["all", "either", "rare first"])
@pytest.mark.parametrize("threshold", [0.2, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_pairs_are_those_of_all_cosines_however_they_are_found(
    monkeypatch, block, most, threshold, seed
):
    monkeypatch.setattr(near, "BLOCK_CELLS", block)
    monkeypatch.setattr(near, "MOST_PAIRS", most)
    texts = some_texts(seed)
    n = len(texts)
    words = near.normalise(texts)
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=near.GRAMS)
    X = vectors.fit(words.unique()).transform(words)
    cosine = (X @ X.T).toarray()

    across = near.pairs(texts, texts, threshold=threshold)
    within = near.pairs(texts, threshold=threshold)

    every = {(i, j) for i, j in product(range(n), repeat=2) if cosine[i, j] >= threshold - 1e-6}
    assert set(zip(across["left"], across["right"], strict=True)) == every
    some = {(i, j) for i, j in combinations(range(n), 2) if (i, j) in every}
    assert set(zip(within["left"], within["right"], strict=True)) == some
    assert (0, 1) in some
    assert len(across) == len(every)
    expected = cosine[across["left"], across["right"]]
    np.testing.assert_allclose(across["similarity"], expected, atol=1e-6)
    assert across["similarity"].is_monotonic_decreasing


def test_equal_texts_are_found_at_threshold_one():
    words = "my card has not yet arrived and I need it for a long journey"
    texts = pd.Series([words[:n] for n in range(2, len(words), 3)]).drop_duplicates()

    found = near.pairs(texts, texts.str.upper(), threshold=1)

    assert set(found["left"]) == set(range(len(texts)))
    assert found["left"].equals(found["right"])


def test_letters_of_one_side_alone_count_against_a_pair():
    left = pd.Series(["card", "money"])

    found = near.pairs(left, pd.Series(["card zzzzzzzzzz"]), threshold=0.9)

    assert found.empty


def test_texts_without_a_word_are_near_to_nothing():
    assert near.pairs(pd.Series(["?", ""]), pd.Series(["!", None])).empty


def test_rows_share_a_key_where_all_columns_agree():
    frame = pd.DataFrame(
        {"tail": ["N1", "n1 ", "N1", None, None], "seats": [2.0, 2.0, 3.0, 1.0, 1.0]}
    )

    assert near.keys(frame, ["tail", "seats"]).tolist() == [0, 0, 1, 2, 2]
    gaps = pd.DataFrame({"tail": ["N1", "N2", "N1"], "seats": [None, None, None]}, dtype=object)
    assert near.keys(gaps.astype({"seats": float}), ["tail", "seats"]).tolist() == [0, 1, 0]


def test_rows_that_hold_nothing_have_no_key():
    frame = pd.DataFrame({"tail": ["?", " ", None, "!", "N1"], "seats": [None, None, None, 2, 2]})
    small = frame.assign(seats=frame["seats"].astype("Int64"))
    days = frame.assign(seats=pd.to_datetime(frame["seats"]))

    for table in (frame, small, days):
        ids = near.keys(table, ["tail", "seats"]).tolist()

        assert ids[:3] == [-1] * 3
        assert -1 not in ids[3:]
        assert ids[3] != ids[4]
    assert near.keys(small, ["seats"]).tolist()[:3] == [-1] * 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_components_join_exactly_what_a_chain_of_pairs_joins(links):
    left, right = np.array(links, dtype=int).reshape(-1, 2).T

    found = near.components(10, left, right)

    naive = list(range(10))
    for a, b in links:
        naive = [naive[a] if group == naive[b] else group for group in naive]
    pairs = list(combinations(range(10), 2))
    assert [found[a] == found[b] for a, b in pairs] == [naive[a] == naive[b] for a, b in pairs]


@pytest.mark.parametrize("threshold", [0, 1.5])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError) as caught:
        near.pairs(pd.Series(["a"]), threshold=threshold)

    kind = type(threshold).__name__
    assert str(caught.value) == (
        f"near.pairs: expected 0 < threshold <= 1, got {threshold} ({kind}). Pass threshold=0.9."
    )
