"""Zeros among the weights: which go, what the rest do about it, and what is said of it."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from kit.models import GPT
from kit.prune import masks, products, second_order
from kit.prune.gram import Gram, damped
from kit.prune.quantise import quantise
from kit.prune.sparsify import NO_SPEED_UP, sparsify


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixed(rows, columns, seed=0):
    """Rows whose columns depend on one another."""
    return drawn(rows, columns, seed=seed) @ drawn(columns, columns, seed=seed + 1) + 0.5


def mlp(*widths, bias=True, seed=0):
    torch.manual_seed(seed)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b, bias=bias), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def moments_of(x, where="test"):
    gram = Gram(x.shape[-1], where)
    gram.add(x)
    return gram.second_moments()


# --- second order, against slow and plain versions ---


def naive_sweep(matrix, moments, drop):
    """Optimal brain surgeon one column at a time, with an inverse of what is left each time."""
    matrix = matrix.clone()
    for i in range(matrix.shape[1]):
        inverse = torch.linalg.inv(moments[i:, i:])
        gone = matrix[:, i] * drop[:, i]
        matrix[:, i:] -= (gone / inverse[0, 0])[:, None] * inverse[0]
    return matrix.masked_fill(drop, 0)


@pytest.mark.parametrize("block", [1, 3, 128])
def test_a_sweep_in_blocks_is_the_sweep_one_column_at_a_time(block):
    matrix, drop = drawn(5, 10).double(), drawn(5, 10, seed=3) > 0
    moments = damped(moments_of(mixed(200, 10)))

    swept = second_order.swept(
        matrix,
        second_order.factor(moments),
        lambda rest, column: rest[0].masked_fill(drop[:, column], 0),
        block=block,
    )

    torch.testing.assert_close(swept, naive_sweep(matrix, moments, drop))


def test_dropping_the_first_weight_is_least_squares_on_the_others():
    x, weight = mixed(300, 6).double(), drawn(1, 6).double()

    swept = second_order.swept(
        weight,
        second_order.factor(moments_of(x)),
        lambda rest, column: rest[0] * (column > 0),
    )

    best = torch.linalg.lstsq(x[:, 1:], x @ weight[0]).solution
    torch.testing.assert_close(swept[0, 1:], best)
    assert swept[0, 0] == 0


def test_the_closing_fit_is_least_squares_row_by_row():
    x, goal = mixed(400, 8).double(), drawn(4, 8).double()
    keep = drawn(4, 8, seed=5) > -0.3
    moments = moments_of(x)

    fitted = second_order.fitted(goal * keep, goal, moments, keep)

    for row, wanted, kept in zip(fitted, goal, keep, strict=True):
        best = torch.linalg.lstsq(x[:, kept], x @ wanted).solution
        torch.testing.assert_close(row[kept], best, rtol=1e-5, atol=1e-6)
        assert not row[~kept].any()


def test_the_closing_fit_leaves_nothing_to_gain_where_inputs_are_independent():
    goal, keep = drawn(3, 4).double(), drawn(3, 4, seed=1) > 0

    fitted = second_order.fitted(goal * keep, goal, torch.eye(4).double(), keep)

    assert torch.equal(fitted, goal * keep)


def test_obs_loses_less_than_a_plain_sparsegpt_which_loses_less_than_wanda():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32, bias=False), mixed(2000, 64)
    moments = moments_of(x)
    plain = sparsegpt(layer.weight.detach().double(), moments, 0.5)
    size = second_order.squared(layer.weight.detach().double(), moments)

    ours, wanda = (
        sparsify(layer, x, amount=0.5, method=name).table["output_error"][0]
        for name in ("obs", "wanda")
    )

    theirs = (second_order.squared(layer.weight.detach().double() - plain, moments) / size) ** 0.5
    assert ours < 0.95 * theirs < theirs < wanda


def sparsegpt(matrix, moments, amount):
    """Algorithm 1 of the paper for one block: a mask from the weights as they were."""
    upper = second_order.factor(damped(moments))
    costs = (matrix / upper.diagonal()) ** 2
    drop = costs <= costs.flatten().kthvalue(int(amount * costs.numel())).values
    return naive_sweep(matrix, damped(moments), drop)


# --- masks ---


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 9),
    amount=st.floats(0.01, 0.99),
    ties=st.booleans(),
)
def test_masks_drop_exactly_their_amount(rows, columns, amount, ties):
    scores = (torch.ones(rows, columns) if ties else drawn(rows, columns)).double()

    dropped = masks.cheapest(scores, amount)
    by_row = masks.cheapest_of_rows(scores, amount)

    assert int(dropped.sum()) == round(amount * scores.numel())
    assert abs(int(by_row.sum()) - amount * scores.numel()) <= 0.5 + 1e-9
    counts = by_row.sum(1)
    assert int(counts.max() - counts.min()) <= 1


@settings(max_examples=25)
@given(
    outputs=st.integers(1, 5),
    fours=st.integers(1, 5),
    method=st.sampled_from(["obs", "wanda", "magnitude"]),
    seed=st.integers(0, 99),
)
def test_two_of_every_four_are_zero(outputs, fours, method, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(4 * fours, outputs)

    pruned = sparsify(layer, mixed(50, 4 * fours), amount=0.5, pattern="2:4", method=method)

    zeros = (pruned.model.weight.reshape(-1, 4) == 0).sum(1)
    assert (zeros == 2).all()


def test_wanda_is_the_loop_of_its_paper():
    layer, x = nn.Linear(6, 3), mixed(40, 6)
    expected = layer.weight.detach().clone()
    for row in expected:
        scores = [(abs(w) * x[:, i].norm(), i) for i, w in enumerate(row.tolist())]
        for _, i in sorted(scores)[:3]:
            row[i] = 0

    pruned = sparsify(layer, x, amount=0.5, method="wanda")

    torch.testing.assert_close(pruned.model.weight.detach(), expected)
    torch.testing.assert_close(pruned.model.bias, layer.bias)


def test_magnitude_drops_the_smallest_weights_of_the_layer():
    layer = nn.Linear(8, 5)
    limit = layer.weight.abs().flatten().sort().values[12]

    pruned = sparsify(layer, drawn(30, 8), amount=0.3, method="magnitude")

    expected = layer.weight.where(layer.weight.abs() >= limit, 0)
    assert torch.equal(pruned.model.weight, expected)


# --- what becomes of a model ---


@pytest.mark.parametrize("method", ["obs", "wanda", "magnitude"])
@pytest.mark.parametrize("amount", [0.25, 0.5, 0.9])
def test_every_layer_has_its_amount_of_zeros_and_the_original_none(method, amount):
    model, x = mlp(20, 300, 10), drawn(500, 20)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    pruned = sparsify(model, x, amount=amount, method=method)

    for layer in (pruned.model[0], pruned.model[2]):
        zeros = int((layer.weight == 0).sum())
        assert zeros == pytest.approx(amount * layer.weight.numel(), abs=1)
    assert pruned.table["zeros"].tolist() == pytest.approx([amount] * 2, abs=1e-3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert pruned.model.training is model.training
    assert not any(part._forward_pre_hooks for part in pruned.model.modules())


def test_the_error_in_the_table_is_that_of_the_outputs_on_the_rows():
    model, x = mlp(12, 9), drawn(300, 12) + 1
    weight, bias = model[0].weight.detach().double(), model[0].bias.detach().double()

    pruned = sparsify(model, x, amount=0.4)

    was, now = x.double() @ weight.T, pruned.model.double()(x.double()).detach() - bias
    expected = float((was - now).norm() / was.norm())
    assert pruned.table["output_error"][0] == pytest.approx(expected, rel=1e-3)
    assert pruned.table["rows"].tolist() == [300]


def test_a_model_in_float64_is_pruned_as_in_float32():
    model, x = mlp(16, 24, 4), mixed(200, 16) + 3.0

    single = sparsify(model, x, amount=0.5)
    double = sparsify(model.double(), x.double(), amount=0.5)

    assert torch.allclose(double.model(x.double()), single.model(x).double(), rtol=1e-3, atol=1e-3)
    errors = [each.table["output_error"].to_numpy() for each in (single, double)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)
    assert errors[1].min() > 0


def test_the_second_layer_is_fitted_to_what_the_pruned_first_one_gives():
    model, x = mlp(10, 16, 4, bias=False), mixed(200, 10)

    pruned = sparsify(model, x, amount=0.5)

    alone = sparsify(model[2], F.relu(pruned.model[0](x)).detach(), amount=0.5)
    torch.testing.assert_close(pruned.model[2].weight, alone.model.weight)


def test_a_bias_makes_up_for_the_means_of_what_was_dropped():
    model, x = mlp(30, 8), drawn(400, 30) + 3

    pruned = sparsify(model, x, amount=0.6)

    torch.testing.assert_close(pruned.model(x).mean(0), model(x).mean(0), rtol=1e-4, atol=1e-4)


def test_the_same_call_gives_the_same_bits():
    model, x = mlp(20, 30, 5), drawn(100, 20)

    first, second = (sparsify(model, x, amount=0.5).model.state_dict() for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_inputs_that_are_always_zero_are_dropped_first():
    layer, x = nn.Linear(8, 4), drawn(100, 8)
    x[:, 2:5] = 0

    for method in ("obs", "wanda", "magnitude"):
        pruned = sparsify(layer, x, amount=0.5, method=method)

        assert not pruned.model.weight[:, 2:5].any()
        torch.testing.assert_close(pruned.table["zeros"][0], 0.5)


@pytest.mark.parametrize("method", ["obs", "wanda", "magnitude"])
def test_zeros_that_were_there_stay_and_count(method):
    layer = nn.Linear(10, 6)
    with torch.no_grad():
        layer.weight[:, :4] = 0

    more = sparsify(layer, mixed(90, 10), amount=0.5, method=method).model.weight
    fewer = sparsify(layer, mixed(90, 10), amount=0.1, method=method).model.weight

    assert not more[:, :4].any()
    assert int((more == 0).sum()) == 30
    assert torch.equal(fewer == 0, layer.weight == 0)


def test_a_score_of_the_readers_own_decides_and_obs_refits_the_others():
    layer, x = nn.Linear(6, 3), mixed(80, 6)
    seen = []

    def last_columns(weight, norms):
        seen.append(norms)
        return -torch.arange(6.0).expand(3, 6)

    kept = sparsify(layer, x, amount=0.5, method="magnitude", score=last_columns).model
    moved = sparsify(layer, x, amount=0.5, score=last_columns).model

    assert torch.equal(kept.weight[:, :3], layer.weight[:, :3])
    assert not kept.weight[:, 3:].any()
    assert not moved.weight[:, 3:].any()
    wanted = layer(x).detach()
    assert (moved(x) - wanted).norm() < 0.9 * (kept(x) - wanted).norm()
    torch.testing.assert_close(seen[0], x.double().square().mean(0).sqrt())


def test_a_gpt_keeps_its_tied_table_and_its_cache():
    torch.manual_seed(0)
    model = GPT(depth=2, width=32, heads=2, hidden=48, context=16, vocabulary=40)
    for block in model.blocks:
        nn.init.normal_(block.attention.out.weight, std=0.1)
        nn.init.normal_(block.feed.down.weight, std=0.1)
    tokens = torch.randint(0, 40, (30, 16), generator=torch.Generator().manual_seed(0))

    pruned = sparsify(model, tokens, amount=0.5)

    assert pruned.left == {"embed": "an embedding"}
    assert torch.equal(pruned.model.embed.weight, model.embed.weight)
    assert pruned.table["layer"].tolist()[:4] == [
        "blocks.0.attention.qkv",
        "blocks.0.attention.out",
        "blocks.0.feed.up",
        "blocks.0.feed.down",
    ]
    assert (pruned.table["rows"] == 480).all()
    cache, whole = pruned.model.cache(1), pruned.model(tokens[:1])
    pieces = [pruned.model(tokens[:1, i : i + 1], cache) for i in range(16)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.middle = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, codes):
        return self.head(self.middle(self.table(codes)))


def test_an_output_layer_that_is_tied_to_an_embedding_is_left_whole():
    pruned = sparsify(Tied(), torch.arange(11)[:, None], amount=0.5)

    assert pruned.left == {
        "table": "its weight is shared with head",
        "head": "its weight is shared with table",
    }
    assert pruned.model.head.weight is pruned.model.table.weight
    assert pruned.model.head.weight.all()


class Odd(nn.Module):
    """One layer called twice, two of one input, one never, and one by its name."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(6, 6), nn.Linear(6, 6)
        self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        x = self.twice(self.twice(input=x))
        return self.left(x) + self.right(x)


