"""The hunt itself: ask for trials, train them, tell how they ended, until enough or out of time."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import partial
from typing import TYPE_CHECKING

from kit.base import checks, progress
from kit.base.machine import cores
from kit.tune.job import Job, Outcome
from kit.tune.ledger import Ledger
from kit.tune.race import Race, Rungs, reason, run
from kit.tune.space import WHERE

if TYPE_CHECKING:
    import optuna

# members of a generation: the first is drawn at random, the next proposed by what it showed; a CPU
# core is full with 64: two generations of 32 took 1.4 times as long for a loss up to 0.3 % lower
GENERATION = {"cpu": 64}
ON_GPU = 256
OUT_OF_TIME = "budget_s used up"
WAIT_S = 0.2  # between two looks at what others do

Losers = Callable[[Sequence[Outcome]], list[Outcome]]


class Hunt:
    """One process's part in a search."""

    def __init__(self, job: Job, ledger: Ledger, budget_s: float | None) -> None:
        """Start the clock."""
        self.notes: list[str] = []
        self.stopped = ""
        self.seconds = 0.0
        self._job, self._ledger, self._budget_s = job, ledger, budget_s
        self._start = time.perf_counter()
        self._has_begun = False
        self._best: Outcome | None = None  # of the trials that this process trained

    def go(self, method: str, executor: Executor | None) -> None:
        """Train until there are as many trials as were asked for; Ctrl-C ends it well."""
        try:
            self._through(method, executor)
            # others may have taken all there was: wait for them, or take over if they are no more
            while not self._ledger.outcomes() and self._ledger.running and not self._is_late():
                time.sleep(WAIT_S)
                self._ledger.recover()
                self._through(method, executor)
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            self._ledger.give_back()
        self.seconds = time.perf_counter() - self._start
        others = f", {self._ledger.running} still running elsewhere" if self._ledger.running else ""
        self.stopped = (self.stopped or f"after {len(self._ledger.outcomes())} trials") + others

    def _through(self, method: str, executor: Executor | None) -> None:
        if executor is not None:
            self._elsewhere(executor)
        elif method in ("auto", "population"):
            self._generations(together=True if method == "population" else None)
        else:
            self._one_by_one()

    def best(self) -> Outcome:
        """Return the best trial of all processes with its weights.

        Raises:
            ValueError: every trial failed.
        """
        outcomes = self._ledger.outcomes().values()
        best = min(outcomes, key=lambda each: each.best, default=None)
        if best is None or math.isinf(best.best):
            whys = [each.why for each in outcomes if each.why]
            told = f"{len(whys)} failed; the first: {whys[0]}" if whys else "none"
            raise checks.bad_value(
                WHERE,
                expected="one trial at least that ends well",
                got=checks.Described(told.removesuffix(".")),
                remedy="Mend model_fn, or narrow the space.",
            )
        if self._best is None or self._best.best > best.best:
            # another process trained it; the same seed gives the same weights again
            self._best = run(self._job, best.config, epochs=len(best.losses))
            self._best.state = best.state
        return self._best

    def _generations(self, *, together: bool | None) -> None:
        rungs = Rungs(self._job.epochs)
        for outcome in self._ledger.outcomes().values():
            rungs.note(outcome)
        size = GENERATION.get(self._job.X.device.type, ON_GPU)
        while asked := self._ask(size):
            race = Race(self._job, [self._ledger.config(each) for each in asked], together=together)
            self.notes += race.notes
            self._run(race, asked, rungs.losers)

    def _one_by_one(self) -> None:
        for _ in progress.track(range(self._ledger.trials), label="trial"):
            asked = self._ask(1)
            if not asked:
                return
            race = Race(self._job, [self._ledger.config(asked[0])], together=False)
            self._run(race, asked, partial(self._judged, asked[0]))

    def _judged(self, trial: "optuna.Trial", running: Sequence[Outcome]) -> list[Outcome]:
        """Ask the pruner about the one member that there is."""
        return [each for each in running if self._ledger.is_behind(trial, each.losses)]

    def _ask(self, most: int) -> "list[optuna.Trial]":
        asked: list[optuna.Trial] = []
        late = self._has_begun and self._is_late()
        while len(asked) < most and not late and (trial := self._ledger.ask()):
            asked.append(trial)
        return asked

    def _run(self, race: Race, asked: "Sequence[optuna.Trial]", losers: Losers) -> None:
        self._has_begun = True
        untold = list(zip(asked, race.outcomes, strict=True))
        for left in reversed(range(self._job.epochs)):
            try:
                race.epoch()
            except KeyboardInterrupt:
                race.drop([each for each in race.running if each.losses], "interrupted")
                self._tell(untold)
                raise
            self._ledger.beat()
            if left:
                race.drop(losers(race.running), "behind the others")
            if left and self._is_late():
                self._check_enough(race)
                race.drop(race.running, OUT_OF_TIME)
            untold = self._tell(untold)
            if not untold:
                break
        race.finish()
        self._tell(untold)

    def _tell(
        self, untold: "list[tuple[optuna.Trial, Outcome]]"
    ) -> "list[tuple[optuna.Trial, Outcome]]":
        """Write down those that have ended, and return the others."""
        for trial, outcome in untold:
            if outcome.state != "running":
                self._write(trial, outcome)
        return [(trial, outcome) for trial, outcome in untold if outcome.state == "running"]

    def _write(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        if not self._ledger.tell(trial, outcome):
            return
        if outcome.best < (self._best.best if self._best else math.inf):
            self._best = outcome
        elif outcome is not self._best:
            outcome.weights = {}  # of no use any more

    def _elsewhere(self, executor: Executor) -> None:
        """Keep the executor's workers busy with one trial each."""
        workers = getattr(executor, "_max_workers", None) or cores()
        pending: dict[Future[Outcome], optuna.Trial] = {}
        self.notes.append(f"each to its end by {type(executor).__name__}")
        while True:
            for trial in self._ask(workers - len(pending)):
                self._has_begun = True
                future = executor.submit(run, self._job, self._ledger.config(trial))
                pending[future] = trial
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                trial = pending.pop(future)
                self._write(trial, _result(future, self._ledger.config(trial)))

    def _is_late(self) -> bool:
        if self._budget_s is None or time.perf_counter() - self._start < self._budget_s:
            return False
        self.stopped = OUT_OF_TIME
        return True

    def _check_enough(self, race: Race) -> None:
        """Refuse a budget that not even one trial gets through."""
        if self._ledger.outcomes():
            return
        spent = time.perf_counter() - self._start
        needed = spent * self._job.epochs / max(len(each.losses) for each in race.outcomes)
        raise checks.bad_value(
            WHERE,
            expected=f"a budget for one trial at least, about {needed:.2g} s",
            got=self._budget_s,
            remedy=f"Pass budget_s={math.ceil(10 * needed)}, or fewer epochs.",
        )


def _result(future: "Future[Outcome]", config: dict) -> Outcome:
    try:
        return future.result()
    except BrokenExecutor:
        raise  # the pool is gone: not this configuration's fault
    except Exception as error:  # such as a model_fn that cannot be sent
        return Outcome(config, state="failed", why=reason(error))
