"""Judge predictions: how good, how sure, and whether sure means right."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from sklearn import metrics
from torch import Tensor, nn

from kit.base import checks
from kit.base.results import Result, result, short
from kit.train.loop import predict

N_BINS = 10


@result
class Evaluation(Result):
    """Hold the scores of a set of predictions; `table` has one row a metric."""

    kind: str  # "yes/no", "classes" or "quantity"
    calibration: pd.DataFrame  # predicted against observed, a row for a tenth of the rows
    n_rows: int

    def facts(self) -> dict[str, str]:
        """Return the metrics, the proper score first."""
        rows = self.table.head(5)
        return dict(zip(rows["metric"], map(short, rows["value"]), strict=True))

    def __getitem__(self, metric: str) -> float:
        """Return the value of one metric by its name in `table`."""
        values = self.table.set_index("metric")["value"]
        if metric not in values:
            raise checks.unknown_name("train.evaluate", "metric", got=metric, known=values.index)
        return float(values[metric])


def evaluate(
    model: nn.Module, X: Shaped[Tensor, "rows ..."], y: Shaped[Tensor, " rows"]
) -> Evaluation:
    """Score a model on rows that it was not trained on.

    Args:
        model: gives one logit (y bool), one logit a class (y integer) or a quantity (y float).
        X: inputs.
        y: targets.

    Returns:
        Log loss, accuracy, ROC AUC, PR AUC and Brier score, or MAE, RMSE and R², with the
        calibration table.
    """
    outputs = predict(model, X)
    return score(y, outputs if y.dtype.is_floating_point else probabilities(outputs))


def probabilities(logits: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows classes"]:
    """Turn logits into class probabilities; one logit becomes the two columns no and yes.

    They are of double precision: in single, a logit of 20 would already be a certainty, and one
    such row that comes out otherwise would cost what the rounding costs, not what the model said.

    Example:
        >>> probabilities(torch.zeros(1, 1)).tolist()
        [[0.5, 0.5]]
    """
    exact = logits.double()
    if exact.ndim == 1 or exact.shape[1] == 1:
        yes = exact.reshape(-1)
        return torch.sigmoid(torch.stack([-yes, yes], dim=1))
    return torch.softmax(exact, dim=1)


def score(y: Shaped[Tensor, " rows"], predicted: Float[Tensor, "predictions ..."]) -> Evaluation:
    """Score predictions from wherever they come.

    Args:
        y: bool (yes/no), integers (classes) or floats (a quantity).
        predicted: probabilities (rows, classes) for the first two, values for the last.

    Raises:
        ValueError: shapes that do not fit, NaN, or what is no probability.
    """
    guess, truth = predicted.detach().cpu().double().numpy(), y.detach().cpu().numpy()
    _check(guess, truth)
    if y.dtype.is_floating_point:
        return _quantity(truth.astype(float).reshape(-1), guess.reshape(-1))
    _check_probabilities(guess, truth)
    values = _yes_no(truth, guess) if y.dtype == torch.bool else _classes(truth, guess)
    sure, right = _confidence(truth, guess)
    return Evaluation(
        table=_table(values),
        kind="yes/no" if y.dtype == torch.bool else "classes",
        calibration=_calibration(sure, right),
        n_rows=len(truth),
    )


def _yes_no(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    yes = guess[:, 1]
    one_class = truth.all() or not truth.any()
    return {
        "log_loss": metrics.log_loss(truth, yes, labels=[False, True]),
        "accuracy": float(((yes > 0.5) == truth).mean()),
        "roc_auc": float("nan") if one_class else metrics.roc_auc_score(truth, yes),
        "pr_auc": float("nan") if one_class else metrics.average_precision_score(truth, yes),
        "brier": float(((yes - truth) ** 2).mean()),
    }


def _classes(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Score several classes; the AUCs are means over one class against the rest."""
    labels = np.arange(guess.shape[1])
    one_hot = truth[:, None] == labels
    # a class that no row of `truth` has, or every row, has no curve
    judged = one_hot.any(axis=0) & ~one_hot.all(axis=0)
    each, scores = one_hot[:, judged], guess[:, judged]
    return {
        # only here: elsewhere the rounding of the division would part what is equal
        "log_loss": metrics.log_loss(truth, guess / guess.sum(axis=1)[:, None], labels=labels),
        "accuracy": float((guess.argmax(axis=1) == truth).mean()),
        "roc_auc": _mean_over(metrics.roc_auc_score, each, scores),
        "pr_auc": _mean_over(metrics.average_precision_score, each, scores),
        "brier": float(((guess - one_hot) ** 2).sum(axis=1).mean()),
    }


