"""The fast optimizer step gives what torch's own gives."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kit.train.step import updater

SHAPES = st.lists(
    st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple), min_size=1, max_size=5
)


def weights(shapes) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(params, missing, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    for i, weight in enumerate(params):
        gradient = torch.randn(weight.shape, generator=generator)
        weight.grad = None if i in missing else gradient


def memories(opt) -> list[torch.Tensor]:
    return [value for slots in opt.state_dict()["state"].values() for value in slots.values()]


@settings(deadline=None)
@given(
    SHAPES,
    st.floats(1e-5, 1.0),
    st.sampled_from([0.0, 0.1]),
    st.lists(st.sets(st.integers(0, 4), max_size=1), min_size=1, max_size=6),
)
def test_a_step_is_that_of_torch_to_the_last_bit_also_where_gradients_are_missing(
    shapes, lr, weight_decay, missing_at
):
    ours, theirs = weights(shapes), weights(shapes)
    made_of = {"lr": lr, "weight_decay": weight_decay, "fused": True}
    opt, reference = torch.optim.AdamW(ours, **made_of), torch.optim.AdamW(theirs, **made_of)
    update = updater(opt)

    for seed, missing in enumerate(missing_at):
        give_gradients(ours, missing, seed)
        give_gradients(theirs, missing, seed)
        update()
        reference.step()

    assert all(map(torch.equal, ours, theirs))


def test_the_state_is_that_of_torch_so_a_checkpoint_goes_on_with_either():
    ours, theirs = weights([(3, 2), (3,)]), weights([(3, 2), (3,)])
    opt, reference = (torch.optim.AdamW(each, lr=0.1, fused=True) for each in (ours, theirs))
    update = updater(opt)
    for seed in range(3):
        give_gradients(ours, set(), seed)
        give_gradients(theirs, set(), seed)
        update()
        reference.step()

    restored = torch.optim.AdamW(ours, lr=0.1, fused=True)
    restored.load_state_dict(deepcopy(reference.state_dict()))
    give_gradients(ours, set(), 3)
    give_gradients(theirs, set(), 3)
    updater(restored)()
    reference.step()

    assert opt.state_dict()["state"][0].keys() == reference.state_dict()["state"][0].keys()
    assert all(map(torch.equal, ours, theirs))
    assert all(map(torch.equal, memories(restored), memories(reference)))


@pytest.mark.parametrize(
    "make",
    [
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        lambda params: torch.optim.Adam(params, lr=0.1, fused=True),
        lambda params: torch.optim.AdamW(params, lr=0.1),
        lambda params: torch.optim.AdamW(params, lr=0.1, fused=True, amsgrad=True),
        lambda params: torch.optim.AdamW(
            [{"params": [each], "lr": 0.1 * (i + 1)} for i, each in enumerate(params)], fused=True
        ),
    ],
    ids=["SGD", "Adam", "AdamW not fused", "amsgrad", "two groups"],
)
def test_any_other_optimizer_takes_its_own_step(make):
    ours, theirs = weights([(3, 2), (3,)]), weights([(3, 2), (3,)])
    update, reference = updater(make(ours)), make(theirs)

    for seed in range(3):
        give_gradients(ours, set(), seed)
        give_gradients(theirs, set(), seed)
        update()
        reference.step()

    assert all(map(torch.equal, ours, theirs))


def test_a_step_drops_the_gradients_and_leaves_frozen_weights_alone():
    moving, frozen = weights([(2,), (2,)])
    frozen.requires_grad_(False)
    before = frozen.clone()
    opt = torch.optim.AdamW([moving, frozen], lr=0.1, fused=True)
    update = updater(opt)
    give_gradients([moving], set(), 0)

    update()

    assert moving.grad is None
    assert torch.equal(frozen, before)
    assert len(opt.state) == 1
