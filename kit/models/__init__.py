"""The models that the lessons look after."""

from kit.models.gpt import GPT
from kit.models.mlp import MLP

__all__ = ["GPT", "MLP"]
