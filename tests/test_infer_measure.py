"""The limits of a machine, and how far a model stays below them."""

import inspect
import math
import sys
import time
import warnings

import pandas as pd
import pytest
import torch
from torch import nn

from kit import infer
from kit.infer import limits as limits_of
from kit.infer.layout import arranged
from kit.models import GPT


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(limits_of, "COPY_MIB", {"cpu": 4})
    monkeypatch.setattr(limits_of, "SIDE", {"cpu": 64})


def gpt() -> GPT:
    return GPT(depth=2, width=32, heads=4, groups=2, hidden=48, context=64)


def limits(copy=10.0, rate=100.0) -> infer.Roofline:
    return infer.Roofline(
        table=pd.DataFrame(),
        device="cpu",
        threads=1,
        copy_gb_per_s=copy,
        gflop_per_s={"float32": rate, "bfloat16": 2 * rate, "int8": 4 * rate},
    )


def test_a_roofline_follows_from_the_times_in_its_table():
    found = infer.roofline()

    table = found.table.set_index("what")
    seconds = table["median_ms"] / 1e3
    assert found.copy_gb_per_s == pytest.approx(2 * 4 * 2**20 / seconds["copy"] / 1e9)
    for kind in ("float32", "bfloat16"):
        assert found.gflop_per_s[kind] == pytest.approx(2 * 64**3 / seconds[kind] / 1e9)
    assert list(found.facts()) == ["copy_gb_per_s", *(f"{k}_gflop_per_s" for k in limits_of.KINDS)]
    assert (found.device, found.threads) == ("cpu", torch.get_num_threads())


def test_a_product_that_the_device_lacks_has_no_rate(monkeypatch):
    def lacking(*_):
        raise NotImplementedError

    monkeypatch.setattr(torch, "_int_mm", lacking)

    assert math.isnan(infer.roofline().gflop_per_s["int8"])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="one way to multiply only")
def test_the_rate_of_float32_is_that_of_the_faster_product(monkeypatch):
    pause_s, product = 0.05, torch.mm

    def slow(a, b):
        time.sleep(pause_s)
        return product(a, b)

    monkeypatch.setattr(torch, "mm", slow)
    found = infer.roofline()

    slow_gflop_per_s = 2 * 64**3 / pause_s / 1e9
    assert found.gflop_per_s["bfloat16"] <= slow_gflop_per_s < found.gflop_per_s["float32"]


def test_weights_are_counted_by_type_those_of_int8_layers_too():
    model = gpt()
    n = sum(each.numel() for each in model.parameters())
    n_linear = n - 256 * 32 - 5 * 32  # the table of tokens and the norms stay as they are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        int8 = torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})

    assert limits_of.weights(model) == (n, 4 * n, "float32")
    assert limits_of.weights(gpt().bfloat16()) == (n, 2 * n, "bfloat16")
    assert limits_of.weights(int8) == (n, 4 * (n - n_linear) + n_linear, "int8")


def test_the_ceiling_is_set_by_memory_for_one_text_and_by_arithmetic_for_many():
    model, found = gpt(), limits()
    n, n_bytes, _ = limits_of.weights(model)
    of_token = 2 * 2 * 2 * 8 * 4  # blocks, keys and values, groups, width of a head, bytes

    one = found.decode_ceiling(model, batch=1, context=50)
    many = found.decode_ceiling(model, batch=10_000, context=1)

    assert limits_of.cache_bytes(model) == of_token
    assert one == pytest.approx(10e9 / (n_bytes + 50 * of_token))
    assert many == found.prefill_ceiling(model) == pytest.approx(100e9 / (2 * n))


