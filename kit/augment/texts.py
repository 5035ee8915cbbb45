"""Make new texts of the training texts by small slips of the pen; no word list is needed."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from kit.augment.rows import Augmented, grown, of_training
from kit.base import checks
from kit.data import Split, near

Edit = Callable[[list[str], float, np.random.Generator], list[str]]


def drop_words(words: list[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Leave out words, but never all of them.

    Args:
        words: of one text, at least one.
        rate: fraction of the words; one at least.
        rng: where chance comes from.

    Example:
        >>> drop_words(["where", "is", "it"], 0.1, np.random.default_rng(0))
        ['where', 'it']
    """
    gone = set(_chosen(len(words), rate, rng)[: len(words) - 1])
    return [word for i, word in enumerate(words) if i not in gone]


def swap_words(words: list[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Let neighbouring words change places; arguments as in `drop_words`."""
    swapped = list(words)
    for i in _chosen(len(words) - 1, rate, rng):
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
    return swapped


def delete_letters(words: list[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Lose one letter of some words of two letters or more; arguments as in `drop_words`."""
    long = [i for i, word in enumerate(words) if len(word) > 1]
    shorter = list(words)
    for i in (long[j] for j in _chosen(len(long), rate, rng)):
        lost = int(rng.integers(len(words[i])))
        shorter[i] = words[i][:lost] + words[i][lost + 1 :]
    return shorter


def change_case(words: list[str], rate: float, rng: np.random.Generator) -> list[str]:
    """Write small words in capitals, and others small; arguments as in `drop_words`."""
    with_case = [i for i, word in enumerate(words) if word.lower() != word.upper()]
    other = list(words)
    for i in (with_case[j] for j in _chosen(len(with_case), rate, rng)):
        other[i] = words[i].upper() if words[i].islower() else words[i].lower()
    return other


def texts(
    parts: Split,
    *,
    column: str,
    edit: Edit = drop_words,
    rate: float = 0.1,
    copies: int = 1,
    rows: pd.DataFrame | None = None,
    seed: int = 0,
) -> Augmented:
    """Add copies of training rows with an edited text.

    A copy is left out where the edit changed nothing, and where, but for case and punctuation, it
    says what a validation or test row says: that would teach the answer.

    Args:
        parts: the split; it stays as it is.
        column: the column of texts.
        edit: takes the words, the rate and the source of chance, and returns other words.
        rate: fraction of the words to edit, 0 < rate <= 1; at least one word is.
        copies: new rows for each row.
        rows: some training rows; None takes all. Rows of another part are refused.
        seed: of the edits.

    Raises:
        ValueError: an unknown column, one that is not of texts, a rate out of range, a number of
            copies below 1, rows that are not training rows, or that have soft labels.
    """
    where = "augment.texts"
    base = of_training(where, parts, rows)
    if column not in base or column == parts.target:
        known = base.columns.drop(parts.target)
        raise checks.unknown_name(where, "column", got=column, known=known)
    if not pd.api.types.is_string_dtype(base[column].dtype):
        # a category or a number could not hold what an edit makes of it
        raise checks.bad_value(
            where,
            expected="a column of texts",
            got=checks.Described(f"{column!r} of type {base[column].dtype}"),
            remedy=f"Convert it before the split: frame[{column!r}].astype('str').",
        )
    if not 0 < rate <= 1 or copies < 1:
        raise checks.bad_value(
            where,
            expected="0 < rate <= 1 and copies of 1 or more",
            got=checks.Described(f"rate={rate}, copies={copies}"),
            remedy="Pass rate=0.1, copies=1.",
        )
    rng = np.random.default_rng(seed)
    written = base[base[column].notna()]
    new = written.take(np.tile(np.arange(len(written)), copies))
    # single spaces, as the edited words are joined: other spaces alone make no new text
    plain = [" ".join(str(text).split()) for text in new[column]]
    edited = [_edited(text, edit, rate, rng) for text in plain]
    fresh = np.array([a != b for a, b in zip(edited, plain, strict=True)], dtype=bool)
    new[column] = pd.Series(edited, index=new.index, dtype=base[column].dtype)
    held_out = pd.concat([parts.validation[column], parts.test[column]])
    fresh &= ~near.normalise(new[column]).isin(near.normalise(held_out)).to_numpy()
    new = new[fresh]
    name = getattr(edit, "__name__", "edit").replace("_", " ")
    return grown(parts, new, parent=new.index, how=f"{name} at {rate:.0%}")


def _edited(text: str, edit: Edit, rate: float, rng: np.random.Generator) -> str:
    words = text.split()
    return " ".join(edit(words, rate, rng)) if words else text


def _chosen(n: int, rate: float, rng: np.random.Generator) -> list[int]:
    """Draw which of n to edit: each by chance, but one at least where there is one."""
    if n < 1:
        return []
    count = max(1, int(rng.binomial(n, rate)))
    return rng.choice(n, count, replace=False).tolist()
