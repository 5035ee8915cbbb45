"""Measure whether new rows make a model better than no new rows, and than weighting the rare."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from kit.augment.rows import Augmented, of_training
from kit.base import checks, progress
from kit.base.results import Result, result, short
from kit.data import Split

Train = Callable[[pd.DataFrame, np.ndarray, pd.DataFrame, int], float]
Way = Callable[[Split, int], Augmented]
NONE, WEIGHTS = "none", "class weights"


@result
class Worth(Result):
    """Hold the gain of every way of growing; `table` has one row a way and rival."""

    scores: pd.DataFrame  # one row a seed, one column a way, higher is better
    level: float  # of all intervals at once

    def facts(self) -> dict[str, str]:
        """Return the best way by its surest gain, that gain, and the verdict."""
        surest = self.table.loc[self.table.groupby("way")["low"].idxmin()]
        best = surest.loc[surest["low"].idxmax()]
        verdicts = self.table.loc[self.table["way"] == best["way"], "verdict"]
        return {
            "best": str(best["way"]),
            f"gain over {best['against']}": short(best["gain"]),
            f"{self.level:.0%} interval": f"{short(best['low'])} to {short(best['high'])}",
            "verdict": "worth it" if (verdicts == "worth it").all() else "not worth it",
        }


def worth(
    model_fn: Train,
    parts: Split | Callable[[int], Split],
    *,
    ways: Mapping[str, Way],
    seeds: int = 8,
    level: float = 0.95,
) -> Worth:
    """Compare ways of growing with the rows as they are, and with weights for rare classes.

    All ways meet the same splits and seeds, so gains are paired: their interval is Student's t,
    widened for the number of comparisons (Bonferroni), and, where every seed has its own split, for
    the rows that those splits share. A way is worth it against a rival when its interval lies
    above zero. The test rows are never touched.

    Args:
        model_fn: trains on rows with weights and returns its score on validation rows, higher is
            better: (train, weights, validation, seed) -> score.
        parts: a split, or a function of the seed that makes one. With one split the interval
            tells of the chance of seeds alone; with many, of the chance of rows too.
        ways: name -> function of split and seed, such as
            `lambda parts, seed: augment.smote(parts, seed=seed)`.
        seeds: how many, 3 or more.
        level: confidence that all intervals hold at once.

    Returns:
        Gain, interval and verdict of every way against "none", and against "class weights" where
        the target has classes. Where seeds change nothing, nothing is known of chance: the
        interval is without end, and the verdict "not worth it".

    Raises:
        ValueError: no way, a reserved name, fewer than 3 seeds, a level outside (0, 1), or a
            score that is no number.

    Source: Nadeau, Bengio (2003), Inference for the Generalization Error, section 3 (shared rows).
    """
    _check(ways, seeds, level)
    rows, test_share = [], 0.0
    for seed in progress.track(range(seeds), label="seeds"):
        split = parts(seed) if callable(parts) else parts
        of_training("augment.worth", split)
        rows.append(_scores(model_fn, split, ways, seed))
        test_share = len(split.validation) / len(split.train) if callable(parts) else 0.0
    scores = pd.DataFrame(rows).rename_axis("seed")
    rivals = [name for name in (NONE, WEIGHTS) if name in scores]
    tail = (1 - level) / (len(ways) * len(rivals)) / 2
    table = pd.DataFrame(
        {"way": way, "against": rival, **_gain(scores[way] - scores[rival], tail, test_share)}
        for way in ways
        for rival in rivals
    )
    return Worth(table=table, scores=scores, level=level)


def _scores(model_fn: Train, split: Split, ways: Mapping[str, Way], seed: int) -> dict[str, float]:
    plain = np.ones(len(split.train))
    runs = {NONE: (split.train, plain)}
    if not split.quantity:
        target = split.train[split.target]
        counts = target.map(target.value_counts()).to_numpy(float)
        runs[WEIGHTS] = (split.train, len(target) / target.nunique() / counts)
    runs |= {name: way(split, seed).weighted() for name, way in ways.items()}
    scores = {}
    for name, (train, weights) in runs.items():
        # a copy each: a model function that adds columns must not change what the next one sees
        scores[name] = float(model_fn(train.copy(), weights, split.validation.copy(), seed))
        if not np.isfinite(scores[name]):
            raise checks.bad_value(
                "augment.worth",
                expected="a score from model_fn",
                got=checks.Described(f"{scores[name]} for {name!r}, seed {seed}"),
                remedy="Return a finite number, higher is better, such as -log_loss.",
            )
    return scores


def _gain(differences: pd.Series, tail: float, test_share: float) -> dict[str, float | str]:
    n, gain = len(differences), float(differences.mean())
    spread = float(differences.std())
    # equal but for rounding: no chance was seen, so none can be ruled out
    seen = spread > 1e-12 * max(1.0, abs(gain))
    error = spread * np.sqrt(1 / n + test_share)
    reach = float(stats.t.isf(tail, n - 1) * error) if seen else np.inf
    return {
        "gain": gain,
        "low": gain - reach,
        "high": gain + reach,
        "verdict": "worth it" if gain - reach > 0 else "not worth it",
    }


def _check(ways: Mapping[str, Way], seeds: int, level: float) -> None:
    where = "augment.worth"
    if not ways or {NONE, WEIGHTS} & set(ways):
        raise checks.bad_value(
            where,
            expected=f"ways under names other than {NONE!r} and {WEIGHTS!r}, at least one",
            got=checks.Described(checks.listed(list(ways)) or "none"),
            remedy="Pass ways={'smote': lambda parts, seed: augment.smote(parts, seed=seed)}.",
        )
    if seeds < 3:
        raise checks.bad_value(where, expected="3 seeds or more", got=seeds, remedy="Pass seeds=8.")
    if not 0 < level < 1:
        raise checks.bad_value(
            where, expected="0 < level < 1", got=level, remedy="Pass level=0.95."
        )
