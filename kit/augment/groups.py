"""Keep on one side of a split what belongs together: near duplicates, rows and their children."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kit.augment.rows import GrownSplit, changed, check_split, made_rows
from kit.base import checks
from kit.data import Split, near

PARTS = ("train", "validation", "test")


def groups(
    frame: pd.DataFrame,
    *,
    text: str = "",
    keys: Sequence[str] = (),
    parents: pd.DataFrame | None = None,
    threshold: float = 0.9,
) -> pd.Series:
    """Number the groups of rows that a split must not part.

    Rows hang together by nearly equal texts, by equal keys, or as parent and child; texts without
    a word, and keys of gaps alone, join none. For `together`, and for splitters that take groups,
    as scikit-learn's GroupKFold does.

    Args:
        frame: all rows.
        text: a column of texts, compared as `near.pairs` does.
        keys: columns that together name one thing, such as a plane or a patient.
        parents: `parents` of an `Augmented`: labels in `frame` -> parent and partner.
        threshold: least similarity of texts.

    Returns:
        The number of its group for every row.

    Raises:
        ValueError: nothing to go by, an unknown column, or labels that come twice.

    Example:
        >>> frame = pd.DataFrame({"text": ["Top up?", "Where is it", "top up"]})
        >>> groups(frame, text="text").tolist()
        [0, 1, 0]
    """
    where = "augment.groups"
    if not text and not len(keys) and parents is None:
        raise checks.bad_value(
            where,
            expected="something to group by",
            got=checks.Described("nothing"),
            remedy="Pass text=…, keys=[…] or parents=augmented.parents.",
        )
    for name in filter(None, [text, *keys]):
        if name not in frame:
            raise checks.unknown_name(where, "column", got=name, known=frame.columns)
    if frame.index.has_duplicates:
        raise checks.bad_value(
            where,
            expected="a label of its own for every row",
            got=checks.Described(f"{frame.index[frame.index.duplicated()][0]} more than once"),
            remedy="Number the rows: frame.reset_index(drop=True).",
        )
    links = [np.empty((0, 2), int)]
    if text:
        links += [_alike(frame[text], threshold), _equal(frame, [text])]
    if len(keys):
        links.append(_equal(frame, keys))
    if parents is not None:
        links += [_kin(frame, parents[who].dropna()) for who in parents]
    left, right = np.concatenate(links).T
    return pd.Series(near.components(len(frame), left, right), index=frame.index, name="group")


def together(parts: Split, group: pd.Series, *, parents: pd.DataFrame | None = None) -> Split:
    """Move rows so that no group is on two sides: to the test, or else to the validation rows.

    So a training row that nearly repeats a test row is judged by, not learned from. Made rows are
    never judged by: one whose group is on that side is left out.

    Args:
        parts: the split; it stays as it is.
        group: number of the group of every row, as `groups` returns them.
        parents: `parents` of an `Augmented` whose training rows were split anew; the split of an
            `Augmented` knows its made rows itself.

    Returns:
        A split of the same rows but for made ones; its `how` says how many moved.

    Raises:
        ValueError: rows without a group, labels that come twice, or groups so large that no
            training rows are left.
    """
    where = "augment.together"
    check_split(where, parts)
    frames = [getattr(parts, part) for part in PARTS]
    whole = pd.concat(frames)
    rank = np.repeat(np.arange(3), [len(frame) for frame in frames])
    lost = ~whole.index.isin(group.index)
    if lost.any():
        raise checks.bad_value(
            where,
            expected="the group of every row",
            got=checks.Described(f"none of {int(lost.sum()):,} rows"),
            remedy="Make them of the whole table: augment.groups(frame, …).",
        )
    last = pd.Series(rank).groupby(group.loc[whole.index].to_numpy()).transform("max").to_numpy()
    made = made_rows(parts)
    if parents is not None:
        made = made.append(parents.index)
    stay = (last == 0) | ~whole.index.isin(made)
    sizes = np.bincount(last[stay], minlength=3).tolist()
    if min(sizes) == 0:
        raise checks.bad_value(
            where,
            expected="rows left in each of training, validation and test",
            got=checks.Described(f"{sizes}"),
            remedy="Group by less: a higher threshold, or other keys.",
        )
    moved = {part: whole[stay & (last == i)] for i, part in enumerate(PARTS)}
    how = f"{int((stay & (last != rank)).sum()):,} rows moved to their near duplicates"
    how += f", {n_out:,} made ones left out" if (n_out := int((~stay).sum())) else ""
    split = changed(parts, how, **moved)
    if isinstance(split, GrownSplit):
        split = replace(split, made=split.made.intersection(split.train.index))
    # from and to: a split does not tell by which column they were
    return replace(split, table=split.table.drop(columns=["from", "to"], errors="ignore"))


def _alike(texts: pd.Series, threshold: float) -> np.ndarray:
    """Link the first of each text to the first of every other that is nearly equal."""
    # a text that comes a thousand times would make half a million pairs with itself
    first = np.flatnonzero(~near.normalise(texts).duplicated())
    found = near.pairs(texts.iloc[first], threshold=threshold)
    return first[found[["left", "right"]].to_numpy(int)]


def _equal(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Link every row to the first that is equal; rows with nothing in `columns` to none."""
    ids = near.keys(frame, columns).to_numpy()
    _, first, place = np.unique(ids, return_index=True, return_inverse=True)
    return np.stack([first[place], np.arange(len(ids))], axis=1)[ids >= 0]


def _kin(frame: pd.DataFrame, kin: pd.Series) -> np.ndarray:
    pairs = np.stack([frame.index.get_indexer(kin.index), frame.index.get_indexer(kin)], axis=1)
    return pairs[(pairs >= 0).all(axis=1)]
