"""Language models are trained as the formulas say, resume to the same bits, and share batches."""

import math
import multiprocessing
import socket
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from kit import models, train
from kit.text import windows
from kit.train import language, precision

TEXT = np.frombuffer(b"the cat sat on the mat; the dog sat on the log.\n" * 200, np.uint8)
TOLD = {"steps": 12, "batch": 8, "every": 4, "precision": "float32", "lr": 1e-2}
EXACT = TOLD | {"optimizer": "adamw"}  # Muon computes in bfloat16, which tells sums apart


def gpt() -> models.GPT:
    torch.manual_seed(0)
    return models.GPT(depth=2, width=32, heads=2, context=16)


def weights(model) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_it_learns_and_says_how_well(optimizer):
    fitted = train.fit_language(
        gpt(), TEXT[:8000], validation=TEXT[8000:], optimizer=optimizer, **(TOLD | {"steps": 120})
    )

    assert fitted.table["step"].tolist() == list(range(4, 121, 4))
    assert fitted.table["validation_bits"].iloc[0] > 5
    assert fitted.bits_per_byte == fitted.table["validation_bits"].iloc[-1] < 1.5
    assert fitted.stopped == "after 120 steps"
    assert not fitted.model.training


def test_a_step_is_that_of_the_loop_that_everybody_writes():
    ours, theirs = gpt(), gpt()
    matrices = [
        weight
        for name, weight in theirs.named_parameters()
        if "blocks" in name and weight.ndim == 2
    ]
    rest = [
        weight
        for name, weight in theirs.named_parameters()
        if "blocks" not in name or weight.ndim < 2
    ]
    muon = torch.optim.Muon(matrices, lr=1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=1, betas=(0.9, 0.95), weight_decay=0.0)

    train.fit_language(ours, TEXT, warmup=0.5, decay=0.25, **TOLD)
    for step in range(12):
        height = min(1, (step + 1) / 6, (12 - step) / 3)
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = 1e-2 * height
        x, y = windows(TEXT, context=16, batch=8, seed=0, step=step)
        loss = F.cross_entropy(theirs(x).flatten(0, 1), y.flatten())
        for opt in (muon, adamw):
            opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for opt in (muon, adamw):
            opt.step()

    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-3, atol=1e-4)


def test_a_batch_in_parts_is_the_same_batch():
    whole, parts = gpt().double(), gpt().double()

    train.fit_language(whole, TEXT, **EXACT)
    train.fit_language(parts, TEXT, accumulate=4, **EXACT)

    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-6, atol=1e-9)


def test_bits_per_byte_is_cross_entropy_over_the_whole_text():
    model = gpt().eval()
    text = TEXT[:170]  # ten windows of 17

    rows = torch.from_numpy(text.astype(np.int64)).view(10, 17)
    nats = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    found = train.bits_per_byte(model, text, batch=3)
    assert found == pytest.approx(float(nats.detach()) / math.log(2), rel=1e-5)


class Crash(Exception):
    pass


def forgetful() -> models.GPT:
    """Return a model that draws random numbers as it learns."""
    model = gpt()
    model.norm = torch.nn.Sequential(model.norm, torch.nn.Dropout(0.1))
    return model


