"""Optimised models: right within the tolerance, never slower, and all that was tried is told."""

import copy
import inspect
import logging
import math
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kit import infer, models
from kit.base import seed as seeds
from kit.infer import contest, forms, laps, runtime
from kit.infer.forms import CannotTry, Subject

NAMES = ["eager", *forms.FLEXIBLE]
SIZES = (1, 4, 16)
LOOSE = 0.5  # standard deviations: int8 of a small random network passes


def rows(n: int, width: int = 6) -> torch.Tensor:
    return torch.randn(n, width, generator=seeds.generator(0))


def network() -> nn.Sequential:
    with seeds.drawing(0):
        inner = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(32))
        return nn.Sequential(nn.ReLU(), inner, nn.Linear(32, 3))


def subject(model: nn.Module, x: torch.Tensor) -> Subject:
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    return Subject(twin, x, twin(x).dtype)


def sure(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


class Slow(nn.Module):
    """Takes so long that any form is faster."""

    def __init__(self, seconds: float = 0.002) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return 2 * x


@pytest.fixture(scope="module")
def found() -> infer.Optimised:
    return infer.optimise(network(), rows(64), tolerance=LOOSE, sizes=SIZES)


@pytest.fixture
def only(monkeypatch):
    """Let these forms alone be tried."""

    def set_forms(**makers):
        monkeypatch.setattr(forms, "FLEXIBLE", makers)

    return set_forms


@pytest.fixture
def clock(monkeypatch):
    """Let time pass by sleeping alone, and a little each time that somebody looks."""
    now = [0.0]

    def pass_by(seconds):
        now[0] += seconds

    def look():
        pass_by(1e-4)
        return now[0]

    monkeypatch.setattr(time, "sleep", pass_by)
    monkeypatch.setattr(time, "perf_counter", look)
    monkeypatch.setattr(time, "thread_time", look)


@given(n=st.integers(0, 80))
def test_any_number_of_rows_gives_what_the_model_gives_within_the_tolerance(found, n):
    model, X = network().eval(), rows(80)[:n]

    outputs = found(X)

    expected = model(X).detach()
    assert outputs.shape == expected.shape
    assert outputs.dtype == expected.dtype
    assert not outputs.requires_grad
    assert n == 0 or float((outputs - expected).abs().max()) <= 2 * LOOSE * float(expected.std())


def test_the_table_has_every_form_at_every_size_and_one_kept_for_each(found):
    table = found.table

    assert list(zip(table["rows"], table["form"], strict=True)) == [
        (n, name) for n in SIZES for name in NAMES
    ]
    kept = table[table["kept"]]
    assert dict(zip(kept["rows"], kept["form"], strict=True)) == found.kept
    assert list(found.kept) == list(SIZES)
    assert ((table["reason"] == "") == table["kept"]).all()
    assert table["median_ms"].gt(0).all()
    assert table["drift"].ge(0).all()


def test_what_is_kept_is_eager_or_clearly_faster_and_within_the_tolerance(found):
    kept = found.table[found.table["kept"]]

    ahead = kept["speedup"].ge(contest.MARGIN) & kept["drift"].le(LOOSE)
    assert (ahead | kept["form"].eq("eager")).all()
    assert found.table.query("form == 'eager'")["speedup"].eq(1).all()


def test_the_facts_name_the_form_of_each_size(found):
    facts = found.facts()

    assert list(facts) == ["1 row", "4 rows", "16 rows", "drift"]
    assert all(facts[f"{n} rows"].startswith(found.kept[n] + " ") for n in (4, 16))
    assert str(found).startswith("Optimised(1 row ")


def test_every_form_computes_the_same_function_for_any_number_of_rows():
    at = subject(network(), rows(64))
    made = {name: make(at) for name, make in forms.FLEXIBLE.items()}

    for n in (1, 5, 64):
        expected = at.model(rows(64)[:n])
        drift = {
            name: float((form(rows(64)[:n]) - expected).abs().max()) for name, form in made.items()
        }

        assert max(drift[name] for name in ("direct", "onnx")) < 1e-5
        assert drift["medium"] < 2e-2
        assert max(drift.values()) < 0.2


def test_the_original_and_its_rows_are_not_changed(only):
    only(direct=forms.direct, bfloat16=forms.bfloat16, int8=forms.int8)
    model, x = network(), rows(16)
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [each.training for each in model.modules()]

    fast = infer.optimise(model, x, tolerance=LOOSE, sizes=[4])
    fast(x)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [each.training for each in model.modules()] == modes
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(x, rows(16))


def test_training_the_model_afterwards_does_not_change_what_was_optimised(only):
    only(direct=forms.direct)
    model, x = network().eval(), rows(16)
    expected = model(x).detach()
    fast = infer.optimise(model, x, tolerance=1e-4, sizes=[4])

    with torch.no_grad():
        model[2].weight.zero_()

    torch.testing.assert_close(fast(x), expected)


def state_of_the_process() -> tuple:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_rng_state().sum().item(),
        np.random.get_state()[1].sum(),  # noqa: NPY002
        logging.root.manager.disable,
        list(logging.root.handlers),
        list(warnings.filters),
        sys.stdout,
    )


