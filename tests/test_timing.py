"""A timing calls as often as it says, and shows its spread."""

import time

import pytest
import torch

from kit.base import timing


def test_warm_up_is_not_timed_and_every_repeat_is():
    calls = []

    found = timing.measure(lambda: calls.append(1), repeats=7, warmup=2)

    assert len(calls) == 9
    assert len(found.table) == 7


def test_the_time_is_that_of_the_call_and_the_middle_lies_below_the_ninetieth():
    found = timing.measure(lambda: time.sleep(0.005), repeats=5, warmup=0)

    assert found.median_ms >= 5
    assert found.table["time_ms"].min() <= found.median_ms <= found.p90_ms
    assert set(found.facts()) == {"median_ms", "p90_ms", "device"}
    assert found.device == "cpu"


def test_the_device_is_waited_for_before_and_after_each_call(monkeypatch):
    order = []
    monkeypatch.setattr(timing, "wait_for", lambda device: order.append("wait"))

    timing.measure(lambda: order.append("call"), device=torch.device("cpu"), repeats=2, warmup=1)

    assert order == ["call", *["wait", "call", "wait"] * 2]


def test_no_repeats_are_refused():
    with pytest.raises(ValueError) as caught:
        timing.measure(lambda: None, repeats=0)

    assert str(caught.value) == (
        "timing.measure: expected repeats >= 1, got 0 (int). Pass repeats=20."
    )
