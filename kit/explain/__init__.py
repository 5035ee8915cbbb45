"""Explain a model's decisions: Shapley values and LIME for any torch model, with error bars."""

from kit.explain.attribution import Attribution
from kit.explain.axioms import Checks, check
from kit.explain.compare import Comparison, compare
from kit.explain.lime import lime
from kit.explain.shapley import shap
from kit.explain.text import text

__all__ = [
    "Attribution",
    "Checks",
    "Comparison",
    "check",
    "compare",
    "lime",
    "shap",
    "text",
]
