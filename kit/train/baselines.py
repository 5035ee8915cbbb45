"""The simple models that every trained one is held against."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder
from torch import Tensor

from kit.base import checks
from kit.base.results import Result, result, short
from kit.train.scores import Evaluation, score

N_BINS = 10  # of a number, for naive Bayes


@result
class Baselines(Result):
    """Hold the scores of simple models beside ours; `table` has one row a model."""

    evaluations: Mapping[str, Evaluation]
    models: Mapping[str, Any]  # name -> fitted scikit-learn estimator

    def facts(self) -> dict[str, str]:
        """Return the best model by the first metric, and its score."""
        metric = self.table.columns[1]
        best = self.table.loc[self.table[metric].idxmin()]
        return {"best": str(best["model"]), metric: short(best[metric])}


def baselines(
    X: Float[Tensor, "rows columns"],
    y: Shaped[Tensor, " rows"],
    X_test: Float[Tensor, "tests columns"],
    y_test: Shaped[Tensor, " tests"],
    *,
    cardinalities: Sequence[int] = (),
    ours: Mapping[str, Float[Tensor, "tests ..."]] | None = None,
    seed: int = 0,
) -> Baselines:
    """Train the simple models on the same rows and score all on the same test rows.

    Majority (or mean), naive Bayes, logistic regression (or ridge) and gradient-boosted trees,
    with scikit-learn's defaults (but more steps for the logistic regression, and no early stopping
    of trees where a class has one row): a model that does not beat them is not worth its upkeep.

    Args:
        X: training inputs, the columns of codes last.
        y: training targets: bool, integers or floats.
        X_test: test inputs.
        y_test: test targets.
        cardinalities: number of codes of each of the last columns.
        ours: name -> our predictions of the test rows (probabilities or quantities).
        seed: of the trees.

    Raises:
        ValueError: training rows of one class only.
    """
    if not y.is_floating_point() and len(y.unique()) < 2:
        raise checks.bad_value(
            "train.baselines",
            expected="training rows of at least two classes",
            got=checks.Described(f"{len(y)} rows of one"),
            remedy="Bring rows of another class.",
        )
    fitted = {}
    evaluations = {name: score(y_test, guess) for name, guess in (ours or {}).items()}
    rows, targets = X.cpu().numpy(), y.cpu().numpy()
    tests = X_test.cpu().numpy()
    for name, estimator in _estimators(X.shape[1], y, cardinalities, seed).items():
        with warnings.catch_warnings():
            # columns with few values give naive Bayes fewer bins, as they should
            warnings.filterwarnings("ignore", "Bins whose width|Feature .* is constant")
            fitted[name] = estimator.fit(rows, targets)
        if y.is_floating_point():
            guess = estimator.predict(tests)
        else:
            guess = _spread(estimator, tests, 1 + int(max(y.max(), y_test.max(), torch.tensor(1))))
        evaluations[name] = score(y_test, torch.as_tensor(np.asarray(guess, dtype=np.float64)))
    table = pd.DataFrame(
        {"model": name, **each.table.set_index("metric")["value"]}
        for name, each in evaluations.items()
    )
    return Baselines(table=table, evaluations=evaluations, models=fitted)


def _estimators(
    n_columns: int, y: Tensor, cardinalities: Sequence[int], seed: int
) -> dict[str, Any]:
    numbers = list(range(n_columns - len(cardinalities)))
    codes = list(range(len(numbers), n_columns))
    one_hot = (OneHotEncoder(handle_unknown="ignore"), codes)
    linear_input = make_column_transformer(("passthrough", numbers), one_hot)
    trees = {
        "categorical_features": [j for j, n in zip(codes, cardinalities, strict=True) if n <= 255]
    }
    if y.is_floating_point():
        return {
            "mean": DummyRegressor(),
            "ridge": make_pipeline(linear_input, Ridge()),
            "boosted trees": HistGradientBoostingRegressor(random_state=seed, **trees),
        }
    counts = make_pipeline(
        make_column_transformer((_bins(seed), numbers), ("passthrough", codes)),
        FunctionTransformer(np.rint),
        CategoricalNB(min_categories=[N_BINS] * len(numbers) + list(cardinalities)),
    )
    return {
        "majority": DummyClassifier(),
        "naive Bayes": counts,
        "logistic regression": make_pipeline(linear_input, LogisticRegression(max_iter=1000)),
        "boosted trees": HistGradientBoostingClassifier(
            # from 10,000 rows on it would hold some out, and fail at a class of a single row
            early_stopping="auto" if y.unique(return_counts=True)[1].min() > 1 else False,
            random_state=seed,
            **trees,
        ),
    }


def _bins(seed: int) -> KBinsDiscretizer:
    return KBinsDiscretizer(
        N_BINS,
        encode="ordinal",
        strategy="quantile",
        quantile_method="averaged_inverted_cdf",
        random_state=seed,  # from 200,000 rows on it samples
    )


def _spread(estimator: Any, tests: np.ndarray, n_classes: int) -> np.ndarray:
    """Return probabilities with a column for every class, also for one that training lacked."""
    probs = np.zeros((len(tests), n_classes))
    probs[:, estimator.classes_.astype(int)] = estimator.predict_proba(tests)
    return probs
