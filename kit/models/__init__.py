"""The models that the lessons look after."""

from kit.models.gpt import GPT
from kit.models.mlp import MLP
from kit.models.stored import load_gpt

__all__ = ["GPT", "MLP", "load_gpt"]
