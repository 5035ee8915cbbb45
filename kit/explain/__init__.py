"""Explain a model's decisions: Shapley values and LIME for any torch model, with error bars."""

from kit.explain.attribution import Attribution
from kit.explain.shapley import shap

__all__ = ["Attribution", "shap"]
