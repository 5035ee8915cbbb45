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
RARE = 0.15  # of all multiplications: what is done for every pair; measured, 0.1 to 0.3 are alike
MOST_PAIRS = 50  # candidates a text; with more, multiplying everything is faster
ROUNDING = 1e-5  # of float32: it must not lose an equal text at threshold 1


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
    search = _Search(rows, _rare(rows, wanted), threshold)
    step = max(1, BLOCK_CELLS // max(1, len(left)))
    found = [search(wanted, start, start + step) for start in range(0, wanted.shape[0], step)]
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

    Returns:
        The numbers; -1 for rows that hold nothing in any of the columns, no value and no word.

    Example:
        >>> keys(pd.DataFrame({"tail": ["N1", "n1 ", "N2", "?"]}), ["tail"]).tolist()
        [0, 0, 1, -1]
    """
    parts = {str(i): _comparable(frame[name]) for i, name in enumerate(columns)}
    ids = pd.DataFrame(parts, index=frame.index).groupby(list(parts), dropna=False, sort=False)
    blank = np.logical_and.reduce([_blank(part) for part in parts.values()])
    return ids.ngroup().mask(blank, -1)


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


def _blank(column: pd.Series) -> pd.Series:
    # of words, as `_comparable` returns them, a missing cell is the empty text
    return column == "" if column.dtype == object else column.isna()


def _vectors(left: pd.Series, right: pd.Series | None) -> tuple[sp.csr_array, sp.csr_array]:
    texts = normalise(left)
    if right is not None:
        texts = pd.concat([texts, normalise(right)])
    n = len(left)
    if not texts.str.len().any():
        empty = sp.csr_array((len(texts), 1), dtype=np.float32)
        return empty[:n], empty[:n] if right is None else empty[n:]
    # of both sides: a run of letters that only one of them has would count for nothing; of distinct
    # texts: how alike two are must not depend on how often each of them comes
    codes, distinct = pd.factorize(texts)
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=GRAMS, dtype=np.float32)
    X = sp.csr_array(vectors.fit_transform(distinct))[codes]
    return X[:n], X[:n] if right is None else X[n:]


def _rare(rows: sp.csr_array, wanted: sp.csr_array) -> np.ndarray:
    """Return the columns that few texts have: a tenth of the work of multiplying them all."""
    counts = [np.bincount(side.indices, minlength=side.shape[1]) for side in (rows, wanted)]
    work = counts[0] * counts[1].astype(float)
    order = np.argsort(work, kind="stable")
    return np.sort(order[: np.searchsorted(work[order].cumsum(), RARE * work.sum()) + 1])


class _Search:
    """Find all similarities above a threshold, most of them by the rare runs of letters alone.

    What two texts share in common runs adds at most the product of the lengths that these runs have
    in each (Cauchy–Schwarz). So few pairs need to be multiplied in full, and none is missed.
    """

    def __init__(self, rows: sp.csr_array, rare: np.ndarray, threshold: float) -> None:
        self.rows, self.rare, self.threshold = rows, rare, threshold - ROUNDING
        self.rare_rows = rows[:, rare].T.tocsr()
        self.rest = _rest(rows, rare)
        # only these can be alike without sharing a rare run
        self.plain = np.flatnonzero(self.rest >= self.threshold)

    def __call__(self, wanted: sp.csr_array, start: int, stop: int) -> pd.DataFrame:
        block = wanted[start:stop]
        rest = _rest(block, self.rare)
        shared = (block[:, self.rare] @ self.rare_rows).tocoo()
        possible = shared.data >= self.threshold - rest[shared.row] * self.rest[shared.col]
        plain = np.flatnonzero(rest >= self.threshold)
        if possible.sum() + len(plain) * len(self.plain) > MOST_PAIRS * block.shape[0]:
            every = (block @ self.rows.T).tocoo()
            return self._table(every.row, every.col, every.data, start)
        row = np.r_[shared.row[possible], np.repeat(plain, len(self.plain))]
        col = np.r_[shared.col[possible], np.tile(self.plain, len(plain))]
        row, col = np.divmod(np.unique(row * self.rows.shape[0] + col), self.rows.shape[0])
        return self._table(row, col, block[row].multiply(self.rows[col]).sum(axis=1), start)

    def _table(
        self, row: np.ndarray, col: np.ndarray, similarity: np.ndarray, start: int
    ) -> pd.DataFrame:
        kept = similarity >= self.threshold
        return pd.DataFrame(
            {
                "left": col[kept].astype(np.int64),
                "right": row[kept].astype(np.int64) + start,
                "similarity": np.minimum(similarity[kept], 1).astype(np.float64),
            }
        )


def _rest(X: sp.csr_array, rare: np.ndarray) -> np.ndarray:
    """Return the length of each row without its rare columns."""
    return np.sqrt(np.maximum(0, X.power(2).sum(axis=1) - X[:, rare].power(2).sum(axis=1)))
