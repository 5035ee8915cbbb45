"""Grow the training rows, and them alone, and measure whether it was worth it."""

from kit.augment.groups import groups, together
from kit.augment.rows import Augmented
from kit.augment.smote import smote
from kit.augment.tables import mixup, noise, swap
from kit.augment.texts import change_case, delete_letters, drop_words, swap_words, texts
from kit.augment.worth import Worth, worth

__all__ = [
    "Augmented",
    "Worth",
    "change_case",
    "delete_letters",
    "drop_words",
    "groups",
    "mixup",
    "noise",
    "smote",
    "swap",
    "swap_words",
    "texts",
    "together",
    "worth",
]
