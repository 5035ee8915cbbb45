"""Pruned models in files: what is read back is what was written."""

import copy

import pytest
import torch
from torch import nn

from kit import models, prune


def test_a_model_whose_rows_hold_codes_among_numbers_is_read_back_to_the_bit(tmp_path):
    torch.manual_seed(0)
    model = models.MLP(5, 1, hidden=(16, 16), cardinalities=(2, 2)).eval()
    codes = torch.stack([torch.arange(50) % 2, torch.arange(50) // 2 % 2], 1)
    rows = torch.cat([torch.randn(50, 5), codes], 1)
    pruned = prune.shrink(model, rows, keep=0.5)

    prune.save(tmp_path / "small.safetensors", pruned)
    again = prune.load(tmp_path / "small.safetensors", model)

    with torch.no_grad():
        assert torch.equal(again(rows), pruned.model(rows))


def test_a_copy_of_a_pruned_model_is_saved_with_its_steps(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)), torch.randn(64, 6)
    small = prune.shrink(model, x, keep=0.5).model

    prune.save(tmp_path / "copy.safetensors", copy.deepcopy(small))

    assert torch.equal(prune.load(tmp_path / "copy.safetensors", model)(x), small(x))


def test_a_model_of_another_precision_is_refused(tmp_path):
    model, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)), torch.randn(64, 6)
    prune.save(tmp_path / "half.safetensors", prune.sparsify(model, x, amount=0.5).model.half())

    with pytest.raises(ValueError, match=r"in float16, as in the file, got .* in float32"):
        prune.load(tmp_path / "half.safetensors", model)
