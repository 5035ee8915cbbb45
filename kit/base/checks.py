"""Build errors that carry their remedy: what was expected, what came, what to type."""

import difflib
import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType


def bad_value(where: str, *, expected: str, got: object, remedy: str) -> ValueError:
    """Build the ValueError for an argument of the wrong value.

    Args:
        where: the public function that was called, as `module.function`.
        expected: the condition that was not met.
        got: the value itself; arrays and tables are shown by their shape.
        remedy: one imperative sentence with the exact code to type.

    Returns:
        The exception, for the caller to raise, so that the traceback ends where the user called.

    Example:
        >>> print(bad_value("train.fit", expected="epochs >= 1", got=0, remedy="Pass epochs=5."))
        train.fit: expected epochs >= 1, got 0 (int). Pass epochs=5.
    """
    return ValueError(_message(where, expected, got, remedy))


def bad_type(where: str, *, expected: str, got: object, remedy: str) -> TypeError:
    """Build the TypeError for an argument of the wrong type; arguments as in `bad_value`.

    Example:
        >>> print(bad_type("train.fit", expected="a Tensor", got=[1], remedy="Wrap it: tensor(X)."))
        train.fit: expected a Tensor, got [1] (list). Wrap it: tensor(X).
    """
    return TypeError(_message(where, expected, got, remedy))


def unknown_name(where: str, what: str, *, got: str, known: Iterable[str]) -> ValueError:
    """Build the ValueError for a name that is not one of `known`, with the nearest one.

    Args:
        where: the public function that was called, as `module.function`.
        what: what the name stands for, such as "column".
        got: the name as it was typed.
        known: the names that would have been right.

    Example:
        >>> print(unknown_name("show.curve", "column", got="los", known=["loss"]))
        show.curve: expected a known column, got 'los' (str). Did you mean 'loss'? Known: loss.
    """
    names = sorted(map(str, known))
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    remedy = f"{hint}Known: {listed(names)}."
    return bad_value(where, expected=f"a known {what}", got=got, remedy=remedy)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Write names in a row, and from `most` on only how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def need(package: str, *, purpose: str, extra: str) -> ModuleType:
    """Import an optional package, or say in one line how to get it.

    Args:
        package: the name to import.
        purpose: the function that needs it, named in the error.
        extra: the extra of modelcare that brings the package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".")[0]:
            raise  # the package is there but broken inside: its own message is better
        message = (
            f"{purpose}: expected the package {package!r}, got none. "
            f"Install it: pip install 'modelcare[{extra}]'"
        )
        raise ModuleNotFoundError(message, name=package) from None


def _message(where: str, expected: str, got: object, remedy: str) -> str:
    return f"{where}: expected {expected}, got {_shown(got)}. {remedy}"


def _shown(value: object) -> str:
    if isinstance(value, Described):
        return str(value)
    shape = getattr(value, "shape", None)
    if shape and not isinstance(value, type):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    if shape == () and hasattr(value, "item"):
        value = value.item()  # a number of NumPy or torch is shown as the number it is
    text = repr(value)
    return f"{text if len(text) <= 120 else text[:117] + '…'} ({type(value).__name__})"


class Described(str):
    """Words that stand for a value in a message, shown as they are (`Described("3 columns")`)."""

    __slots__ = ()
