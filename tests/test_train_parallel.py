"""Processes that train one model together, a copy or a part each, do what one process does."""

import copy
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from kit import models, text, train
from kit.base import storage
from kit.train import __main__ as command_line
from kit.train import language, optimizers, precision, processes

ROOT = Path(__file__).parents[1]
TEXT = np.frombuffer(b"the cat sat on the mat; the dog sat on the log.\n" * 200, np.uint8)
TOLD = {"steps": 9, "batch": 8, "every": 3, "precision": "float32", "lr": 1e-2}
EXACT = TOLD | {"optimizer": "adamw", "accumulate": 2, "validation": TEXT[:1000]}
CRASH = 7  # the step at which some trainings die: the checkpoint is that of step 6
NEAR = {"rel": 1e-6}  # weights are in float64, but losses are told in float32
# Newton–Schulz computes in bfloat16, which magnifies the last bit: parts of a batch summed in
# another order change these losses by 1e-4, half a step of Muon by 1e-2
ABOUT = {"rel": 1e-3}


def gpt(width=32) -> models.GPT:
    torch.manual_seed(0)
    return models.GPT(depth=2, width=width, heads=2, context=16)


def shared(model: nn.Module, kind: str) -> nn.Module:
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for part in (*model.blocks, model):
        fully_shard(part)
    return model


def losses(fitted: train.LanguageFit) -> dict[str, list[float]]:
    table = fitted.table.drop(columns="tokens_per_s")
    return table.to_dict(orient="list")


class Crash(Exception):
    pass


@contextmanager
def dying(at: int):
    step = language._step

    def dies(model, tokens, opt, i, **rest):
        if i == at:
            raise Crash
        return step(model, tokens, opt, i, **rest)

    language._step = dies
    try:
        with suppress(Crash):
            yield
    finally:
        language._step = step


def refusal(call) -> str:
    try:
        call()
    except (ValueError, MemoryError) as error:
        return str(error)
    return ""


# ---- what two processes do, one after the other, since processes take long to start


def both(kind: str, folder: Path) -> dict[str, object]:
    """Return what one of two processes saw of a model that is shared as `kind`."""
    said: dict[str, object] = {}

    def double() -> nn.Module:
        return shared(gpt().double(), kind)

    def fit(model, **told) -> train.LanguageFit:
        return train.fit_language(model, TEXT, **told)

    fitted = fit(double(), **EXACT)
    said["exact"] = losses(fitted)
    train.save(folder / f"{kind}.safetensors", fitted.model, about={"shape": [2]})
    fresh = double()
    said["about"] = train.load(folder / f"{kind}.safetensors", fresh)
    said["loaded"] = train.bits_per_byte(fresh, TEXT[:1000])
    ragged = TEXT[: 17 * 5]  # of five windows, the last chunk of four has none for the second
    said["ragged"] = train.bits_per_byte(fresh, ragged, batch=2)

    said["muon"] = losses(fit(shared(gpt(), kind), **TOLD))
    with dying(CRASH):
        fit(double(), checkpoint=folder / f"by_{kind}", **EXACT)
    said["went_on"] = losses(fit(double(), checkpoint=folder / f"for_{kind}", **EXACT))

    # one process finds bfloat16 faster, the other float32
    passes, precision._passes = precision._passes, _as_ranks_say
    said["auto"] = fit(shared(gpt(), kind), **TOLD | {"precision": "auto"}).precision
    precision._passes = passes

    wild = {"lr": 1e9, "clip": None, "checkpoint": folder / f"wild_{kind}"}
    said["wild"] = [fit(shared(gpt(), kind), **TOLD | wild).stopped for _ in range(2)]
    said["shape"] = refusal(
        lambda: fit(shared(gpt(width=16), kind), checkpoint=folder / f"by_{kind}", **EXACT)
    )
    said["memory"] = refusal(lambda: fit(shared(Greedy(), kind), **TOLD))
    return said


def _as_ranks_say(loss, where, name):
    loss().backward()
    return [float((name == "bfloat16") == (dist.get_rank() == 0))]


class Greedy(models.GPT):
    """A model that has no memory for more than one window."""

    def __init__(self) -> None:
        super().__init__(depth=1, width=32, heads=2, context=16)

    def forward(self, tokens):
        if len(tokens) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return super().forward(tokens)


def _process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    said = {kind: both(kind, folder) for kind in ("ddp", "fsdp")}
    said["bare"] = refusal(lambda: train.fit_language(gpt(), TEXT, **TOLD))
    rows = torch.zeros(4, 3)
    said["table"] = refusal(lambda: train.fit(shared_mlp(), rows, rows[:, 0]))
    torch.save(said, folder / f"said_{rank}.pt")
    dist.destroy_process_group()


def shared_mlp() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    return fully_shard(models.MLP(3, 1))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, object]:
    """What one process does."""
    folder = tmp_path_factory.mktemp("alone")
    with dying(CRASH):
        train.fit_language(gpt().double(), TEXT, checkpoint=folder / "run", **EXACT)
    exact = train.fit_language(gpt().double(), TEXT, **EXACT)
    return {
        "folder": folder,
        "exact": losses(exact),
        "model": exact.model,
        "muon": losses(train.fit_language(gpt(), TEXT, **TOLD)),
    }


