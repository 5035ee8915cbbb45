"""Zeros stay zero through training, and nothing is left behind."""

import re
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import train
from kit.prune.hold import hold
from kit.prune.quantise import quantise

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9),
    "muon": partial(torch.optim.Muon, lr=0.02, weight_decay=0.1),
}
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 3


def model_of(*, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=bias))


def prune(model):
    drawing = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            # scattered: zeros in whole columns Muon would leave alone
            layer.weight[torch.rand(layer.weight.shape, generator=drawing) < 0.5] = 0
    return [layer.weight == 0 for layer in (model[0], model[2])]


def steps(model, opt, n=3):
    for _ in range(n):
        opt.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        opt.step()


def alive(model, zeros):
    """Count the zeros that are zero no longer."""
    layers = model[0], model[2]
    return sum(
        int(layer.weight[was].count_nonzero()) for layer, was in zip(layers, zeros, strict=True)
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 3])
def test_zeros_stay_zero_whatever_the_optimizer_and_its_momentum(name, before):
    model = model_of(bias=False)  # Muon is for matrices
    opt = OPTIMIZERS[name](model.parameters())
    steps(model, opt, before)
    zeros = prune(model)
    others = [layer.weight.detach().clone() for layer in (model[0], model[2])]

    with hold(model) as held:
        steps(model, opt)

    assert held.zeros == sum(int(was.sum()) for was in zeros)
    assert alive(model, zeros) == 0
    for layer, was, old in zip((model[0], model[2]), zeros, others, strict=True):
        assert (layer.weight[~was] != old[~was]).any()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_without_it_the_optimizer_brings_them_back(name):
    model = model_of(bias=False)
    zeros = prune(model)

    steps(model, OPTIMIZERS[name](model.parameters()))

    assert alive(model, zeros) > 0.5 * sum(int(was.sum()) for was in zeros)


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9), torch.optim.Muon],
)
def test_zeros_stay_zero_through_fit_and_its_checkpoint(optimizer, tmp_path):
    model = model_of(bias=False)
    zeros = prune(model)
    best = []

    with hold(model):
        fit = train.fit(
            model,
            X,
            Y,
            epochs=3,
            lr=0.01,
            batch=16,
            weight_decay=0.1,
            optimizer=optimizer,
            checkpoint=tmp_path / "run",
        )
        best.append(alive(fit.model, zeros))

    assert best == [0]  # the best weights, which are read before the end
    assert alive(model, zeros) == 0
    assert fit.table["train_loss"].iloc[-1] < fit.table["train_loss"].iloc[0]


def test_what_is_saved_on_the_way_has_its_zeros():
    model = model_of(bias=False)
    zeros = prune(model)
    opt = OPTIMIZERS["muon"](model.parameters())

    with hold(model):
        steps(model, opt, 1)
        saved = {name: weight.clone() for name, weight in model.state_dict().items()}

    assert not saved["0.weight"][zeros[0]].any()
    assert not saved["2.weight"][zeros[1]].any()


def test_the_others_take_the_steps_that_they_would_take_alone():
    model, small = nn.Linear(6, 4, bias=False), nn.Linear(3, 4, bias=False)
    with torch.no_grad():
        model.weight[:, ::2] = 0
        small.weight.copy_(model.weight[:, 1::2])

    with hold(model):
        for each, x in ((model, X), (small, X[:, 1::2])):
            opt = torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9)
            for _ in range(3):
                opt.zero_grad()
                each(x).square().sum().backward()
                nn.utils.clip_grad_norm_(each.parameters(), 0.5)  # of the whole matrix
                opt.step()

    torch.testing.assert_close(model.weight[:, 1::2], small.weight)


def test_two_passes_before_one_backward_are_no_trouble():
    model = model_of()
    zeros = prune(model)

    with hold(model):
        loss = model(X).square().mean() + model(X + 1).square().mean()
        loss.backward()

    assert alive(model, zeros) == 0
    assert model[0].weight.grad[~zeros[0]].any()


def interrupted(model, opt):
    with hold(model):
        steps(model, opt)
        with torch.no_grad():
            model[0].weight += 1
        raise KeyboardInterrupt


def test_an_error_inside_leaves_zeros_and_no_hooks():
    model = model_of()
    zeros = prune(model)
    opt = OPTIMIZERS["adamw"](model.parameters())

    with pytest.raises(KeyboardInterrupt):
        interrupted(model, opt)

    assert alive(model, zeros) == 0
    assert not model._forward_pre_hooks
    assert not model._state_dict_pre_hooks
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
    with torch.no_grad():
        model[0].weight += 1
    model(X)
    assert alive(model, zeros) > 0


def test_it_works_without_a_block_and_lets_go_once():
    model = model_of()
    zeros = prune(model)

    held = hold(model)
    steps(model, OPTIMIZERS["sgd"](model.parameters()))
    held.release()
    model[0].weight.data += 1
    held.release()

    assert alive(model, zeros) > 0


def test_biases_and_weights_that_are_zero_throughout_are_free():
    model = model_of()
    zeros = prune(model)
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[0].bias)

    with hold(model):
        steps(model, OPTIMIZERS["adamw"](model.parameters()))

    assert not model[0].weight[zeros[0]].any()
    assert model[2].weight.all()
    assert model[0].bias.any()


def test_frozen_weights_can_be_held():
    model = model_of()
    zeros = prune(model)
    model[0].weight.requires_grad_(False)

    with hold(model):
        steps(model, OPTIMIZERS["adamw"](model[2].parameters()))

    assert alive(model, zeros) == 0


@pytest.mark.slow
def test_it_costs_a_training_step_little():
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10)) for _ in "ab"]
    x, y = torch.randn(256, 784), torch.arange(256) % 10
    times = [[], []]
    models[1][0].weight.data[:, ::2] = 0
    opts = [torch.optim.AdamW(each.parameters(), fused=True) for each in models]

    with hold(models[1]):
        for _ in range(40):
            for model, opt, laps in zip(models, opts, times, strict=True):
                start = time.perf_counter()
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
                laps.append(time.perf_counter() - start)

    plain, held = (sorted(laps)[len(laps) // 2] for laps in times)
    assert held < 1.5 * plain


def test_what_cannot_be_held_is_refused():
    none = (
        "prune.hold: expected a model with zeros among its weights, got none. "
        "Make some first: prune.sparsify(model, rows, amount=0.5).model."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(none)}$"):
        hold(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=f"^{re.escape(none)}$"):
        hold(quantise(nn.Linear(64, 64), torch.randn(80, 64)).model)
