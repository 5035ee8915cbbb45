"""Hold the kit's explainers against shap's and lime's own, on the user's model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kit.base import checks
from kit.base.results import Result, result, short
from kit.explain import coalitions, inputs, scorer
from kit.explain.lime import SAMPLES, lime
from kit.explain.shapley import shap

WHERE = "explain.compare"
REFERENCES = 4  # independent runs whose mean is taken as true
MANY_PAIRS, MANY_SAMPLES = 2048, 65_536  # of each of them


@result
class Comparison(Result):
    """Hold how long each method took and how far off it was; `table` has a row a method."""

    n_rows: int

    def facts(self) -> dict[str, str]:
        """Return each method's error and time."""
        return {
            row.method: f"{100 * row.error:.2g} % in {short(row.ms_per_row)} ms a row"
            for row in self.table.itertuples()
        }


def compare(
    model: Any,
    X: Any,
    *,
    background: Any,
    methods: Sequence[str] = ("kit shap", "shap Permutation", "shap Kernel", "kit lime", "lime"),
    target: int = 0,
    n_rows: int = 10,
    seed: int = 0,
) -> Comparison:
    """Measure error and time of the kit's explainers and of shap's and lime's own.

    Each one runs as it comes, with its own defaults (shap Kernel without its selection of ten
    features, `l1_reg=0`). Shapley methods are held against many pairs, or all of them; LIME methods
    against many samples, with all features kept. Only errors of one kind can be compared.

    Args:
        model: as for `shap`.
        X: rows to explain, of which the first are taken.
        background: rows that stand for "unknown", and for lime the training data.
        methods: any of "kit shap", "shap Permutation", "shap Kernel", "kit lime" and "lime".
        target: the class to explain.
        n_rows: rows to explain.
        seed: of every method.

    Returns:
        A row a method: milliseconds a row, and the error as a fraction of the values' size.

    Raises:
        ValueError: an unknown method, no rows, and what `shap` raises.
    """
    for name in methods:
        if name not in METHODS:
            raise checks.unknown_name(WHERE, "method", got=name, known=METHODS)
    if n_rows < 1:
        raise checks.bad_value(WHERE, expected="n_rows >= 1", got=n_rows, remedy="Pass n_rows=10.")
    table = inputs.rows(WHERE, X, what="X")
    rows = table.numbers[:n_rows]
    back = inputs.background(WHERE, background, names=table.names)
    with scorer.evaluating(WHERE, model):
        asked = scorer.make(WHERE, model, rows, output="raw", target=target, dtype="auto")
        task = _Task(model, asked, rows, back, target, seed)
        truths = {kind: _truth(task, kind) for kind in {_kind(name) for name in methods}}
        found = pd.DataFrame([_measured(task, name, truths[_kind(name)]) for name in methods])
    return Comparison(table=found, n_rows=len(rows))


@dataclass(frozen=True)
class _Task:
    """What every method is given."""

    model: Any
    asked: scorer.Scorer
    rows: np.ndarray  # (n, F)
    background: np.ndarray  # (B, F)
    target: int
    seed: int

    def call(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores (n,) of rows, as other libraries ask for them."""
        return self.asked.scores(np.asarray(rows, np.float64))[:, 0]


def _measured(task: _Task, name: str, truth: np.ndarray) -> dict[str, Any]:
    METHODS[name](replace(task, rows=task.rows[:1]))  # compilers have their turn before the clock
    start = time.perf_counter()
    values = METHODS[name](task)
    spent_ms = 1e3 * (time.perf_counter() - start) / len(task.rows)
    size = max(float(np.linalg.norm(truth)), np.finfo(float).tiny)
    error = float(np.linalg.norm(values - truth)) / size
    return {"method": name, "ms_per_row": spent_ms, "error": error}


def _kind(name: str) -> str:
    return "lime" if "lime" in name else "shap"


def _truth(task: _Task, kind: str) -> np.ndarray:
    """Return the mean of long runs, of seeds that are not the methods' own."""
    is_exact = kind == "shap" and coalitions.all_pairs(task.rows.shape[1]) <= MANY_PAIRS
    n = 1 if is_exact else REFERENCES
    tasks = [replace(task, seed=task.seed + 1 + i) for i in range(n)]
    if kind == "shap":
        return np.mean([_kit_shap(each, pairs=MANY_PAIRS) for each in tasks], axis=0)
    return np.mean([_kit_lime(each, samples=MANY_SAMPLES) for each in tasks], axis=0)


def _kit_shap(task: _Task, pairs: int | str = "auto") -> np.ndarray:
    return shap(
        task.model,
        task.rows,
        background=task.background,
        target=task.target,
        output="raw",
        pairs=pairs,
        seed=task.seed,
    ).values


def _kit_lime(task: _Task, samples: int = SAMPLES) -> np.ndarray:
    return lime(
        task.model,
        task.rows,
        train=task.background,
        num_features=task.rows.shape[1],
        target=task.target,
        output="raw",
        samples=samples,
        seed=task.seed,
    ).values


def _permutation(task: _Task) -> np.ndarray:
    from shap import explainers, maskers

    masker = maskers.Independent(task.background, len(task.background))
    explainer = explainers.Permutation(task.call, masker, seed=task.seed)
    most = max(500, 2 * task.rows.shape[1] + 1)  # shap's own default, which is 500, may be too few
    return explainer(task.rows, max_evals=most, silent=True).values


def _kernel(task: _Task) -> np.ndarray:
    from shap import KernelExplainer

    explainer = KernelExplainer(task.call, task.background, seed=task.seed)
    return explainer.shap_values(task.rows, l1_reg=0, silent=True)


def _stock_lime(task: _Task) -> np.ndarray:
    from lime.lime_tabular import LimeTabularExplainer

    explainer = LimeTabularExplainer(task.background, mode="regression", random_state=task.seed)
    kept = task.rows.shape[1]
    values = np.zeros_like(task.rows)
    for row, value in zip(task.rows, values, strict=True):
        found = explainer.explain_instance(row, task.call, num_features=kept)
        for j, weight in found.as_map()[1]:
            value[j] = weight
    return values


METHODS: dict[str, Callable[[_Task], np.ndarray]] = {
    "kit shap": _kit_shap,
    "shap Permutation": _permutation,
    "shap Kernel": _kernel,
    "kit lime": _kit_lime,
    "lime": _stock_lime,
}