def test_no_setting_of_the_process_is_changed():
    before = state_of_the_process()

    fast = infer.optimise(network(), rows(16), tolerance=LOOSE, sizes=[4])
    fast(rows(4))

    assert state_of_the_process() == before


def test_the_precision_of_products_is_put_back_when_the_model_fails():
    form = forms.medium(subject(nn.Linear(6, 1), rows(2)))
    before = torch.backends.mkldnn.matmul.fp32_precision

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        form(rows(2, width=5))

    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_precision_of_products_is_medium_while_the_model_computes():
    seen = []

    class Asks(nn.Module):
        def forward(self, x):
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)
            return x

    forms.medium(Subject(Asks(), rows(1), torch.float32))(rows(1))

    assert seen == ["bf16"]


def test_what_drifts_is_rejected_however_fast(only, clock):
    only(wrong=lambda at: torch.zeros_like, right=lambda at: lambda x: 2 * x + 1e-3)

    fast = infer.optimise(Slow(), rows(8), tolerance=0.01, sizes=[4])

    table = fast.table.set_index("form")
    drift = 2 * rows(8).abs().max() / (2 * rows(8)).std(correction=0)
    assert table.loc["wrong", "drift"] == pytest.approx(float(drift))
    assert table.loc["wrong", "reason"] == f"drift {float(drift):.3g} > tolerance 0.01"
    assert table.loc["right", "drift"] == pytest.approx(1e-3 / float((2 * rows(8)).std()), rel=0.02)
    assert fast.kept == {4: "right"}


def test_nan_in_a_form_is_drift_and_never_kept(only, clock):
    only(broken=lambda at: lambda x: 2 * x + math.nan)

    fast = infer.optimise(Slow(), rows(8), tolerance=math.inf, sizes=[4])

    assert fast.kept == {4: "eager"}
    assert fast.table["reason"].tolist() == ["", "drift – > tolerance inf"]


def test_the_fastest_is_kept_and_the_others_are_told_why_not(only, clock):
    def waits(seconds):
        return lambda at: Slow(seconds)

    only(slower=waits(0.004), same=waits(0.002), fast=waits(0.0005), faster=lambda at: sure)

    found = infer.optimise(Slow(), rows(8), tolerance=0.01, sizes=[4])

    table = found.table.set_index("form")
    assert table["reason"].to_dict() == {
        "eager": "slower than faster",
        "slower": "not clearly faster than eager",
        "same": "not clearly faster than eager",
        "fast": "slower than faster",
        "faster": "",
    }
    assert table["median_ms"].sort_values().index[:2].tolist() == ["faster", "fast"]
    assert found.form_for(rows(4).shape, torch.float32, False) is sure


