"""The book of trials outlives kills: none that finished is lost or repeated, and it is shared."""

import json
import os
import signal
import time
import traceback
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import in_a_process_that_is_killed
from torch import nn

from kit import tune
from kit.tune import hunt, journal
from kit.tune import ledger as ledgers
from kit.tune import space as spaces
from kit.tune.job import Outcome

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
DATA = (X[:40], X[:40, 0] > 0, X[40:], X[40:, 0] > 0)
SPACE = {"lr": (1e-2, 1.0, "log"), "momentum": (0.0, 0.9)}
TRIALS, EPOCHS, BATCHES = 6, 3, 2


class Mortal(nn.Module):
    """A line that kills its process after so many batches of all trials."""

    left = -1

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x):
        if self.training and x.shape[-2] > 2:  # not when its outputs are looked at
            if Mortal.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            Mortal.left -= 1
        return self.line(x)


def search(storage, *, model_fn=Mortal, baselines=None, **told):
    settings_ = {"trials": TRIALS, "epochs": EPOCHS, "batch": 20, "method": "random"} | told
    simple = tune.tuning.pd.DataFrame({"model": ["none"], "validation_loss": [1.0]})
    return tune.search(model_fn, DATA, SPACE, storage=storage, baselines=simple, **settings_)


def finished(path: Path) -> dict[int, tuple[float, list[float]]]:
    """Read from the journal, line by line, which trials were told with which losses."""
    lr, losses, done = {}, {}, {}
    n = -1
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        n += entry["op_code"] == 4  # a trial is made
        if entry["op_code"] == 4:  # one that waits is made with its parameters
            lr[n] = entry.get("params", {}).get("lr")
        if entry["op_code"] == 5 and entry["param_name"] == "lr":
            lr[entry["trial_id"]] = entry["param_value_internal"]
        if entry["op_code"] == 8 and "losses" in entry["user_attr"]:
            losses[entry["trial_id"]] = entry["user_attr"]["losses"]
        if entry["op_code"] == 6 and entry["state"] in (1, 2) and entry["trial_id"] in losses:
            done[entry["trial_id"]] = (lr[entry["trial_id"]], losses[entry["trial_id"]])
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("journals")


# ---- kills


@settings(max_examples=10)
@given(
    st.integers(0, TRIALS * EPOCHS * BATCHES - 1),
    st.integers(0, 12),
    st.sampled_from(["random", "tpe"]),
)
def test_a_killed_search_goes_on_and_loses_and_repeats_nothing(folder, first, second, method):
    path = folder / "one_by_one.journal"
    path.unlink(missing_ok=True)
    told = {"method": method, "pruner": "none"}

    def killed_after(batches):
        Mortal.left = batches
        search(path, **told)

    in_a_process_that_is_killed(lambda: killed_after(first))
    before = finished(path)
    assert len(before) == first // (EPOCHS * BATCHES)
    if second < (TRIALS - len(before)) * EPOCHS * BATCHES:
        in_a_process_that_is_killed(lambda: killed_after(second))
    found = search(path, **told)

    assert len(found.table) == TRIALS
    assert found.table["lr"].nunique() == TRIALS
    assert set(found.table["state"]) == {"done"}
    after = finished(path)
    assert {number: after[number] for number in before} == before
    assert found.best_loss == min(min(losses) for _, losses in after.values())


@pytest.mark.parametrize("batches", [0, 3, 5])
def test_a_killed_population_goes_on_with_the_same_configurations(tmp_path, batches):
    path, told = tmp_path / "population.journal", {"method": "population", "trials": 12}
    whole = search(None, **told)

    Mortal.left = batches
    in_a_process_that_is_killed(lambda: search(path, **told))
    Mortal.left = -1
    found = search(path, **told)

    assert sorted(found.table["lr"]) == sorted(whole.table["lr"])
    assert found.best_loss == pytest.approx(whole.best_loss, rel=1e-3)


def in_a_process_of_its_own(call) -> int:
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def test_a_search_is_killed_from_outside_at_any_moment_and_goes_on(tmp_path):
    path = tmp_path / "run.journal"
    seen: dict = {}
    for wait_s in (0.03, 0.11, 0.2, 0.07):
        child = in_a_process_of_its_own(lambda: search(path, trials=10**4))
        time.sleep(wait_s)
        while not path.exists() or len(finished_whole_lines(path)) <= len(seen):
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        now = finished_whole_lines(path)
        assert {number: now[number] for number in seen} == seen
        seen = now

    found = search(path, trials=len(seen) + 3)

    assert len(found.table) == len(seen) + 3
    assert found.table["lr"].nunique() == len(seen) + 3


