"""Measure the CPU time and the best validation loss of `tune.search` against searches of others."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import common
import optuna
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import models, train, tune

PEERS = {"Ray Tune": "ray.tune"}
OURS = "population"
TRIALS, EPOCHS, ROWS = 64, 12, 24_000
SIZES = ((32, 16), (64, 32), (256, 64), (256, 128))  # batch, width of both hidden layers
SMALL = (64, 32)  # batches and widths up to these are small nets
SPACE = {"lr": (1e-4, 1.0, "log"), "weight_decay": (1e-6, 1e-2, "log"), "momentum": (0.0, 0.98)}
FASTER, LOOP, WORSE_PCT, LARGE = 5.0, 15.0, 1.0, 1.1  # what issue 5 asks for

TEXT = f"""\
{TRIALS} configurations of an MLP with two hidden layers on the bundled flights ({ROWS:,} rows, a
quarter of them for validation), {EPOCHS} epochs of momentum SGD; lr, weight decay and momentum are
searched. Everyone has the same rows, first weights, batches, space and number of configurations.
One thread, process CPU time, a round of warm-up, one seed a round; medians over rounds. Peers are
written as their manuals write them: a loop over batches, torch.optim.SGD, `trial.report` and
`should_prune`. The simple models that `tune.search` trains beside are not timed."""
COMPARED = """\
`ratio_cpu`: how many times as long as `population` it takes (low and high: of a single round).
`best_loss`: of the validation rows, median over seeds."""
WITH_RAY = """\
Ray Tune starts a process a trial, as many at a time as there are cores, and their CPU time is not
counted: go by the wall clock, `ratio_wall`. One run each, after one of warm-up."""
BARS = f"""\
Small nets (batch <= {SMALL[0]}, width <= {SMALL[1]}): {FASTER:g} times less CPU time than TPE with
Hyperband at a loss at most {WORSE_PCT:g} % worse, {LOOP:g} times less than one after another. Large
nets: `auto` takes at most {LARGE:g} times what one after another takes."""


Run = Callable[["Task", int], float]  # with a seed, to the best loss


@dataclass(frozen=True)
class Task:
    """What every search gets."""

    data: tuple[Tensor, Tensor, Tensor, Tensor]
    model_fn: Callable[[], nn.Module]
    batch: int
    epochs: int
    trials: int


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=3)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    skipped = common.missing(PEERS)
    compared = {
        size: _compared(_task(*size, quick=given.quick), RUNS, given.rounds)
        for size in (SIZES[:1] if given.quick else SIZES)
    }
    beside = [] if skipped else [_beside_ray(quick=given.quick)]
    common.write(
        "tune",
        title="Tuning: CPU time of a search, and what it finds",
        text=TEXT,
        sections=[
            *(
                common.Section(f"Batch {batch}, width {width}", COMPARED, table)
                for (batch, width), table in compared.items()
            ),
            *beside,
            common.Section("Bars", BARS, bars(compared)),
        ],
        facts=common.machine(["optuna", *(["ray"] if not skipped else [])]),
        skipped=skipped,
        given=given,
    )


def _compared(task: Task, runs: Mapping[str, Run], rounds: int) -> pd.DataFrame:
    variants = {name: partial(_prepare, run, task) for name, run in runs.items()}
    timed = common.race(variants, rounds=rounds, judge=float)
    table = common.compare(timed, ours=OURS, work=task.trials, unit="trials")
    return table.rename(columns={"score": "best_loss", "score_sd": "best_loss_sd"})


def _beside_ray(*, quick: bool) -> common.Section:
    batch, width = SMALL
    runs = {OURS: RUNS[OURS], "Ray Tune": with_ray}
    table = _compared(_task(batch, width, quick=quick), runs, rounds=1)
    names = ["variant", "trials_per_wall_s", "ratio_wall", "best_loss"]
    return common.Section(f"Ray Tune, batch {batch}, width {width}", WITH_RAY, table[names])


def _task(batch: int, width: int, *, quick: bool) -> Task:
    encoder, X, y = common.flights(ROWS)
    n = ROWS * 3 // 4

    def model_fn() -> nn.Module:
        return models.MLP(
            encoder.n_numeric,
            encoder.n_outputs,
            hidden=(width, width),
            cardinalities=encoder.cardinalities,
        )

    task = Task((X[:n], y[:n], X[n:], y[n:]), model_fn, batch, EPOCHS, TRIALS)
    if not quick:
        return task
    few = tuple(each[:300] for each in task.data)
    return replace(task, data=few, epochs=3, trials=4)


def _prepare(run: Run, task: Task, seed: int) -> Callable[[], float]:
    return partial(run, task, seed)


def ours(task: Task, seed: int, *, method: str) -> float:
    """Search with the kit."""
    return tune.search(
        task.model_fn,
        task.data,
        SPACE,
        trials=task.trials,
        method=method,
        epochs=task.epochs,
        batch=task.batch,
        seed=seed,
        baselines=pd.DataFrame({"model": ["not timed"], "validation_loss": [float("nan")]}),
    ).best_loss


def with_optuna(task: Task, seed: int) -> float:
    """Search as Optuna's manual does: TPE proposes, Hyperband stops."""
    study = optuna.create_study(
        study_name="tune",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(max_resource=task.epochs),
    )

    losses = []  # of pruned trials too, which `study.best_value` leaves out

    def objective(trial: optuna.Trial) -> float:
        config = {
            name: trial.suggest_float(name, *dim[:2], log=len(dim) == 3)
            for name, dim in SPACE.items()
        }
        best = float("inf")
        for epoch, loss in enumerate(epochs_of(task, config, seed)):
            best = min(best, loss)
            losses.append(loss)
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    study.optimize(objective, n_trials=task.trials)
    return min(losses)


