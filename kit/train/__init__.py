"""Train a model, judge it, and hold it against simple ones."""

from kit.train.baselines import Baselines, baselines
from kit.train.checkpoint import about, load, save
from kit.train.loop import Fit, batches, fit, predict
from kit.train.scores import Evaluation, evaluate, probabilities, score

__all__ = [
    "Baselines",
    "Evaluation",
    "Fit",
    "about",
    "baselines",
    "batches",
    "evaluate",
    "fit",
    "load",
    "predict",
    "probabilities",
    "save",
    "score",
]
