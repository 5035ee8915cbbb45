"""Choose the size of a model: what width and depth buy, what they cost, and where it bends."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kit import train
from kit.base import checks, device, progress, timing
from kit.base import seed as seeds
from kit.base.results import Result, result
from kit.train import inputs
from kit.train.losses import Loss, loss_for

WHERE = "tune.sizes"
REPEATS = 50  # of the call whose latency is measured


@result
class Sizes(Result):
    """Hold what sizes came to; `table` has one row a size, the smallest first."""

    choice: dict[str, int]  # the smallest within one standard error of the best
    best: dict[str, int]
    knee: dict[str, int]  # beyond it, more parameters buy little
    model: nn.Module  # of the choice, trained

    def facts(self) -> dict[str, str]:
        """Return the choice, the best and the knee, and what choosing saves."""
        rows = {row["role"]: row for row in self.table.to_dict(orient="records")}
        rows |= {role: row for joint, row in rows.items() for role in joint.split(", ")}
        few, many = rows["choice"]["parameters"], rows["best"]["parameters"]
        return {
            "choice": _named(self.choice),
            "best": _named(self.best),
            "knee": _named(self.knee),
            "saves": f"{100 * (1 - few / many):.0f} % of the parameters",
        }


def sizes(
    model_fn: Callable[..., nn.Module],
    data: Sequence[Tensor],
    *,
    widths: Sequence[int] = (8, 16, 32, 64),
    depths: Sequence[int] = (1, 2),
    epochs: int = 10,
    lr: float = 1e-2,
    batch: int = 256,
    seed: int = 0,
    loss: Loss | None = None,
) -> Sizes:
    """Train every width and depth and choose the smallest that is as good as the best.

    As good means a validation loss within one standard error of the best one's mean over rows:
    what remains could be the luck of these rows.

    Args:
        model_fn: `model_fn(width=…, depth=…)` returns an untrained model.
        data: X_train, y_train, X_val, y_val.
        widths: neurons of a hidden layer.
        depths: hidden layers.
        epochs: passes over the training rows; the best one counts.
        lr: of AdamW.
        batch: rows a gradient step.
        seed: of the first weights and the batches.
        loss: mean loss of outputs and targets; None goes by the type of y.

    Returns:
        Parameters, loss with its standard error, seconds of training and milliseconds of an
        answer for one row, for every size; the best, the knee and the choice marked.

    Raises:
        ValueError: no width or depth, or one below 1; rows that do not fit.
    """
    X, y, X_val, y_val = inputs.check_data(WHERE, data)
    for name, values in (("widths", widths), ("depths", depths)):
        if not values or min(values) < 1:
            raise checks.bad_value(
                WHERE, expected=f"{name} of 1 or more", got=values, remedy=f"Pass {name}=[1, 2]."
            )
    rows, models = [], []
    every = [(width, depth) for depth in sorted(depths) for width in sorted(widths)]
    for width, depth in progress.track(every, label="size"):
        with seeds.drawing(seed):
            model = model_fn(width=width, depth=depth).to(X.device)
        fitted = train.fit(
            *(model, X, y),
            validation=(X_val, y_val),
            epochs=epochs,
            lr=lr,
            batch=batch,
            seed=seed,
            loss=loss,
        )
        losses = _row_losses(model, X_val, y_val, loss or loss_for(y))
        rows.append(
            {
                "width": width,
                "depth": depth,
                "parameters": sum(weight.numel() for weight in model.parameters()),
                "loss": float(losses.mean()),
                "std_error": float(losses.std() / len(losses) ** 0.5),
                "train_s": fitted.seconds,
                "latency_ms": _latency_ms(model, X_val[:1]),
            }
        )
        models.append(model)
    return _record(pd.DataFrame(rows), models)


def _record(table: pd.DataFrame, models: list[nn.Module]) -> Sizes:
    table = table.sort_values(["parameters", "loss"])
    best = table["loss"].idxmin()
    line = table.loc[best, "loss"] + table.loc[best, "std_error"]
    roles = {
        "choice": (table["loss"] <= line).idxmax(),  # the first True: the fewest parameters
        "best": best,
        "knee": _knee(table),
    }
    table["role"] = [", ".join(role for role, at in roles.items() if at == i) for i in table.index]
    sizes = {role: _size(table.loc[at]) for role, at in roles.items()}
    return Sizes(table=table.reset_index(drop=True), model=models[roles["choice"]], **sizes)


def _knee(table: pd.DataFrame) -> Any:
    """Return where the front of best losses lies farthest below the line between its ends."""
    front = table[table["loss"] < table["loss"].cummin().shift(fill_value=np.inf)]
    if len(front) < 3:
        return front.index[-1]
    cost = np.log(front["parameters"].to_numpy(dtype=float))
    loss = front["loss"].to_numpy()
    across = (cost - cost[0]) / (cost[-1] - cost[0])
    down = (loss[0] - loss) / (loss[0] - loss[-1])
    return front.index[int(np.argmax(down - across))]


def _row_losses(model: nn.Module, X: Tensor, y: Tensor, loss: Loss) -> Tensor:
    outputs = train.predict(model, X).to(y.device)
    each = [loss(outputs[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    return torch.stack(each).double()


def _latency_ms(model: nn.Module, row: Tensor) -> float:
    with torch.no_grad():
        timed = timing.measure(lambda: model(row), device=device.of(model), repeats=REPEATS)
    return timed.median_ms


def _size(row: pd.Series) -> dict[str, int]:
    return {"width": int(row["width"]), "depth": int(row["depth"])}


def _named(size: dict[str, int]) -> str:
    return f"width {size['width']}, depth {size['depth']}"
