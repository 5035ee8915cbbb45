"""Take what a linear model around every row needs, from perturbations that all rows share.

A perturbation z weighs exp(-n / (2 width² F)) for a row that differs from it in n of F bins. That
is a product over columns, and columns of perturbations are independent: weighted, they stay so, and
a bin of share p gets the share p / (p + (1 - p) q), with q the factor of one difference. Hence the
Gram matrix of a row's regression on "is in the row's bin" is known: a diagonal, and the row itself,
which is one more neighbour. Only its covariances with the predictions y need the perturbations.

Divided by its mean the weight is a product of 1 + slope (in the bin - p), with small slopes. To
first order in the slopes of the other columns, a row's covariances are sums of the pair moments
E[y 1_j 1_k] of bins: one matrix product, whatever the number of rows. What is left out is small:
the difference to the exact weights is taken on the first eighth of the perturbations, and added.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, exp, log

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from kit.base import progress
from kit.explain import game
from kit.explain.quartiles import LEVELS, Space
from kit.explain.scorer import Scorer

KERNEL_WIDTH = 0.75  # times the root of the number of columns, as in lime_tabular
BLOCKS = 8  # of perturbations at the least: their spread is the standard error
BLOCK_SIZE = 2048  # perturbations at the most
CELLS = 2**24  # numbers held at once


@dataclass(frozen=True)
class Near:
    """How each row's kernel sees the row's own bins; bins that no row has are one, the last."""

    bins: Int64[Tensor, "rows columns"]
    share: Float64[Tensor, "rows columns"]  # of perturbations in the bin
    seen: Float64[Tensor, "rows columns"]  # the same among weighted perturbations
    slope: Float64[Tensor, "rows columns"]  # growth of the weight, next to its mean, in the bin
    mean_weight: Float64[Tensor, " rows"]  # of a perturbation
    n_bins: int
    compact: Int64[np.ndarray, " space_bins"]  # number in the space -> number here

    @property
    def absent(self) -> Bool[Tensor, "rows columns"]:
        """Cells in a bin that no perturbation is in."""
        return self.bins == self.n_bins - 1

    def spread(self, each: Float64[Tensor, "rows columns"]) -> Float[Tensor, "rows bins"]:
        """Lay numbers of a row's columns out over all bins, 0 elsewhere."""
        return torch.zeros(len(each), self.n_bins, dtype=torch.float32).scatter_(
            1, self.bins, each.float()
        )

    def parts(self, n_rows: int) -> Iterator["Near"]:
        """Walk through the rows, some at a time."""
        for start in range(0, len(self.bins), n_rows):
            part = slice(start, start + n_rows)
            names = ("bins", "share", "seen", "slope", "mean_weight")
            yield replace(self, **{name: getattr(self, name)[part] for name in names})


@dataclass(frozen=True)
class Moments:
    """What a row's kernel says of the predictions: covariances with each bin, mean, mean square."""

    covariance: Float64[np.ndarray, "rows columns outputs"]
    mean: Float64[np.ndarray, "rows 1 outputs"]  # less the centre, as all predictions here
    mean_square: Float64[np.ndarray, "rows 1 outputs"]
    error_std: Float64[np.ndarray, "rows columns outputs"]  # of the covariances
    centre: Float64[np.ndarray, " outputs"]
    n_samples: int  # perturbations that all of it rests on


def near(space: Space, X: Float64[np.ndarray, "rows columns"]) -> Near:
    """Find the bins of rows, and how likely a perturbation falls into each."""
    found = space.find(X)
    used = np.unique(found[found >= 0])
    # one more place at the end, which also -1 points to: the bins that no row has
    compact = np.full(len(space.labels) + 1, len(used))
    compact[used] = np.arange(len(used))
    counts = np.bincount(space.bins.ravel(), minlength=len(compact))
    share = torch.from_numpy(counts[found] / LEVELS)
    bins = torch.from_numpy(compact[found])
    weight = share + (1 - share) * _factor(X.shape[1])
    return Near(
        bins=bins,
        share=share,
        seen=share / weight,
        slope=((1 - _factor(X.shape[1])) / weight).masked_fill_(bins == len(used), 0),
        mean_weight=weight.prod(1),
        n_bins=len(used) + 1,
        compact=compact,
    )