def test_a_measured_row_is_consistent_and_covers_every_batch_and_context():
    model, found = gpt(), limits()

    measured = infer.measure(model, contexts=(8, 30), batches=(1, 3), tokens=4, limits=found)

    table = measured.table
    assert list(zip(table["batch"], table["context"], strict=True)) == [
        (1, 8),
        (1, 30),
        (3, 8),
        (3, 30),
    ]
    assert table["tokens_per_s"].to_list() == pytest.approx(
        table["batch"] * 1e3 / table["token_ms"]
    )
    assert table["roofline_frac"].to_list() == pytest.approx(
        table["tokens_per_s"] / table["ceiling_per_s"]
    )
    assert table["cache_mib"].to_list() == pytest.approx(
        table["batch"] * (table["context"] + 4) * limits_of.cache_bytes(model) / 2**20
    )
    ceilings = [
        found.decode_ceiling(model, batch=b, context=c + 2)
        for b, c in zip(table["batch"], table["context"], strict=True)
    ]
    assert table["ceiling_per_s"].to_list() == pytest.approx(ceilings)
    assert measured.n_weights == sum(each.numel() for each in model.parameters())
    assert "tokens_per_s" in str(measured)


def test_the_first_token_waits_until_the_weights_are_laid_out_but_the_prompt_is_read_after(
    monkeypatch,
):
    pause_s = 0.3

    def slow(model, *, rows):
        time.sleep(pause_s)
        return arranged(model, rows=rows)

    monkeypatch.setattr(sys.modules["kit.infer.measure"], "arranged", slow)

    table = infer.measure(gpt(), contexts=(8,), batches=(1,), tokens=2, limits=limits()).table

    assert table["first_token_ms"][0] >= 1e3 * pause_s
    assert table["prefill_per_s"][0] > 8 / pause_s


def test_a_model_without_a_cache_is_measured_and_needs_no_memory_for_one():
    model = nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256))
    model.context = 40

    measured = infer.measure(model, batches=(2,), tokens=3)

    assert measured.table["context"].to_list() == [10, 37]
    assert measured.table["cache_mib"].to_list() == [0, 0]
    assert (measured.table["token_ms"] > 0).all()


def test_a_batch_that_memory_does_not_hold_has_no_figures_and_the_others_have():
    class Full(nn.Embedding):
        context = 40

        def forward(self, tokens):
            if len(tokens) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(tokens)

    measured = infer.measure(Full(256, 256), contexts=(4,), batches=(2, 4), tokens=3)

    assert measured.table["tokens_per_s"].isna().to_list() == [False, True]
    assert "at batch 2" in measured.facts()["tokens_per_s"]
    alone = infer.measure(Full(256, 256), contexts=(4,), batches=(4,), tokens=3)
    assert alone.facts()["tokens_per_s"] == "–"


def test_another_error_of_the_model_is_not_hidden():
    class Broken(nn.Embedding):
        context = 40

        def forward(self, tokens):
            raise RuntimeError("bad shape")

    with pytest.raises(RuntimeError, match="bad shape"):
        infer.measure(Broken(256, 256), limits=limits())


REMEDY = "Pass contexts=(64, 192), batches=(1, 16), tokens=32."


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"batches": (1, 0)}, f"batches of 1 or more, got (1, 0) (tuple). {REMEDY}"),
        ({"batches": 4}, f"batches of 1 or more, got 4 (int). {REMEDY}"),
        ({"tokens": 2.5}, f"tokens of 1 or more, got 2.5 (float). {REMEDY}"),
        (
            {"model": nn.Linear(2, 2)},
            (
                "a model with a context, the longest text in tokens, got Linear with context None. "
                "Set model.context = 256."
            ),
        ),
        ({"contexts": ()}, f"contexts of 1 or more, got () (tuple). {REMEDY}"),
        ({"tokens": 0}, f"tokens of 1 or more, got 0 (int). {REMEDY}"),
        (
            {"contexts": (50,), "tokens": 32},
            (
                "prompts and tokens within the model's context of 64, got 50 and 32. "
                "Pass shorter contexts, or fewer tokens."
            ),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(told, message):
    unchecked = inspect.unwrap(infer.measure)  # without the check of types that tests add

    with pytest.raises(ValueError) as error:
        unchecked(told.pop("model", gpt()), **told)

    assert str(error.value) == f"infer.measure: expected {message}"
