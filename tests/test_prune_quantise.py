"""Weights in int8: how they are rounded, what holds them, and what is said of it."""

import copy
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kit import infer
from kit.models import GPT
from kit.prune import int8, second_order
from kit.prune.gram import Gram, damped
from kit.prune.quantise import quantise
from kit.prune.sparsify import sparsify


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixed(rows, columns, seed=0):
    return drawn(rows, columns, seed=seed) @ drawn(columns, columns, seed=seed + 1)


def mlp(*, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(80, 64, bias=bias), nn.ReLU(), nn.Linear(64, 70, bias=bias))


def far(model, other, x):
    with torch.no_grad():
        return float((model(x) - other(x)).norm() / other(x).norm())


def moments_of(x):
    gram = Gram(x.shape[-1], "test")
    gram.add(x)
    return gram.second_moments()


def codes_and_steps(layer):
    return layer.codes.double(), layer.scales.double()


@pytest.mark.parametrize("bits", [8, 3])
def test_rounding_is_the_loop_of_gptq(bits):
    layer, x = nn.Linear(64, 64, bias=False), mixed(300, 64)
    most = 2 ** (bits - 1) - 1

    codes, steps = codes_and_steps(quantise(layer, x, bits=bits).model)

    moments, weight = damped(moments_of(x)), layer.weight.detach().double()
    expected = torch.empty_like(weight)
    for i in range(64):
        inverse = torch.linalg.inv(moments[i:, i:])
        expected[:, i] = (weight[:, i] / steps).round().clamp(-most, most)
        error = weight[:, i] - expected[:, i] * steps
        weight[:, i:] -= (error / inverse[0, 0])[:, None] * inverse[0]
    assert (codes != expected).double().mean() < 0.002  # steps are stored in float32
    assert codes.abs().max() <= most


def test_where_inputs_are_independent_it_is_rounding_to_nearest():
    layer, x = nn.Linear(64, 64, bias=False), 64**0.5 * torch.eye(64).repeat(2, 1)

    codes, steps = codes_and_steps(quantise(layer, x, bits=4).model)

    nearest = (layer.weight.double() / steps[:, None]).round().clamp(-7, 7)
    assert (codes != nearest).double().mean() < 0.002


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_it_loses_less_than_rounding_to_nearest_on_the_widest_grid(bits):
    layer, x = nn.Linear(80, 64, bias=False), mixed(600, 80)
    weight, moments = layer.weight.detach().double(), moments_of(x)
    steps = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    nearest = (weight / steps).round() * steps

    error = quantise(layer, x, bits=bits).table["output_error"][0]

    size = second_order.squared(weight, moments)
    assert error < 0.75 * (second_order.squared(weight - nearest, moments) / size) ** 0.5


def test_outputs_are_those_of_the_float_model_but_for_a_hundredth():
    model, x = mlp(), mixed(400, 80)

    quantised = quantise(model, x)

    assert far(quantised.model, model, x[:128]) < 0.03
    assert quantised.table["layer"].tolist() == ["0", "2"]
    assert (quantised.table["output_error"] < 0.006).all()
    assert isinstance(model[0], nn.Linear)
    assert quantised.parameters == quantised.dense_parameters
    assert quantised.notes == ()


def test_the_layer_computes_with_the_weights_that_it_says_it_has():
    model, x = nn.Linear(64, 96), mixed(200, 64)

    layer = quantise(model, x).model

    product = x @ layer.weight.T + layer.bias
    assert float((layer(x) - product).detach().norm() / product.norm()) < 0.02
    assert layer(x[None, :, None]).shape == (1, 200, 1, 96)
    assert layer(x[:0]).shape == (0, 96)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_bit_equal_after_a_file_a_copy_and_a_move(bias, tmp_path):
    model, x = mlp(bias=bias), mixed(200, 80)
    quantised = quantise(model, x).model
    wanted = quantised(x)
    save_file(quantised.state_dict(), tmp_path / "q.safetensors")

    again = copy.deepcopy(model)
    again = int8.placed(again, int8.shapes(quantised))
    again(x)  # what is packed before the weights come must not be used after
    again.load_state_dict(load_file(tmp_path / "q.safetensors"))

    assert torch.equal(again(x), wanted)
    assert torch.equal(copy.deepcopy(quantised)(x), wanted)
    assert torch.equal(quantised.to("cpu")(x), wanted)
    stored = {name: weight.dtype for name, weight in quantised.state_dict().items()}
    assert stored["0.codes"] == torch.int8
    names = ("codes", "scales", "bias") if bias else ("codes", "scales")
    assert set(stored) == {f"{i}.{name}" for i in (0, 2) for name in names}


