"""Ten shapes that nobody tuned for: smaller, the masked original, and as usable as before."""

import copy
import importlib
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from kit.prune.shrink import shrink

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
shapes, prune_shapes = (importlib.import_module(name) for name in ("shapes", "prune_shapes"))
sys.path.remove(str(BENCHMARKS))

ASKED = [(name, what) for name in shapes.SHAPES for what in prune_shapes.whats(name)]


@cache
def built(name):
    return shapes.SHAPES[name]()


@cache
def pruned(name, what):
    model, rows = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    return shrink(model, rows, keep=0.5, what=what, method="magnitude"), before


@pytest.mark.parametrize(("name", "what"), ASKED)
def test_a_shape_is_smaller_and_gives_what_the_masked_original_gives(name, what):
    small, _ = pruned(name, what)

    judged = prune_shapes.judged(name, small.model, "")

    assert judged["correct"] == "yes", judged
    assert small.parameters < 0.95 * small.dense_parameters
    assert (small.table["kept"] * 2 >= small.table["units"]).all() or what in ("layers", "auto")


@pytest.mark.parametrize(("name", "what"), ASKED)
def test_the_original_is_as_it_was_to_the_bit(name, what):
    _, before = pruned(name, what)
    model, _ = built(name)

    after = model.state_dict()

    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all("forward" not in vars(part) for part in model.modules())


@pytest.mark.parametrize(("name", "what"), ASKED)
def test_rows_may_be_many_one_and_of_other_lengths(name, what):
    small = pruned(name, what)[0].model
    _, rows = built(name)
    lengths = [None, 7, 3] if name in shapes.WITH_HEADS else [None]

    with torch.no_grad():
        for length in lengths:
            some = rows[:, :length] if length else rows
            together = small(some)
            apart = torch.cat([small(some[:1]), small(some[1:])])

            torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_a_pruned_shape_can_be_trained(name):
    small = copy.deepcopy(pruned(name, prune_shapes.whats(name)[0])[0].model)
    _, rows = built(name)

    small(rows[:8]).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())


# the parts that a shape keeps are of its own class wherever its forward reads sizes it can be told
@pytest.mark.parametrize(
    ("name", "what", "kind"),
    [
        ("residual MLP", "neurons", "ResidualMLP"),
        ("gated MLP", "neurons", "Sequential"),
        ("fused QKV, tied", "neurons", "FusedGPT"),
        ("fused QKV, tied", "heads", "Rebuilt"),  # it takes the width of all heads from the stream
        ("grouped heads", "heads+ffn", "GroupedGPT"),
        ("post-norm encoder", "heads+ffn", "PostNormEncoder"),
        ("nn.TransformerEncoder", "neurons", "TorchEncoder"),
        ("residual convolutions", "neurons", "ResNet"),
        ("separable convolutions", "neurons", "Sequential"),
        ("odd", "neurons", "Odd"),
    ],
)
def test_a_shape_keeps_its_class_where_its_forward_follows_the_sizes(name, what, kind):
    assert type(pruned(name, what)[0].model).__name__ == kind


def test_what_cannot_be_traced_or_reads_across_is_named():
    left = {name: pruned(name, "neurons")[0].left for name in ("odd", "norms in odd places")}

    assert left == {
        "odd": {"input of shared": "moody cannot be traced"},
        "norms in odd places": {
            "input of conv2": "layer_norm reads across it",
            "input of fc2": "layer_norm reads across it",
        },
    }


def test_heads_that_share_keys_and_values_go_together():
    small = pruned("grouped heads", "heads")[0]

    block = small.model.layers[0]
    assert (block.n_heads, block.n_kv_heads, block.head_dim) == (4, 2, 8)
    assert small.table[["kind", "units", "kept"]].drop_duplicates().values.tolist() == [
        ["heads", 6, 4]
    ]


def test_tied_embeddings_stay_tied():
    small = pruned("fused QKV, tied", "heads+ffn")[0].model
    own = pruned("fused QKV, tied", "neurons")[0].model

    weights = [p for p in small.parameters() if p.shape == (50, 32)]
    assert len(weights) == 1
    assert own.wte.weight is own.lm_head.weight


def with_structure(name):
    """A shape whose units say much the same: rows that vary in few directions."""
    model, rows = built(name)
    if not rows.is_floating_point():
        return model, rows
    chance = torch.Generator().manual_seed(0)
    flat = rows.flatten(1)
    few = torch.randn(len(rows), 4, generator=chance) @ torch.randn(
        4, flat.shape[1], generator=chance
    )
    return model, (few / 2).view(rows.shape)


def test_second_order_loses_less_than_magnitude_on_every_shape():
    lost = {}
    for name in shapes.SHAPES:
        model, rows = with_structure(name)
        smaller = {
            "obs": shrink(model, rows, keep=0.5).model,
            "magnitude": pruned(name, "neurons")[0].model,  # which does not depend on the rows
        }
        with torch.no_grad():
            wanted = model(rows)
            for method, small in smaller.items():
                lost[name, method] = float((small(rows) - wanted).square().mean() / wanted.var())

    ratios = [lost[name, "obs"] / lost[name, "magnitude"] for name in shapes.SHAPES]
    assert sum(ratios) / len(ratios) < 0.4, lost
    assert max(ratios) < 1, lost