@pytest.fixture(scope="module")
def together(alone, tmp_path_factory) -> dict[str, object]:
    """What two said that were joined by gloo, and the folder of their files."""
    folder = tmp_path_factory.mktemp("together")
    for kind in ("ddp", "fsdp"):
        shutil.copy(alone["folder"] / "run", folder / f"for_{kind}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    started = [spawn.Process(target=_process, args=(rank, port, folder)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(600)
    assert [process.exitcode for process in started] == [0, 0]
    said = [torch.load(folder / f"said_{rank}.pt") for rank in range(2)]
    return {"folder": folder, "said": said}


both_kinds = pytest.mark.parametrize("kind", ["ddp", "fsdp"])


def same(one: dict[str, list[float]], two: dict[str, list[float]], within: dict) -> bool:
    return one.keys() == two.keys() and all(
        one[name] == pytest.approx(two[name], **within) for name in one
    )


@both_kinds
def test_two_processes_have_the_losses_of_one(kind, alone, together):
    first, second = (said[kind] for said in together["said"])

    assert first["exact"] == second["exact"]
    assert same(first["exact"], alone["exact"], NEAR)
    assert len(first["exact"]["validation_bits"]) == 3


@both_kinds
def test_two_processes_share_the_work_of_muon_and_come_to_about_the_same(kind, alone, together):
    first, second = (said[kind]["muon"] for said in together["said"])

    assert first == second
    assert same(first, alone["muon"], ABOUT)
    assert first["bits_per_byte"][-1] < 0.8 * first["bits_per_byte"][0]


@both_kinds
def test_one_process_goes_on_from_the_checkpoint_of_two(kind, alone, together, tmp_path):
    shutil.copy(together["folder"] / f"by_{kind}", tmp_path / "run")
    table = storage.load(tmp_path / "run")[1]["state"]["history"]

    fitted = train.fit_language(gpt().double(), TEXT, checkpoint=tmp_path / "run", **EXACT)

    assert [row["step"] for row in table] == [3, 6]
    assert same(losses(fitted), alone["exact"], NEAR)


@both_kinds
def test_two_processes_go_on_from_the_checkpoint_of_one(kind, alone, together):
    first, second = (said[kind]["went_on"] for said in together["said"])

    assert first == second
    assert same(first, alone["exact"], NEAR)


@both_kinds
def test_the_checkpoint_is_the_same_file_whoever_wrote_it(kind, alone, together):
    ours, about = storage.load(alone["folder"] / "run")
    theirs, about_theirs = storage.load(together["folder"] / f"by_{kind}")

    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-9) for name in ours)
    assert about["settings"] == about_theirs["settings"]


@both_kinds
def test_a_shared_model_is_saved_whole_and_loaded_again(kind, alone, together):
    model = gpt().double()

    about = train.load(together["folder"] / f"{kind}.safetensors", model)

    bits = train.bits_per_byte(model, TEXT[:1000])
    ragged = train.bits_per_byte(model, TEXT[: 17 * 5])
    assert about == {"shape": [2]}
    assert bits == pytest.approx(alone["exact"]["validation_bits"][-1], **NEAR)
    for said in together["said"]:
        assert said[kind]["about"] == about
        assert said[kind]["loaded"] == pytest.approx(bits, **NEAR)
        assert said[kind]["ragged"] == pytest.approx(ragged, **NEAR)


@both_kinds
def test_the_first_process_chooses_the_precision_for_all(kind, together):
    assert [said[kind]["auto"] for said in together["said"]] == ["float32", "float32"]


@both_kinds
def test_all_processes_stop_where_the_loss_flies_off_and_stay_stopped(kind, together):
    first, second = (said[kind]["wild"] for said in together["said"])

    assert first == second == ["diverged by step 3: pass a smaller lr"] * 2


@both_kinds
def test_a_checkpoint_of_another_shape_is_refused_by_all(kind, together):
    for said in together["said"]:
        assert said[kind]["shape"] == (
            "train.fit_language: expected blocks.0.attention.out.weight of shape (16, 16), as the "
            f"model has it, got shape (32, 32) in by_{kind}. "
            "Build the model with the sizes it was saved with."
        )


@both_kinds
def test_processes_that_have_too_little_memory_say_what_to_pass(kind, together):
    for said in together["said"]:
        assert said[kind]["memory"] == (
            "train.fit_language: expected memory for a step with 4 windows of 16 tokens at once, "
            "got too little on cpu. Pass accumulate=2."
        )


def test_a_bare_model_in_two_processes_is_refused(together):
    for said in together["said"]:
        assert said["bare"] == (
            "train.fit_language: expected a model that its 2 processes share, got GPT. "
            "Wrap it: torch.nn.parallel.DistributedDataParallel(model), or part it: "
            "torch.distributed.fsdp.fully_shard(model)."
        )
        assert said["table"] == (
            "train.fit: expected a model that its 2 processes share, got FSDPMLP. "
            "Wrap it: torch.nn.parallel.DistributedDataParallel(model)."
        )