@dataclass(frozen=True)
class _Sums:
    """What is summed over blocks; replaced as a whole, so that an interrupt finds nothing half."""

    n_blocks: int
    series: Tensor  # (N, F + 2, K), as of _series
    squares: Tensor
    missed: Tensor  # what the exact weights add to the series; of the first blocks

    def plus(self, series: Tensor, missed: Tensor) -> "_Sums":
        """Return the sums with one more block."""
        squares = self.squares + series**2
        return _Sums(self.n_blocks + 1, self.series + series, squares, self.missed + missed)


def moments(
    where: str, ask: Scorer, space: Space, rows: Near, *, samples: int, seed: int
) -> Moments:
    """Perturb, ask the model once, and take every row's moments from its answers.

    An interrupt keeps the blocks of perturbations that are done, if there are two or more.

    Args:
        where: the public function that was called, for errors.
        ask: the model.
        space: what perturbations are made of.
        rows: the rows to explain.
        samples: perturbations, rounded up to whole blocks.
        seed: of the scrambled Sobol sequence.
    """
    n_blocks = max(BLOCKS, ceil(samples / BLOCK_SIZE))
    size, n_exact = ceil(samples / n_blocks), n_blocks // BLOCKS
    done, centre = _Sums(0, *torch.zeros(3, 1, 1, 1, dtype=torch.float64)), torch.zeros(1)
    try:
        for H, y in _blocks(where, ask, space, rows, size=size, n_blocks=n_blocks, seed=seed):
            centre = centre if done.n_blocks else y.mean(0)  # (K,)
            done = done.plus(*_of_block(H, (y - centre).float(), rows, done.n_blocks < n_exact))
    except KeyboardInterrupt:
        if done.n_blocks < 2:
            raise
        warnings.warn(
            f"{where}: interrupted after {done.n_blocks * size:,} of {n_blocks * size:,} "
            "perturbations; what is returned rests on those.",
            stacklevel=3,
        )
    n, F = done.n_blocks, rows.bins.shape[1]
    mean = done.series / n
    variance = (done.squares / n - mean**2).clamp_(min=0) / (n - 1)
    mean += done.missed / min(n, n_exact)
    return Moments(
        covariance=mean[:, :F].numpy(),
        mean=mean[:, F : F + 1].numpy(),
        mean_square=mean[:, F + 1 :].numpy(),
        error_std=variance[:, :F].sqrt().numpy(),
        centre=centre.numpy(),
        n_samples=n * size,
    )


def _blocks(
    where: str, ask: Scorer, space: Space, rows: Near, *, size: int, n_blocks: int, seed: int
) -> Iterator[tuple[Float[Tensor, "size bins"], Float64[Tensor, "size outputs"]]]:
    """Draw perturbations: which of the rows' bins each of them is in, and what the model says."""
    F = space.values.shape[1]
    engine = torch.quasirandom.SobolEngine(F, scramble=True, seed=seed)
    bins = rows.compact[space.bins]
    for _ in progress.track(range(n_blocks), label="perturbing"):
        # rounding may bring a point up to 1
        level = np.minimum((engine.draw(size).numpy() * LEVELS).astype(np.int64), LEVELS - 1)
        cell = level * F + np.arange(F)  # (size, F), into the flat tables of the space
        H = torch.zeros(size, rows.n_bins, dtype=torch.float32).scatter_(
            1, torch.from_numpy(bins.take(cell)), 1.0
        )
        y = ask.scores(space.values.take(cell))
        game.finite(where, y, on="perturbed rows")
        yield H, torch.from_numpy(y)


