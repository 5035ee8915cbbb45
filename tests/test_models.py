"""The MLP is Linear–ReLU–Linear with a vector for every code, and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kit.models import MLP

SIZES = st.lists(st.integers(1, 9), max_size=3)


@given(st.integers(0, 5), SIZES, SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_any_widths_give_one_row_of_outputs_a_row(
    n_numeric, cardinalities, hidden, n_outputs, embedding, n_rows
):
    if n_numeric + len(cardinalities) == 0:
        n_numeric = 1
    model = MLP(
        n_numeric, n_outputs, hidden=hidden, cardinalities=cardinalities, embedding=embedding
    )
    codes = [torch.randint(0, n, (n_rows, 1)).float() for n in cardinalities]

    logits = model(torch.cat([torch.randn(n_rows, n_numeric), *codes], dim=1))

    assert logits.shape == (n_rows, n_outputs)


def test_it_computes_what_its_layers_say():
    model = MLP(2, 3, hidden=(4,), cardinalities=(5, 2), embedding=6)
    first, _, last = model.layers
    x = torch.tensor([[0.5, -1.0, 4.0, 1.0], [1.5, 2.0, 0.0, 0.0]])

    logits = model(x)

    vectors = [model.embed.weight[[4, 0]], model.embed.weight[[5 + 1, 5 + 0]]]
    seen = torch.cat([x[:, :2], *vectors], dim=1)
    hidden = (seen @ first.weight.T + first.bias).clamp(min=0)
    assert torch.allclose(logits, hidden @ last.weight.T + last.bias, atol=1e-6)


def test_no_category_reads_the_vectors_of_another():
    model = MLP(0, 1, cardinalities=(3, 4))
    x = torch.tensor([[2.0, 3.0]])

    model(x).sum().backward()

    touched = model.embed.weight.grad.abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [2, 3 + 3]


def test_without_hidden_layers_it_is_linear_and_dropout_acts_only_in_training():
    assert [type(layer) for layer in MLP(2, 1, hidden=()).layers] == [nn.Linear]
    model, x = MLP(2, 1, hidden=(64,), dropout=0.5), torch.ones(1, 2)

    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_its_state_is_its_weights_alone():
    assert list(MLP(2, 1, hidden=(), cardinalities=(3,)).state_dict()) == [
        "embed.weight",
        "layers.0.weight",
        "layers.0.bias",
    ]


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        (
            (2, 0),
            {},
            "expected n_outputs of 1 or more, got 0 (int). Pass n_outputs=1 or more.",
        ),
        (
            (2, 1),
            {"hidden": (8, 0)},
            "expected hidden of 1 or more, got 0 (int). Pass hidden=(64, 64).",
        ),
        (
            (2, 1),
            {"embedding": 0, "cardinalities": (2,)},
            "expected embedding of 1 or more, got 0 (int). Pass embedding=1 or more.",
        ),
        (
            (0, 1),
            {},
            (
                "expected at least one input column, got 0 (int). "
                "Pass n_numeric=encoder.n_numeric, cardinalities=encoder.cardinalities."
            ),
        ),
        (
            (2, 1),
            {"dropout": 1.0},
            "expected 0 <= dropout < 1, got 1.0 (float). Pass dropout=0.1.",
        ),
    ],
)
def test_sizes_out_of_range_are_refused(sizes, settings, message):
    with pytest.raises(ValueError) as caught:
        MLP(*sizes, **settings)

    assert str(caught.value) == f"models.MLP: {message}"


def test_rows_of_another_width_are_refused_before_they_broadcast():
    model = MLP(1, 1, cardinalities=(2, 2, 2))

    with pytest.raises(ValueError) as caught:
        model(torch.zeros(5, 2))

    assert str(caught.value) == (
        "models.MLP: expected rows of 4 columns, got Tensor of shape (5, 2). "
        "Encode them with the encoder that the model was built for."
    )
