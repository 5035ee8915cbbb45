"""LIME for all rows at once: one set of perturbations, one pass of the model, closed-form fits."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import nn

from kit.base import checks
from kit.explain import game, inputs, local, quartiles, ridge, scorer
from kit.explain.attribution import Attribution, record

WHERE = "explain.lime"
MIN_SAMPLES, SAMPLES = 256, 16_384  # the fewest, and the default
MOST_COLUMNS = torch.quasirandom.SobolEngine.MAXDIM


def lime(
    model: nn.Module | Callable[..., Any],
    X: Any,
    *,
    train: Any,
    num_features: int = 10,
    samples: int = SAMPLES,
    seed: int = 0,
    categorical: Sequence[int | str] = (),
    target: int | str | None = None,
    output: str = "auto",
    shown: pd.DataFrame | None = None,
) -> Attribution:
    """Explain rows by what a local linear model says of being in each feature's quartile.

    It estimates what lime_tabular does with discretize_continuous: the weight of a feature is how
    much the prediction changes when the feature is in this row's quartile (or has its category)
    rather than elsewhere, near the row. One thing differs: where all values of a bin are equal,
    perturbations have that value; lime_tabular puts a 0. A Ctrl-C returns what the perturbations
    done by then say.

    Args:
        model: a module, or a function from a NumPy array to one; both give (rows,) or (rows, K).
        X: rows to explain, as the model takes them.
        train: rows that perturbations resemble, with the same columns.
        num_features: features that each row's explanation keeps, at the most; the others are
            exactly 0.
        samples: perturbations, shared by all rows; rounded up to eighths. They cost time, rows
            hardly do.
        seed: of the perturbations.
        categorical: numbers or names of columns that hold codes.
        target: the class to explain; None explains the only output or every one, and "all" every
            output, with an axis for them even if there is one.
        output: "auto" explains the probabilities of a module, and what a function returns as it is;
            "raw" for a module that predicts a quantity, else as in `explain.shap`.
        shown: what pictures and tables show in place of X, as in `explain.shap`.

    Returns:
        Weights (rows, features), or (rows, features, K); base values are the intercepts. `extra`
        holds per row (and output) "r2", the fit of the linear model, and "stability", the overlap
        (Jaccard) of the chosen features to expect between two seeds; and "conditions", the bin of
        each cell in words.

    Raises:
        TypeError: a column of words.
        ValueError: missing values, other columns than in training, one row of training data,
            `num_features`, `samples`, `categorical` or `target` out of range, or a model that
            does not give a row of finite numbers a case.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(500, 3))
        >>> found = lime(lambda X: 2 * X[:, 1], rows[:2], train=rows, num_features=1)
        >>> found.values.nonzero()[1].tolist()  # the one feature kept of each row
        [1, 1]

    Source:
        Ribeiro, Singh and Guestrin, "Why should I trust you?", KDD 2016.
    """
    given = {name: value for name, value in locals().items() if name not in ("model", "shown")}
    table, known = inputs.rows(WHERE, X, what="X"), inputs.rows(WHERE, train, what="train")
    rows, names = table.numbers, table.names
    _check(rows, known.numbers, num_features, samples)
    inputs.same_order(WHERE, train, what="train", names=names)
    _warn_of_constants(known)
    codes = [inputs.place(WHERE, column, names) for column in categorical]
    space = quartiles.space(known.numbers, names=names, categorical=codes)
    data = inputs.shown(WHERE, shown, table, [[j] for j in range(len(names))])
    scale = _scale(output)
    with scorer.evaluating(WHERE, model):
        asked = scorer.make(WHERE, model, rows, output=scale, target=target, dtype="auto")
        predictions = asked.scores(rows)  # (N, K)
        game.finite(WHERE, predictions)
        near = local.near(space, rows)
        moments = local.moments(WHERE, asked, space, near, samples=samples, seed=seed)
    kept = min(num_features, len(names))
    fit = ridge.fit(moments, near, predictions, num_features=kept, seed=seed)
    outputs, last = scorer.names(target, predictions.shape[1])
    found = {name: array[..., last] for name, array in fit.items()}
    words = np.array([*space.labels, "not in training"], object)
    return record(
        values=found["values"],
        base_values=found["base_values"],
        error_std=found["error_std"],
        predictions=predictions[:, last],
        data=data,
        rows=table.frame(),
        names=names,
        outputs=outputs,
        method=f"LIME, {moments.n_samples:,} samples",
        extra={name: found[name] for name in ("r2", "stability")}
        | {"conditions": words[space.find(rows)]},
        rerun=partial(lime, **given),
        ask=partial(scorer.ask, WHERE, model, asked),
        model=model,
        background=known.numbers,
    )


def _check(
    rows: Float64[np.ndarray, "rows columns"],
    train: Float64[np.ndarray, "known columns_of_train"],
    num_features: int,
    samples: Any,
) -> None:
    """Refuse what cannot be explained."""
    F = rows.shape[1]
    if train.shape[1] != F:
        raise checks.bad_value(
            WHERE,
            expected=f"X with the {train.shape[1]} columns of train",
            got=rows,
            remedy="Pass the same columns, in the same order.",
        )
    if len(train) < 2:
        raise checks.bad_value(
            WHERE,
            expected="two rows of train or more",
            got=train,
            remedy="Pass the training rows: train=X_train.",
        )
    if num_features < 1:
        raise checks.bad_value(
            WHERE, expected="num_features >= 1", got=num_features, remedy="Pass num_features=10."
        )
    if F > MOST_COLUMNS:
        raise checks.bad_value(
            WHERE,
            expected=f"at most {MOST_COLUMNS:,} columns",
            got=rows,
            remedy="Pass fewer, such as those that a quick model finds useful.",
        )
    if inputs.whole(WHERE, samples, what="samples", remedy="Pass samples=16384.") < MIN_SAMPLES:
        raise checks.bad_value(
            WHERE,
            expected=f"samples >= {MIN_SAMPLES}",
            got=samples,
            remedy="Pass samples=16384; powers of two serve best.",
        )


def _warn_of_constants(train: inputs.Rows) -> None:
    still = (train.numbers == train.numbers[0]).all(0)
    same = [repr(name) for name, constant in zip(train.names, still, strict=True) if constant]
    if same:
        more = f" and {len(same) - 5} more" if len(same) > 5 else ""
        warnings.warn(
            f"{WHERE}: train does not vary in {', '.join(same[:5])}{more}, which gets 0. "
            "Pass training rows that vary to silence this.",
            stacklevel=3,
        )


def _scale(output: str) -> str:
    if output not in ("auto", *scorer.SCALES):
        raise checks.unknown_name(WHERE, "output", got=output, known=("auto", *scorer.SCALES))
    if output != "auto":
        return output
    return "probability"  # a function is explained as it is
