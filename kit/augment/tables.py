"""Make new rows of a table: noise, mixtures, swapped cells."""

import numpy as np
import pandas as pd

from kit.augment.columns import (
    as_dtype,
    between,
    check_classes,
    check_positive,
    floats,
    quantities,
    spread,
)
from kit.augment.rows import Augmented, classes_of, grown, of_training
from kit.base import checks
from kit.data import Split


def noise(
    parts: Split,
    *,
    scale: float = 0.1,
    copies: int = 1,
    rows: pd.DataFrame | None = None,
    seed: int = 0,
) -> Augmented:
    """Add copies of training rows with noise on their quantities.

    The noise is Gaussian, in units of each column's spread among the training rows (its quartiles,
    so that a wild value does not make it wild), and no value leaves the column's range. Codes,
    categories, dates and the target stay as they are, gaps stay gaps.

    Args:
        parts: the split; it stays as it is.
        scale: standard deviation of the noise, in spreads.
        copies: new rows for each row.
        rows: some training rows; None takes all. Rows of another part are refused.
        seed: of the noise.

    Raises:
        ValueError: a scale or number of copies that is not positive, rows that are not training
            rows, or that have soft labels.
    """
    where = "augment.noise"
    base = of_training(where, parts, rows)
    check_positive(where, scale=scale, copies=copies)
    rng = np.random.default_rng(seed)
    new = base.take(np.tile(np.arange(len(base)), copies))
    labels = new.index
    for name in quantities(parts):
        known = floats(parts.train[name])
        values = floats(new[name]) + scale * spread(known) * rng.standard_normal(len(new))
        new[name] = as_dtype(np.clip(values, np.nanmin(known), np.nanmax(known)), new[name])
    return grown(parts, new, parent=labels, how=f"noise of {scale} spreads")


def mixup(
    parts: Split,
    *,
    alpha: float = 0.2,
    copies: int = 1,
    rows: pd.DataFrame | None = None,
    seed: int = 0,
) -> Augmented:
    """Add mixtures of two training rows, their classes mixed in the same shares.

    Quantities are weighted means. A category cannot be mixed: it comes from one of the two, by
    chance, in the same shares. The heavier row is the parent; dates, and values that the lighter
    one lacks, are its. The target column has the parent's class, and `soft` the shares; a target
    that is a quantity is mixed itself.

    Args:
        parts: the split; it stays as it is.
        alpha: of the Beta distribution of the shares: small ones keep near to one of the two.
        copies: new rows for each row.
        rows: some training rows; None takes all. Rows of another part are refused.
        seed: of shares and pairs.

    Raises:
        ValueError: an alpha or number of copies that is not positive, rows that are not training
            rows, or that have soft labels.

    Source: Zhang et al. (2018), mixup: Beyond Empirical Risk Minimization, equation 1.
    """
    where = "augment.mixup"
    base = of_training(where, parts, rows)
    check_positive(where, alpha=alpha, copies=copies)
    rng = np.random.default_rng(seed)
    one = np.tile(np.arange(len(base)), copies)
    two = np.concatenate([rng.permutation(len(base)) for _ in range(copies)])
    share = rng.beta(alpha, alpha, len(one))
    share = np.maximum(share, 1 - share)
    new, other = base.take(one), base.take(two)
    parent, partner = new.index, other.index
    mixed = quantities(parts)
    for name in new.columns:
        if name in mixed or (name == parts.target and parts.quantity):
            new[name] = between(new[name], other[name], 1 - share)
        elif name != parts.target and not pd.api.types.is_datetime64_any_dtype(new[name]):
            new[name] = new[name].where(rng.random(len(new)) < share, other[name].to_numpy())
    soft = None
    if not parts.quantity:
        classes = pd.Index(classes_of(parts), dtype=object)
        eye = np.eye(len(classes))
        first, second = (
            eye[classes.get_indexer(base[parts.target].astype(object).take(at))]
            for at in (one, two)
        )
        soft = share[:, None] * first + (1 - share[:, None]) * second
    return grown(
        parts, new, parent=parent, partner=partner, soft=soft, how=f"mixup with alpha {alpha}"
    )


def swap(
    parts: Split,
    *,
    frac: float = 0.2,
    copies: int = 1,
    rows: pd.DataFrame | None = None,
    seed: int = 0,
) -> Augmented:
    """Add copies of training rows that exchanged some cells with rows of the same class.

    In every copy, each column keeps exactly the values that it has in each class: only which row
    has which changes. So the label stays right as far as columns speak for themselves.

    Args:
        parts: the split; it stays as it is.
        frac: fraction of the cells that change place, 0 < frac <= 1.
        copies: new rows for each row.
        rows: some training rows; None takes all. Rows of another part are refused.
        seed: of cells and partners.

    Raises:
        ValueError: a target that is a quantity, a fraction out of range, a number of copies that
            is not positive, rows that are not training rows, or that have soft labels.
    """
    where = "augment.swap"
    base = of_training(where, parts, rows)
    check_classes(where, parts)
    check_positive(where, copies=copies)
    if not 0 < frac <= 1:
        raise checks.bad_value(
            where, expected="0 < frac <= 1", got=frac, remedy="Pass frac=0.2 for a fifth of them."
        )
    rng = np.random.default_rng(seed)
    group = pd.factorize(base[parts.target])[0]
    copied = []
    for _ in range(copies):
        new = base.copy()
        for name in base.columns.drop(parts.target):
            moved = np.flatnonzero(rng.random(len(base)) < frac)
            new[name] = base[name].take(_exchanged(moved, group, rng)).set_axis(base.index)
        copied.append(new)
    new = pd.concat(copied)
    return grown(parts, new, parent=new.index, how=f"swapping {frac:.0%} of the cells in a class")


def _exchanged(moved: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for every row the row whose cell it gets; those in `moved` go round in their group."""
    source = np.arange(len(group))
    if not len(moved):
        return source
    order = moved[np.lexsort((rng.random(len(moved)), group[moved]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    following = np.arange(1, len(order) + 1)
    # the last of a group gets the cell of its first
    following[np.r_[starts[1:], len(order)] - 1] = starts
    source[order] = order[following]
    return source
