"""Select features by several methods, and see how far the methods agree."""

from kit.select.filter import mutual
from kit.select.lasso import lasso
from kit.select.model import attributions, permutation
from kit.select.selection import Selection, compare
from kit.select.stability import stability
from kit.select.stepwise import backward, forward

__all__ = [
    "Selection",
    "attributions",
    "backward",
    "compare",
    "forward",
    "lasso",
    "mutual",
    "permutation",
    "stability",
]