def test_where_nothing_is_faster_the_model_itself_is_called(only, clock):
    only(slower=lambda at: Slow(0.004))

    found = infer.optimise(Slow(), rows(8), tolerance=0.01, sizes=[4])

    assert found.kept == {4: "eager"}
    assert isinstance(found.form_for(rows(4).shape, torch.float32, False), Slow)


def test_rows_between_sizes_go_to_the_nearest_and_none_to_the_model(only, clock):
    def odd(at):
        return lambda x: 2 * x + 1e-4  # tells itself from the model

    only(odd=odd)

    found = infer.optimise(Slow(), rows(64), tolerance=0.01, sizes=[64, 4, 4])
    found_forms = {n: found.form_for(torch.Size([n, 6]), torch.float32, False) for n in range(99)}

    assert found.kept == {4: "odd", 64: "odd"}
    assert isinstance(found_forms[0], Slow)
    assert not any(isinstance(found_forms[n], Slow) for n in range(1, 99))


def test_a_form_for_one_size_serves_that_size_alone(monkeypatch, only, clock):
    def exactly(at):
        n = len(at.x)

        def call(x):
            assert len(x) == n
            return 2 * x

        return call

    only(near=lambda at: Slow(0.0005))
    monkeypatch.setattr(forms, "FIXED", {"compile": exactly})

    found = infer.optimise(Slow(), rows(8), tolerance=0.01, sizes=[4, 8], also=["compile"])

    assert found.kept == {4: "compile", 8: "compile"}
    assert found.table.query("form == 'near'")["reason"].unique().tolist() == [
        "slower than compile; used for nearby numbers of rows"
    ]
    found_forms = {n: found.form_for(torch.Size([n, 6]), torch.float32, False) for n in range(12)}
    assert [n for n, form in found_forms.items() if not isinstance(form, Slow)] == [4, 8]
    for n in range(12):
        torch.testing.assert_close(found(rows(n)), 2 * rows(n))


def test_what_is_unlike_the_example_is_computed_as_the_model_does(only, clock):
    only(wrong_elsewhere=lambda at: lambda x: 2 * x if x.shape[1:] == (6,) else x)
    found = infer.optimise(Slow(), rows(8), tolerance=0.01, sizes=[4])

    wide, double = found(rows(4, width=7)), found(rows(4).double())
    asking = rows(4).requires_grad_()
    found(asking).sum().backward()

    torch.testing.assert_close(wide, 2 * rows(4, width=7))
    torch.testing.assert_close(double, 2 * rows(4).double())
    torch.testing.assert_close(asking.grad, torch.full((4, 6), 2.0))


def test_fewer_rows_than_a_size_are_repeated(only, clock):
    seen = []

    def watched(at):
        def call(x):
            seen.append(x)
            return 2 * x

        return call

    only(watched=watched)

    infer.optimise(Slow(), rows(3), tolerance=0.01, sizes=[8])

    torch.testing.assert_close(seen[0], rows(3)[[0, 1, 2, 0, 1, 2, 0, 1]])


def test_drift_is_measured_on_many_batches_of_a_size(only, clock):
    only(right_at_first=lambda at: lambda x: 2 * x + (x[:, :1] == rows(8)[7, 0]))

    found = infer.optimise(Slow(), rows(8), tolerance=0.1, sizes=[1])

    assert found.kept == {1: "eager"}
    assert found.table["drift"][1] == pytest.approx(1 / float((2 * rows(8)).std(correction=0)))


def test_outputs_of_another_shape_or_type_are_told(only, clock):
    only(wide=lambda at: lambda x: x[:, :2], double=lambda at: lambda x: 2 * x.double())

    found = infer.optimise(Slow(), rows(8), tolerance=0.1, sizes=[4])

    assert found.table["reason"].tolist() == [
        "",
        "returns torch.float32 of shape (4, 2)",
        "returns torch.float64 of shape (4, 6)",
    ]