def _of_block(H: Tensor, y: Tensor, rows: Near, exact_too: bool) -> tuple[Tensor, Tensor]:
    """Return the series of all rows, and what the exact weights add to it (or nothing)."""
    pairs, series, missed = _pairs(H, y), [], []
    for some in rows.parts(max(1, CELLS // (len(H) + rows.n_bins * y.shape[1]))):
        series.append(_series(H, y, pairs, some))  # (n, F + 2, K)
        missed += [_exact(H, y, some) - series[-1]] if exact_too else []
    return torch.cat(series), torch.cat(missed) if exact_too else torch.zeros(())


def _pairs(
    H: Float[Tensor, "size bins"], y: Float[Tensor, "size outputs"]
) -> Float[Tensor, "outputs bins bins"]:
    """Return the mean of y with each pair of bins: the one large product, which all rows share."""
    return torch.stack([(H * each[:, None]).T @ H for each in y.T]) / len(y)


def _series(
    H: Float[Tensor, "size bins"],
    y: Float[Tensor, "size outputs"],
    pairs: Float[Tensor, "outputs bins bins"],
    rows: Near,
) -> Float64[Tensor, "rows moments outputs"]:
    """Take the covariances, mean and mean square with weights of first order in the slopes.

    The own column's weight stays exact: cov(1_j, y) = k (E[1_j y u_j] - p_j E[y u_j]), where u_j is
    1 + the sum over the other columns of slope (1 - p), and k the ratio of the variances of 1_j.
    """
    K, (p, slope) = y.shape[1], (rows.share[..., None], rows.slope[..., None])
    both = torch.cat([y, y**2], dim=1)  # (m, 2K)
    means = both.mean(0)  # (2K,)
    # in this order: H.T @ both is five times slower on a CPU
    within = (both.T @ H).T / len(H)  # (bins, 2K)
    over_bins = rows.spread(rows.slope)  # (n, bins)
    base = 1 - (slope * p).sum(1)  # (n, 1)
    weighted = base * means + over_bins @ within  # (n, 2K)
    own = within[:, :K][rows.bins]  # (n, F, K): E[1_j y]
    at = rows.bins.expand(K, -1, -1)
    across = (over_bins @ pairs).gather(2, at).permute(1, 2, 0)  # (n, F, K)
    inside = across + own * (base[:, None] + slope * (p - 1))
    anywhere = weighted[:, None, :K] - slope * (own - p * means[:K])
    covariance = _variance_ratio(rows) * (inside - p * anywhere)
    return torch.cat([covariance, weighted.view(-1, 2, K)], dim=1)


def _exact(
    H: Float[Tensor, "size bins"], y: Float[Tensor, "size outputs"], rows: Near
) -> Float64[Tensor, "rows moments outputs"]:
    """Take the same moments with the weights themselves, which are each row's own."""
    both = torch.cat([y, y**2], dim=1)  # (m, 2K)
    F = rows.bins.shape[1]
    a_match = torch.full_like(rows.share, -log(_factor(F)))
    matches = rows.spread(a_match.masked_fill(rows.absent, 0)) @ H.T  # (n, m)
    nothing = rows.mean_weight.log() - F * log(_factor(F))
    weights = (matches - nothing[:, None].float()).exp_()  # of mean 1
    means = weights @ both / len(H)  # (n, 2K)
    inside = torch.stack(
        [((weights * each) @ H).gather(1, rows.bins) / len(H) for each in y.T], dim=2
    )  # (n, F, K)
    covariance = inside - rows.seen[..., None] * means[:, None, : y.shape[1]]
    covariance.masked_fill_(rows.absent[..., None], 0)
    return torch.cat([covariance, means.view(len(means), 2, -1)], dim=1)


def _factor(F: int) -> float:
    """Return what a perturbation's weight falls by with each of F columns that differs."""
    return exp(-1 / (2 * KERNEL_WIDTH**2 * F))


def _variance_ratio(rows: Near) -> Float64[Tensor, "rows columns 1"]:
    """Return the variance of being in the bin as the kernel sees it, over the plain one."""
    plain = rows.share * (1 - rows.share)
    ratio = rows.seen * (1 - rows.seen) / plain
    return ratio.masked_fill(plain == 0, 0)[..., None]  # 0 / 0: a bin never or always met
