"""Near duplicates, and rows with their children, stay on one side of a split."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupKFold

from kit import augment, clean, data


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    texts = [
        f"{a} {b} {c}" for a, b, c in rng.choice(["gold", "river", "stone", "cloud"], (200, 3))
    ]
    frame = pd.DataFrame({"text": texts, "plane": rng.integers(0, 120, 200)})
    return frame.assign(at=np.arange(200), label=rng.choice(["a", "b"], 200))


def sides(parts: data.Split, group: pd.Series) -> int:
    """Return on how many sides the most divided group lies."""
    part = pd.concat([getattr(parts, each)["label"] * 0 + each for each in ("train", "test")])
    part = pd.concat([part, parts.validation["label"] * 0 + "validation"])
    return int(part.groupby(group).nunique().max())


def test_texts_and_keys_join_rows_and_nothing_else_does():
    frame = pd.DataFrame(
        {
            "text": ["Top up?", "where is it", "top up", "?", "?", "Where is it!"],
            "plane": [1, 2, 3, 4, 5, 1],
        }
    )

    by_text = augment.groups(frame, text="text")
    by_both = augment.groups(frame, text="text", keys=["plane"])

    assert by_text.tolist() == [0, 1, 0, 2, 3, 1]
    assert by_both.tolist() == [0, 0, 0, 1, 2, 0]


def test_gaps_join_nothing():
    frame = pd.DataFrame({"text": [None, None, "a b c"], "plane": [None, None, 1.0]})

    assert augment.groups(frame, text="text", keys=["plane"]).is_unique


def test_texts_and_keys_without_a_word_join_nothing():
    frame = pd.DataFrame({"text": ["!!!", "?", "", " ", "\N{GRINNING FACE}", "ok", None]})

    assert augment.groups(frame, text="text").is_unique
    assert augment.groups(frame, keys=["text"]).is_unique


def test_moved_rows_leave_no_group_on_two_sides_and_no_leak():
    parts = data.split(table(), target="label", time="at")
    frame = table()
    group = augment.groups(frame, keys=["plane"])
    assert sides(parts, group) > 1

    whole = augment.together(parts, group)

    assert sides(whole, group) == 1
    every = pd.concat([whole.train, whole.validation, whole.test])
    assert every.sort_index().equals(frame)
    assert whole.test.index.isin(parts.test.index).sum() == len(parts.test)
    assert clean.leaks(whole.train, whole.test, keys=["plane"]).near.empty
    n_moved = len(parts.train) - len(whole.train)
    assert n_moved > 0
    assert "rows moved to their near duplicates" in whole.how
    assert whole.table["rows"].tolist() == [
        len(whole.train),
        len(whole.validation),
        len(whole.test),
    ]
    assert "from" in parts.table
    assert "from" not in whole.table


def test_children_stay_with_their_parents_in_a_later_split():
    parts = data.split(table(), target="label")
    first = augment.swap(parts)
    second = augment.noise(first.split, rows=first.rows.head(50))
    parents = pd.concat([first.parents, second.parents])
    grown = second.split.train

    group = augment.groups(grown, parents=parents)

    parted = data.split(grown, target="label", seed=1)
    later = augment.together(parted, group, parents=parents)
    assert sides(later, group) == 1
    judged_by = later.validation.index.append(later.test.index)
    assert not parents.index.isin(judged_by).any()
    assert set(judged_by) >= set(parted.test.index.difference(parents.index))
    assert parents.index.isin(later.train.index).any()
    assert (group.loc[parents.index].to_numpy() == group.loc[parents["parent"]].to_numpy()).all()
    assert group.nunique() == len(parts.train)
    for train, test in GroupKFold(3).split(grown, groups=group):
        assert not set(group.iloc[train]) & set(group.iloc[test])


@pytest.mark.parametrize("kin", [True, False], ids=["by parents", "by text"])
def test_made_rows_never_move_to_where_is_judged(kin):
    frame = pd.DataFrame({"text": [f"order {i} of {i * i}" for i in range(60)]})
    frame = frame.assign(a=np.arange(60.0), label=["a", "b"] * 30)
    parts = data.split(frame, target="label")
    first = parts.train.index[0]
    frame.loc[first, "text"] = frame.loc[parts.test.index[0], "text"].upper()
    grown = augment.noise(augment.noise(data.split(frame, target="label")).split)
    whole = pd.concat([grown.split.train, parts.validation, parts.test])
    links = {"keys": ["text"]} | ({"parents": grown.parents} if kin else {})

    moved = augment.together(grown.split, augment.groups(whole, **links))

    assert first in moved.test.index
    assert sorted([*moved.test.index.drop(first)]) == sorted(parts.test.index)
    assert moved.validation.equals(parts.validation)
    assert len(moved.train) == len(grown.split.train) - 4
    assert moved.how.endswith("1 rows moved to their near duplicates, 3 made ones left out")
    assert set(moved.made) == set(moved.train.index) - set(parts.train.index)


def test_a_split_with_soft_labels_can_be_regrouped_and_still_not_grown():
    parts = data.split(table(), target="label")
    mixed = augment.mixup(parts)
    whole = pd.concat([mixed.split.train, parts.validation, parts.test])

    moved = augment.together(mixed.split, augment.groups(whole, keys=["at"]))

    assert moved.mixed
    with pytest.raises(ValueError, match="rows with soft labels, which would be lost"):
        augment.noise(moved)


def test_both_parents_of_a_mixture_are_kin():
    parts = data.split(table(), target="label")
    grown = augment.smote(parts)

    group = augment.groups(grown.split.train, parents=grown.parents)

    for child, kin in grown.parents.iterrows():
        assert len({group[child], group[kin["parent"]], group[kin["partner"]]}) == 1


def test_groups_are_the_components_of_a_naive_search():
    frame = table().head(40)

    group = augment.groups(frame, keys=["plane"])

    for a, b in combinations(frame.index, 2):
        assert (group[a] == group[b]) == (frame["plane"][a] == frame["plane"][b])


def message_of(call) -> str:
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


def test_a_wrong_argument_gets_one_line():
    frame = table()
    parts = data.split(frame, target="label")

    messages = [
        message_of(lambda: augment.groups(frame)),
        message_of(lambda: augment.groups(frame, keys=["plain"])),
        message_of(lambda: augment.groups(pd.concat([frame, frame]), keys=["plane"])),
        message_of(lambda: augment.together(parts, pd.Series([1, 2]))),
        message_of(lambda: augment.together(parts, pd.Series(0, index=frame.index))),
    ]

    assert messages == [
        (
            "augment.groups: expected something to group by, got nothing. "
            "Pass text=…, keys=[…] or parents=augmented.parents."
        ),
        (
            "augment.groups: expected a known column, got 'plain' (str). Did you mean 'plane'? "
            "Known: at, label, plane, text."
        ),
        (
            "augment.groups: expected a label of its own for every row, got 0 more than once. "
            "Number the rows: frame.reset_index(drop=True)."
        ),
        (
            "augment.together: expected the group of every row, got none of 198 rows. "
            "Make them of the whole table: augment.groups(frame, …)."
        ),
        (
            "augment.together: expected rows left in each of training, validation and test, got "
            "[0, 0, 200]. Group by less: a higher threshold, or other keys."
        ),
    ]