def with_ray(task: Task, seed: int) -> float:
    """Search as the manual of Ray Tune does: random proposals, ASHA stops."""
    from ray import tune as ray_tune
    from ray.tune.schedulers import ASHAScheduler

    def trainable(config: Mapping[str, float]) -> None:
        for loss in epochs_of(task, config, seed):
            ray_tune.report({"loss": loss})

    sample = {True: ray_tune.loguniform, False: ray_tune.uniform}
    space = {name: sample[len(dim) == 3](*dim[:2]) for name, dim in SPACE.items()}
    tuner = ray_tune.Tuner(
        trainable,
        param_space=space,
        tune_config=ray_tune.TuneConfig(
            metric="loss", mode="min", num_samples=task.trials, scheduler=ASHAScheduler()
        ),
    )
    return tuner.fit().get_best_result().metrics["loss"]


def epochs_of(task: Task, config: Mapping[str, Any], seed: int) -> Any:
    """Train as textbooks write it, and yield the validation loss of every epoch."""
    X, y, X_val, y_val = task.data
    y, y_val = y.float(), y_val.float()
    torch.manual_seed(seed)
    model = task.model_fn()
    opt = torch.optim.SGD(model.parameters(), **config, fused=True)
    for epoch in range(task.epochs):
        model.train()
        for xb, yb in train.batches(X, y, batch=task.batch, seed=seed, epoch=epoch):
            loss = F.binary_cross_entropy_with_logits(model(xb).squeeze(1), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            outputs = model(X_val).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(outputs, y_val)
        yield float(loss) if loss.isfinite() else float("inf")


RUNS: dict[str, Run] = {
    OURS: partial(ours, method="population"),
    "auto": partial(ours, method="auto"),
    "one after another, random": partial(ours, method="random"),
    "Optuna, TPE and Hyperband": with_optuna,
}


def bars(compared: Mapping[tuple[int, int], pd.DataFrame]) -> pd.DataFrame:
    """Return every bar beside what was measured."""
    rows = []
    for (batch, width), table in compared.items():
        ratio, loss = (table.set_index("variant")[name] for name in ("ratio_cpu", "best_loss"))
        optuna_s, loop_s = ratio["Optuna, TPE and Hyperband"], ratio["one after another, random"]
        if batch <= SMALL[0] and width <= SMALL[1]:
            worse = 100 * (loss[OURS] / loss["Optuna, TPE and Hyperband"] - 1)
            rows += [
                ("times less than TPE and Hyperband", batch, width, FASTER, optuna_s),
                ("times less than one after another", batch, width, LOOP, loop_s),
                ("loss worse than TPE's, %", batch, width, -WORSE_PCT, -worse),
            ]
        else:
            share = ratio["auto"] / loop_s
            rows.append(("auto, share of one after another", batch, width, -LARGE, -share))
    judged = pd.DataFrame(rows, columns=["what", "batch", "width", "bar", "measured"])
    judged["reached"] = (judged["measured"] >= judged["bar"]).map({True: "yes", False: "no"})
    return judged.assign(
        bar=judged["bar"].abs(),
        measured=judged["measured"].where(judged["bar"] > 0, -judged["measured"]),
    )


if __name__ == "__main__":
    main()
