"""A precision is taken where it pays and is exact; nothing of the choice stays behind."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import train
from kit.train import precision
from kit.train.precision import ONEDNN

N, WIDTH = 64, 4
X = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(1))
SUM = X.sum(dim=1)
LONG = {"epochs": 4, "batch": 2, "lr": 1e-3}  # 128 steps

with_onednn = pytest.mark.skipif(not precision.is_exact(), reason="needs oneDNN in float32")


def wide(side: int = precision.SIDE) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, side),
        nn.BatchNorm1d(side),
        nn.Dropout(0.1),
        nn.Linear(side, side),
        nn.Linear(side, 1),
    )


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def told(monkeypatch, **seconds: float) -> None:
    """Let the probe find that a step takes so long: plain, and by oneDNN."""
    found = {"float32": seconds["plain"], ONEDNN: seconds["onednn"]}
    monkeypatch.setattr(precision, "_passes", lambda loss, where, name: [found[name]])
    monkeypatch.setattr(precision, "is_exact", lambda: True)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


# ---- the setting of the process


@pytest.fixture(params=["none", "ieee", "bf16"])
def before(request):
    settings = torch.backends.mkldnn.matmul
    was, settings.fp32_precision = settings.fp32_precision, request.param
    yield request.param
    settings.fp32_precision = was


@with_onednn
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_setting_of_the_process_is_put_back_whatever_happens(before, error):
    with pytest.raises(error) if error else nullcontext(), precision.products(ONEDNN):
        inside = setting()
        if error:
            raise error

    assert (inside, setting()) == ("bf16", before)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_other_precisions_leave_the_setting_alone(name):
    before = setting()

    with precision.products(name):
        assert setting() == before


@with_onednn
def test_legacy_and_new_settings_are_not_mixed_up():
    torch.set_float32_matmul_precision("high")
    try:
        with precision.products(ONEDNN):
            pass

        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


# ---- what is exact


def test_products_that_round_to_bfloat16_inside_are_refused(monkeypatch):
    """As on a CPU with AMX, which this one need not have."""
    monkeypatch.setattr(precision, "products", lambda name: torch.autocast("cpu", torch.bfloat16))

    assert not precision.is_exact.__wrapped__()


@pytest.mark.skipif(
    not hasattr(precision._settings(), "fp32_precision"), reason="needs torch 2.9 or later"
)
def test_products_in_float32_are_exact(monkeypatch):
    monkeypatch.setattr(precision, "products", lambda name: nullcontext())

    assert precision.is_exact.__wrapped__()


def test_a_torch_without_the_setting_has_no_products_by_onednn(monkeypatch):
    monkeypatch.setattr(precision, "_settings", lambda: None)

    assert not precision.is_exact.__wrapped__()


# ---- what fit takes


@with_onednn
@pytest.mark.parametrize(("plain", "taken"), [(2.0, ONEDNN), (1.05, "float32"), (0.5, "float32")])
def test_onednn_multiplies_in_every_step_where_it_clearly_pays(monkeypatch, plain, taken):
    told(monkeypatch, plain=plain, onednn=1.0)
    before, seen = setting(), set()

    def loss(outputs, yb):
        if outputs.requires_grad:
            seen.add(setting())
        return F.mse_loss(outputs[:, 0], yb)

    fitted = train.fit(wide(), X, SUM, validation=(X, SUM), loss=loss, **LONG)

    assert fitted.precision == taken
    assert seen == {"bf16" if taken == ONEDNN else before}
    assert setting() == before


@with_onednn
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_setting_is_put_back_when_a_training_breaks_off(monkeypatch, error):
    told(monkeypatch, plain=2.0, onednn=1.0)
    before, calls = setting(), iter(range(1000))

    def loss(outputs, yb):
        if next(calls) == 5:
            raise error
        return F.mse_loss(outputs[:, 0], yb)

    with pytest.raises(ValueError) if error is ValueError else nullcontext():
        train.fit(wide(), X, SUM, loss=loss, **LONG)

    assert next(calls) == 6
    assert setting() == before


@with_onednn
def test_ctrl_c_during_the_probe_ends_a_training_that_has_not_begun():
    before, model, calls = setting(), wide(), iter(range(1000))

    def loss(outputs, yb):
        if next(calls) == 4:  # the second batch by oneDNN
            assert setting() == "bf16"
            raise KeyboardInterrupt
        return F.mse_loss(outputs[:, 0], yb)

    fitted = train.fit(model, X, SUM, loss=loss, **LONG)

    assert (fitted.stopped, len(fitted.table)) == ("interrupted", 0)
    assert all(map(torch.equal, weights(model), weights(wide())))
    assert all(weight.grad is None for weight in model.parameters())
    assert setting() == before


@with_onednn
def test_a_probe_leaves_no_trace_in_the_training(monkeypatch):
    probed, plain, probes = wide(), wide(), []
    monkeypatch.setattr(precision, "PAYS", float("inf"))
    passes = precision._passes
    monkeypatch.setattr(
        precision, "_passes", lambda *given: probes.append(given[2]) or passes(*given)
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    auto = train.fit(probed, X, SUM, **LONG)
    exact = train.fit(plain, X, SUM, precision="float32", **LONG)

    assert probes == ["float32", ONEDNN]
    assert auto.table.equals(exact.table)
    assert all(map(torch.equal, weights(probed), weights(plain)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("made", "rows", "settings"),
    [
        (lambda: wide(precision.SIDE - 1), X, LONG),
        (lambda: nn.Sequential(nn.Linear(WIDTH, 20_000), nn.Linear(20_000, 1)), X, LONG),
        (lambda: wide().double(), X.double(), LONG),
        (wide, X, LONG | {"epochs": 3}),
        (wide, X, LONG | {"precision": "float32"}),
        (wide, X, LONG | {"precision": "bfloat16", "epochs": 1}),
    ],
    ids=["small", "thin", "doubles", "short", "float32", "bfloat16"],
)
def test_nothing_is_probed_where_it_cannot_pay_or_was_not_asked_for(
    monkeypatch, made, rows, settings
):
    monkeypatch.setattr(precision, "_passes", lambda *given: pytest.fail("probed"))
    monkeypatch.setattr(precision, "is_exact", lambda: True)

    fitted = train.fit(made(), rows, rows.sum(dim=1), **settings)

    assert fitted.precision == settings.get("precision", "float32")


def test_what_is_not_exact_is_not_taken_however_fast(monkeypatch):
    told(monkeypatch, plain=9.0, onednn=1.0)
    monkeypatch.setattr(precision, "is_exact", lambda: False)

    assert train.fit(wide(), X, SUM, **LONG).precision == "float32"


@with_onednn
def test_products_by_onednn_train_as_those_in_float32(monkeypatch):
    losses = []

    for seconds in (0.5, 2.0):
        told(monkeypatch, plain=seconds, onednn=1.0)
        losses.append(train.fit(wide(), X, SUM, **LONG).table["train_loss"])

    plain, onednn = losses
    assert not plain.equals(onednn)
    assert onednn.tolist() == pytest.approx(plain.tolist(), rel=1e-3)


# ---- checkpoints


@with_onednn
def test_a_resumed_training_keeps_the_choice_and_so_its_bits(monkeypatch, tmp_path):
    told(monkeypatch, plain=2.0, onednn=1.0)
    whole, resumed, path = wide(), wide(), tmp_path / "run.safetensors"
    train.fit(whole, X, SUM, **LONG | {"epochs": 6})
    train.fit(resumed, X, SUM, checkpoint=path, **LONG)
    told(monkeypatch, plain=0.5, onednn=1.0)  # on a busier day

    on = train.fit(resumed, X, SUM, checkpoint=path, **LONG | {"epochs": 6})

    assert on.precision == ONEDNN
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_a_training_goes_on_in_float32_where_onednn_is_not_exact(monkeypatch, tmp_path):
    told(monkeypatch, plain=2.0, onednn=1.0)
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(precision, "products", lambda name: nullcontext())
    train.fit(wide(), X, SUM, checkpoint=path, **LONG)
    monkeypatch.setattr(precision, "is_exact", lambda: False)

    on = train.fit(wide(), X, SUM, checkpoint=path, **LONG | {"epochs": 5})

    assert on.precision == "float32"
