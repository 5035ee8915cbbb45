"""Read what a user hands over to be explained: rows, their background, and groups of columns."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch

from kit.base import checks


@dataclass(frozen=True)
class Rows:
    """Numbers with the names of their columns."""

    numbers: np.ndarray  # (N, F) float
    names: list[str]

    def frame(self) -> pd.DataFrame:
        """Return the numbers as a table with its names."""
        return pd.DataFrame(self.numbers, columns=self.names)


def rows(where: str, X: Any, *, what: str) -> Rows:
    """Read a table of numbers: a DataFrame, an array or a tensor.

    Args:
        where: the public function that was called, for errors.
        X: the table, (N, F).
        what: what it is called there, such as "X".

    Raises:
        ValueError: no rows, not two axes, a column that is not numbers, NaN or infinite cells.
    """
    names = [str(name) for name in X.columns] if isinstance(X, pd.DataFrame) else None
    table = X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else np.asarray(X)
    if table.ndim != 2 or 0 in table.shape:
        raise checks.bad_value(
            where,
            expected=f"{what} of shape (rows, features) with at least one of each",
            got=table,
            remedy=f"Add the axis of rows: {what}[None]."
            if table.ndim == 1 and table.size
            else "Pass at least one row.",
        )
    names = names or [f"x{j}" for j in range(table.shape[1])]
    if table.dtype.kind not in "fiub":
        table = _numeric(where, table, names, what)
    numbers = table.astype(np.float64)
    if not np.isfinite(numbers).all():
        bad = ~np.isfinite(numbers)
        first = [names[j] for j in np.flatnonzero(bad.any(0))[:3]]
        raise checks.bad_value(
            where,
            expected=f"finite numbers in {what}",
            got=checks.Described(f"{int(bad.sum())} NaN or infinite cells, in {', '.join(first)}"),
            remedy="Fill the gaps first: data.Encoder does.",
        )
    return Rows(numbers, names)


def background(where: str, given: Any, *, names: Sequence[str]) -> np.ndarray:
    """Read the rows that stand for what is not known; equal ones are taken as a single one.

    Args:
        where: the public function that was called, for errors.
        given: the table, (B, F).
        names: of the columns of `X`.

    Raises:
        ValueError: as `rows` and `same_order`, or as many columns as `X` has are not there.
    """
    found, n_features = rows(where, given, what="background").numbers, len(names)
    if found.shape[1] != n_features:
        raise checks.bad_value(
            where,
            expected=f"a background of {n_features} columns, as X has",
            got=found,
            remedy="Pass rows of the same table: background=X_train[:100].",
        )
    same_order(where, given, what="background", names=names)
    if len(found) > 1 and (found == found[0]).all():
        warnings.warn(
            f"{where}: all {len(found)} background rows are equal, so values are against that one "
            "row. Pass rows that differ, or only one to silence this.",
            stacklevel=3,
        )
        return found[:1]
    return found


def same_order(where: str, given: Any, *, what: str, names: Sequence[str]) -> None:
    """Refuse a DataFrame with the columns of `X` in another order.

    Args:
        where: the public function that was called, for errors.
        given: a table of any kind.
        what: what it is called there, such as "background".
        names: of the columns of `X`.

    Raises:
        ValueError: the names are the same, and their order is not.
    """
    own = [str(name) for name in given.columns] if isinstance(given, pd.DataFrame) else names
    if list(own) != list(names) and sorted(own) == sorted(names):
        raise checks.bad_value(
            where,
            expected=f"{what}'s columns in the order of X",
            got=checks.Described(checks.listed(own)),
            remedy=f"Pass {what}[X.columns].",
        )


def groups(
    where: str, given: Mapping[str, Sequence[Any]] | None, names: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """Return the players: their names and the columns of each; columns in no group play alone.

    Args:
        where: the public function that was called, for errors.
        given: name of a group -> its columns, by name or by number.
        names: of all columns.

    Raises:
        ValueError: an unknown column, an empty group, a column in two groups, or a group with the
            name of a column that plays alone.

    Example:
        >>> groups("explain.shap", {"colour": ["red", "blue"]}, ["size", "red", "blue"])
        (['size', 'colour'], [[0], [1, 2]])
    """
    owner: dict[int, str] = {}
    for group, columns in (given or {}).items():
        places = [place(where, column, names) for column in columns]
        twice = [names[j] for j in places if j in owner] or (
            [] if len(set(places)) == len(places) else [group]
        )
        if twice or not places:
            raise checks.bad_value(
                where,
                expected="groups that have columns, each column in one group",
                got=checks.Described(f"{twice[0]!r} twice" if twice else f"{group!r} empty"),
                remedy="Pass for example groups={'colour': ['red', 'blue']}.",
            )
        owner |= dict.fromkeys(places, group)
    taken = [name for j, name in enumerate(names) if j not in owner and name in owner.values()]
    if taken:
        raise checks.bad_value(
            where,
            expected="groups with names of their own",
            got=checks.Described(f"{taken[0]!r}, a column that is in no group"),
            remedy="Name the group otherwise, or put that column into it.",
        )
    players: dict[tuple[str, int], list[int]] = {}
    for j, name in enumerate(names):
        players.setdefault((owner[j], -1) if j in owner else (name, j), []).append(j)
    return [name for name, _ in players], list(players.values())


def shown(
    where: str, given: pd.DataFrame | None, table: Rows, players: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return what is shown of each row and player, (N, players).

    Args:
        where: the public function that was called, for errors.
        given: what the user wants to be shown; None for the column of each player, or which of its
            columns is the largest.
        table: the rows that are explained.
        players: the columns of each.

    Raises:
        ValueError: not a DataFrame of one row a row and one column a player, in their order.
    """
    if given is None:
        numbers = table.numbers
        columns = [
            numbers[:, own[0]] if len(own) == 1 else numbers[:, own].argmax(1) for own in players
        ]
        return np.stack(columns, axis=1).astype(np.float64)
    shape = len(table.numbers), len(players)
    if not isinstance(given, pd.DataFrame) or given.shape != shape:
        raise checks.bad_value(
            where,
            expected=f"shown as a DataFrame of shape {shape}, a row a row of X, a column a player",
            got=given,
            remedy="Pass the rows of X as they were before they were encoded.",
        )
    same_order(where, given, what="shown", names=table.names)
    if all(len(own) == 1 for own in players):
        other = [name for name in map(str, given.columns) if name not in table.names]
        if other:  # by place alone, a value would stand beside the credit of another column
            raise checks.bad_value(
                where,
                expected="shown with the columns of X",
                got=checks.Described(f"{checks.listed(other, most=3)}, which X has not"),
                remedy="Pass X as a DataFrame with columns=encoder.names, and shown[X.columns].",
            )
    return given.to_numpy()


