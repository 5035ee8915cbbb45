"""A language model comes back from its file as it was, or one line says why not."""

import json
from pathlib import Path

import pytest
import torch

from kit import models, text, train

CARD = Path(__file__).parents[1] / "data" / "code-gpt.json"


def saved(path: Path, **changed) -> models.GPT:
    torch.manual_seed(0)
    model = models.GPT(depth=1, width=16, heads=2, context=8)
    train.save(path, model, about={"model": "GPT", "shape": model.shape} | changed)
    return model


def test_a_saved_model_answers_as_before(tmp_path):
    model = saved(tmp_path / "mine.safetensors")
    tokens = torch.randint(256, (3, 8))

    again = models.load_gpt(tmp_path / "mine.safetensors")

    assert torch.equal(again(tokens), model(tokens))
    assert not again.training


def test_the_model_that_ships_is_the_one_of_its_card():
    card = json.loads(CARD.read_text())
    model, corpus = models.load_gpt(), text.corpus("code")

    bits = train.bits_per_byte(model, corpus.validation)

    assert model.shape == card["shape"]
    assert sum(weight.numel() for weight in model.parameters()) == card["parameters"]
    assert 5e6 <= card["parameters"] <= 15e6
    assert CARD.with_suffix(".safetensors").stat().st_size < 40e6
    assert corpus.sha256 == card["corpus"]["sha256"]
    assert bits == pytest.approx(card["validation_bits_per_byte"], rel=0.03)


def test_a_file_that_is_no_gpt_is_told(tmp_path):
    saved(tmp_path / "other.safetensors", model="MLP")

    with pytest.raises(ValueError) as error:
        models.load_gpt(tmp_path / "other.safetensors")

    assert str(error.value) == (
        'models.load_gpt: expected a GPT saved with about={"model": "GPT", "shape": model.shape}, '
        "got 'other.safetensors' (str). Build the model yourself, and read its weights with "
        "train.load."
    )


@pytest.mark.parametrize("shape", [{"deep": 3}, {"depth": "three"}])
def test_a_shape_that_a_gpt_does_not_know_is_told(tmp_path, shape):
    saved(tmp_path / "odd.safetensors", shape=shape)

    with pytest.raises(ValueError) as error:
        models.load_gpt(tmp_path / "odd.safetensors")

    assert str(error.value).startswith(
        f"models.load_gpt: expected a shape that models.GPT knows, got {shape}: "
    )


def test_weights_of_another_shape_are_told(tmp_path):
    wrong = {"depth": 1, "width": 32, "heads": 2, "context": 8}
    saved(tmp_path / "odd.safetensors", shape=wrong)

    with pytest.raises(ValueError) as error:
        models.load_gpt(tmp_path / "odd.safetensors")

    assert str(error.value) == (
        "models.load_gpt: expected blocks.0.attention.out.weight of shape (32, 32), as the file "
        "says, got (16, 16) in odd.safetensors. Save the model anew: train.save writes weights "
        "and shape together."
    )


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"half of it")

    with pytest.raises(ValueError) as error:
        models.load_gpt(tmp_path / "cut.safetensors")

    assert str(error.value).startswith("storage.load: expected a whole checkpoint of this kit")