def test_a_language_model_is_optimised_by_its_tokens():
    with seeds.drawing(0):
        model = models.GPT(depth=1, width=32, heads=2, context=16).eval()
        tokens = torch.randint(0, 256, (8, 12))

    found = infer.optimise(model, tokens, tolerance=0.2, sizes=[2])

    reasons = found.table.set_index("form")["reason"]
    assert reasons["direct"] == "the model is no nn.Sequential"
    tried = found.table.query("form != 'direct'")
    assert tried["drift"].lt(0.2).all(), tried
    torch.testing.assert_close(found(tokens[:, :5]), model(tokens[:, :5]).detach())


def test_codes_of_categories_are_never_rounded():
    model = models.MLP(2, 1, cardinalities=[600])
    codes = torch.tensor([[0.5, -1.0, 257.0], [0.1, 0.2, 599.0]])

    found = infer.optimise(model, codes, tolerance=0.5, sizes=[2])

    table = found.table.set_index("form")
    assert table.loc["bfloat16", "reason"] == (
        "the inputs hold codes, and bfloat16 rounds those from 257 on"
    )
    assert table.drop(index="bfloat16")["drift"].drop("direct").lt(0.5).all()
    torch.testing.assert_close(found(codes), model(codes).detach(), atol=0.2, rtol=0)


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript"])
def test_without_the_extra_its_rows_say_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    found = infer.optimise(network(), rows(4), tolerance=LOOSE, sizes=[4])

    reasons = found.table.set_index("form")["reason"]
    wanted = (
        f"infer.optimise: expected the package '{package}', got none. "
        "Install it: pip install 'modelcare[onnx]'"
    )
    assert reasons["onnx"] == reasons["onnx int8"] == wanted
    assert found.table.set_index("form").loc["onnx", "median_ms"] != 0


def test_a_model_that_cannot_be_exported_is_told_in_one_line():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    found = infer.optimise(Branches(), rows(4), tolerance=0.1, sizes=[4])

    reason = found.table.set_index("form").loc["onnx", "reason"]
    assert reason.startswith("GuardOnDataDependentSymNode: Could not guard on data-dependent")
    assert len(reason) <= contest.LINE
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("make", "model", "reason"),
    [
        (forms.direct, nn.Linear(6, 1), "the model is no nn.Sequential"),
        (forms.int8, nn.Sequential(nn.ReLU()), "there is no nn.Linear to quantise"),
        (forms.onnx_int8, nn.Sequential(nn.ReLU()), "there is no matrix product to quantise"),
        (forms.graphs, nn.Linear(6, 1), "CUDA graphs need an NVIDIA GPU"),
    ],
)
def test_what_cannot_be_tried_says_why(make, model, reason):
    with pytest.raises(CannotTry) as caught:
        make(subject(model, rows(2)))

    assert str(caught.value) == reason


def test_hooks_are_not_skipped():
    model = network()
    model[1][0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)

    with pytest.raises(CannotTry) as caught:
        forms.direct(subject(model, rows(2)))

    assert str(caught.value) == "a layer has hooks"


SHARED = nn.Tanh()  # one layer at two places


class Noisy(nn.Dropout):
    """Change its input in eval mode, too."""

    def forward(self, x):
        return x + 1


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)], (5, 6)),
        ([nn.Linear(6, 4), nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.ReLU()], (5, 6)),
        ([nn.Linear(6, 4), nn.ReLU()], (5, 2, 6)),
        ([nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)], (5, 2, 6)),
        ([nn.Linear(6, 4), SHARED, nn.Linear(4, 4), SHARED, nn.Linear(4, 2)], (5, 6)),
        ([nn.Linear(6, 4), Noisy(), nn.Linear(4, 2)], (5, 6)),
        ([], (5, 6)),
    ],
)
def test_layers_called_directly_give_the_same_bits(layers, shape):
    at = subject(nn.Sequential(*layers), torch.randn(shape, generator=seeds.generator(0)))

    outputs = forms.direct(at)(at.x)

    assert torch.equal(outputs, at.model(at.x))


