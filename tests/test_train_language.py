"""Language models are trained as the formulas say, and resume to the same bits."""

import contextlib
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit import models, train
from kit.text import windows
from kit.train import inputs, language, optimizers, precision

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


class Normed(torch.nn.BatchNorm1d):
    """Takes texts, and keeps the statistics of what it was trained on."""

    def forward(self, x):
        return super().forward(x.flatten(0, -2)).view_as(x)


def test_a_probe_leaves_no_trace_in_the_training(monkeypatch):
    monkeypatch.setattr(precision, "PAYS", math.inf)
    models, drawn = [forgetful(), forgetful()], []

    for model, chosen in zip(models, ("auto", "float32"), strict=True):
        model.norm.append(Normed(32))
        torch.manual_seed(5)
        train.fit_language(model, TEXT, **TOLD | {"precision": chosen})
        drawn.append(torch.rand(3))

    probed, plain = (model.state_dict() for model in models)
    assert all(torch.equal(probed[name], plain[name]) for name in plain)
    assert torch.equal(*drawn)


class Untied(models.GPT):
    """A model with an output layer of its own, and blocks as wide as its vocabulary."""

    def __init__(self) -> None:
        super().__init__(depth=2, width=256, heads=2, context=16)
        self.head = torch.nn.Linear(256, 256, bias=False)


def test_muon_takes_the_matrices_of_the_blocks_and_of_nothing_else():
    model = Untied()

    muon, adamw = optimizers.make(model, "muon", 1e-3, 0.1).parts

    inside = [weight for weight in model.blocks.parameters() if weight.ndim == 2]
    (group,) = muon.param_groups
    assert len(inside) == 8
    assert set(map(id, group["params"])) == set(map(id, inside))
    rest = {id(weight) for group in adamw.param_groups for weight in group["params"]}
    assert {id(model.head.weight), id(model.embed.weight)} <= rest
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.0]


# ---- too little memory


class Small(models.GPT):
    """A model that has memory for so many windows at once."""

    def __init__(self, room: int) -> None:
        torch.manual_seed(0)
        super().__init__(depth=2, width=32, heads=2, context=16)
        self.room, self.attempts = room, []

    def forward(self, tokens):
        if self.training:
            self.attempts.append(len(tokens))
        if len(tokens) > self.room:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return super().forward(tokens)


@pytest.mark.parametrize("chosen", ["float32", "auto"])
def test_parts_that_do_not_fit_are_halved_and_the_batch_stays_the_same(
    tmp_path, monkeypatch, chosen
):
    told = EXACT | {"checkpoint": tmp_path / "run.safetensors", "validation": TEXT[:500]}
    told |= {"precision": chosen}
    model, whole = Small(room=3).double(), gpt().double()
    step = language._step

    def dies(model, tokens, opt, i, **rest):
        if i == 9:
            raise Crash
        return step(model, tokens, opt, i, **rest)

    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as warned:
        patched.setattr(language, "_step", dies)
        with pytest.raises(Crash):
            train.fit_language(model, TEXT, **told)
    resumed = Small(room=3).double()
    fitted = train.fit_language(resumed, TEXT, **told)
    train.fit_language(whole, TEXT, **EXACT)

    assert [str(each.message) for each in warned] == [
        (
            "train.fit_language: memory ran out at 8 windows at once; it goes on with 2. "
            "Pass accumulate=4 to begin so."
        )
    ]
    assert model.attempts[:7] == [8, 4, 2, 2, 2, 2, 2]
    assert set(resumed.attempts) == {2}  # it remembers, and tries no more
    torch.testing.assert_close(weights(fitted.model), weights(whole), rtol=1e-6, atol=1e-9)


def test_parts_of_different_sizes_are_still_the_same_batch():
    told = EXACT | {"batch": 7}
    whole, parts = gpt().double(), Small(room=3).double()

    train.fit_language(whole, TEXT, **told)
    with pytest.warns(UserWarning, match="it goes on with 3"):
        train.fit_language(parts, TEXT, **told)

    assert parts.attempts[:4] == [7, 3, 3, 1]
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-6, atol=1e-9)


def test_windows_to_judge_by_are_halved_too():
    model = Small(room=1e9)
    plenty = train.bits_per_byte(model, TEXT)
    model.room = 3

    assert train.bits_per_byte(model, TEXT) == pytest.approx(plenty, rel=1e-6)