@pytest.mark.parametrize("make", [gpt, forgetful])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("at", [2, 4, 9])
def test_a_crash_at_any_step_changes_no_bit(tmp_path, monkeypatch, optimizer, at, make):
    told = TOLD | {"optimizer": optimizer, "validation": TEXT[:500]}
    whole = train.fit_language(make(), TEXT, **told)
    step, path = language._step, tmp_path / "run.safetensors"

    def dies(model, tokens, opt, i, **rest):
        if i == at:
            raise Crash
        return step(model, tokens, opt, i, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(language, "_step", dies)
        with pytest.raises(Crash):
            train.fit_language(make(), TEXT, checkpoint=path, **told)
    torch.manual_seed(at)  # another process
    resumed = train.fit_language(make(), TEXT, checkpoint=path, **told)

    assert torch.equal(weights(whole.model), weights(resumed.model))
    same = ["step", "bits_per_byte", "validation_bits"]
    assert whole.table[same].equals(resumed.table[same])


def test_ctrl_c_leaves_a_model_and_what_was_seen(monkeypatch):
    step = language._step

    def stops(model, tokens, opt, i, **rest):
        if i == 6:
            raise KeyboardInterrupt
        return step(model, tokens, opt, i, **rest)

    monkeypatch.setattr(language, "_step", stops)
    fitted = train.fit_language(gpt(), TEXT, **TOLD)

    assert fitted.stopped == "interrupted"
    assert fitted.table["step"].tolist() == [4]


def test_a_loss_that_flies_off_is_told_and_is_not_gone_on_with(tmp_path):
    told = TOLD | {"lr": 1e9, "clip": None, "steps": 40, "checkpoint": tmp_path / "run.safetensors"}

    fitted = train.fit_language(gpt(), TEXT, **told)
    again = train.fit_language(gpt(), TEXT, **told)

    assert fitted.stopped.startswith("diverged by step ")
    assert again.stopped == fitted.stopped
    assert again.table.equals(fitted.table)


def test_auto_takes_what_is_faster_and_keeps_to_it_after_a_crash(tmp_path, monkeypatch):
    path, seconds = tmp_path / "run.safetensors", {"float32": 2.0, "bfloat16": 1.0}
    monkeypatch.setattr(precision, "_passes", lambda loss, where, name: [seconds[name]])
    told = TOLD | {"precision": "auto"}

    fast = train.fit_language(gpt(), TEXT, checkpoint=path, **told)
    seconds["bfloat16"] = 3.0
    again = train.fit_language(gpt(), TEXT, checkpoint=path, **told)
    slow = train.fit_language(gpt(), TEXT, **told)

    assert (fast.precision, again.precision, slow.precision) == ("bfloat16", "bfloat16", "float32")


# ---- two processes


def _process(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = gpt().double()
    shared = torch.nn.parallel.DistributedDataParallel(model)
    fitted = train.fit_language(shared, TEXT, accumulate=2, **EXACT)
    if rank == 0:
        torch.save(
            {"weights": weights(model), "bits": fitted.table["bits_per_byte"].tolist()}, path
        )
    dist.destroy_process_group()


def test_two_processes_share_every_batch_and_come_to_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    path = str(tmp_path / "two.pt")
    processes = [spawn.Process(target=_process, args=(rank, port, path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]

    alone = train.fit_language(gpt().double(), TEXT, **EXACT)

    two = torch.load(path)
    torch.testing.assert_close(two["weights"], weights(alone.model), rtol=1e-6, atol=1e-9)
    assert two["bits"] == pytest.approx(alone.table["bits_per_byte"].tolist())


# ---- bad input


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"optimizer": "muo"},
            "a known optimizer, got 'muo' (str). Did you mean 'muon'? Known: adamw, muon.",
        ),
        ({"steps": 0}, "steps >= 1, got 0 (int). Pass steps=10."),
        ({"lr": 0.0}, "lr > 0, got 0.0 (float). Pass lr=3e-3."),
        (
            {"warmup": 2.0},
            "warmup and decay from 0 to 1, got (2.0, 0.5) (tuple). Pass warmup=0.05, decay=0.5.",
        ),
        (
            {"accumulate": 3},
            (
                "a batch that 1 processes with 3 parts each can share, got 8 (int). "
                "Pass batch=3, or a multiple."
            ),
        ),
    ],
)
def test_settings_out_of_range_are_told(told, message):
    with pytest.raises(ValueError) as error:
        train.fit_language(gpt(), TEXT, **(TOLD | told))

    assert str(error.value) == f"train.fit_language: expected {message}"


def test_other_settings_or_another_text_do_not_go_on_from_a_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    train.fit_language(gpt(), TEXT, checkpoint=path, **TOLD)

    for told, text in (({"lr": 0.5}, TEXT), ({}, TEXT[1:])):
        with pytest.raises(ValueError, match="checkpoint"):
            train.fit_language(gpt(), text, checkpoint=path, **(TOLD | told))


def test_a_text_shorter_than_a_window_is_told():
    for call in (
        lambda: train.fit_language(gpt(), TEXT[:10], **TOLD),
        lambda: train.bits_per_byte(gpt(), TEXT[:10]),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).startswith("text.windows: expected 17 tokens or more")


def test_a_text_that_is_mapped_from_disk_gives_no_warning(tmp_path):
    (tmp_path / "text.bin").write_bytes(TEXT.tobytes())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = train.fit_language(
            gpt(), np.memmap(tmp_path / "text.bin", np.uint8, mode="r"), **TOLD
        )

    assert torch.equal(
        weights(fitted.model), weights(train.fit_language(gpt(), TEXT, **TOLD).model)
    )
