"""Clean a table: find what leaks across a split, and labels that are probably wrong."""

from kit.clean.labels import Labels, labels
from kit.clean.leaks import Leaks, leaks

__all__ = ["Labels", "Leaks", "labels", "leaks"]
