"""Hand an attribution to shap and lime as the objects that their plots take."""

from typing import TYPE_CHECKING, Any

import numpy as np
from lime.explanation import DomainMapper
from lime.explanation import Explanation as LimeExplanation

if TYPE_CHECKING:
    from shap import Explanation as ShapExplanation

    from kit.explain.attribution import Attribution


class _Names(DomainMapper):
    """Give lime the words for its feature numbers, and its table of the row."""

    def __init__(self, names: list[str], data: list[str]) -> None:
        super().__init__()
        self.names, self.data = names, data

    def map_exp_ids(self, exp: list[tuple[int, float]], **_: Any) -> list[tuple[str, float]]:
        return [(self.names[j], weight) for j, weight in exp]

    def visualize_instance_html(
        self, exp: list[tuple[int, float]], label: int, div: str, name: str, **_: Any
    ) -> str:
        import json

        rows = [[self.names[j], self.data[j], weight] for j, weight in exp]
        return f"{name}.show_raw_tabular({json.dumps(rows)}, {label}, {div});\n"


def to_shap(attribution: "Attribution") -> "ShapExplanation":
    """Return a `shap.Explanation`: float64 arrays, one base value a row, names as lists."""
    from shap import Explanation

    a = attribution
    if a.lengths is None:
        # shap's arithmetic does not take a missing error_std for "unknown": leave it out then
        errors = {} if a.error_std is None else {"error_std": a.error_std}
        return Explanation(
            a.values,
            base_values=a.base_values,
            data=a.data,
            feature_names=list(a.names),
            output_names=a.outputs,
            **errors,
        )
    return Explanation(
        _ragged([row[:n] for row, n in zip(a.values, a.lengths, strict=True)]),
        base_values=a.base_values,
        data=_ragged([row[:n].astype(object) for row, n in zip(a.data, a.lengths, strict=True)]),
        output_names=a.outputs,
    )


def to_lime(attribution: "Attribution", i: int, *, num_features: int) -> LimeExplanation:
    """Return row `i` as lime would: strongest features first, with intercept and local fit."""
    a = attribution
    mode = "regression" if a.outputs is None else "classification"
    names = list(a.names) if a.lengths is None else [str(word) for word in a.data[i]]
    mapper = _Names(names, [_shown(cell) for cell in a.data[i]])
    found = LimeExplanation(mapper, mode=mode, class_names=a.outputs, random_state=0)
    values = a.values[i].reshape(len(names), -1)  # (F, K)
    bases, predictions = a.base_values[i].reshape(-1), a.predictions[i].reshape(-1)
    n_real = len(names) if a.lengths is None else a.lengths[i]
    for k, column in enumerate(values[:n_real].T):
        order = np.argsort(-np.abs(column), kind="stable")[:num_features]
        found.local_exp[k] = [(int(j), float(column[j])) for j in order]
        found.intercept[k] = float(bases[k])
    found.local_pred = bases + values.sum(0)
    found.score = a.extra["r2"][i].tolist() if "r2" in a.extra else None  # one an output
    if mode == "classification":
        found.predict_proba, found.top_labels = predictions, None
        return found
    # lime keeps a quantity's explanation under its dummy label 1, and its negative under 0
    found.local_exp[1] = found.local_exp[0]
    found.local_exp[0] = [(j, -weight) for j, weight in found.local_exp[1]]
    found.intercept = {0: found.intercept[0], 1: found.intercept[0]}
    found.predicted_value = float(predictions[0])
    found.min_value, found.max_value = float(a.predictions.min()), float(a.predictions.max())
    return found


def _ragged(rows: list[np.ndarray]) -> np.ndarray:
    whole = np.empty(len(rows), dtype=object)
    whole[:] = rows
    return whole


def _shown(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell)
