"""Tune: descend and see why, search many configurations at once, choose the size of a model."""

from kit.tune.descend import Path, descend
from kit.tune.ladder import Advice, Ladder, sizes_language
from kit.tune.landscape import Landscape, landscape
from kit.tune.rates import LrRange, lr_range
from kit.tune.search import search
from kit.tune.sizes import Sizes, sizes
from kit.tune.tuning import Tested, Tuning

__all__ = [
    "Advice",
    "Ladder",
    "Landscape",
    "LrRange",
    "Path",
    "Sizes",
    "Tested",
    "Tuning",
    "descend",
    "landscape",
    "lr_range",
    "search",
    "sizes",
    "sizes_language",
]
