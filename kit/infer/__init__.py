"""Run a model fast: rows in batches, and the form that this machine computes fastest."""

from kit.infer.optimise import Optimised, optimise
from kit.infer.predict import predict

__all__ = ["Optimised", "optimise", "predict"]
