"""Look at any table, plan its repairs, apply them on any engine, and keep a ledger of it all."""

from kit.clean.apply import Cleaned, apply
from kit.clean.look import Audit, look
from kit.clean.on import fingerprint, on
from kit.clean.plan import Plan, plan
from kit.clean.score import score

__all__ = ["Audit", "Cleaned", "Plan", "apply", "fingerprint", "look", "on", "plan", "score"]
