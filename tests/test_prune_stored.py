"""Pruned models in files: what is read back is what was written."""

import torch

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
