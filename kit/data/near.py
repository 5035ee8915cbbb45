"""Find rows that say the same: equal after normalising, or texts with nearly the same letters."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from kit.base import checks

GRAMS = (3, 5)  # letters: short enough to survive a typo, long enough to tell words apart
BLOCK_CELLS = 4_000_000  # similarities held at once, about 32 MB


def normalise(texts: pd.Series) -> pd.Series:
    """Reduce texts to their words: small letters, single spaces, no punctuation.

    Args:
        texts: any cells; a missing one becomes the empty text.

    Example:
        >>> normalise(pd.Series(["  Where's my CARD?", None])).tolist()
        ['where s my card', '']
    """
    # as words first: a cell may hold a list, which has no hash
    codes, distinct = pd.factorize(texts.astype(object).where(texts.isna(), texts.astype(str)))
    words = [_words(text) for text in distinct]
    # code -1, a missing cell, takes the last
    return pd.Series(np.array([*words, ""], dtype=object)[codes], index=texts.index, dtype=object)


def pairs(
    left: pd.Series, right: pd.Series | None = None, *, threshold: float = 0.9
) -> pd.DataFrame:
    """Find texts that share nearly all of their letters, in runs of three to five.

    Runs that few texts have count more (TF-IDF), and the similarity is the cosine: 1 for equal
    texts, about 0.9 where a word of a short sentence differs. Exact: no pair is missed.

    Args:
        left: texts.
        right: the texts to find in `left`; None finds pairs inside `left`, each once.
        threshold: least similarity, above 0 and at most 1.

    Returns:
        One row a pair, the most alike first: `left` and `right` as positions, `similarity`.

    Raises:
        ValueError: `threshold` out of range.

    Example:
        >>> found = pairs(pd.Series(["lost my card", "top up"]), pd.Series(["I lost my card!"]))
        >>> found.round(2).to_numpy().tolist()
        [[0.0, 0.0, 0.96]]
    """
    if not 0 < threshold <= 1:
        raise checks.bad_value(
            "near.pairs", expected="0 < threshold <= 1", got=threshold, remedy="Pass threshold=0.9."
        )
    rows, wanted = _vectors(left, right)
    found = [
        _above(wanted[start : start + step], rows, start, threshold)
        for step in [max(1, BLOCK_CELLS // max(1, rows.shape[0]))]
        for start in range(0, wanted.shape[0], step)
    ]
    table = pd.concat(found) if found else pd.DataFrame(columns=["left", "right", "similarity"])
    if right is None:
        table = table[table["left"] < table["right"]]
    by = ["similarity", "left", "right"]
    return table.sort_values(by, ascending=[False, True, True], ignore_index=True)


def keys(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Give every row a number that it shares with the rows equal in `columns` after normalising.

    Args:
        frame: rows; a missing cell equals another missing cell.
        columns: the columns to compare; words by `normalise`, all else by value.

    Example:
        >>> keys(pd.DataFrame({"tail": ["N1", "n1 ", "N2"]}), ["tail"]).tolist()
        [0, 0, 1]
    """
    parts = {str(i): _comparable(frame[name]) for i, name in enumerate(columns)}
    ids = pd.DataFrame(parts, index=frame.index).groupby(list(parts), dropna=False, sort=False)
    return ids.ngroup()


def components(n: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Number the groups that pairs of rows hang together in; a row without pair is its own group.

    Example:
        >>> components(4, np.array([0, 1]), np.array([1, 3])).tolist()
        [0, 0, 1, 0]
    """
    links = sp.coo_array((np.ones(len(left), bool), (left, right)), shape=(n, n))
    return connected_components(links, directed=False)[1]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _comparable(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    return normalise(column)


def _vectors(left: pd.Series, right: pd.Series | None) -> tuple[sp.csr_array, sp.csr_array]:
    texts = normalise(left)
    if right is not None:
        texts = pd.concat([texts, normalise(right)])
    n = len(left)
    if not texts.str.len().any():
        empty = sp.csr_array((len(texts), 1), dtype=np.float32)
        return empty[:n], empty[:n] if right is None else empty[n:]
    # over both sides: a run of letters that only one of them has would count for nothing
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=GRAMS, dtype=np.float32)
    X = sp.csr_array(vectors.fit_transform(texts))
    return X[:n], X[:n] if right is None else X[n:]


def _above(block: sp.csr_array, rows: sp.csr_array, start: int, threshold: float) -> pd.DataFrame:
    alike = (block @ rows.T).tocoo()
    # rounding must not lose an equal text at threshold 1
    kept = alike.data >= threshold - 1e-5
    return pd.DataFrame(
        {
            "left": alike.col[kept].astype(np.int64),
            "right": alike.row[kept].astype(np.int64) + start,
            "similarity": np.minimum(alike.data[kept], 1).astype(np.float64),
        }
    )
