"""Explain a model's decisions: Shapley values and LIME for any torch model, with error bars."""

from kit.explain.attribution import Attribution

__all__ = ["Attribution"]
