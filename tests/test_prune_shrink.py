"""Models made smaller: whatever is asked, on whatever model, and what is refused."""

import copy
import importlib
import re
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import infer
from kit.models import GPT
from kit.prune.distil import distil
from kit.prune.quantise import quantise
from kit.prune.shrink import shrink


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def gpt(**sizes):
    """A GPT all of whose matrices say something."""
    torch.manual_seed(0)
    shape = {"depth": 2, "width": 32, "heads": 4, "groups": 2, "hidden": 48, "context": 32}
    model = GPT(**{**shape, **sizes})
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.15)
    return model.eval()


def lost(pruned, model, rows):
    with torch.no_grad():
        wanted = model.eval()(rows)
        return float((pruned.model.eval()(rows) - wanted).square().mean() / wanted.var())


ROWS = drawn(96, 8)
distilling = importlib.import_module("kit.prune.distil")  # the package's name is the function
TOKENS = torch.randint(0, 256, (24, 16), generator=torch.Generator().manual_seed(0))


# --- sizes


@pytest.mark.parametrize("what", ["neurons", "layers", "auto"])
def test_keeping_all_changes_nothing(what):
    model = mlp(8, 16, 16, 3)

    pruned = shrink(model, ROWS, keep=1, what=what)

    assert torch.equal(pruned.model(ROWS), model(ROWS))
    assert pruned.parameters == pruned.dense_parameters
    assert pruned.table.empty or (pruned.table["kept"] == pruned.table["units"]).all()
    assert pruned.model is not model


@pytest.mark.parametrize("method", ["obs", "magnitude", "activation"])
def test_of_every_layer_at_least_one_neuron_stays(method):
    pruned = shrink(mlp(8, 16, 12, 3), ROWS, keep=1e-6, method=method)

    assert pruned.table["kept"].tolist() == [1, 1]
    assert pruned.model(ROWS).shape == (96, 3)
    assert pruned.model(ROWS).isfinite().all()


def test_a_pruned_model_can_be_pruned_again():
    once = shrink(mlp(8, 16, 3), ROWS, keep=0.5)

    twice = shrink(once.model, ROWS, keep=0.5)

    assert twice.model[0].out_features == 4


@pytest.mark.parametrize("what", ["neurons", "layers"])
def test_the_same_call_returns_the_same_weights(what):
    model = mlp(8, 8, 8, 3)

    first, second = (shrink(model, ROWS, keep=0.5, what=what, recover=5) for _ in range(2))

    both = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)


# --- what models keep


def test_mode_and_frozen_weights_stay_as_they_were():
    model = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)
    )
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    for is_training in (True, False):
        small = shrink(model.train(is_training), ROWS, keep=0.5).model

        assert all(part.training is is_training for part in (*small.modules(), *model.modules()))
        assert [p.requires_grad for p in small.parameters()] == [False] + [True] * 5
        assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_running_statistics_are_those_of_the_channels_that_stay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    model[1].running_mean.copy_(torch.arange(8.0))
    model[1].running_var.copy_(torch.arange(1.0, 9.0))

    small = shrink(model, drawn(16, 3, 8, 8), keep=0.5, method="magnitude").model

    kept = small[1].running_mean
    assert (small[1].num_features, len(kept)) == (4, 4)
    assert torch.equal(small[1].running_var, kept + 1)
    rows = [model[0].weight[int(unit)] for unit in kept]
    assert torch.equal(small[0].weight, torch.stack(rows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["obs", "magnitude", "activation"])
def test_models_of_other_floats_stay_of_theirs(dtype, method):
    model, rows = mlp(8, 64, 48, 3).to(dtype), ROWS.to(dtype)

    pruned = shrink(model, rows, keep=0.5, method=method)

    assert {p.dtype for p in pruned.model.parameters()} == {dtype}
    assert pruned.table["kept"].tolist() == [32, 24]
    assert lost(pruned, model, rows) < (0.1 if method == "obs" else 1)


def test_a_model_called_by_names_is_pruned_and_called_so():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(2, 16), nn.Linear(16, 3)

        def forward(self, *, numbers, codes):
            return {"hidden": None, "logits": self.c(torch.relu(self.a(numbers) + self.b(codes)))}

    rows = {"codes": drawn(96, 2), "numbers": ROWS}

    small = shrink(Named(), rows, keep=0.5).model

    assert type(small) is Named
    assert small(**rows)["logits"].shape == (96, 3)
    assert small.c.in_features == 8


def test_of_a_tuple_the_first_counts_and_the_others_come_along():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 2)

        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.b(h), self.c(h)

    small = shrink(Two(), ROWS, keep=0.5).model

    assert [each.shape for each in small(ROWS)] == [(96, 3), (96, 2)]