# ---- in one process


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 40)])
def test_shared_muon_takes_the_steps_of_torchs_muon(shape):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(16, 8))]
    theirs = copy.deepcopy(ours)
    told = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": optimizers.LONG_AS_ADAMW}
    shared_muon, muon = optimizers.SharedMuon(ours, **told), torch.optim.Muon(theirs, **told)

    for _ in range(4):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        shared_muon.step()
        muon.step()

    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert all(
        torch.equal(shared_muon.state[one]["momentum_buffer"], muon.state[two]["momentum_buffer"])
        for one, two in zip(ours, theirs, strict=True)
    )


def test_an_error_of_the_first_process_is_everybodys():
    def fails() -> int:
        raise ValueError("no such file")

    assert processes.by_first(lambda: 7) == 7
    with pytest.raises(ValueError, match="no such file"):
        processes.by_first(fails)


# ---- the command


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    class Exit(Exception):
        pass

    def leave(code: int) -> None:
        raise Exit(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["kit.train", *map(str, arguments)])
    with pytest.raises(Exit) as left:
        command_line.main()
    out, error = capsys.readouterr()
    return left.value.args[0], out, error


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cats.txt"
    path.write_bytes(TEXT.tobytes())
    return path


SMALL = ("--depth", 1, "--context", 16, "--steps", 6, "--batch", 4, "--every", 3)
SMALL = (*map(str, SMALL), "--precision", "float32")


def test_the_command_trains_prints_a_row_at_a_time_and_saves(monkeypatch, capsys, corpus, tmp_path):
    out = tmp_path / "made" / "cats.safetensors"

    code, printed, error = run(monkeypatch, capsys, corpus, *SMALL, "--out", out)

    lines = printed.splitlines()
    assert (code, error) == (0, "")
    assert lines[0].split() == ["step", "bits_per_byte", "validation_bits", "tokens_per_s", "left"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "6", "bits_per_byte"]
    assert lines[2].split()[-1] == "0:00:00"
    assert lines[3].endswith("stopped after 6 steps")
    about = train.about(out)
    train.load(out, models.GPT(**about["shape"]))
    assert about["model"] == "GPT"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--depth", "0"], 2, "kit.train: Invalid value for '--depth': 0 is not in the range"),
        (["--parallel", "dpp"], 2, "kit.train: Invalid value for '--parallel': 'dpp' is not one"),
        (
            ["--lr", "-1"],
            2,
            "train.fit_language: expected a finite lr > 0, got -1.0 (float). Pass lr=3e-3.",
        ),
        (
            ["--accumulate", "3"],
            2,
            "train.fit_language: expected a batch that 1 processes with 3 parts each can share",
        ),
        (
            ["--parallel", "fsdp"],
            2,
            (
                "kit.train: expected several processes to part the model among, got one. "
                "Type: torchrun --nproc-per-node 2 -m kit.train …"
            ),
        ),
        (["--lr", "1e9"], 1, ""),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    monkeypatch, capsys, corpus, arguments, code, said
):
    found, _, error = run(monkeypatch, capsys, corpus, *SMALL, *arguments)

    assert found == code
    assert error.startswith(said)
    assert error.count("\n") == bool(said)


def test_a_corpus_without_text_is_told(monkeypatch, capsys, corpus):
    corpus.write_bytes(bytes(1000))

    code, _, error = run(monkeypatch, capsys, corpus, *SMALL)

    assert code == 2
    assert error == (
        f"text.corpus: expected text, got none in the 1 files of {corpus}. "
        "Pass files of text, UTF-8 best.\n"
    )


def test_half_of_what_torchrun_sets_is_told(monkeypatch, capsys, corpus):
    monkeypatch.setenv("WORLD_SIZE", "2")

    code, _, error = run(monkeypatch, capsys, corpus, *SMALL)

    assert code == 2
    assert error == (
        "kit.train: expected what torchrun sets, got WORLD_SIZE=2 without RANK, LOCAL_RANK, "
        "MASTER_ADDR, MASTER_PORT. Type: torchrun --nproc-per-node 2 -m kit.train …\n"
    )


@both_kinds
def test_torchrun_trains_as_one_process_does_and_one_process_prints(kind, corpus, tmp_path):
    told = [*SMALL, "--optimizer", "adamw", "--parallel", kind]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "two.safetensors"

    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", "kit.train", corpus, *told, "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["3", "6", "bits_per_byte"]
    torch.manual_seed(0)
    alone, model = models.GPT(depth=1, context=16), models.GPT(depth=1, context=16)
    given = {"steps": 6, "batch": 4, "every": 3, "precision": "float32", "optimizer": "adamw"}
    train.fit_language(alone, text.corpus(corpus).train, **given)
    train.load(out, model)
    for one, two in zip(alone.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