def test_layers_are_watched_wherever_and_however_often_they_are_called():
    pruned = sparsify(Odd(), drawn(130, 6), amount=0.5)

    assert pruned.table["layer"].tolist() == ["twice", "left", "right"]
    assert pruned.table["rows"].tolist() == [260, 130, 130]
    assert pruned.left == {"never": "never called on the first rows"}
    assert pruned.model.never.weight.all()


class Conv1D(nn.Module):
    """As transformers writes it."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(drawn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


def test_a_weight_that_lies_across_is_pruned_as_the_linear_layer_it_is():
    across, x = Conv1D(5, 8), mixed(60, 8)
    linear = nn.Linear(8, 5)
    with torch.no_grad():
        linear.weight.copy_(across.weight.T)
        linear.bias.zero_()

    pruned, expected = (sparsify(each, x, amount=0.5).model for each in (across, linear))

    torch.testing.assert_close(pruned.weight.T, expected.weight)
    torch.testing.assert_close(pruned.bias, expected.bias)


def test_a_weight_that_is_computed_from_others_is_left_whole():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))

    pruned = sparsify(nn.Sequential(layer, nn.Linear(4, 4)), drawn(20, 6), amount=0.5)

    assert pruned.left == {
        "0": "its weight is computed from others",
        "0.parametrizations.weight": "no rule for a ParametrizationList",
    }
    assert pruned.table["layer"].tolist() == ["1"]


def test_attention_that_calls_no_layer_is_left_whole_and_the_rest_is_pruned():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()

    pruned = sparsify(model, drawn(20, 5, 8), amount=0.5)

    assert pruned.table["layer"].tolist() == ["linear1", "linear2"]
    assert pruned.left == {
        "self_attn": "no rule for a MultiheadAttention",
        "self_attn.out_proj": "never called on the first rows",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": 1, "stride": 2},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"groups": 2},
    ],
)
def test_a_convolution_sees_the_windows_that_it_multiplies(settings):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 6, 3, **settings), drawn(3, 4, 7, 6)

    (seen,) = products.visited(conv, {"": conv}, x, where="test")

    for group, (gram, matrix) in enumerate(zip(seen.grams, products.matrices(conv), strict=True)):
        outputs = conv(x).detach() - conv.bias.detach()[None, :, None, None]
        outputs = outputs.chunk(conv.groups, 1)[group].movedim(1, -1).flatten(0, 2).double()
        covered = matrix.double() @ gram.products @ matrix.T.double()
        torch.testing.assert_close(covered, outputs.T @ outputs, rtol=1e-4, atol=1e-4)
        assert gram.rows == len(outputs)


def test_convolutions_and_linear_layers_are_pruned_in_one_model():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten()),
        nn.Linear(8 * 16, 5),
    )
    x = drawn(40, 3, 8, 8)

    pruned = sparsify(model, x, amount=0.5)

    assert pruned.table["layer"].tolist() == ["0", "2", "4"]
    assert pruned.table["zeros"].tolist() == pytest.approx([0.5, 4 / 9, 0.5], abs=1e-2)
    plain = sparsify(model, x, amount=0.5, method="magnitude")
    wanted = model(x)
    assert (pruned.model(x) - wanted).norm() < 0.8 * (plain.model(x) - wanted).norm()


def test_columns_that_are_no_multiple_of_four_are_left_whole_under_two_of_four():
    pruned = sparsify(mlp(8, 6, 4), drawn(50, 8), amount=0.5, pattern="2:4")

    assert pruned.table["layer"].tolist() == ["0"]
    assert pruned.left == {"2": "6 columns, not in fours"}


def test_it_says_that_zeros_alone_make_nothing_faster_and_what_the_ridge_does():
    pruned = sparsify(mlp(40, 60, 5), drawn(30, 40), amount=0.5)

    assert pruned.notes == (
        NO_SPEED_UP,
        (
            "fewer rows than columns in 2 of 2 layers: a ridge decides there; "
            "60 calibration rows would do"
        ),
    )
    assert str(pruned).startswith("Pruned(parameters 2,765, of dense 1, note 1 no speed-up on")


def test_activations_are_looked_at_in_batches_and_no_further_than_the_layer():
    sizes = []

    class Watched(nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Watched(6, 6), nn.Linear(6, 6), Watched(6, 6))

    sparsify(model, drawn(150, 6), amount=0.5)

    # two rows to see that the model takes them, one batch to see the order; the first layer is
    # passed by once, for the third, and for the fourth
    assert sizes == [2, 2, 64, 64, *[64, 64, 22] * 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_of_four_uses_the_kernels_of_a_gpu():
    layer = nn.Sequential(nn.Linear(256, 128)).to("cuda", torch.float16)
    x = drawn(512, 256).to("cuda", torch.float16)

    pruned = sparsify(layer, x, amount=0.5, pattern="2:4")

    weight = pruned.model[0].weight
    assert isinstance(weight.data, torch.sparse.SparseSemiStructuredTensor)
    dense = F.linear(x, weight.detach().to_dense(), pruned.model[0].bias)
    torch.testing.assert_close(pruned.model(x), dense, rtol=1e-2, atol=1e-2)
    assert NO_SPEED_UP not in pruned.notes


# --- bad input ---


@pytest.mark.parametrize("amount", [40, 0, 1, -0.1, True, float("nan")])
def test_an_amount_that_is_no_fraction_is_refused(amount):
    shown = f"{amount!r} ({type(amount).__name__})"
    expected = (
        f"prune.sparsify: expected 0 < amount < 1, got {shown}. "
        "Pass a fraction: amount=0.4 makes 40 % of the weights zero."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        sparsify(nn.Linear(2, 2), drawn(5, 2), amount=amount)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"pattern": "2:3"},
            "expected a known pattern, got '2:3' (str). Did you mean '2:4'? Known: 2:4, free.",
        ),
        (
            {"method": "wandra"},
            (
                "expected a known method, got 'wandra' (str). Did you mean 'wanda'? "
                "Known: magnitude, obs, wanda."
            ),
        ),
        (
            {"pattern": "2:4", "amount": 0.25},
            (
                'expected amount=0.5 with pattern="2:4", which drops two of every four, '
                'got 0.25 (float). Pass amount=0.5, or pattern="free".'
            ),
        ),
        (
            {"score": lambda weight, norms: norms},
            (
                "expected a score for each weight, of shape (2, 4) and not NaN, "
                "got Tensor of shape (4,). "
                "Return a number for each: score=lambda weight, norms: weight.abs()."
            ),
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^prune.sparsify: {re.escape(message)}$"):
        sparsify(nn.Linear(4, 2), drawn(5, 4), **{"amount": 0.5} | settings)


def test_activations_that_are_not_finite_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    x = drawn(5, 2)
    x[4, 0] = 3e38  # overflows in the first layer
    model[0].weight.data[:] = 2
    expected = (
        "prune.sparsify: expected a model whose activations are finite, got NaN or infinity inside "
        "it. Look for the layer with train.evaluate on the same rows, or use float32."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        sparsify(model, x, amount=0.5)


def test_live_masks_are_refused_with_what_makes_them_final():
    model = torch_prune.random_unstructured(nn.Linear(6, 4), "weight", amount=0.2)
    expected = (
        "prune.sparsify: expected weights that are stored as such, so that the model can be "
        "copied, got some that a hook computes from others. "
        'Make them final first: torch.nn.utils.prune.remove(layer, "weight").'
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        sparsify(model, drawn(9, 6), amount=0.5)

    torch_prune.remove(model, "weight")
    assert len(sparsify(model, drawn(9, 6), amount=0.5).table) == 1


def test_no_rows_and_quantised_models_are_refused():
    few = (
        "prune.sparsify: expected the same number of rows, 1 or more, in all of calibration, "
        "got Tensor of shape (0, 64). Pass a few hundred rows like those that the model will see."
    )
    done = (
        "prune.sparsify: expected a model of float weights, got a quantised one. "
        "Prune first, then quantise what is left: prune.quantise(pruned.model, rows)."
    )
    model = nn.Sequential(nn.Linear(64, 64))

    with pytest.raises(ValueError, match=f"^{re.escape(few)}$"):
        sparsify(model, drawn(0, 64), amount=0.5)
    with pytest.raises(ValueError, match=f"^{re.escape(done)}$"):
        sparsify(quantise(model, drawn(80, 64)).model, drawn(9, 64), amount=0.5)