def test_hooks_and_names_of_shared_weights_stay():
    model = mlp(8, 16, 16, 16, 3)
    model[4] = model[2]
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append(1))

    small = shrink(model, ROWS, keep=0.5).model
    seen.clear()
    small(ROWS)

    assert small[4] is small[2]
    assert small[2].in_features == small[2].out_features == 8
    assert len(seen) == 2


def test_a_result_can_be_copied_and_its_weights_loaded():
    pruned = shrink(mlp(8, 16, 3), ROWS, keep=0.5)
    twin = copy.deepcopy(pruned.model)
    for weight in twin.parameters():
        nn.init.zeros_(weight)

    twin.load_state_dict(pruned.model.state_dict())

    assert torch.equal(twin(ROWS), pruned.model(ROWS))


# --- forwards that no graph can hold


class Moody(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x):
        sign = 1.0 if x.sum() > 0 else -1.0
        return x + sign * self.b(torch.relu(self.a(x)))


class MoodyRoot(nn.Module):
    def __init__(self, is_tied=False):
        super().__init__()
        self.body, self.head = mlp(8, 16, 12), mlp(12, 20, 3)
        self.first = self.body[0] if is_tied else nn.Linear(8, 16)

    def forward(self, x):
        h = self.body(x)
        return self.head(h * 2 if h.sum() > 0 else h)


def test_of_a_root_that_cannot_be_traced_the_parts_are_pruned_one_by_one():
    model = MoodyRoot()

    pruned = shrink(model, ROWS, keep=0.5)

    assert pruned.table[["part", "units", "kept"]].values.tolist() == [
        ["body.2", 16, 8],
        ["head.2", 20, 10],
    ]
    assert list(pruned.left) == ["forward of MoodyRoot"]
    assert "data-dependent" in pruned.left["forward of MoodyRoot"]
    assert lost(pruned, model, ROWS) < 0.1


def test_parts_that_share_weights_with_others_are_left_whole_where_they_go_one_by_one():
    model = MoodyRoot(is_tied=True)

    small = shrink(model, ROWS, keep=0.5).model

    assert small.first is small.body[0]
    assert (small.body[0].out_features, small.head[0].out_features) == (16, 10)


def test_a_part_that_cannot_be_traced_is_left_whole_and_named():
    model = nn.Sequential(*mlp(8, 16, 12), Moody(12), *mlp(12, 20, 3))

    pruned = shrink(model, ROWS, keep=0.5, method="magnitude")

    assert pruned.table["part"].tolist() == ["2", "6"] or pruned.table["part"].tolist() == [
        "2",
        "5",
    ]
    assert pruned.left == {"weights of 2": "3 cannot be traced"}
    assert pruned.model[3].a.out_features == 16


def test_units_told_by_their_places_are_left_whole_when_that_shows_late(monkeypatch):
    from kit.prune import narrow

    builds = iter([True, False])
    real = narrow.BUILDS["class"]

    def once(model, kept, rows):
        return real(model, kept, rows) if next(builds) else None

    monkeypatch.setitem(narrow.BUILDS, "class", once)
    model = mlp(8, 16, 3)

    with pytest.raises(ValueError) as error:
        shrink(model, ROWS, keep=0.5)

    assert str(error.value) == (
        "prune.shrink: expected a model with neurons that can be removed, got none (input of 2: "
        "sizes in the forward do not follow, nor in its graph). "
        'Pass a smaller keep, or another what: "neurons", "heads", "heads+ffn" or "layers".'
    )


# --- layers, and the mix


class Stack(nn.Module):
    def __init__(self, n=5):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(n)])
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(n)])
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = x + torch.tanh(block(norm(x)))
        return self.out(x)


