"""Texts are edited by slips of the pen; what held-out rows say is never made."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import augment, data

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=1, max_size=9)
EDITS = [augment.drop_words, augment.swap_words, augment.delete_letters, augment.change_case]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = np.array(["where", "is", "my", "card", "Money", "top", "up", "PIN", "lost", "new"])
    texts = [" ".join(rng.choice(words, 6)) for _ in range(200)]
    return pd.DataFrame({"text": texts, "label": rng.choice(["a", "b"], 200)})


PARTS = data.split(table(), target="label")


def edited(words, edit, seed, rate=0.3):
    return edit(words, rate, np.random.default_rng(seed))


@given(WORDS, st.integers(0, 99))
def test_dropping_leaves_words_in_order_and_never_none(words, seed):
    found = edited(words, augment.drop_words, seed)

    remaining = iter(words)
    assert all(word in remaining for word in found)
    assert 1 <= len(found) < max(2, len(words))


@given(WORDS, st.integers(0, 99))
def test_swapping_keeps_the_words(words, seed):
    assert sorted(edited(words, augment.swap_words, seed)) == sorted(words)


@given(WORDS, st.integers(0, 99))
def test_deleting_takes_one_letter_of_a_word_at_most(words, seed):
    found = edited(words, augment.delete_letters, seed)

    lost = [len(a) - len(b) for a, b in zip(words, found, strict=True)]
    assert set(lost) <= {0, 1}
    assert all(found)
    assert any(lost) == any(len(word) > 1 for word in words)


@given(WORDS, st.integers(0, 99))
def test_case_alone_changes(words, seed):
    found = edited(words, augment.change_case, seed)

    assert [word.lower() for word in found] == words
    assert found != words


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_the_rate_is_the_share_of_edited_words(edit):
    words = [f"word{i}" for i in range(5000)]

    found = edited(words, edit, 0, rate=0.1)

    if edit is augment.drop_words:
        changed = len(words) - len(found)
    else:
        changed = sum(a != b for a, b in zip(words, found, strict=True))
        changed /= 2 if edit is augment.swap_words else 1
    assert changed == pytest.approx(500, rel=0.12)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_every_new_text_differs_from_its_parent_and_has_its_label(edit):
    grown = augment.texts(PARTS, column="text", edit=edit, copies=2)

    parents = PARTS.train.loc[grown.parents["parent"]]
    assert len(grown.rows) > len(PARTS.train)
    assert (grown.rows["text"].to_numpy() != parents["text"].to_numpy()).all()
    assert (grown.rows["label"].to_numpy() == parents["label"].to_numpy()).all()
    assert grown.rows.dtypes.equals(PARTS.train.dtypes)


def test_a_seed_gives_the_same_texts_and_another_gives_others():
    one, two, three = (
        augment.texts(PARTS, column="text", seed=seed).rows["text"].tolist() for seed in (1, 1, 2)
    )

    assert one == two
    assert one != three


def test_what_a_held_out_row_says_is_not_made():
    frame = table()
    frame.loc[PARTS.test.index[:2], "text"] = ["Lost CARD!", "lost card?"]
    frame.loc[PARTS.train.index[:2], "text"] = ["lost card now", "lost card again"]
    parts = data.split(frame, target="label")

    def first_two(words, rate, rng):
        return words[:2]

    grown = augment.texts(parts, column="text", edit=first_two)

    assert parts.train.index[:2].tolist() == PARTS.train.index[:2].tolist()
    assert len(grown.rows) > 100
    assert not grown.rows["text"].str.lower().eq("lost card").any()


def test_texts_that_cannot_be_edited_and_gaps_are_left_out():
    frame = table()
    frame["text"] = frame["text"].where(np.arange(200) % 2 == 0).mask(np.arange(200) < 50, "123")
    parts = data.split(frame, target="label")

    grown = augment.texts(parts, column="text", edit=augment.change_case)

    usable = parts.train["text"].notna() & (parts.train["text"] != "123")
    assert set(grown.parents["parent"]) <= set(parts.train.index[usable])
    assert len(grown.rows) >= 0.9 * usable.sum()


def test_other_spaces_alone_make_no_new_text():
    frame = pd.DataFrame({"text": [f" hello{i}  " for i in range(60)], "label": ["a", "b"] * 30})
    parts = data.split(frame, target="label")

    grown = augment.texts(parts, column="text")

    assert grown.rows.empty


def test_rows_of_another_part_are_refused():
    with pytest.raises(ValueError) as caught:
        augment.texts(PARTS, column="text", rows=PARTS.test)

    assert str(caught.value) == (
        "augment.texts: expected training rows alone: what is judged by must stay unseen, got "
        "30 of test. Pass rows of parts.train, or leave rows out to take them all."
    )


def test_a_wrong_argument_gets_one_line():
    messages = []

    frame = table()
    classed = data.split(frame.astype({"text": "category"}), target="label")
    numbered = data.split(frame.assign(text=np.arange(200)), target="label")

    for parts, settings in (
        (PARTS, {"column": "txt"}),
        (PARTS, {"column": "text", "rate": 10}),
        (classed, {"column": "text"}),
        (numbered, {"column": "text"}),
    ):
        with pytest.raises(ValueError) as caught:
            augment.texts(parts, **settings)
        messages.append(str(caught.value))

    assert messages == [
        (
            "augment.texts: expected a known column, got 'txt' (str). Did you mean 'text'? "
            "Known: text."
        ),
        (
            "augment.texts: expected 0 < rate <= 1 and copies of 1 or more, got rate=10, "
            "copies=1. Pass rate=0.1, copies=1."
        ),
        (
            "augment.texts: expected a column of texts, got 'text' of type category. "
            "Convert it before the split: frame['text'].astype('str')."
        ),
        (
            "augment.texts: expected a column of texts, got 'text' of type int64. "
            "Convert it before the split: frame['text'].astype('str')."
        ),
    ]
