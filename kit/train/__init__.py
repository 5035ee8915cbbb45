"""Train a model, judge it, and hold it against simple ones."""

from kit.train.baselines import Baselines, baselines
from kit.train.bits import bits_per_byte
from kit.train.checkpoint import about, load, save
from kit.train.language import LanguageFit, fit_language
from kit.train.loop import Fit, batches, fit, predict
from kit.train.scores import Evaluation, evaluate, probabilities, score

__all__ = [
    "Baselines",
    "Evaluation",
    "Fit",
    "LanguageFit",
    "about",
    "baselines",
    "batches",
    "bits_per_byte",
    "evaluate",
    "fit",
    "fit_language",
    "load",
    "predict",
    "probabilities",
    "save",
    "score",
]