def test_the_useless_layer_goes_first():
    model = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)])
    model.insert(2, nn.Sequential(nn.Linear(8, 8), nn.Identity()))
    with torch.no_grad():
        model[2][0].weight.copy_(torch.eye(8))
        model[2][0].bias.zero_()

    pruned = shrink(model, ROWS, keep=0.8, what="layers")

    assert pruned.table["part"].tolist() == ["2"]
    assert len(pruned.model) == 4
    torch.testing.assert_close(pruned.model(ROWS), model(ROWS))


def test_layers_side_by_side_go_together():
    model = Stack()
    nn.init.zeros_(model.blocks[3].weight)
    nn.init.zeros_(model.blocks[3].bias)

    pruned = shrink(model, ROWS, keep=0.8, what="layers")

    assert pruned.table["part"].tolist() == ["blocks.3+norms.3"]
    assert torch.equal(pruned.model(ROWS), model(ROWS))


def test_a_model_that_does_not_run_without_its_layers_keeps_them():
    class Counted(Stack):
        def forward(self, x):
            for i in range(5):
                x = x + torch.tanh(self.blocks[i](self.norms[i](x)))
            return self.out(x)

    with pytest.raises(ValueError, match=r"^prune.shrink: expected a model with layers that can"):
        shrink(Counted(), ROWS, keep=0.5, what="layers")


def test_the_mix_meets_the_goal_in_parameters():
    model = gpt(depth=3)

    for keep in (0.8, 0.6):
        pruned = shrink(model, TOKENS, keep=keep, what="auto", method="magnitude")

        assert pruned.parameters <= (keep + 0.05) * pruned.dense_parameters
        assert pruned.model(TOKENS).isfinite().all()


def test_the_mix_takes_what_loses_nothing():
    model = nn.Sequential(
        nn.Linear(8, 32), *[nn.Linear(32, 32) for _ in range(3)], nn.Linear(32, 3)
    )
    with torch.no_grad():
        for layer in (model[2], model[3]):
            layer.weight.copy_(torch.eye(32))
            layer.bias.zero_()

    pruned = shrink(model, ROWS, keep=0.65, what="auto", method="magnitude")

    assert pruned.table["part"].tolist()[0] in ("2", "3")
    assert lost(pruned, model, ROWS) < 1e-9


# --- GPT


def test_a_smaller_gpt_tells_its_shape_and_is_built_from_it():
    model = gpt()

    small = shrink(model, TOKENS, keep=0.5, what="heads+ffn").model
    twin = GPT(**small.shape)
    twin.load_state_dict(small.state_dict())

    assert type(small) is GPT
    assert small.shape == model.shape | {"heads": 2, "groups": 1, "hidden": 24}
    assert torch.equal(twin.eval()(TOKENS), small(TOKENS))


@pytest.mark.parametrize("what", ["heads", "layers", "heads+ffn"])
def test_a_smaller_gpt_writes_the_same_with_its_cache_as_without(what):
    small = shrink(gpt(), TOKENS, keep=0.5, what=what).model

    with_cache = infer.generate(small, "abc", max_tokens=8, temperature=0)
    cache = small.cache(1)
    with torch.no_grad():
        parts = [small(part, cache) for part in (TOKENS[:1, :9], TOKENS[:1, 9:])]
        whole = small(TOKENS[:1])

    assert len(str(with_cache)) >= 1
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_second_order_loses_less_of_a_gpt_than_magnitude():
    model = gpt()

    by = {
        method: lost(
            shrink(model, TOKENS, keep=0.5, what="heads+ffn", method=method), model, TOKENS
        )
        for method in ("obs", "magnitude")
    }

    assert by["obs"] < 0.5 * by["magnitude"]


# --- recovery and distillation


def test_recovery_lowers_what_was_lost_and_is_noted():
    model = mlp(8, 64, 64, 3)

    without, with_it = (
        shrink(model, ROWS, keep=0.2, method="magnitude", recover=steps) for steps in (0, 120)
    )

    assert lost(with_it, model, ROWS) < 0.5 * lost(without, model, ROWS)
    assert (without.notes, with_it.notes) == ((), ("120 steps of distillation",))


