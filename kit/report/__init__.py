"""Run notebooks with parameters: a page for a person and a record for a program from each run."""

from kit.report.metrics import Metrics, record

__all__ = ["Metrics", "record"]
