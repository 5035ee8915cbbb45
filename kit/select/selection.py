"""What every method of selection returns, and how far several of them agree."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short


@result
class Selection(Result):
    """Hold the chosen features; `table` has one row a feature and one column a method."""

    chosen: tuple[str, ...]  # the best first
    picks: Mapping[str, tuple[str, ...]]  # method -> what it chose
    details: Mapping[str, pd.DataFrame]  # method -> its own table
    note: str = ""

    def facts(self) -> dict[str, str]:
        """Return how many were chosen, which, by whom, and how far the methods agree."""
        facts = {
            "chosen": f"{len(self.chosen)} of {len(self.table)}",
            "first": checks.listed(self.chosen, most=4) or "none",
            "by": ", ".join(self.picks),
        }
        if len(self.picks) > 1:
            facts["agreement (Kuncheva)"] = short(self.kuncheva)
        return facts | ({"note": self.note} if self.note else {})

    @property
    def agreement(self) -> pd.DataFrame:
        """Return the Jaccard index of every two methods: shared over all that either chose."""
        sets = {method: set(names) for method, names in self.picks.items()}
        rows = [[_jaccard(a, b) for b in sets.values()] for a in sets.values()]
        return pd.DataFrame(rows, index=list(sets), columns=list(sets))

    @property
    def kuncheva(self) -> float:
        """Return the agreement beyond chance: 1 where all choose the same, about 0 by chance.

        For sets of one size it is Kuncheva's index; methods choose as many as they like, so it is
        computed in the form that allows for that. NaN where all choose everything, or nothing.

        Source: Nogueira, Sechidis, Brown (2018), On the Stability of Feature Selection, equation 4.
        """
        names = self.table["feature"]
        taken = np.stack([names.isin(picked).to_numpy() for picked in self.picks.values()])
        share = taken.mean()
        if len(taken) < 2 or share in (0, 1):
            return float("nan")
        return float(1 - taken.var(axis=0, ddof=1).mean() / (share * (1 - share)))


def made(
    method: str,
    names: Sequence[str],
    scores: np.ndarray,
    chosen: Iterable[int],
    details: pd.DataFrame,
    note: str = "",
) -> Selection:
    """Build the record of one method.

    Args:
        method: its name.
        names: of all features.
        scores: of each feature, NaN where there is none.
        chosen: positions, the best first.
        details: its own table.
        note: a sentence that must not be missed.
    """
    picked = tuple(names[i] for i in chosen)
    return Selection(
        table=pd.DataFrame({"feature": list(names), method: scores}),
        chosen=picked,
        picks={method: picked},
        details={method: details},
        note=note,
    )


def compare(*selections: Selection, votes: int | None = None) -> Selection:
    """Join selections of the same features into one, and choose what most of them chose.

    Args:
        selections: records of different methods, at least two.
        votes: methods that must have chosen a feature; None asks for more than half.

    Returns:
        The chosen features, most votes first, then by mean rank among those who chose them.

    Raises:
        ValueError: fewer than two, other features, a method twice, or votes out of range.
    """
    _check(selections, votes)
    picks = {method: names for each in selections for method, names in each.picks.items()}
    table = selections[0].table
    for each in selections[1:]:
        table = table.merge(each.table, on="feature")
    ranks = pd.DataFrame(
        {method: pd.Series({name: i for i, name in enumerate(p)}) for method, p in picks.items()},
        index=list(table["feature"]),
        dtype=float,
    )
    n_votes = ranks.notna().sum(axis=1)
    needed = votes or len(picks) // 2 + 1
    order = pd.DataFrame({"votes": -n_votes, "rank": ranks.mean(axis=1)}).sort_values(
        ["votes", "rank"], kind="stable"
    )
    chosen = tuple(name for name in order.index if n_votes[name] >= needed)
    return Selection(
        table=table,
        chosen=chosen,
        picks=picks,
        details={method: frame for each in selections for method, frame in each.details.items()},
        note="; ".join(each.note for each in selections if each.note),
    )


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _check(selections: Sequence[Selection], votes: int | None) -> None:
    where = "select.compare"
    methods = [method for each in selections for method in each.picks]
    if len(selections) < 2:
        raise checks.bad_value(
            where,
            expected="two selections or more",
            got=len(selections),
            remedy="Pass them one after another: compare(select.forward(…), select.mutual(…)).",
        )
    if len(set(methods)) < len(methods):
        twice = next(method for method in methods if methods.count(method) > 1)
        raise checks.bad_value(
            where,
            expected="each method once",
            got=checks.Described(f"{twice!r} twice"),
            remedy="Leave one out.",
        )
    features = set(selections[0].table["feature"])
    for each in selections[1:]:
        stray = features ^ set(each.table["feature"])
        if stray:
            raise checks.bad_value(
                where,
                expected="selections of the same features",
                got=checks.Described(f"{checks.listed(sorted(stray))} in some only"),
                remedy="Select from the same table.",
            )
    if votes is not None and not 1 <= votes <= len(methods):
        raise checks.bad_value(
            where,
            expected=f"1 <= votes <= {len(methods)}",
            got=votes,
            remedy="Pass votes=None for more than half.",
        )