@pytest.mark.parametrize("temperature", [None, 1.0, 4.0])
def test_a_student_comes_nearer_to_its_teacher(temperature):
    teacher, student = mlp(8, 32, 4), mlp(8, 8, 4, seed=1)
    before = copy.deepcopy(teacher.state_dict())
    wanted = teacher(ROWS).softmax(-1) if temperature else teacher(ROWS)
    apart = (student(ROWS).softmax(-1) if temperature else student(ROWS)) - wanted

    told = distil(student, teacher, ROWS, steps=100, lr=1e-2, temperature=temperature)

    assert told.steps == 100
    assert told.table["step"].tolist() == list(range(5, 101, 5))
    assert 0 < told.loss == told.table["loss"].iloc[-1] < 0.5 * told.table["loss"].iloc[0]
    now = (student(ROWS).softmax(-1) if temperature else student(ROWS)) - wanted
    assert now.square().mean() < 0.5 * apart.square().mean()
    assert all(torch.equal(before[name], x) for name, x in teacher.state_dict().items())


def test_one_step_of_distillation_is_the_step_of_adamw():
    teacher, student = mlp(8, 4), mlp(8, 4, seed=1)
    twin = copy.deepcopy(student)
    opt = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.0)
    wanted = teacher(ROWS).log_softmax(-1)
    F.kl_div(twin(ROWS).log_softmax(-1), wanted, log_target=True, reduction="batchmean").backward()
    nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    opt.step()

    distil(student, teacher, ROWS, steps=1, lr=1e-2, batch=96, temperature=1.0)

    for a, b in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_what_was_learnt_stays_when_distillation_is_interrupted(monkeypatch):
    teacher, student = mlp(8, 32, 4), mlp(8, 8, 4, seed=1).eval()
    before, real, count = student(ROWS).detach(), distilling._learn, iter(range(100))

    def learn(*args):
        if next(count) == 20:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(distilling, "_learn", learn)
    told = distil(student, teacher, ROWS, steps=100, lr=1e-2)

    assert told.steps == 20
    assert not student.training
    wanted = teacher(ROWS)
    assert (student(ROWS) - wanted).square().mean() < (before - wanted).square().mean()


# --- what is refused


