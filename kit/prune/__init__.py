"""Prune: models that are really smaller and faster, with little loss and no labels."""

from kit.prune.curve import Curve, curve
from kit.prune.distil import Distilled, distil
from kit.prune.hold import Held, hold
from kit.prune.pruned import Pruned
from kit.prune.quantise import quantise
from kit.prune.shrink import shrink
from kit.prune.sparsify import sparsify
from kit.prune.stored import load, save

__all__ = [
    "Curve",
    "Distilled",
    "Held",
    "Pruned",
    "curve",
    "distil",
    "hold",
    "load",
    "quantise",
    "save",
    "shrink",
    "sparsify",
]
