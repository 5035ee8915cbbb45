"""Which coalitions of players to try, and how their worths become Shapley values.

A game gives every coalition S of d players a worth v(S). Only its odd part counts,
o(S) = (v(S) - v(not S)) / 2: players' Shapley values are linear in it, phi = A o + a o(everyone).
`exact` has the sum over all pairs. `sampled` has it over some of them, as the best linear unbiased
estimate under this model: the worths of single players are free, sets of three and of five interact
as random effects of one variance each (whose kernels are polynomials: no set is ever formed), and
the rest is noise. Both depend on d, the number of pairs and the seed alone, never on the data: they
are made once and shared by every row and output.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, comb

import numpy as np
from jaxtyping import Bool, Float64
from scipy import linalg

EXACT_PLAYERS = 12  # up to here enumeration is the default: 2,048 pairs
KEPT = 8  # operators of one kind in memory; each has players times pairs numbers
LISTED = 20_000  # coalitions of one size that are listed and shuffled, not drawn one by one
# variances next to one another; within a factor of 3 of these the error changes by a few per cent
TRIPLES, FIVES, NOISE = 0.3, 0.03, 0.01
EXACT_WORTH = 1e-7  # noise of the one observation that has none, for a stable factorisation


@dataclass(frozen=True)
class Operator:
    """A linear estimate of the Shapley values from the odd part of a game."""

    members: Bool[np.ndarray, "pairs players"]  # one coalition of each pair (S, not S)
    weights: Float64[np.ndarray, "players pairs"]
    weight_all: Float64[np.ndarray, " players"]  # of the odd worth of everyone together

    def __call__(
        self, odd: Float64[np.ndarray, "games pairs"], odd_all: Float64[np.ndarray, " games"]
    ) -> Float64[np.ndarray, "games players"]:
        """Return the Shapley values of each game; they add up to 2 o(everyone) exactly."""
        values = odd @ self.weights.T + odd_all[:, None] * self.weight_all
        gap = 2 * odd_all - values.sum(1)  # of the order of EXACT_WORTH
        return values + gap[:, None] / values.shape[1]


def fewest(d: int) -> int:
    """Return the pairs below which an estimate for `d` players is worth nothing."""
    return ceil(1.2 * d)


def all_pairs(d: int) -> int:
    """Return the number of pairs of `d` players, without the pair (everyone, no one)."""
    return 2 ** max(d - 1, 0) - 1


@lru_cache(maxsize=4)
def exact(d: int) -> Operator:
    """Return the Shapley value's own sum over all pairs of `d` players.

    Example:
        >>> op = exact(2)  # worth of player 0 alone 1, of player 1 alone 0, of both 3
        >>> op(np.array([[(1 - 0) / 2]]), np.array([3 / 2])).tolist()
        [[2.0, 1.0]]
    """
    # player 0 is in, so that each pair comes once; everyone together is kept apart
    codes = 2 * np.arange(all_pairs(d)) + 1
    members = (codes[:, None] >> np.arange(d)) & 1 == 1  # (pairs, d)
    sizes = members.sum(1)
    each = np.array([1 / (s * comb(d, s)) for s in range(1, d)])
    # a pair meets player i twice, as S and as not S, hence the factor 2
    inside, outside = 2 * each[sizes - 1], -2 * each[d - sizes - 1]
    weights = np.where(members, inside[:, None], outside[:, None]).T
    return Operator(members, np.ascontiguousarray(weights), np.full(d, 2 / d))


@lru_cache(maxsize=KEPT)
def sampled(d: int, n_pairs: int, seed: int) -> Operator:
    """Return the estimate from the pairs that `draw` gives for the same arguments."""
    return fitted(draw(d, n_pairs, seed))


@lru_cache(maxsize=KEPT)
def parts(d: int, n_pairs: int, seed: int) -> tuple[tuple[slice | np.ndarray, Operator], ...]:
    """Return estimates from parts of the same pairs, each with the places of its pairs.

    How much they differ tells the error of the whole. Two halves, or where a half has too few
    pairs, eight parts that each leave out an eighth.
    """
    members = draw(d, n_pairs, seed)
    if n_pairs >= 2 * fewest(d):
        return tuple((slice(i, None, 2), fitted(members[i::2])) for i in range(2))
    places = np.arange(n_pairs)
    kept = [places[places % 8 != i] for i in range(8)]
    return tuple((part, fitted(members[part])) for part in kept)


@lru_cache(maxsize=KEPT)
def draw(d: int, n_pairs: int, seed: int) -> Bool[np.ndarray, "pairs players"]:
    """Draw pairs by leverage, which is uniform over their sizes, and without replacement.

    The order is such that the first pairs are what a smaller `n_pairs` draws.

    Returns:
        The smaller coalition of each pair.

    Example:
        >>> draw(9, 9, seed=0).sum(1).tolist()
        [1, 2, 3, 4, 1, 2, 3, 4, 1]
    """
    found, arrivals = [], []
    for size in range(1, d // 2 + 1):
        # at size d/2 a coalition and its complement are of one size: half as many pairs
        share = 0.5 if 2 * size == d else 1.0
        n_most = min(n_pairs, int(comb(d, size) * share))
        arrivals.append((np.arange(n_most) + size / (d + 1)) / share)
        found.append((size, n_most))
    order = np.argsort(np.concatenate(arrivals), kind="stable")[:n_pairs]
    ends = np.cumsum([n for _, n in found])
    taken = np.bincount(np.searchsorted(ends, order, side="right"), minlength=len(found))
    members = np.zeros((ends[-1], d), bool)
    for (size, n_most), n, end in zip(found, taken.tolist(), ends.tolist(), strict=True):
        members[end - n_most : end - n_most + n] = _of_size(d, size, n, seed)
    return members[order]


def fitted(members: Bool[np.ndarray, "pairs players"]) -> Operator:
    """Return the best linear unbiased estimate from these pairs (see the top of the module).

    A set T of players has the term prod z_i over T, with z = 1 for members and -1 for others.
    Summed over all sets of 3 or 5, the product of two coalitions' terms is a polynomial of their
    dot product; and at the end, T's worth goes in equal parts to its players. Source: the
    interaction terms of PolySHAP (arXiv 2601.18608), here as random effects and in closed form.
    """
    n, d = members.shape
    Z = np.where(np.vstack([members, np.ones(d, bool)]), 1.0, -1.0)  # (n + 1, d), everyone last
    total = np.arange(-d, d + 1.0)  # all that a dot product can be: polynomials are looked up
    of_odd, of_players = np.zeros_like(total), np.zeros_like(total)
    for size, variance in ((3, TRIPLES), (5, FIVES)):
        each = variance / max(comb(d, size), 1)
        of_odd += each * _elementary(size, total, d)
        of_players += each * 2 / size * _elementary(size - 1, total, d - 1)
    small = Z.astype(np.float32)  # whole numbers: exact
    covariance = of_odd[(small @ small.T).astype(np.intp) + d]  # of the odd worths
    covariance[np.diag_indices(n + 1)] += np.append(_noise(members), EXACT_WORTH)
    rest = Z.sum(1, keepdims=True) - Z  # (n + 1, d): dot product with everyone but i
    to_players = Z * of_players[rest.astype(np.intp) + d]  # of odd worths with players' values
    factor = linalg.cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    solved = linalg.cho_solve(factor, np.hstack([Z, to_players]), check_finite=False)
    # few pairs may leave a direction open (or nearly): nothing is said of it, rather than anything
    gram = Z.T @ solved[:, :d]
    single = np.linalg.pinv(gram, rcond=1e-9, hermitian=True) @ solved[:, :d].T  # (d, n + 1)
    sets = solved[:, d:].T
    weights = 2 * single + sets - (sets @ Z) @ single
    return Operator(members, np.ascontiguousarray(weights[:, :n]), weights[:, n])


def _elementary(size: int, total: np.ndarray, n: int) -> np.ndarray:
    """Return the sum over all sets of `size` of the product of their signs, of `n` signs.

    It depends on the total of the signs alone, by Newton's identities: their odd power sums are all
    `total` and their even ones `n`.
    """
    t = total * total
    if size == 2:
        return (t - n) / 2
    if size == 3:
        return total * (t - (3 * n - 2)) / 6
    if size == 4:
        return (t * (t - (6 * n - 8)) + 3 * n * (n - 2)) / 24
    assert size == 5
    return total * (t * (t - (10 * n - 20)) + 15 * n * n - 50 * n + 24) / 120


def _noise(members: np.ndarray) -> np.ndarray:
    """Return the variance of each pair's noise: the inverse of the weight that Shapley gives it."""
    d = members.shape[1]
    sizes = np.minimum(members.sum(1), d - members.sum(1))
    n_drawn = np.bincount(sizes, minlength=d)[sizes]
    # the kernel's weight of all pairs of a size, over how many of them were drawn
    weights = np.where(2 * sizes == d, 0.5, 1.0) / (sizes * (d - sizes) * n_drawn)
    return NOISE * weights.mean() / weights