def test_the_same_call_gives_the_same_bits():
    model, x = mlp(), mixed(100, 80)

    first, second = (quantise(model, x).model.state_dict() for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_zeros_stay_zero():
    sparse = sparsify(mlp(), mixed(300, 80), amount=0.5).model

    quantised = quantise(sparse, mixed(300, 80)).model

    for i in (0, 2):
        assert not quantised[i].codes[sparse[i].weight == 0].any()


def test_what_is_not_linear_tied_or_small_stays_in_float():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 64), nn.ReLU(), nn.Linear(64, 10))
    )

    quantised = quantise(model, drawn(300, 3, 6, 6))

    assert quantised.left == {
        "0": "only linear layers are held in int8, and this is a Conv2d",
        "4": "640 weights: too few for int8 to be faster",
    }
    assert isinstance(quantised.model[2], int8.Int8Linear)


def test_a_gpt_writes_with_and_without_its_cache():
    torch.manual_seed(0)
    model = GPT(depth=2, width=64, heads=2, hidden=128, context=32)
    for block in model.blocks:
        nn.init.normal_(block.attention.out.weight, std=0.1)
        nn.init.normal_(block.feed.down.weight, std=0.1)
    tokens = torch.randint(0, 256, (20, 32), generator=torch.Generator().manual_seed(0))

    quantised = quantise(model, tokens)

    assert quantised.left == {"embed": "an embedding"}
    assert len(quantised.table) == 8
    assert far(quantised.model, model, tokens[:2]) < 0.07
    cache = quantised.model.cache(1)
    pieces = [quantised.model(tokens[:1, i : i + 1], cache) for i in range(8)]
    whole = quantised.model(tokens[:1, :8])
    assert float((torch.cat(pieces, 1) - whole).detach().norm() / whole.norm()) < 0.07
    stream = infer.generate(quantised.model, "ab", max_tokens=4, temperature=0)
    assert stream.stopped == "max_tokens"


def test_it_can_be_exported_for_another_runtime():
    quantised, x = quantise(mlp(), mixed(200, 80)).model, mixed(16, 80)

    exported = torch.export.export(quantised, (x,)).module()

    assert far(exported, quantised, x) < 0.02


def test_the_fused_kernel_of_a_transformer_layer_does_not_pass_it_by():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(64, 2, 128, batch_first=True), 2, enable_nested_tensor=False
    ).eval()

    quantised = quantise(model, drawn(60, 5, 64)).model

    read = []
    for layer in quantised.layers:
        layer.linear1.register_forward_hook(lambda *_: read.append(1))
    with torch.no_grad():
        quantised(drawn(2, 5, 64))
    assert len(read) == 2
    assert far(quantised, model, drawn(8, 5, 64)) < 0.02


def test_fewer_bits_and_fewer_rows_are_said():
    quantised = quantise(mlp(), drawn(40, 80), bits=4)

    assert quantised.notes == (
        "weights of 4 bits are stored in 8: the file is that of 8 bits",
        (
            "fewer rows than columns in 2 of 2 layers: a ridge decides there; "
            "80 calibration rows would do"
        ),
    )
    assert int(quantised.model[0].codes.abs().max()) == 7


@pytest.mark.parametrize("bits", [1, 9, True, 0])
def test_bits_out_of_range_are_refused(bits):
    shown = f"{bits!r} ({type(bits).__name__})"
    expected = (
        f"prune.quantise: expected 2 <= bits <= 8, got {shown}. Pass bits=8, or leave it out."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        quantise(mlp(), drawn(9, 80), bits=bits)


def test_a_quantised_model_is_refused():
    done = quantise(mlp(), drawn(90, 80)).model
    expected = (
        "prune.quantise: expected a model of float weights, got a quantised one. "
        "Prune first, then quantise what is left: prune.quantise(pruned.model, rows)."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        quantise(done, drawn(90, 80))
