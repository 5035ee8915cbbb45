"""Fill up rare classes with rows between a row and its neighbours."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from kit.augment.columns import between, check_classes, check_positive, quantities
from kit.augment.rows import Augmented, classes_of, grown, of_training
from kit.base import checks
from kit.data import Encoder, Split


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
        ValueError: a target that is a quantity, a ratio outside (0, 1], no neighbours, a rare class
            of one row, or rows that have soft labels.

    Source: Chawla et al. (2002), SMOTE, sections 4.2 and 6.1 (SMOTE-NC).
    """
    where = "augment.smote"
    base = of_training(where, parts)
    check_classes(where, parts)
    check_positive(where, neighbours=neighbours)
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
        made.append(_amid(rare, at, chosen, near[at], quantities(parts), parts.target, rng))
        parent.append(rare.index[at])
        partner.append(rare.index[chosen])
    return grown(
        parts,
        pd.concat(made),
        parent=parent[0].append(parent[1:]),
        partner=partner[0].append(partner[1:]),
        how=f"neighbours of rare classes up to {ratio:.0%}",
    )


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
            new[name] = between(new[name], rare[name].take(chosen), step)
        elif not pd.api.types.is_datetime64_any_dtype(rare[name]):
            codes = pd.factorize(rare[name])[0][near]  # (new, k)
            votes = (codes[:, :, None] == codes[:, None, :]).sum(axis=2)
            winner = near[np.arange(len(near)), votes.argmax(axis=1)]
            new[name] = rare[name].take(winner).set_axis(new.index)
    return new


def _check_not_alone(where: str, sizes: dict[Any, int]) -> None:
    alone = [label for label, n in sizes.items() if n < 2]
    if alone:
        raise checks.bad_value(
            where,
            expected="at least 2 training rows of each class",
            got=checks.Described(f"1 of {alone[0]!r}"),
            remedy="Merge that class with another, or bring more rows.",
        )