def _mean_over(
    metric: Callable[[np.ndarray, np.ndarray], float], one_hot: np.ndarray, guess: np.ndarray
) -> float:
    values = [metric(t, g) for t, g in zip(one_hot.T, guess.T, strict=True)]
    return float(np.mean(values)) if values else float("nan")


def _quantity(truth: np.ndarray, guess: np.ndarray) -> Evaluation:
    error = guess - truth
    values = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(metrics.r2_score(truth, guess)) if len(truth) > 1 else float("nan"),
    }
    calibration = _calibration(guess, truth)
    return Evaluation(
        table=_table(values), kind="quantity", calibration=calibration, n_rows=len(truth)
    )


def _confidence(truth: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure of what: of yes for two classes, of the likeliest class for more."""
    if guess.shape[1] == 2:
        return guess[:, 1], truth.astype(float)
    return guess.max(axis=1), (guess.argmax(axis=1) == truth).astype(float)


def _calibration(predicted: np.ndarray, observed: np.ndarray) -> pd.DataFrame:
    """Average prediction and outcome over tenths of the rows, from the lowest prediction up."""
    # by rank: edges between values would empty a bin wherever many predictions are equal
    rank = pd.Series(predicted).rank(method="first")
    bins = pd.qcut(rank, min(N_BINS, len(predicted)), labels=False)
    frame = pd.DataFrame({"predicted": predicted, "observed": observed, "bin": bins})
    return frame.groupby("bin").agg(
        rows=("predicted", "size"), predicted=("predicted", "mean"), observed=("observed", "mean")
    )


def _table(values: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"metric": list(values), "value": [float(v) for v in values.values()]})


def _check(guess: np.ndarray, truth: np.ndarray) -> None:
    if len(guess) != len(truth) or len(truth) == 0:
        raise _bad(
            "as many predictions as targets, at least one",
            checks.Described(f"{len(guess)} and {len(truth)}"),
            "Pass predictions of the same rows.",
        )
    if np.issubdtype(truth.dtype, np.floating) and guess.size != truth.size:
        raise _bad("one prediction a row", guess, "Take the column that is meant.")
    for what, values, remedy in [
        ("predictions", guess, "Train again with a smaller lr."),
        ("targets", truth, "Leave out the rows without a target."),
    ]:
        if not np.isfinite(values).all():
            n_bad = int((~np.isfinite(values)).sum())
            raise _bad(f"finite {what}", checks.Described(f"{n_bad} NaN or infinite"), remedy)


def _check_probabilities(guess: np.ndarray, truth: np.ndarray) -> None:
    n_classes = 2 if truth.dtype == bool else int(truth.max()) + 1
    fits = guess.ndim == 2 and guess.shape[1] >= max(2, n_classes) and truth.min() >= 0
    if not fits or (truth.dtype == bool and guess.shape[1] > 2):
        raise _bad(
            f"a column of probabilities for each of {max(2, n_classes)} classes",
            guess,
            "Of P(yes) alone, make two: torch.stack([1 - p, p], dim=1).",
        )
    if guess.min() < 0 or np.abs(guess.sum(axis=1) - 1).max() > 1e-3:
        raise _bad(
            "probabilities from 0 to 1 that sum to 1",
            checks.Described(f"values from {guess.min():.3g} to {guess.max():.3g}"),
            "Of logits, make probabilities first: train.probabilities(logits).",
        )


def _bad(expected: str, got: object, remedy: str) -> ValueError:
    return checks.bad_value("train.score", expected=expected, got=got, remedy=remedy)