def raised(call):
    with pytest.raises(ValueError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("keep", [0, -0.5, 25, 1.01, True, float("nan")])
def test_a_keep_that_is_no_fraction_is_refused(keep):
    assert raised(lambda: shrink(mlp(8, 16, 3), ROWS, keep=keep)) == (
        f"prune.shrink: expected 0 < keep <= 1, got {keep!r} ({type(keep).__name__}). "
        "Pass keep=0.75: a quarter of the units go."
    )


REFUSED = {
    "expected a known what, got 'neuron' (str). Did you mean 'neurons'? "
    "Known: auto, heads, heads+ffn, layers, neurons.": {"what": "neuron"},
    "expected a known method, got 'l2' (str). Known: activation, magnitude, obs.": {"method": "l2"},
    "expected recover of 0 or more steps, got -1 (int). Pass recover=60.": {"recover": -1},
    "expected a model with heads that can be removed, got none. "
    'Pass a smaller keep, or another what: "neurons", "heads", "heads+ffn" or "layers".': {
        "what": "heads"
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_setting_out_of_range_is_refused(message):
    said = raised(lambda: shrink(mlp(8, 16, 3), ROWS, **REFUSED[message]))

    assert said == f"prune.shrink: {message}"


UNFIT = {
    "expected the same number of rows, 1 or more, in all of calibration, got Tensor of shape "
    "(0, 8). Pass a few hundred rows like those that the model will see.": ROWS[:0],
    "expected calibration on the model's device, cpu, got meta. "
    'Move it: calibration.to("cpu").': ROWS.to("meta"),
    "expected finite numbers in calibration, got 8 that are not. "
    "Fill or drop those rows first: clean.apply.": ROWS.masked_fill(
        torch.eye(96, 8).bool(), torch.nan
    ),
    "expected calibration that the model takes, got rows of shape (2, 5): mat1 and mat2 shapes "
    "cannot be multiplied (2x5 and 8x16). Pass rows as you pass them to the model.": ROWS[:, :5],
    "expected calibration that the model takes, got rows of shape (2, 8): mat1 and mat2 must "
    "have the same dtype, but got Double and Float. "
    "Pass rows as you pass them to the model.": ROWS.double(),
}


@pytest.mark.parametrize("message", UNFIT)
def test_calibration_that_does_not_fit_is_refused(message):
    said = raised(lambda: shrink(mlp(8, 16, 3), UNFIT[message]))

    assert said == f"prune.shrink: {message}"


def test_numbers_that_are_not_finite_inside_the_model_are_refused():
    model = mlp(8, 16, 12, 3)
    with torch.no_grad():
        model[0].bias[3] = torch.inf
        model[2].weight[:, 3] = 0.0
    model.insert(3, nn.Hardtanh())

    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x).nan_to_num()

    message = raised(lambda: shrink(Bounded(), ROWS, keep=0.5))

    assert message == (
        "prune.shrink: expected a model whose activations are finite, got NaN or infinity "
        "inside it. Look for the layer with train.evaluate on the same rows, or use float32."
    )


def test_models_that_cannot_be_pruned_are_refused():
    quantised = quantise(mlp(8, 512, 16), ROWS).model
    dynamic = torch.ao.quantization.quantize_dynamic(mlp(8, 16, 3), {nn.Linear})

    said = {
        "prune": raised(lambda: shrink(quantised, ROWS)),
        "torch": raised(lambda: shrink(dynamic, ROWS)),
        "none": raised(lambda: shrink(nn.ReLU(), ROWS)),
        "one": raised(lambda: shrink(nn.Linear(8, 3), ROWS)),
    }

    assert said == {
        "prune": "prune.shrink: expected a model of float weights, got a quantised one. "
        "Prune first, then quantise what is left: prune.quantise(pruned.model, rows).",
        "torch": "prune.shrink: expected a model of float weights, got a quantised one. "
        "Prune first, then quantise what is left: prune.quantise(pruned.model, rows).",
        "none": "prune.shrink: expected a model with weights, got ReLU. "
        "Pass the model itself, built and trained.",
        "one": "prune.shrink: expected a model with neurons that can be removed, got none. "
        'Pass a smaller keep, or another what: "neurons", "heads", "heads+ffn" or "layers".',
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "expected steps above 0, a whole number, got 0 (int). Pass steps=60."),
        ({"steps": 5, "lr": -1.0}, "expected lr above 0, got -1.0 (float). Pass lr=1e-3."),
        (
            {"steps": 5, "batch": 0},
            "expected batch above 0, a whole number, got 0 (int). Pass batch=16.",
        ),
        (
            {"steps": 5, "temperature": 0.0},
            "expected temperature above 0, got 0.0 (float). Pass temperature=2.0.",
        ),
    ],
)
def test_settings_of_distillation_out_of_range_are_refused(settings, message):
    said = raised(lambda: distil(mlp(8, 3), mlp(8, 3), ROWS, **settings))

    assert said == f"prune.distil: {message}"


def test_a_student_of_other_outputs_is_refused():
    said = raised(lambda: distil(mlp(8, 2), mlp(8, 3), ROWS, steps=5))

    assert said == (
        "prune.distil: expected a student whose outputs have the teacher's shape, (16, 3), "
        "got Tensor of shape (16, 2). Give it as many outputs."
    )


# --- what a reader sees


def test_a_result_says_what_is_left_and_what_was_left_whole():
    model = nn.Sequential(*mlp(8, 12, 12), nn.LayerNorm(12), nn.Linear(12, 3))

    pruned = shrink(model, ROWS[:10], keep=0.5)

    assert pruned.facts() == {
        "parameters": f"{pruned.parameters:,}",
        "of dense": re.sub("0+$", "", f"{pruned.parameters / pruned.dense_parameters:.3f}"),
        "left whole": "1",
        "note 1": "fewer rows than columns: a ridge decides; 12 rows would do",
    }
    assert pruned.left == {"input of 4": "layer_norm reads across it"}
    assert list(pruned.table) == ["part", "kind", "units", "kept"]


# --- transformers, where they are installed


def hugging(name):
    transformers = pytest.importorskip("transformers", reason="the package transformers is absent")
    torch.manual_seed(0)
    common = {"vocab_size": 90, "max_position_embeddings": 32}
    if name == "bert":
        config = transformers.BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            **common,
        )
        model = transformers.BertModel(config)
    elif name == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32,
            n_layer=2,
            n_head=4,
            vocab_size=90,
            n_positions=32,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            **common,
        )
        model = transformers.LlamaForCausalLM(config)
    return model.eval()


