"""Run a model fast: rows in batches, and the form that this machine computes fastest."""

from kit.infer.generate import generate
from kit.infer.optimise import Optimised, optimise
from kit.infer.predict import predict
from kit.infer.stream import Stream

__all__ = ["Optimised", "Stream", "generate", "optimise", "predict"]
