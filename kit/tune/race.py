"""Train configurations side by side, epoch by epoch, and drop those that fall behind."""

import copy
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from kit import train
from kit.base import device
from kit.tune.job import Alone, Job, Outcome
from kit.tune.together import Together, shape_of

RUNGS = (2, 4, 8)  # epochs after which the worst are dropped; sooner costs about 1 % of loss
KEEP, KEEP_LEAST = 3, 4  # one of three goes on, and four at least
PROBES = 3  # steps that are timed, after one of warm-up

Engine = Alone | Together


def run(job: Job, config: dict[str, Any], *, epochs: int | None = None) -> Outcome:
    """Train one configuration to its end, whatever happens to it; any process may do this.

    Args:
        job: what all trials share.
        config: what this one does not.
        epochs: to train for; None takes the job's.
    """
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # one of many processes: their threads would wait for one another
    race = Race(job, [config], together=False)
    for _ in range(epochs or job.epochs):
        race.epoch()
    race.finish()
    return race.outcomes[0]


class Rungs:
    """Losses of all members of a search at the epochs where some are dropped."""

    def __init__(self, epochs: int) -> None:
        """Begin without any."""
        self._seen: dict[int, list[float]] = {rung: [] for rung in RUNGS if rung < epochs}

    def note(self, outcome: Outcome) -> None:
        """Add a member that was trained before."""
        for rung in self._seen:
            if outcome.state != "failed" and len(outcome.losses) >= rung:
                self._seen[rung].append(min(outcome.losses[:rung]))

    def losers(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return those who are not among the best of all that ever came to this epoch."""
        rung = len(outcomes[0].losses) if outcomes else 0
        if rung not in self._seen:
            return []
        for each in outcomes:
            self._seen[rung].append(each.best)
        everyone = sorted(self._seen[rung])
        line = everyone[: max(KEEP_LEAST, len(everyone) // KEEP)][-1]
        return [each for each in outcomes if each.best > line]


class Race:
    """Members at the same epoch, those of equal shapes trained together where that is faster."""

    def __init__(
        self, job: Job, configs: Sequence[dict[str, Any]], *, together: bool | None
    ) -> None:
        """Build all models; one that cannot be built has failed, and the rest go on.

        Args:
            job: what all members share.
            configs: what they do not.
            together: None times a few steps of both ways.
        """
        self.outcomes = [Outcome(dict(config)) for config in configs]
        self.notes: list[str] = []  # how groups are trained
        self._job, self._epoch = job, 0
        self._groups: list[tuple[Engine, list[Outcome]]] = []
        shapes: dict[object, list[tuple[Outcome, nn.Module]]] = defaultdict(list)
        for outcome in self.outcomes:
            try:
                model = job.build(outcome.config)
                key = shape_of(model, outcome.config) if together is not False else id(outcome)
            except Exception as error:  # whatever a model_fn of the user's may raise
                outcome.end("failed", reason(error))
            else:
                shapes[key].append((outcome, model))
        for members in shapes.values():
            self._groups += self._engines(members, together)

    @property
    def running(self) -> list[Outcome]:
        """The members that are still in it."""
        return [outcome for outcome in self.outcomes if outcome.state == "running"]

    def epoch(self) -> None:
        """Train everyone for one epoch; who cannot go on has failed."""
        for engine, members in self._groups:
            try:
                losses = engine.epoch(self._epoch)
            except Exception as error:  # whatever a model or a loss of the user's may raise
                for outcome in members:
                    outcome.end("failed", reason(error))
                continue
            for i, (outcome, loss) in enumerate(zip(members, losses, strict=True)):
                outcome.note(loss, weights=partial(engine.weights, i))
        self._epoch += 1
        self._close_up()

    def drop(self, losers: Sequence[Outcome], why: str) -> None:
        """Stop these members."""
        for outcome in losers:
            outcome.end("pruned", why)
        self._close_up()

    def finish(self) -> None:
        """Write down that those who are still in it have arrived."""
        for outcome in self.running:
            outcome.end("done")

    def _close_up(self) -> None:
        """Take those out of the groups who stopped."""
        groups: list[tuple[Engine, list[Outcome]]] = []
        for engine, members in self._groups:
            left = [i for i, outcome in enumerate(members) if outcome.state == "running"]
            if left and isinstance(engine, Together):
                engine.keep(left)
            if left:
                groups.append((engine, [members[i] for i in left]))
        self._groups = groups

    def _engines(
        self, members: list[tuple[Outcome, nn.Module]], together: bool | None
    ) -> list[tuple[Engine, list[Outcome]]]:
        job, outcomes = self._job, [outcome for outcome, _ in members]
        models, configs = [model for _, model in members], [each.config for each in outcomes]
        if together or (together is None and len(members) > 1):
            try:
                faster, note = _compare(job, configs, models)
            except Exception as error:  # vmap refuses some models, each in its own way
                faster, note = False, f"cannot be trained together ({reason(error)})"
            if together and not note.startswith("cannot"):
                faster = True
            self.notes.append(f"{len(members)} {'together' if faster else 'one by one'}: {note}")
            if faster:
                return [(Together(job, configs, models), outcomes)]
        alone: list[tuple[Engine, list[Outcome]]] = []
        for outcome, model in members:
            try:
                alone.append((Alone(job, outcome.config, model), [outcome]))
            except Exception as error:  # such as a model without weights
                outcome.end("failed", reason(error))
        return alone


def _compare(job: Job, configs: list[dict[str, Any]], models: list[nn.Module]) -> tuple[bool, str]:
    """Time a few steps of both ways, on copies: is together faster, and how much."""
    batch = next(train.batches(job.X, job.y, batch=job.batch, seed=job.seed))
    group, alone = Together(job, configs, models), Alone(job, configs[0], copy.deepcopy(models[0]))
    both_s = _fastest_s(job, lambda: group.step(*batch))
    one_s = _fastest_s(job, lambda: alone.step(*batch))
    ratio = len(models) * one_s / both_s
    return ratio > 1, f"a step is {ratio:.1f} times as fast together"


def _fastest_s(job: Job, step: Callable[[], object]) -> float:
    times_s = []
    for _ in range(1 + PROBES):
        device.wait_for(job.X.device)
        start = time.perf_counter()
        step()
        device.wait_for(job.X.device)
        times_s.append(time.perf_counter() - start)
    return min(times_s[1:])


def reason(error: BaseException) -> str:
    """Return type and first line of an error."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
