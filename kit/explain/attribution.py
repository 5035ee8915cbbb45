"""The record that every explanation comes back as: how much each feature moved each prediction."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from kit.base import checks
from kit.base.results import Result, result, short
from kit.explain import tables

if TYPE_CHECKING:
    from lime.explanation import Explanation as LimeExplanation
    from matplotlib.axes import Axes
    from shap import Explanation as ShapExplanation

    from kit.explain.highlight import Html

PER_OUTPUT = ("r2", "stability")  # figures of `extra` that have an axis for the outputs


@result
class Attribution(Result):
    """Hold the contribution of every feature to every prediction; `table` has a row a feature.

    `values` is (rows, features), or (rows, features, outputs) where several outputs were explained.
    Build one with `record`, which checks that everything fits together.
    """

    values: Float64[np.ndarray, "rows features ..."]
    base_values: Float64[np.ndarray, "rows ..."]  # the prediction when nothing is known
    predictions: Float64[np.ndarray, "rows ..."]
    data: Shaped[np.ndarray, "rows features"]  # what is shown of each feature; tokens for text
    rows: pd.DataFrame | None  # columns as the model takes them, with their names; None for text
    names: list[str]  # one a feature
    outputs: list[str] | None  # one an output; None where `values` has no axis for them
    error_std: Float64[np.ndarray, "rows features ..."] | None  # of each value, same unit
    method: str  # such as "Shapley, exact" or "LIME, 4096 samples"
    lengths: list[int] | None  # text: features that a row really has, the rest is padding
    texts: list[str] | None
    spans: list[list[tuple[int, int]]] | None  # of each text's units, in characters
    extra: dict[str, Any]  # figures of the method's own, such as the R² of each row's fit
    # what `explain.check` needs: `rerun(model, X=…)` explains another model, or other rows, with
    # the same settings; `ask(rows)` returns the scores that were explained
    rerun: "Callable[..., Attribution] | None"
    ask: Callable[[np.ndarray], np.ndarray] | None
    model: Any
    background: np.ndarray | None  # rows that stand for "unknown", where the method has any

    def facts(self) -> dict[str, str]:
        """Return the leading feature, the method, the rows, and how sure the values are."""
        lead = self.table.iloc[0]
        facts = {
            "strongest": f"{lead['feature']} ({short(lead['mean_abs_value'])})",
            "method": self.method,
            "rows": short(len(self.values)),
        }
        if self.error_std is not None:
            size = max(float(np.abs(self.values).mean()), np.finfo(float).tiny)
            facts["error"] = f"{100 * float(self.error_std.mean()) / size:.2g} % of the mean value"
        if "r2" in self.extra:
            facts["R² of the fit"] = short(float(np.median(self.extra["r2"])))
        if "stability" in self.extra:
            alike = short(float(np.mean(self.extra["stability"])))
            facts["R² of the fit"] += f"; seeds agree to {alike}"
        return facts

    def top(self, i: int, n: int = 10, *, output: int | str | None = None) -> pd.DataFrame:
        """Return the `n` features that moved the prediction of row `i` most.

        Args:
            i: number of the row.
            n: features at the most.
            output: number or name; needed where several outputs were explained.

        Returns:
            Feature, its value in the row, its contribution and, where it is known, its error.

        Raises:
            ValueError: no such row or output, or no output chosen where there are several.
        """
        k = self._output("explain.Attribution.top", output)
        return tables.strongest(self, self._row("explain.Attribution.top", i), n=n, output=k)

    def to_shap(self) -> "ShapExplanation":
        """Return a `shap.Explanation`, which every plot of shap takes."""
        from kit.explain import exchange

        return exchange.to_shap(self)

    def to_lime(self, i: int, *, num_features: int = 10) -> "LimeExplanation":
        """Return row `i` as a `lime.explanation.Explanation`.

        Args:
            i: number of the row.
            num_features: features kept, the strongest ones.
        """
        from kit.explain import exchange

        row = self._row("explain.Attribution.to_lime", i)
        return exchange.to_lime(self, row, num_features=num_features)

    def bar(
        self, *, n: int = 10, output: int | str | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Draw the mean size of the `n` strongest features over all rows."""
        from kit.explain import pictures

        chosen = None if output is None else self._output("explain.Attribution.bar", output)
        return pictures.bar(self, n=n, output=chosen, ax=ax)

    def waterfall(
        self, i: int, *, n: int = 10, output: int | str | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Draw the way from the base value to the prediction of row `i`, feature by feature."""
        from kit.explain import pictures

        k = self._output("explain.Attribution.waterfall", output)
        row = self._row("explain.Attribution.waterfall", i)
        return pictures.waterfall(self, row, n=n, output=k, ax=ax)

    def beeswarm(
        self, *, n: int = 10, output: int | str | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Draw every row's contribution of the `n` strongest features, coloured by its value."""
        from kit.explain import pictures

        k = self._output("explain.Attribution.beeswarm", output)
        return pictures.beeswarm(self, n=n, output=k, ax=ax)

    def highlight(self, i: int, *, output: int | str | None = None) -> "Html":
        """Show text `i` with its units coloured by what they did; static, for any notebook.

        Args:
            i: number of the text.
            output: number or name; None takes the output that the model favours for this text.
        """
        from kit.explain import highlight

        where = "explain.Attribution.highlight"
        row = self._row(where, i)
        if output is None and self.outputs is not None:
            output = int(self.predictions[row].argmax())
        return highlight.of(self, row, self._output(where, output))

    def _repr_html_(self) -> str:
        shown = [self.highlight(i)._repr_html_() for i in range(min(len(self.texts or []), 4))]
        return super()._repr_html_() + "".join(shown)

    def one(self, output: int | str | None = None) -> "Attribution":
        """Return the attribution of one output alone, without the axis of outputs.

        Args:
            output: number or name; needed where several outputs were explained.

        Raises:
            ValueError: no such output, or none chosen where there are several.
        """
        if self.outputs is None:
            return self
        k = self._output("explain.Attribution.one", output)
        rerun, ask = self.rerun, self.ask
        per_output = {name: self.extra[name][:, k] for name in PER_OUTPUT if name in self.extra}
        changes: dict[str, Any] = {
            "values": self.values[:, :, k],
            "base_values": self.base_values[:, k],
            "predictions": self.predictions[:, k],
            "outputs": None,
            "error_std": None if self.error_std is None else self.error_std[:, :, k],
            "extra": self.extra | per_output,
            "rerun": None if rerun is None else lambda model, **new: rerun(model, **new).one(k),
            "ask": None if ask is None else lambda rows: ask(rows)[:, k],
        }
        same = {name: value for name, value in vars(self).items() if name != "table"}
        return record(**same | changes)

    def _row(self, where: str, i: int) -> int:
        if not -len(self.values) <= i < len(self.values):
            raise checks.bad_value(
                where,
                expected=f"a row from 0 to {len(self.values) - 1}",
                got=i,
                remedy="Pass i=0 for the first.",
            )
        return i % len(self.values)

    def _output(self, where: str, output: int | str | None) -> int:
        if self.outputs is None:
            return 0
        if output is None and len(self.outputs) > 1:
            raise checks.bad_value(
                where,
                expected="one of several outputs",
                got=output,
                remedy=f"Pass output={self.outputs[0]!r}. Known: {', '.join(self.outputs[:20])}.",
            )
        if isinstance(output, str):
            if output not in self.outputs:
                raise checks.unknown_name(where, "output", got=output, known=self.outputs)
            return self.outputs.index(output)
        if not 0 <= (output or 0) < len(self.outputs):
            raise checks.bad_value(
                where,
                expected=f"an output from 0 to {len(self.outputs) - 1}",
                got=output,
                remedy="Pass output=0 for the first.",
            )
        return output or 0


def record(
    *,
    values: np.ndarray,
    base_values: np.ndarray,
    predictions: np.ndarray,
    data: np.ndarray,
    names: Sequence[str],
    method: str,
    rows: pd.DataFrame | None = None,
    outputs: Sequence[str] | None = None,
    error_std: np.ndarray | None = None,
    lengths: Sequence[int] | None = None,
    texts: list[str] | None = None,
    spans: list[list[tuple[int, int]]] | None = None,
    extra: dict[str, Any] | None = None,
    rerun: Callable[..., Attribution] | None = None,
    ask: Callable[[np.ndarray], np.ndarray] | None = None,
    model: Any = None,
    background: np.ndarray | None = None,
) -> Attribution:
    """Build an `Attribution`: numbers become float64, and the table a row a feature.

    Args:
        values: contributions, (rows, features) or (rows, features, outputs).
        base_values: prediction with nothing known, (rows,) or (rows, outputs).
        predictions: what the model says of each row, shaped as `base_values`.
        data: value of each feature in each row, or the tokens of texts, padded with "".
        names: one a feature.
        method: what computed it, with its effort: "Shapley, 480 pairs".
        rows: what the model was given, a column each; its columns need not be the features.
        outputs: one a last axis of `values`; None where there is no such axis.
        error_std: standard error of each value, in the unit of the values.
        lengths: for texts, how many features of each row are not padding.
        texts: the texts.
        spans: for texts, where the units of each begin and end, in characters.
        extra: figures of the method's own; "r2" (rows,) is shown among the facts.
        rerun: explains another model with the same settings; keywords change them.
        ask: returns the scores of rows, on the scale and for the outputs explained.
        model: what was explained.
        background: rows that stand for "unknown".

    Returns:
        The record.

    Example:
        >>> one = np.ones((1, 1))
        >>> record(values=one, base_values=one[0], predictions=2 * one[0], data=one, names=["age"],
        ...        method="by hand")
        Attribution(strongest age (1), method by hand, rows 1; table of 1 rows)
    """
    values = np.asarray(values, np.float64)
    names = [str(name) for name in names]
    assert values.shape[1] == len(names), "one name a feature"
    assert (values.ndim == 3) == (outputs is not None), "names of outputs belong to a third axis"
    error_std = None if error_std is None else np.asarray(error_std, np.float64)
    data = np.asarray(data)
    return Attribution(
        table=tables.overall(values, error_std, names=names, data=data, lengths=lengths),
        values=values,
        base_values=np.asarray(base_values, np.float64),
        predictions=np.asarray(predictions, np.float64),
        data=data,
        rows=rows,
        names=names,
        outputs=None if outputs is None else [str(name) for name in outputs],
        error_std=error_std,
        method=method,
        lengths=None if lengths is None else [int(length) for length in lengths],
        texts=texts,
        spans=spans,
        extra=extra or {},
        rerun=rerun,
        ask=ask,
        model=model,
        background=background,
    )
