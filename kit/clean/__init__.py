"""Look at any table, plan its repairs, apply them on any engine, and keep a ledger of it all."""

from kit.clean.apply import Cleaned, apply
from kit.clean.labels import Labels, labels
from kit.clean.leaks import Leaks, leaks
from kit.clean.look import Audit, look
from kit.clean.on import fingerprint, on
from kit.clean.plan import Plan, plan
from kit.clean.score import Score, score

__all__ = [
    "Audit",
    "Cleaned",
    "Labels",
    "Leaks",
    "Plan",
    "Score",
    "apply",
    "fingerprint",
    "labels",
    "leaks",
    "look",
    "on",
    "plan",
    "score",
]
