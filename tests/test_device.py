"""A device is always found, and the choice says why."""

import pytest
import torch
from torch import nn

from kit.base import device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.delenv("KIT_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_without_a_gpu_the_cpu_is_chosen_and_the_reason_told(no_gpu):
    assert str(device.choose()) == "cpu (no GPU that this torch can use)"
    assert device.pick() == torch.device("cpu")


def test_a_gpu_is_chosen_by_name(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")

    assert str(device.choose()) == "cuda (Some GPU is here)"


def test_an_apple_gpu_is_chosen_where_it_is(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert str(device.choose()) == "mps (Apple GPU is here)"


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "xla", "hpu", "cpu:x", "vulkan"])
def test_a_device_that_cannot_be_used_becomes_the_cpu_and_says_so(monkeypatch, name):
    monkeypatch.setenv("KIT_DEVICE", name)

    choice = device.choose()

    assert choice.device == torch.device("cpu")
    assert choice.why.startswith(f"KIT_DEVICE={name} cannot be used: ")
    assert len(str(choice).splitlines()) == 1


def test_a_device_that_is_asked_for_is_taken(monkeypatch):
    monkeypatch.setenv("KIT_DEVICE", "cpu")

    assert str(device.choose()) == "cpu (KIT_DEVICE=cpu)"


def test_a_model_is_where_its_weights_or_else_its_buffers_are():
    only_buffers = nn.BatchNorm1d(2, affine=False).to("meta")

    assert device.of(nn.Linear(1, 1)) == torch.device("cpu")
    assert device.of(only_buffers) == torch.device("meta")
    assert device.of(nn.ReLU()) == torch.device("cpu")


def test_waiting_for_a_cpu_returns_at_once():
    assert device.wait_for(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_clock_waits_for_the_work():
    from kit.base import timing

    x = torch.randn(4096, 4096, device="cuda")
    one = timing.measure(lambda: x @ x, device=x.device, repeats=5)
    many = timing.measure(lambda: [x @ x for _ in range(10)], device=x.device, repeats=5)

    assert many.median_ms > 5 * one.median_ms
