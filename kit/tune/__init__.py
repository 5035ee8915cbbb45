"""Tune: descend and see why, search many configurations at once, choose the size of a model."""

from kit.tune.descend import Path, descend
from kit.tune.search import search
from kit.tune.tuning import Tested, Tuning

__all__ = ["Path", "Tested", "Tuning", "descend", "search"]