def whole(where: str, given: Any, *, what: str, remedy: str) -> int:
    """Return a whole number of something as it is.

    Raises:
        TypeError: anything else, such as 1e3.
    """
    if not isinstance(given, Integral):
        expected = f"a whole number of {what}"
        raise checks.bad_type(where, expected=expected, got=given, remedy=remedy)
    return int(given)


def _numeric(where: str, table: np.ndarray, names: Sequence[str], what: str) -> np.ndarray:
    strange = (place for place, cell in np.ndenumerate(table) if not _is_number(cell))
    i, j = next(strange, (-1, -1))
    if i >= 0:
        raise checks.bad_value(
            where,
            expected=f"numbers in {what}",
            got=checks.Described(f"{table[i, j]!r} in column {names[j]}"),
            remedy="Encode it first: data.Encoder does.",
        )
    return table.astype(np.float64)


def _is_number(cell: Any) -> bool:
    return cell is None or isinstance(cell, Real | Decimal | np.bool_)


def place(where: str, column: Any, names: Sequence[str]) -> int:
    """Return the number of a column that is given by number or by name."""
    if isinstance(column, str):
        if column not in names:
            raise checks.unknown_name(where, "column", got=column, known=names)
        return list(names).index(column)
    if not 0 <= column < len(names):
        raise checks.bad_value(
            where,
            expected=f"a column from 0 to {len(names) - 1}",
            got=column,
            remedy="Pass its name or its number.",
        )
    return int(column)
