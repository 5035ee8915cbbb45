"""Search for the best configuration: at random, by Optuna, or many trained at once."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from kit.base import checks
from kit.train import inputs
from kit.train.losses import Loss
from kit.tune import space as spaces
from kit.tune import tuning
from kit.tune.hunt import Hunt
from kit.tune.job import Job
from kit.tune.ledger import Ledger, Sampler, hushed
from kit.tune.space import WHERE
from kit.tune.tuning import Tuning

if TYPE_CHECKING:
    import optuna

METHODS = ("auto", "gp", "population", "random", "tpe")
PRUNERS = ("asha", "hyperband", "none")
ETA = 3  # one of three goes on at every rung of Hyperband and ASHA


def search(
    model_fn: Callable[..., nn.Module],
    data: Sequence[Tensor],
    space: Mapping[str, Any],
    *,
    trials: int,
    method: str = "auto",
    epochs: int = 12,
    batch: int = 256,
    seed: int = 0,
    budget_s: float | None = None,
    loss: Loss | None = None,
    pruner: str = "hyperband",
    storage: "str | Path | optuna.storages.BaseStorage | None" = None,
    executor: Executor | None = None,
    cardinalities: Sequence[int] = (),
    baselines: pd.DataFrame | None = None,
) -> Tuning:
    """Train `trials` configurations by momentum SGD and return the one that validates best.

    All trials begin with the same weights and see the same batches. With `storage`, the same call
    after a crash goes on: no finished trial is lost or repeated, and several processes that make
    it at the same time share the trials (a population takes up to 64 of them at once).

    Args:
        model_fn: returns an untrained model; it is called with what `space` names beyond
            lr, weight_decay, momentum and label_smoothing, such as hidden or dropout.
        data: X_train, y_train, X_val, y_val on one device; the type of y chooses the loss.
        space: name -> (low, high), (low, high, "log") or a list of choices.
        trials: configurations to try, those that `storage` holds included.
        method: "random"; "tpe" or "gp", which Optuna proposes one by one; "population", which
            trains those of equal shapes together and drops two of three after 2, 4 and 8 epochs;
            or "auto", a population whose members are trained together only where a few timed
            steps say that this is faster.
        epochs: passes over the training rows.
        batch: rows a gradient step.
        seed: of the first weights, the batches and the proposals.
        budget_s: seconds after which no more is begun, and what runs is stopped (what an executor
            has begun goes on to its end).
        loss: mean loss from outputs and targets, instead of the one that y chooses.
        pruner: of "tpe" and "gp": "hyperband", "asha" or "none".
        storage: a journal file, or an Optuna storage; None keeps the trials in memory.
        executor: processes that train the trials of "random", "tpe" and "gp", each to its end.
        cardinalities: number of codes of each of the last columns, for the simple models.
        baselines: `.baselines` of another search on the same rows, not to train them again.

    Returns:
        The best configuration and model, every trial, and the simple models beside it.

    Raises:
        ValueError: a space, a setting or rows out of range; every trial failed; a budget that is
            used up before one trial is through; a storage that is locked, damaged, or another's.
    """
    given = inputs.check_data(WHERE, data)
    inputs.check_least(WHERE, trials=trials, epochs=epochs, batch=batch)
    _check(method, pruner, budget_s, executor, storage)
    parsed = spaces.parse(space, smooth=loss is None and not given[1].is_floating_point())
    job = Job(model_fn, *given, epochs=epochs, batch=batch, seed=seed, loss=loss)
    settings: dict[str, Any] = {"space": spaces.told(parsed.dims), "method": method}
    settings |= {"pruner": pruner, "model_fn": spaces.told(model_fn), "loss": spaces.told(loss)}
    settings |= {"epochs": epochs, "batch": batch, "seed": seed, "data": inputs.fingerprint(given)}
    with hushed():
        ledger = Ledger(
            parsed,
            trials=trials,
            sampler=_sampler(method, side_by_side=executor is not None),
            pruner=_pruner(method, pruner, epochs),
            seed=seed,
            storage=storage,
            settings=settings,
        )
        hunt = Hunt(job, ledger, budget_s)
        hunt.go(method, executor)
        best = hunt.best()
        outcomes = ledger.outcomes()
    if baselines is None:
        baselines = tuning.baselines(job, parsed, cardinalities)
    model = job.build(best.config)
    model.load_state_dict(best.weights)
    return Tuning(
        table=tuning.table_of(outcomes),
        best=best.config,
        best_loss=best.best,
        best_model=model.eval(),
        baselines=baselines,
        method=method,
        how="; ".join(hunt.notes) or "one by one",
        stopped=hunt.stopped,
        seconds=hunt.seconds,
        space=parsed,
        job=job,
        cardinalities=cardinalities,
        outcomes=outcomes,
        looks={},
    )


def _check(
    method: str, pruner: str, budget_s: float | None, executor: Executor | None, storage: object
) -> None:
    if method not in METHODS:
        raise checks.unknown_name(WHERE, "method", got=method, known=METHODS)
    if pruner not in PRUNERS:
        raise checks.unknown_name(WHERE, "pruner", got=pruner, known=PRUNERS)
    if budget_s is not None and not budget_s > 0:
        raise checks.bad_value(
            WHERE, expected="budget_s > 0", got=budget_s, remedy="Pass budget_s=60."
        )
    if executor is not None and method in ("auto", "population"):
        raise checks.bad_value(
            WHERE,
            expected="a method whose trials are independent beside executor=",
            got=method,
            remedy='Pass method="tpe": a population trains its members in one process.',
        )
    if isinstance(executor, ThreadPoolExecutor):
        raise checks.bad_value(
            WHERE,
            expected="an executor of processes",
            got=checks.Described("ThreadPoolExecutor"),
            remedy="Pass ProcessPoolExecutor(): threads would draw from one random stream.",
        )
    if isinstance(storage, str) and "://" in storage:
        raise checks.bad_value(
            WHERE,
            expected="a file for a journal, or a storage of Optuna's",
            got=storage,
            remedy=f"Pass storage=optuna.storages.RDBStorage({storage!r}).",
        )


def _sampler(method: str, *, side_by_side: bool) -> Sampler:
    from optuna import samplers

    if method == "random":
        return lambda seed: samplers.RandomSampler(seed=seed)
    if method == "gp":
        return lambda seed: samplers.GPSampler(seed=seed)
    # what others are busy with counts as bad for now, so that proposals keep their distance
    liar = side_by_side or method in ("auto", "population")
    return lambda seed: samplers.TPESampler(seed=seed, constant_liar=liar)


def _pruner(method: str, name: str, epochs: int) -> "optuna.pruners.BasePruner":
    from optuna import pruners

    if method not in ("tpe", "gp") or name == "none":
        return pruners.NopPruner()
    if name == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)
    return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=ETA)
