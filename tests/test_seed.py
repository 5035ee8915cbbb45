"""The same seed gives the same numbers; other streams give others."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit.base import seed as seeds

SEEDS = st.integers(0, 2**32 - 1)


def drawn() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


@given(SEEDS)
def test_seeding_everything_repeats_python_numpy_and_torch(seed):
    seeds.everything(seed)
    first = drawn()

    seeds.everything(seed)

    assert drawn() == first


@given(SEEDS, st.lists(st.integers(0, 1000), max_size=3), st.integers(0, 1000))
def test_a_stream_repeats_and_every_other_stream_differs(seed, stream, more):
    once, again, other = (
        torch.rand(4, generator=seeds.generator(*numbers))
        for numbers in [(seed, *stream), (seed, *stream), (seed, *stream, more)]
    )

    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_generator_leaves_the_global_numbers_alone():
    seeds.everything(1)
    expected = drawn()
    seeds.everything(1)

    seeds.generator(5, 6)

    assert drawn() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: seeds.generator(-1),
            "seed.generator: expected seed >= 0, got -1 (int). Pass seed=0.",
        ),
        (
            lambda: seeds.everything(2**32),
            "seed.everything: expected 0 <= seed < 2**32, got 4294967296 (int). Pass seed=0.",
        ),
    ],
)
def test_a_seed_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError) as caught:
        call()

    assert str(caught.value) == message
