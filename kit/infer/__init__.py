"""Run a model fast: rows in batches, and the form that this machine computes fastest."""

from kit.infer.generate import generate
from kit.infer.limits import Roofline, roofline
from kit.infer.measure import Measured, measure
from kit.infer.optimise import Optimised, optimise
from kit.infer.predict import predict
from kit.infer.stream import Stream

__all__ = [
    "Measured",
    "Optimised",
    "Roofline",
    "Stream",
    "generate",
    "measure",
    "optimise",
    "predict",
    "roofline",
]