def _of_size(d: int, size: int, n: int, seed: int) -> np.ndarray:
    """Return the first `n` coalitions of `size` in this seed's order, none of them twice."""
    rng = np.random.default_rng((seed, d, size))
    halved = 2 * size == d  # then only those with player 0, so that no pair comes twice
    if comb(d, size) <= LISTED:
        every = np.array(
            [c for c in itertools.combinations(range(d), size) if not halved or c[0] == 0]
        )
        chosen = rng.permutation(every)[:n]
    else:
        chosen = _distinct(rng, d, size, n, halved)
    members = np.zeros((n, d), bool)
    members[np.arange(n)[:, None], chosen.reshape(n, size)] = True
    return members


def _distinct(rng: np.random.Generator, d: int, size: int, n: int, halved: bool) -> np.ndarray:
    """Draw `n` coalitions of `size` one by one; of so many, two are rarely the same."""
    seen: dict[bytes, np.ndarray] = {}
    while len(seen) < n:
        # drawn in rounds of one size, so that the first ones do not depend on n
        for chosen in rng.random((64, d)).argpartition(size - 1, axis=1)[:, :size]:
            members = np.zeros(d, bool)
            members[chosen] = True
            if halved and not members[0]:
                members = ~members
            seen.setdefault(members.tobytes(), members.nonzero()[0])
    return np.array(list(itertools.islice(seen.values(), n)), np.int64)
