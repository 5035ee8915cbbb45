"""Make new rows of a table: noise, mixtures, neighbours of rare classes, swapped cells."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from kit.augment.rows import Augmented, classes_of, grown, of_training
from kit.base import checks
from kit.data import Encoder, Split
from kit.data.split import is_quantity

IQR_OF_NORMAL = 1.349  # in standard deviations


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
        ValueError: a scale or number of copies that is not positive, or rows that are not
            training rows.
    """
    where = "augment.noise"
    base = of_training(where, parts, rows)
    _check_positive(where, scale=scale, copies=copies)
    rng = np.random.default_rng(seed)
    new = base.take(np.tile(np.arange(len(base)), copies))
    labels = new.index
    for name in _quantities(parts):
        known = _floats(parts.train[name])
        values = _floats(new[name]) + scale * _spread(known) * rng.standard_normal(len(new))
        new[name] = _as_dtype(np.clip(values, np.nanmin(known), np.nanmax(known)), new[name])
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
        ValueError: an alpha or number of copies that is not positive, or rows that are not
            training rows.

    Source: Zhang et al. (2018), mixup: Beyond Empirical Risk Minimization, equation 1.
    """
    where = "augment.mixup"
    base = of_training(where, parts, rows)
    _check_positive(where, alpha=alpha, copies=copies)
    rng = np.random.default_rng(seed)
    one = np.tile(np.arange(len(base)), copies)
    two = np.concatenate([rng.permutation(len(base)) for _ in range(copies)])
    share = rng.beta(alpha, alpha, len(one))
    share = np.maximum(share, 1 - share)
    new, other = base.take(one), base.take(two)
    parent, partner = new.index, other.index
    quantities = _quantities(parts)
    for name in new.columns:
        if name in quantities or (name == parts.target and parts.quantity):
            new[name] = _between(new[name], other[name], 1 - share)
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


def smote(parts: Split, *, ratio: float = 1.0, neighbours: int = 5, seed: int = 0) -> Augmented:
    """Fill up rare classes with rows between a row and one of its neighbours in the class.

    Nearness is that of `data.Encoder`: standardised quantities, and one standard deviation for
    each category that differs. A quantity lies between parent and neighbour, a category is the
    commonest among the neighbours, dates and what either lacks are the parent's.

    Args:
        parts: the split; it stays as it is.
        ratio: rows that each class has afterwards, as a fraction of the largest one's.
        neighbours: how many to choose from.
        seed: of the choice.

    Raises:
        ValueError: a target that is a quantity, a ratio outside (0, 1], no neighbours, or a rare
            class of one row.

    Source: Chawla et al. (2002), SMOTE, sections 4.2 and 6.1 (SMOTE-NC).
    """
    where = "augment.smote"
    base = of_training(where, parts)
    _check_classes(where, parts)
    _check_positive(where, neighbours=neighbours)
    if not 0 < ratio <= 1:
        raise checks.bad_value(
            where, expected="0 < ratio <= 1", got=ratio, remedy="Pass ratio=1.0 for equal classes."
        )
    rng = np.random.default_rng(seed)
    # not Series: labels that are bools would be taken for a mask
    sizes = base[parts.target].value_counts().to_dict()
    wanted = {label: round(ratio * max(sizes.values())) - n for label, n in sizes.items()}
    rare_labels = [label for label in classes_of(parts) if wanted[label] > 0]
    _check_not_alone(where, {label: sizes[label] for label in rare_labels})
    encoder = Encoder.fit(base, target=parts.target, quantity=False)
    made = [base.iloc[:0]]
    parent, partner = [base.index[:0]], [base.index[:0]]
    for label in rare_labels:
        rare = base[base[parts.target] == label]
        near = _nearest(_positions(encoder, rare), min(neighbours, len(rare) - 1))
        # every row is a parent equally often, give or take one
        at = np.resize(rng.permutation(len(rare)), wanted[label])
        chosen = near[at, rng.integers(0, near.shape[1], len(at))]
        made.append(_amid(rare, at, chosen, near[at], _quantities(parts), parts.target, rng))
        parent.append(rare.index[at])
        partner.append(rare.index[chosen])
    return grown(
        parts,
        pd.concat(made),
        parent=parent[0].append(parent[1:]),
        partner=partner[0].append(partner[1:]),
        how=f"neighbours of rare classes up to {ratio:.0%}",
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
            is not positive, or rows that are not training rows.
    """
    where = "augment.swap"
    base = of_training(where, parts, rows)
    _check_classes(where, parts)
    _check_positive(where, copies=copies)
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
    order = moved[np.lexsort((rng.random(len(moved)), group[moved]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    following = np.arange(1, len(order) + 1)
    # the last of a group gets the cell of its first
    following[np.r_[starts[1:], len(order)] - 1] = starts
    source[order] = order[following]
    return source


def _quantities(parts: Split) -> list[Any]:
    """Return the columns that hold quantities among all training rows: no codes, no yes/no."""
    inputs = parts.train.columns.drop(parts.target)
    return [name for name in inputs if is_quantity(parts.train[name])]


def _floats(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _spread(values: np.ndarray) -> float:
    low, high = np.nanquantile(values, [0.25, 0.75])
    return float((high - low) / IQR_OF_NORMAL or np.nanstd(values))


def _as_dtype(values: np.ndarray, column: pd.Series) -> pd.Series:
    """Return values as the column holds them; whole numbers stay whole, its gaps stay gaps."""
    if not pd.api.types.is_float_dtype(column):
        values = np.rint(values)
    filled = pd.Series(np.nan_to_num(values), index=column.index).astype(column.dtype)
    return filled.where(column.notna(), column)


def _between(one: pd.Series, two: pd.Series, step: np.ndarray) -> pd.Series:
    """Return the points `step` of the way from one to two; where two is missing, one."""
    start, end = _floats(one), _floats(two)
    return _as_dtype(np.where(np.isnan(end), start, start + step * (end - start)), one)


def _positions(encoder: Encoder, rows: pd.DataFrame) -> np.ndarray:
    """Return rows as points: two categories that differ are one standard deviation apart."""
    X = encoder.X(rows).numpy()
    numbers, codes = X[:, : encoder.n_numeric], X[:, encoder.n_numeric :].astype(int)
    one_hot = [
        np.eye(n, dtype=np.float32)[column] / np.float32(np.sqrt(2))
        for column, n in zip(codes.T, encoder.cardinalities, strict=True)
    ]
    return np.hstack([numbers, *one_hot])


def _nearest(points: np.ndarray, k: int) -> np.ndarray:
    # without an argument it leaves out the row itself, but not its doubles
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def _amid(
    rare: pd.DataFrame,
    at: np.ndarray,
    chosen: np.ndarray,
    near: np.ndarray,
    quantities: list[Any],
    target: str,
    rng: np.random.Generator,
) -> pd.DataFrame:
    new, step = rare.take(at), rng.random(len(at))
    for name in rare.columns.drop(target):
        if name in quantities:
            new[name] = _between(new[name], rare[name].take(chosen), step)
        elif not pd.api.types.is_datetime64_any_dtype(rare[name]):
            codes = pd.factorize(rare[name])[0][near]  # (new, k)
            votes = (codes[:, :, None] == codes[:, None, :]).sum(axis=2)
            winner = near[np.arange(len(near)), votes.argmax(axis=1)]
            new[name] = rare[name].take(winner).set_axis(new.index)
    return new


def _check_positive(where: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise checks.bad_value(
                where, expected=f"{name} above 0", got=value, remedy=f"Leave {name} out."
            )


def _check_classes(where: str, parts: Split) -> None:
    if parts.quantity:
        raise checks.bad_value(
            where,
            expected="a target of classes",
            got=checks.Described(f"the quantity {parts.target!r}"),
            remedy="Use augment.noise or augment.mixup.",
        )


def _check_not_alone(where: str, sizes: dict[Any, int]) -> None:
    alone = [label for label, n in sizes.items() if n < 2]
    if alone:
        raise checks.bad_value(
            where,
            expected="at least 2 training rows of each class",
            got=checks.Described(f"1 of {alone[0]!r}"),
            remedy="Merge that class with another, or bring more rows.",
        )