def finished_whole_lines(path: Path) -> dict:
    whole = path.read_bytes().rpartition(b"\n")[0]
    copy = path.with_suffix(".copy")
    copy.write_bytes(whole)
    return finished(copy)


def test_the_model_of_a_trial_of_another_process_is_trained_again_to_the_same_loss(tmp_path):
    path = tmp_path / "run.journal"
    one = search(path)

    two = search(path)

    assert two.table.equals(one.table)
    assert two.best_loss == one.best_loss
    for name, weight in one.best_model.state_dict().items():
        assert torch.equal(weight, two.best_model.state_dict()[name])


def test_more_trials_may_be_asked_for_later(tmp_path):
    path = tmp_path / "run.journal"
    one = search(path, trials=3)

    two = search(path, trials=5)

    assert two.table.head(3).equals(one.table)
    assert two.table["lr"].tolist() == search(None, trials=5).table["lr"].tolist()


# ---- sharing


class Slow(Mortal):
    """A line that leaves the other process time."""

    def forward(self, x):
        time.sleep(0.002)
        return super().forward(x)


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_two_processes_share_the_trials(tmp_path, method):
    path = tmp_path / "shared.journal"
    told = {"trials": 30, "method": method, "pruner": "none", "model_fn": Slow}

    children = [in_a_process_of_its_own(lambda: search(path, **told)) for _ in range(2)]

    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    found, owners = search(path, **told), set()
    for line in path.read_text().splitlines():
        owner = json.loads(line).get("user_attr", {}).get("owner")
        owners |= {owner[1]} if owner else set()
    assert len(found.table) == 30
    assert found.table["lr"].nunique() == 30
    assert owners == set(children)


@pytest.mark.parametrize("method", ["population", "auto"])
def test_two_processes_share_a_population_or_one_waits_for_the_other(tmp_path, method, monkeypatch):
    path = tmp_path / "shared.journal"
    told = {"trials": 12, "method": method, "model_fn": Slow}
    monkeypatch.setattr(hunt, "GENERATION", {"cpu": 8})

    children = [in_a_process_of_its_own(lambda: search(path, **told)) for _ in range(2)]

    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(search(path, **told).table) == 12


def test_what_a_machine_began_that_has_gone_silent_is_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "shared.journal"
    monkeypatch.setattr(Mortal, "left", 0)
    in_a_process_that_is_killed(lambda: search(path, trials=1))
    monkeypatch.setattr(Mortal, "left", -1)
    monkeypatch.setattr(ledgers.socket, "gethostname", lambda: "restarted")
    monkeypatch.setattr(ledgers, "SILENT_S", 0.5)

    found = search(path, trials=1)

    assert found.table["state"].tolist() == ["done"]


def test_a_process_at_work_gives_signs_of_life(tmp_path, monkeypatch):
    path = tmp_path / "run.journal"
    monkeypatch.setattr(ledgers, "BEAT_S", 0.0)
    search(path, trials=1)

    owners = [
        json.loads(line)["user_attr"] for line in path.read_text().splitlines() if '"owner"' in line
    ]

    assert len(owners) == 1 + EPOCHS
    seen = [each["owner"][3] for each in owners]
    assert seen == sorted(seen)


def opened(path, *, trials=1):
    import optuna

    return ledgers.Ledger(
        spaces.parse(SPACE, smooth=True),
        trials=trials,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
        pruner=optuna.pruners.NopPruner(),
        seed=0,
        storage=path,
        settings={},
    )


def test_of_two_who_ask_for_the_last_trial_at_the_same_moment_one_gets_it(tmp_path):
    one, two = (opened(tmp_path / "shared.journal") for _ in range(2))
    ask, got = one.study.ask, []

    def ask_after_the_other(*given):
        got.append(two.ask())
        return ask(*given)

    one.study.ask = ask_after_the_other

    assert one.ask() is None
    assert got[0].number == 0
    assert one.running == two.running == 1


