"""Shapley values of any model, for all rows and outputs at once, each with its error."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.explain import coalitions, estimate, game, ignored, inputs, scorer
from kit.explain.attribution import Attribution, record

WHERE = "explain.shap"
EXACT_AT_MOST = 20  # players: half a million pairs a row
PAIRS_PER_PLAYER, AUTO_PAIRS = 16, (256, 2048)  # of "auto", and its bounds
UNTIL = 16_384  # pairs at which "auto" gives up on a target error
ROUNDING = 1e-6  # of the largest prediction less the base: below it, an ignored player has 0


def shap(
    model: Any,
    X: Any,
    *,
    background: Any,
    target: int | str | None = None,
    pairs: int | str = "auto",
    target_error: float | None = None,
    seed: int = 0,
    output: str = "logit",
    dtype: str = "auto",
    groups: Mapping[str, Sequence[int | str]] | None = None,
    shown: pd.DataFrame | None = None,
) -> Attribution:
    """Compute how much each feature moved each prediction away from the background's mean.

    Features that are unknown take the background's values (interventional Shapley values, as
    shap's Permutation, Kernel and Exact explainers compute them). Up to 12 players all coalitions
    are tried; beyond that, `pairs` of them with their complements. A Ctrl-C returns the rows done.

    Args:
        model: a torch module, explained on its device, or a function from a NumPy array (n, F) to
            one of (n,) or (n, K).
        X: rows to explain, (N, F): a DataFrame, an array or a tensor. Integers are fine as codes.
        background: rows that stand for "unknown", (B, F); time grows with their number, and 100
            typical ones are usual.
        target: the class to explain; None explains the only output or every one, and "all" every
            output, with an axis for them even if there is one.
        pairs: pairs of coalitions a row, at least 1.2 a player; "exact" takes all of them.
        target_error: play until the mean error is this fraction of the mean |value|, such as 0.01;
            `pairs` is then the most to play.
        seed: of the coalitions.
        output: of a module. "logit" and "raw" explain what it returns (or the log-odds of a last
            layer Sigmoid or Softmax: "logit"); "probability" the sigmoid of one output or the
            softmax of several. A function is explained as it is, whatever `output` says.
        dtype: of the computation: "float32", "float64", "bfloat16", or "auto" for the model's own.
        groups: name -> columns that come and go together as one player, such as one-hot blocks.
        shown: what pictures and tables show in place of the model's inputs, such as the values
            before they were scaled: a row a row of X, a column a player.

    Returns:
        Values (N, players), or (N, players, K), that add up to prediction minus base value.
        `error_std` comes from two halves of the pairs. `extra` holds "pairs", a number a row.

    Raises:
        ValueError: X or background empty, not finite, not numbers or of different width; a class,
            scale, group or number of pairs that cannot be; a model whose output is not finite.
        TypeError: a model that is none, or that returns no tensor.

    Example:
        >>> double = lambda X: 2 * X[:, 0] + 0 * X[:, 1]
        >>> shap(double, np.array([[3.0, 9.0]]), background=np.zeros((1, 2))).values.tolist()
        [[6.0, 0.0]]

    Source:
        Štrumbelj and Kononenko 2014; Lundberg and Lee 2017; for the sampling Musco and Witter 2024.
    """
    given = {name: value for name, value in locals().items() if name not in ("model", "shown")}
    rows = inputs.rows(WHERE, X, what="X")
    back = inputs.background(WHERE, background, names=rows.names)
    names, columns = inputs.groups(WHERE, groups, rows.names)
    data = inputs.shown(WHERE, shown, rows, columns)
    effort = _effort(len(names), pairs, target_error)  # what cannot be is refused before any work
    with scorer.evaluating(WHERE, model):
        asked = scorer.make(WHERE, model, rows.numbers, output=output, target=target, dtype=dtype)
        predictions, base = asked.scores(rows.numbers), asked.scores(back).mean(0)
        game.finite(WHERE, predictions)
        game.finite(WHERE, base)
        active = ignored.active(asked, rows.numbers, back, columns, seed=seed)
        # enumeration takes in who seems to be ignored: that rests on a sample
        playing = list(range(len(names))) if effort.exact else active
        effort = _effort(len(playing), pairs, target_error)
        play = game.make(WHERE, asked, back, [columns[p] for p in playing])
        steps = estimate.blocks(play.odd, rows.numbers, (predictions - base) / 2, effort, seed=seed)
        found = estimate.finished(WHERE, steps, len(predictions), what="rows")
    n_done = sum(map(len, found))
    n_pairs = np.repeat([block.n_pairs for block in found], [len(block) for block in found])
    values, error_std = _of_all(found, playing, len(names))
    _silence(values, active, size=float(np.abs(predictions - base).max()))
    _warn_of_error(values, error_std, target_error)
    outputs, last = scorer.names(target, predictions.shape[1])
    return record(
        values=values[:, :, last],
        error_std=error_std[:, :, last],
        base_values=np.tile(base, (n_done, 1))[:, last],
        predictions=predictions[:n_done, last],
        data=data[:n_done],
        rows=rows.frame()[:n_done],
        names=names,
        outputs=outputs,
        method=_method(effort.exact, n_pairs, len(names) - len(playing)),
        extra={"pairs": n_pairs},
        rerun=partial(shap, **given),
        ask=partial(scorer.ask, WHERE, model, asked),
        model=model,
        background=back,
    )


def _effort(d: int, pairs: Any, target_error: float | None) -> estimate.Effort:
    """Turn what was asked for into numbers of pairs, or say why it cannot be."""
    _check_target(target_error)
    if not isinstance(pairs, str):
        pairs = inputs.whole(WHERE, pairs, what="pairs", remedy="Pass pairs='auto'.")
    elif pairs not in ("auto", "exact"):
        raise checks.unknown_name(WHERE, "pairs", got=pairs, known=("auto", "exact"))
    if pairs == "exact" and d > EXACT_AT_MOST:
        raise checks.bad_value(
            WHERE,
            expected=f"at most {EXACT_AT_MOST} players for pairs='exact'",
            got=d,
            remedy="Pass pairs='auto', or groups={...} of features.",
        )
    n_all = coalitions.all_pairs(d)
    if pairs == "exact" or (pairs == "auto" and d <= coalitions.EXACT_PLAYERS):
        return estimate.Effort(d=d, exact=True, first=n_all, most=n_all)
    fewest = coalitions.fewest(d)
    if pairs == "auto":
        low, high = AUTO_PAIRS
        most = max(2 * fewest, min(max(PAIRS_PER_PLAYER * d, low), high))
        most = most if target_error is None else UNTIL
    elif pairs < min(fewest, n_all):
        raise checks.bad_value(
            WHERE,
            expected=f"at least {min(fewest, n_all)} pairs for {d} players (1.2 a player)",
            got=pairs,
            remedy="Pass pairs='auto'.",
        )
    else:
        most = pairs
    few = coalitions.EXACT_PLAYERS if target_error is not None else EXACT_AT_MOST
    if most >= n_all and d <= few:
        return estimate.Effort(d=d, exact=True, first=n_all, most=n_all)
    most = min(most, n_all)
    first = most if target_error is None else min(2 * fewest, most)
    return estimate.Effort(d=d, exact=False, first=first, most=most, target=target_error)


def _check_target(target_error: float | None) -> None:
    if target_error is not None and not target_error > 0:
        raise checks.bad_value(
            WHERE,
            expected="target_error > 0",
            got=target_error,
            remedy="Pass target_error=0.01 for 1 % of the mean value.",
        )


def _of_all(found: list[estimate.Found], playing: list[int], n_players: int) -> np.ndarray:
    """Return values and errors of all rows, with 0 for players that did not play."""
    blocks = [np.stack([block.values, block.error_std]) for block in found]
    played = np.concatenate(blocks, axis=1)  # (2, N, playing, K)
    every = np.zeros((*played.shape[:2], n_players, played.shape[3]))
    every[:, :, playing] = played
    return every


def _silence(values: np.ndarray, active: list[int], *, size: float) -> None:
    """Set to 0, in place, what rounding leaves to players that the model seems to ignore."""
    idle = np.setdiff1d(np.arange(values.shape[1]), active)
    rounding = np.abs(values[:, idle]).max((0, 2), initial=0) <= ROUNDING * size
    values[:, idle[rounding]] = 0


def _method(exact: bool, n_pairs: np.ndarray, n_left_out: int) -> str:
    if not exact:
        return f"Shapley, {n_pairs.max()} pairs"
    return "Shapley, exact" + (f" without {n_left_out} ignored" if n_left_out else "")


def _warn_of_error(values: np.ndarray, error_std: np.ndarray, target: float | None) -> None:
    error = error_std.mean() / max(np.abs(values).mean(), np.finfo(float).tiny)
    if target is not None and error > target:
        warnings.warn(
            f"{WHERE}: the mean error is {error:.2g} of the mean value, not {target:.2g}. "
            "Pass more pairs, or a larger target_error to silence this.",
            stacklevel=3,
        )