def words():
    ids = torch.randint(0, 90, (24, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask}


HEADS = {  # of the family in each: rows of q, k, v and columns of the output, by head
    "bert": "encoder.layer.{}.attention.output.dense",
    "gpt2": "transformer.h.{}.attn.c_proj",
    "llama": "model.layers.{}.self_attn.o_proj",
}
FEED = {
    "bert": "encoder.layer.{}.output.dense",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "llama": "model.layers.{}.mlp.down_proj",
}


def columns_kept(small, whole):
    """Which inputs of a layer are left, told by their values."""
    turned = type(whole).__name__ == "Conv1D"  # stored the other way round
    ours, all_of_them = (each.weight if turned else each.weight.T for each in (small, whole))
    return [int((all_of_them == column).all(1).nonzero()) for column in ours]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_transformer_keeps_its_class_and_gives_what_the_masked_original_gives(name, attention):
    model, rows = hugging(name), words()
    model.set_attn_implementation(attention)

    pruned = shrink(model, rows, keep=0.5, what="heads+ffn", method="magnitude")
    twin = copy.deepcopy(model)
    for block in range(2):
        for each in (HEADS[name], FEED[name]):
            path = each.format(block)
            layer = twin.get_submodule(path)
            kept = columns_kept(pruned.model.get_submodule(path), layer)
            weight = layer.weight if type(layer).__name__ == "Conv1D" else layer.weight.T
            gone = [i for i in range(len(weight)) if i not in kept]
            with torch.no_grad():
                weight[gone] = 0
            assert len(kept) * 2 == len(weight)

    with torch.no_grad():
        for part in (rows, {key: x[:3, :6] for key, x in rows.items()}):
            got, wanted = pruned.model(**part)[0], twin(**part)[0]
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert type(pruned.model) is type(model)
    assert pruned.parameters < 0.65 * pruned.dense_parameters
    assert pruned.table["kind"].tolist() == ["heads", "neurons"] * 2


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_pruned_transformer_still_writes(name):
    model, rows = hugging(name), words()

    small = shrink(model, rows, keep=0.5, what="heads+ffn").model
    written = small.generate(
        rows["input_ids"][:2], max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    again = small.generate(
        rows["input_ids"][:2], max_new_tokens=5, do_sample=False, pad_token_id=0, use_cache=False
    )

    assert torch.equal(written, again)


# --- what a strict reader found


class ReadsBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)
        self.register_buffer("W", torch.randn(12, 12))

    def forward(self, x):
        return self.b(torch.relu(torch.relu(self.a(x)) @ self.W))


@pytest.mark.parametrize("method", ["obs", "magnitude", "activation"])
def test_what_a_buffer_reads_is_left_whole_and_named(method):
    torch.manual_seed(0)
    model, x = ReadsBuffer().eval(), torch.randn(64, 6)

    pruned = shrink(model, x, keep=0.5, method=method)

    assert "a buffer is read as a weight" in pruned.left.values()
    assert pruned.model.a.out_features == 12


class Hard(nn.Module):
    """It writes down a size, so that only its graph can follow, and holds what no graph can."""

    class Moody(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    def __init__(self):
        super().__init__()
        self.a, self.b, self.moody = nn.Linear(6, 32), nn.Linear(32, 6), self.Moody()

    def forward(self, x):
        h = torch.relu(self.a(x)).view(x.shape[0], 1, 32)
        return self.moody(self.b(h[:, 0]))


def test_no_graph_holds_on_to_the_working_copy():
    with pytest.raises(ValueError, match="sizes"):
        shrink(Hard().eval(), torch.randn(64, 6), keep=0.5)


def test_layers_of_a_sequence_may_have_names():
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict((name, nn.Linear(8, 8)) for name in "abcd")).eval()

    pruned = shrink(model, torch.randn(32, 8), keep=0.5, what="layers")

    assert len(pruned.model) == 2


def test_a_mute_assertion_of_the_model_is_named():
    class Mute(nn.Linear):
        def forward(self, x):
            if x.shape[1] != 16:
                raise AssertionError
            return super().forward(x)

    expected = (
        "prune.shrink: expected calibration that the model takes, got rows of shape (2, 8): "
        "AssertionError. Pass rows as you pass them to the model."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        shrink(Mute(16, 4), torch.randn(9, 8))