def taken_for_dead(path):
    """Let another process find the trials of this one without a living owner."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledgers, "_is_alive", lambda owner: False)
        return opened(path)


def test_a_trial_that_another_process_took_over_is_not_told_twice(tmp_path):
    path = tmp_path / "shared.journal"
    slow = opened(path)
    trial = slow.ask()
    other = taken_for_dead(path)
    again = other.ask()

    assert slow.is_behind(trial, [0.5])
    assert not slow.tell(trial, Outcome(slow.config(trial), [0.5], "done"))
    assert other.tell(again, Outcome(other.config(again), [0.5], "done"))
    assert slow.config(trial) == other.config(again)
    assert [each.state for each in slow.outcomes().values()] == ["done"]


def test_a_trial_that_was_taken_over_before_it_was_signed_is_asked_for_again(tmp_path):
    path = tmp_path / "shared.journal"
    slow = opened(path)
    ask, proposed = slow.study.ask, []

    def ask_slowly(*given):
        trial = ask(*given)
        if not proposed:
            taken_for_dead(path)
        proposed.append(slow.config(trial))
        return trial

    slow.study.ask = ask_slowly
    trial = slow.ask()

    assert proposed == [slow.config(trial)] * 2
    assert slow.running == 1


def test_what_another_process_is_busy_with_is_left_to_it(tmp_path, monkeypatch):
    path = tmp_path / "shared.journal"
    search(path, trials=2)
    with monkeypatch.context() as patched:
        patched.setattr(Mortal, "forward", lambda self, x: time.sleep(60))
        child = in_a_process_of_its_own(lambda: search(path, trials=3))
    try:
        while path.read_text().count('"owner"') < 3:
            time.sleep(0.01)

        found = search(path, trials=4)

        assert len(found.table) == 3
        assert found.stopped == "after 3 trials, 1 still running elsewhere"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(search(path, trials=4).table) == 4


# ---- storage that cannot be used


def refused(path, **told) -> str:
    with pytest.raises(ValueError) as error:
        search(path, **told)
    return str(error.value)


def test_half_a_line_of_a_process_that_was_killed_while_writing_is_left_out(tmp_path):
    path = tmp_path / "run.journal"
    one = search(path, trials=3)
    with path.open("a") as journal:
        journal.write('{"op_code":4,"wor')

    two = search(path, trials=4)

    assert two.table.head(3).equals(one.table)
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("where", [0, 5, -1])
def test_a_damaged_journal_is_told_and_left_as_it_is(tmp_path, where):
    path = tmp_path / "run.journal"
    search(path, trials=2)
    lines = path.read_text().splitlines()
    lines[where] = "\x00 garbage"
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()

    message = refused(path)

    assert message == (
        "tune.search: expected a journal of trials that can be read and written as run.journal, "
        "got a damaged file. Pass another storage= to start anew, or mend the file."
    )
    assert path.read_bytes() == before


def test_a_journal_that_another_process_does_not_let_go_of_is_told(tmp_path, monkeypatch):
    path = tmp_path / "run.journal"
    monkeypatch.setattr(journal, "LOCK_S", 0.1)
    lock = journal.lock_of(path)
    lock.acquire()

    message = refused(path)

    assert message == (
        "tune.search: expected a journal of trials that can be read and written as run.journal, "
        "got locked by another process for 0 s. Pass another storage= to start anew, or mend the "
        "file."
    )
    lock.release()
    assert len(search(path, trials=2).table) == 2


def test_a_lock_does_not_outlive_its_process(tmp_path, monkeypatch):
    path = tmp_path / "run.journal"
    monkeypatch.setattr(journal, "LOCK_S", 5.0)

    def killed_while_holding():
        journal.lock_of(path).acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    in_a_process_that_is_killed(killed_while_holding)

    assert len(search(path, trials=2).table) == 2


def test_a_path_that_cannot_be_a_file_is_told(tmp_path):
    assert refused(tmp_path).endswith(
        "got Is a directory. Pass another storage= to start anew, or mend the file."
    )


@pytest.mark.parametrize(
    ("told", "was", "now"),
    [
        ({"seed": 1}, "seed=0", "seed=1"),
        ({"epochs": 4}, "epochs=3", "epochs=4"),
        ({"method": "tpe"}, "method='random'", "method='tpe'"),
    ],
)
def test_another_search_is_not_mixed_into_the_journal_of_this_one(tmp_path, told, was, now):
    path = tmp_path / "run.journal"
    search(path, trials=2)

    assert refused(path, **told) == (
        f"tune.search: expected the search that the storage holds, {was}, got {now}. "
        "Pass the same settings and rows to go on, or another storage=."
    )


def test_a_storage_of_optuna_may_be_passed_itself(tmp_path):
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "own.journal"))

    search(optuna.storages.JournalStorage(backend), trials=3)
    again = search(optuna.storages.JournalStorage(backend), trials=3)

    assert len(again.table) == 3