def test_layers_called_directly_do_not_write_into_the_rows():
    x = rows(4)

    forms.direct(subject(network(), rows(4)))(x)

    assert torch.equal(x, rows(4))


def test_without_bfloat16_on_a_gpu_it_is_not_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)

    with pytest.raises(CannotTry) as caught:
        forms._need_bfloat16(torch.device("cuda"))

    assert str(caught.value) == "this GPU has no bfloat16"


def test_without_a_compiler_torch_compile_is_a_row_with_the_remedy(only):
    from torch._inductor import config

    only()
    with config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}):
        found = infer.optimise(network(), rows(4), tolerance=0.1, sizes=[4], also=["compile"])

    assert found.table["reason"].tolist() == ["", "no C++ compiler: install g++"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_graphs_and_the_model_agree():
    model, x = network().eval().cuda(), rows(16).cuda()

    found = infer.optimise(model, x, tolerance=1e-2, sizes=[4], also=["graphs"])

    row = found.table.set_index("form").loc["graphs"]
    assert row["drift"] < 1e-5
    torch.testing.assert_close(found(x), model(x).detach(), rtol=0.05, atol=0.05)


def test_calls_take_turns_each_lap_in_another_order_and_the_slow_drop_out(clock):
    seen = []

    def call(name, seconds):
        def run():
            seen.append(name)
            time.sleep(seconds)

        return run

    calls = {"a": call("a", 0.002), "b": call("b", 0.002), "slow": call("slow", 0.02)}
    times = laps.laps_ms(calls, torch.device("cpu"), seconds=0.0)

    assert seen[9:] == ["a", "b", "slow", "b", "slow", "a", "slow", "a", "b"]
    assert all(len(each) == 3 for each in times.values())
    assert {name: np.median(each) for name, each in times.items()} == pytest.approx(
        {"a": 2.1, "b": 2.1, "slow": 20.1}
    )
    longer = laps.laps_ms(calls, torch.device("cpu"), seconds=10.0)
    assert {name: len(each) for name, each in longer.items()} == {"a": 40, "b": 40, "slow": 3}


def test_silence_is_only_inside():
    level, handlers = logging.root.manager.disable, list(logging.root.handlers)

    with runtime.quietly():
        logging.getLogger("other").error("a log")
        warnings.warn("a warning", stacklevel=1)
        logging.warning("from a package")

    assert (logging.root.manager.disable, logging.root.handlers) == (level, handlers)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"x": torch.zeros(0, 6)},
            "expected at least one row, got Tensor of shape (0, 6). Pass X[:256].",
        ),
        (
            {"tolerance": 0.0},
            (
                "expected tolerance > 0, got 0.0 (float). "
                "Pass tolerance=0.1 to allow int8, 1e-4 for float32 alone."
            ),
        ),
        (
            {"tolerance": math.nan},
            (
                "expected tolerance > 0, got nan (float). "
                "Pass tolerance=0.1 to allow int8, 1e-4 for float32 alone."
            ),
        ),
        (
            {"sizes": ()},
            "expected sizes of 1 or more, at least one, got () (tuple). Pass sizes=(1, 16, 256).",
        ),
        (
            {"sizes": (4, 0)},
            (
                "expected sizes of 1 or more, at least one, got (4, 0) (tuple). "
                "Pass sizes=(1, 16, 256)."
            ),
        ),
        (
            {"tolerance": None},
            (
                "expected tolerance > 0, got None (NoneType). "
                "Pass tolerance=0.1 to allow int8, 1e-4 for float32 alone."
            ),
        ),
        (
            {"sizes": 4},
            "expected sizes of 1 or more, at least one, got 4 (int). Pass sizes=(1, 16, 256).",
        ),
        (
            {"sizes": (2.5,)},
            (
                "expected sizes of 1 or more, at least one, got (2.5,) (tuple). "
                "Pass sizes=(1, 16, 256)."
            ),
        ),
        (
            {"also": ["graph"]},
            (
                "expected a known form to ask for, got 'graph' (str). "
                "Did you mean 'graphs'? Known: compile, graphs."
            ),
        ),
        (
            {"x": torch.full((2, 6), math.nan)},
            (
                "expected finite outputs, got 12 NaN or infinite numbers. "
                "Drift cannot be told from those: look at the model and at x."
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(changed, message):
    asked = {"model": Slow(), "x": rows(2), "tolerance": 0.1} | changed

    with pytest.raises(ValueError) as caught:
        # as outside of the tests, where nothing checks types before
        inspect.unwrap(infer.optimise)(asked.pop("model"), asked.pop("x"), **asked)

    assert str(caught.value) == f"infer.optimise: {message}"


def test_what_is_timed_as_eager_is_what_will_be_called(only):
    seen = []

    class Asks(nn.Module):
        def forward(self, x):
            seen.append(torch.is_grad_enabled())
            return x

    only()
    found = infer.optimise(Asks(), rows(4), tolerance=0.1, sizes=[4])
    timed = seen[-1]
    found(rows(4))

    assert timed == seen[-1]


class Full(Slow):
    """Hold no more than so many rows."""

    def __init__(self, most: int, seconds: float = 0.002) -> None:
        super().__init__(seconds)
        self.most = most

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_a_size_that_memory_does_not_hold_is_a_row_with_the_reason(only, clock):
    only(sure=lambda at: sure, full=lambda at: Full(2, 0.0005))

    found = infer.optimise(Full(4), rows(8), tolerance=0.1, sizes=[4, 8])

    assert found.kept == {4: "sure"}
    assert found.table["reason"].to_list() == ["slower than sure", "", *["out of memory"] * 4]
    assert isinstance(found.form_for(rows(8).shape, torch.float32, False), Full)


def test_a_model_of_which_memory_holds_no_row_is_told():
    with pytest.raises(MemoryError) as caught:
        infer.optimise(Full(0), rows(8), tolerance=0.1, sizes=[4])

    assert str(caught.value) == (
        "infer.optimise: expected memory for one row, got too little. Shrink the model."
    )


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            lambda x: x.sum() * 0,
            (
                "one row of outputs for each of 5 inputs, got 0.0 (float). "
                "Pass a model that keeps the rows apart."
            ),
        ),
        (
            lambda x: x.sum(0),
            (
                "one row of outputs for each of 5 inputs, got Tensor of shape (6,). "
                "Pass a model that keeps the rows apart."
            ),
        ),
        (
            lambda x: x @ x.T,
            (
                "outputs of shape (5,) in every row, got Tensor of shape (3, 3). "
                "Pass rows of one shape, or predict them one by one."
            ),
        ),
    ],
)
def test_a_model_that_does_not_keep_the_rows_apart_is_told(outputs, message):
    class Mixes(nn.Module):
        def forward(self, x):
            return outputs(x)

    with pytest.raises(ValueError) as caught:
        infer.optimise(Mixes(), rows(8), tolerance=0.1, sizes=[5])

    assert str(caught.value) == f"infer.optimise: expected {message}"


def test_a_model_of_two_outputs_is_told():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError) as caught:
        infer.optimise(Two(), rows(2), tolerance=0.1)

    assert str(caught.value) == (
        "infer.optimise: expected a model that returns one tensor, got tuple. "
        "Wrap it in a module whose forward returns the one you want."
    )


def test_a_model_that_cannot_be_copied_is_told():
    model = nn.Linear(6, 1)
    model.made = model(rows(1))

    with pytest.raises(ValueError, match="can copy") as caught:
        infer.optimise(model, rows(2), tolerance=0.1)

    assert str(caught.value).startswith(
        "infer.optimise: expected a model that copy.deepcopy can copy, got RuntimeError: Only "
    )
    assert str(caught.value).endswith(
        "Hold no results of a computation in its attributes; of a pruned model, first "
        'prune.remove(module, "weight").'
    )
