"""The book of trials: what was proposed, who trains it, how it ended; it outlives its process."""

import json
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from kit.base import checks
from kit.base import seed as seeds
from kit.tune import journal
from kit.tune.job import Outcome
from kit.tune.space import WHERE, Space

if TYPE_CHECKING:
    import optuna

STUDY = "tune"  # the name also decides the bracket of Hyperband, so it is always the same
BEAT_S, SILENT_S = 30.0, 600.0  # between signs of life; without one, another machine is gone
GRACE_S = 1.0  # that a new trial may be without an owner

Sampler = Callable[[int], "optuna.samplers.BaseSampler"]


class Ledger:
    """Trials of one search, in memory or in a journal that several processes share."""

    def __init__(
        self,
        space: Space,
        *,
        trials: int,
        sampler: Sampler,
        pruner: "optuna.pruners.BasePruner",
        seed: int,
        storage: "str | Path | optuna.storages.BaseStorage | None",
        settings: Mapping[str, Any],
    ) -> None:
        """Open the book; what processes that died left unfinished is proposed again.

        Raises:
            ValueError: the storage is locked or damaged, or holds another search.
        """
        import optuna

        self._space, self.trials, self._distributions = space, trials, space.distributions()
        self._states = optuna.trial.TrialState
        self._lost = optuna.exceptions.UpdateFinishedTrialError  # another process abandoned it
        self._mine: dict[int, optuna.Trial] = {}
        self._next_beat = time.monotonic() + BEAT_S
        with journal.told(storage):
            if isinstance(storage, str | Path):
                storage = journal.opened(Path(storage))
            self._storage = storage or optuna.storages.InMemoryStorage()
            self.study = optuna.create_study(
                study_name=STUDY,
                storage=self._storage,
                sampler=_seeded(sampler, seed),
                pruner=pruner,
                load_if_exists=True,
            )
        self._check_same(dict(settings))
        self.recover()

    def ask(self) -> "optuna.Trial | None":
        """Return the next trial; None once there are as many as were asked for."""
        trial = None
        while trial is None:
            if len(self._counted()) >= self.trials:
                return None
            trial = self._begun()
        self._mine[trial.number] = trial
        earlier = [each for each in self._counted() if each.number < trial.number]
        if len(earlier) >= self.trials:  # another process asked at the same moment
            self._abandon(trial.number, again=False)
            return None
        return trial

    def config(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Return the configuration of a trial."""
        return self._space.config(trial.params)

    def is_behind(self, trial: "optuna.Trial", losses: Sequence[float]) -> bool:
        """Ask the pruner whether a trial, its losses so far given, should end here."""
        try:
            trial.report(losses[-1], len(losses))
        except self._lost:
            return True
        return trial.should_prune()

    def tell(self, trial: "optuna.Trial", outcome: Outcome) -> bool:
        """Write down how a trial ended; return False where another process took it over."""
        del self._mine[trial.number]
        try:
            self._write(trial, outcome)
        except self._lost:
            return False
        return True

    def _begun(self) -> "optuna.Trial | None":
        """Begin a trial and sign it; None where that took so long that another abandoned it."""
        try:
            trial = self.study.ask(self._distributions)
            trial.set_user_attr("owner", _owner())
        except self._lost:
            return None
        return trial

    def _write(self, trial: "optuna.Trial", outcome: Outcome) -> None:
        trial.set_user_attr("losses", outcome.losses)
        trial.set_user_attr("why", outcome.why)
        state = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[outcome.state]
        if state == "PRUNED":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The reported value is ignored")
                trial.report(outcome.best, len(outcome.losses))  # by which TPE ranks it
        value = outcome.best if state == "COMPLETE" else None
        self.study.tell(trial, value, state=self._states[state])

    def give_back(self) -> None:
        """Let what this process has begun and not ended be proposed again."""
        for number in list(self._mine):
            self._abandon(number, again=True)

    def outcomes(self) -> dict[int, Outcome]:
        """Return every finished trial by its number."""
        names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        return {
            trial.number: Outcome(
                config=self._space.config(trial.params),
                losses=trial.user_attrs.get("losses", []),
                state=names[trial.state.name],
                why=trial.user_attrs.get("why", ""),
            )
            for trial in self._counted()
            if trial.state.is_finished()
        }

    @property
    def running(self) -> int:
        """How many trials others are busy with."""
        return sum(not trial.state.is_finished() for trial in self._counted())

    def _counted(self) -> "list[optuna.trial.FrozenTrial]":
        """Return the trials that somebody began and did not abandon."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state != self._states.WAITING and "abandoned" not in trial.user_attrs
        ]

    def beat(self) -> None:
        """Let other machines know that this process is still at work."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_S
        for trial in list(self._mine.values()):
            with suppress(self._lost):
                trial.set_user_attr("owner", _owner())

    def recover(self) -> None:
        """Abandon the trials of processes that are no more."""
        if any("owner" not in trial.user_attrs for trial in self._unfinished()):
            time.sleep(GRACE_S)  # its process may be about to sign
        for trial in self._unfinished():
            if not _is_alive(trial.user_attrs.get("owner")):
                self._abandon(trial.number, again=True)

    def _unfinished(self) -> "list[optuna.trial.FrozenTrial]":
        return [trial for trial in self._counted() if trial.state == self._states.RUNNING]

    def _abandon(self, number: int, *, again: bool) -> None:
        import optuna

        study_id = self._storage.get_study_id_from_name(STUDY)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        params = self.study.get_trials(deepcopy=False)[number].params
        try:
            # marked first: once it is told, it must never count as finished
            self._storage.set_trial_user_attr(trial_id, "abandoned", True)
            self.study.tell(number, state=self._states.FAIL)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            return  # another process was faster
        self._mine.pop(number, None)
        if again:
            self.study.enqueue_trial(params)

    def _check_same(self, settings: dict[str, Any]) -> None:
        told = json.loads(json.dumps(settings, default=repr))
        saved = self.study.user_attrs.get("settings")
        if saved is None:
            self.study.set_user_attr("settings", told)
        elif saved != told:
            name = next(key for key in told if saved.get(key) != told[key])
            raise checks.bad_value(
                WHERE,
                expected=f"the search that the storage holds, {name}={saved.get(name)!r}",
                got=checks.Described(f"{name}={told[name]!r}"),
                remedy="Pass the same settings and rows to go on, or another storage=.",
            )


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Optuna from logging and from warning that parts of it are new."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _seeded(make: Sampler, seed: int) -> "optuna.samplers.BaseSampler":
    """Draw every trial from a stream of its own, so that a restart repeats none before it."""
    import optuna

    class Seeded(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            stream = seeds.generator(seed, trial.number).initial_seed()
            self._inner = make(stream % 2**32)
            return self._inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._inner.sample_relative(study, trial, search_space)

        def sample_independent(self, *given: Any) -> Any:
            return self._inner.sample_independent(*given)

    return Seeded()


def _owner() -> list[Any]:
    process = psutil.Process()
    return [socket.gethostname(), process.pid, process.create_time(), time.time()]


def _is_alive(owner: list[Any] | None) -> bool:
    """Tell whether the process that signed a trial still runs, on this machine or another."""
    if owner is None:
        return False
    host, pid, born, seen = owner
    if host != socket.gethostname():
        return time.time() - seen < SILENT_S
    try:
        # the system tells it by its clock, which may be set by a second at any time
        return abs(psutil.Process(pid).create_time() - born) < 2
    except psutil.NoSuchProcess:
        return False
