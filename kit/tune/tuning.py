"""What a search found: the best configuration, every trial, and the simple models beside it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd
from jaxtyping import Shaped
from torch import Tensor, nn

from kit import train
from kit.base import checks
from kit.base.results import Result, result, short
from kit.train.inputs import fingerprint
from kit.train.losses import loss_for
from kit.tune.job import Job, Outcome
from kit.tune.ledger import hushed
from kit.tune.space import Space

UNTUNED = "AdamW 1e-2, untuned"
LEAST = 4  # finished trials, from which the importance of a name can be told


@result
class Tested(Result):
    """Hold one honest look at test rows; `table` has a row a model, the tuned one first."""

    loss: float
    optimism: float  # test loss - validation loss of the tuned model; what choosing flattered

    def facts(self) -> dict[str, str]:
        """Return the test loss, the validation loss it was chosen by, and the difference."""
        return {
            "test_loss": short(self.loss),
            "validation_loss": short(self.loss - self.optimism),
            "optimism": f"{self.optimism:+.3g}",
            "best": str(self.table.loc[self.table["test_loss"].idxmin(), "model"]),
        }


@result
class Tuning(Result):
    """Hold a search; `table` has one row a trial: how it ended, its loss, its configuration."""

    best: dict[str, Any]
    best_loss: float  # on the validation rows, of the best epoch
    best_model: nn.Module
    baselines: pd.DataFrame  # model, validation_loss: what nobody tuned
    method: str
    how: str  # the members were trained
    stopped: str
    seconds: float  # of the trials, baselines apart
    space: Space
    job: Job
    cardinalities: Sequence[int]
    outcomes: Mapping[int, Outcome]  # trial -> its validation loss of every epoch, and more
    looks: dict[int, Tested]  # at test rows: one at most

    def facts(self) -> dict[str, str]:
        """Return the best loss, its configuration, the trials, and the untuned models' losses."""
        states = self.table["state"].value_counts()
        facts = {
            "best_loss": short(self.best_loss),
            "best": ", ".join(f"{name} {_said(value)}" for name, value in self.best.items()),
            "trials": ", ".join(f"{n} {state}" for state, n in states.items()),
        }
        rows = self.baselines.sort_values("validation_loss").head(2)
        for model, loss in zip(rows["model"], rows["validation_loss"], strict=True):
            facts[model] = short(loss)
        return facts

    @cached_property
    def importances(self) -> dict[str, float]:
        """Share of the differences between trials that each name explains, largest first.

        Trials are compared at an epoch that all of them came to, so that those who were dropped
        count too.
        """
        return _importances(self.outcomes.values(), self.space, self.job.seed)

    def test(self, X: Shaped[Tensor, "tests ..."], y: Shaped[Tensor, " tests"]) -> Tested:
        """Score the best model on rows that took no part, once, beside the simple models.

        The best of many trials is partly the luckiest on the validation rows. `optimism` is how
        much worse it does on these; models that were not chosen show what the rows alone do.

        Args:
            X: inputs that were neither trained on nor chosen by.
            y: their targets.

        Raises:
            ValueError: other rows than at the first look.
        """
        key = fingerprint([X, y])
        if self.looks and key not in self.looks:
            raise checks.bad_value(
                "Tuning.test",
                expected="one look at test rows",
                got=checks.Described("a second, at other rows"),
                remedy="Go by the first one: choosing between two would be tuning again.",
            )
        if key not in self.looks:
            self.looks[key] = self._look(X, y)
        return self.looks[key]

    def _look(self, X: Tensor, y: Tensor) -> Tested:
        job, nets = self.job, {"tuned": self.best_model, UNTUNED: untuned(self.job, self.space)}
        simple = self.baselines.set_index("model")["validation_loss"].drop(UNTUNED, errors="ignore")
        losses = {
            "validation_loss": _losses(job, nets, job.X_val, job.y_val) | simple.to_dict(),
            "test_loss": _losses(job, nets, X, y) | simple_losses(job, X, y, self.cardinalities),
        }
        table = pd.DataFrame(losses).rename_axis("model").reset_index()
        table["optimism"] = table["test_loss"] - table["validation_loss"]
        tuned = table.iloc[0]
        return Tested(table=table, loss=tuned["test_loss"], optimism=tuned["optimism"])


def _losses(
    job: Job, nets: Mapping[str, nn.Module | None], X: Tensor, y: Tensor
) -> dict[str, float]:
    return {name: loss_of(job, net, X, y) if net else math.nan for name, net in nets.items()}


def loss_of(job: Job, model: nn.Module, X: Tensor, y: Tensor) -> float:
    """Return the loss of a model for some rows, by the measure of the search."""
    loss = job.loss or loss_for(job.y)
    return float(loss(train.predict(model, X).to(y.device), y))


def simple_losses(job: Job, X: Tensor, y: Tensor, cardinalities: Sequence[int]) -> dict[str, float]:
    """Train the simple models on the training rows and return their losses for other rows.

    There are none where they cannot be held against ours: another loss, or inputs that are no
    table.
    """
    if job.loss is not None or job.X.ndim != 2 or job.y.ndim != 1 or len(job.y.unique()) < 2:
        return {}
    held = train.baselines(job.X, job.y, X, y, cardinalities=cardinalities, seed=job.seed)
    return {
        name: each["rmse"] ** 2 if each.kind == "quantity" else each["log_loss"]
        for name, each in held.evaluations.items()
    }


def baselines(job: Job, space: Space, cardinalities: Sequence[int]) -> pd.DataFrame:
    """Return the validation losses of what nobody tuned."""
    model = untuned(job, space)
    losses = {UNTUNED: loss_of(job, model, job.X_val, job.y_val) if model else math.nan}
    losses |= simple_losses(job, job.X_val, job.y_val, cardinalities)
    return pd.DataFrame({"model": list(losses), "validation_loss": list(losses.values())})


def untuned(job: Job, space: Space) -> nn.Module | None:
    """Train the model as it comes: the first of every list, the middle of every range.

    None where it comes to nothing: the search has told why, trial by trial.
    """
    try:
        return _fitted(job, space).model
    except Exception:  # whatever a model_fn of the user's may raise
        return None


def _fitted(job: Job, space: Space) -> train.Fit:
    return train.fit(
        job.build(space.untuned()),
        job.X,
        job.y,
        validation=(job.X_val, job.y_val),
        epochs=job.epochs,
        lr=1e-2,
        batch=job.batch,
        seed=job.seed,
        loss=job.loss,
    )


def table_of(outcomes: Mapping[int, Outcome]) -> pd.DataFrame:
    """Return one row a trial."""
    return pd.DataFrame(
        {
            "trial": number,
            "state": each.state,
            "loss": each.best if math.isfinite(each.best) else math.nan,
            "epochs": len(each.losses),
            **each.config,
            "why": each.why,
        }
        for number, each in sorted(outcomes.items())
    )


def _importances(outcomes: Iterable[Outcome], space: Space, seed: int) -> dict[str, float]:
    import optuna

    judged = [each for each in outcomes if each.state != "failed"]
    epochs = min((len(each.losses) for each in judged), default=0)
    values = [min(each.losses[:epochs], default=math.nan) for each in judged]
    if len(judged) < LEAST or max(values) == min(values):
        return {}
    with hushed():
        study = optuna.create_study()
        for each, value in zip(judged, values, strict=True):
            study.add_trial(
                optuna.trial.create_trial(
                    params=space.params(each.config),
                    distributions=space.distributions(),
                    value=value,
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def _said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