@pytest.mark.parametrize("chosen", ["float32", "auto"])
def test_a_window_that_does_not_fit_is_told_and_other_errors_pass(chosen):
    with pytest.raises(MemoryError) as error:
        train.fit_language(Small(room=0), TEXT, **TOLD | {"precision": chosen})

    assert str(error.value) == (
        "train.fit_language: expected memory for a step with 1 windows of 16 tokens at once, "
        "got too little on cpu. Pass a smaller model or a shorter context."
    )
    with pytest.raises(MemoryError) as judged:
        train.bits_per_byte(Small(room=0), TEXT)
    assert str(judged.value) == (
        "train.bits_per_byte: expected memory for 1 windows of 16 tokens at once, "
        "got too little on cpu. Pass a smaller model."
    )
    broken = gpt()
    broken.norm = torch.nn.Linear(5, 5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train.fit_language(broken, TEXT, **TOLD)


def test_a_checkpoint_goes_on_in_other_parts(tmp_path):
    told = EXACT | {"checkpoint": tmp_path / "run.safetensors"}

    train.fit_language(gpt().double(), TEXT, **told)
    again = train.fit_language(gpt().double(), TEXT, accumulate=4, **told)

    assert again.table["step"].tolist() == [4, 8, 12]


# ---- bad input


def test_a_device_without_bfloat16_is_told_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(precision, "casts", lambda where, name: contextlib.nullcontext())

    with pytest.raises(ValueError) as error:
        train.fit_language(gpt(), TEXT, **(TOLD | {"precision": "bfloat16"}))
    fitted = train.fit_language(gpt(), TEXT, **(TOLD | {"precision": "auto"}))

    assert str(error.value) == (
        "train.fit_language: expected a device that computes in bfloat16, got cpu. "
        'Pass precision="float32".'
    )
    assert fitted.precision == "float32"


def test_a_checkpoint_of_another_shape_is_told(tmp_path):
    told = TOLD | {"checkpoint": tmp_path / "run.safetensors"}
    train.fit_language(gpt(), TEXT, **told)

    with pytest.raises(ValueError) as error:
        train.fit_language(models.GPT(depth=1, width=32, heads=2, context=16), TEXT, **told)

    assert str(error.value) == (
        "train.fit_language: expected no blocks.1.attention.out.weight, as the model has it, "
        "got shape (32, 32) in run.safetensors. Build the model with the sizes it was saved with."
    )


def test_rows_are_told_as_they_come():
    rows = []

    fitted = train.fit_language(gpt(), TEXT, tell=rows.append, **TOLD)

    assert rows == fitted.table.to_dict(orient="records")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"optimizer": "muo"},
            "a known optimizer, got 'muo' (str). Did you mean 'muon'? Known: adamw, muon.",
        ),
        ({"steps": 0}, "steps >= 1, got 0 (int). Pass steps=10."),
        ({"lr": 0.0}, "a finite lr > 0, got 0.0 (float). Pass lr=3e-3."),
        ({"lr": math.inf}, "a finite lr > 0, got inf (float). Pass lr=3e-3."),
        ({"lr": math.nan}, "a finite lr > 0, got nan (float). Pass lr=3e-3."),
        (
            {"weight_decay": -0.1},
            "a finite weight_decay >= 0, got -0.1 (float). Pass weight_decay=0.1.",
        ),
        ({"clip": 0.0}, "clip > 0, or None, got 0.0 (float). Pass clip=1.0."),
        ({"clip": -1.0}, "clip > 0, or None, got -1.0 (float). Pass clip=1.0."),
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

    changed = TEXT.copy()
    changed[5001] ^= 1
    judged = {"validation": TEXT[:500]}
    for told, text in (({"lr": 0.5}, TEXT), ({}, TEXT[1:]), ({}, changed), (judged, TEXT)):
        with pytest.raises(ValueError, match="checkpoint"):
            train.fit_language(gpt(), text, checkpoint=path, **(TOLD | told))


def test_a_finished_training_is_not_told_with_the_bits_of_another_validation(tmp_path):
    told = TOLD | {"checkpoint": tmp_path / "run.safetensors"}
    train.fit_language(gpt(), TEXT, validation=TEXT[:500], **told)

    with pytest.raises(ValueError, match="other rows"):
        train.fit_language(gpt(), TEXT, validation=TEXT[500:1000], **told)


def test_a_text_is_told_by_all_of_its_parts():
    long = np.zeros(10**6, np.uint8)
    texts = [long]

    for start in range(0, 10**6, 100_000):
        texts.append(long.copy())
        texts[-1][start : start + 20_000] = 1

    assert len({checksum for _, checksum in inputs.fingerprints(texts)}) == 11


def test_a_model_that_cannot_be_trained_on_a_text_is_told():
    bare, frozen = torch.nn.Linear(2, 2), gpt().requires_grad_(False)
    small = models.GPT(depth=2, width=32, heads=2, context=16, vocabulary=64)

    for model, message in (
        (
            bare,
            (
                "a model with a `context`, the longest text that it reads, got Linear. "
                "Pass models.GPT(depth=4), or set model.context=256."
            ),
        ),
        (
            frozen,
            (
                "weights to train, got none that wants a gradient. "
                "Thaw the model: model.requires_grad_(True)."
            ),
        ),
        (
            small,
            (
                "tokens below 64, the model's vocabulary, got 116 (int). "
                "Build the model with vocabulary=256."
            ),
        ),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            train.fit_language(model, TEXT, **TOLD)
        assert str(error.value) == f"train.fit_language: expected {message}"


@pytest.mark.parametrize(
    ("tokens", "shown"), [("a text", "'a text' (str)"), (TEXT.astype(int), "ndarray of shape")]
)
def test_tokens_that_are_no_bytes_are_told(tokens, shown):
    with pytest.raises(TypeError) as error:
        inputs.check_texts("train.fit_language", [tokens], gpt())

    assert str(error.value).startswith(
        f"train.fit_language: expected tokens as a row of bytes (np.uint8), got {shown}"
    )


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
