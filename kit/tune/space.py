"""What may be tuned: ranges and choices by name, checked, and what a configuration means."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from kit.base import checks

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

WHERE = "tune.search"
DEFAULTS = {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.9, "label_smoothing": 0.0}
LIMITS = {  # name -> the condition, and a test of a value
    "lr": ("lr > 0", lambda value: value > 0),
    "weight_decay": ("weight_decay >= 0", lambda value: value >= 0),
    "momentum": ("0 <= momentum < 1", lambda value: 0 <= value < 1),
    "label_smoothing": ("0 <= label_smoothing < 1", lambda value: 0 <= value < 1),
}


@dataclass(frozen=True)
class Space:
    """Names with the range or the choices of each; build one with `parse`."""

    dims: Mapping[str, Any]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return what Optuna samples from; a choice is sampled by its position."""
        # by position, because Optuna stores numbers and words alone, and choices may be anything
        return {name: _distribution(name, dim) for name, dim in self.dims.items()}

    def config(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration that Optuna's `params` stand for."""
        return {
            name: dim[params[name]] if isinstance(dim, list) else params[name]
            for name, dim in self.dims.items()
        }

    def params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Optuna knows a configuration by."""
        return {
            name: dim.index(config[name]) if isinstance(dim, list) else config[name]
            for name, dim in self.dims.items()
        }

    def untuned(self) -> dict[str, Any]:
        """Return what nobody thought about: the first of every list, the middle of every range."""
        return {name: _middle(name, dim) for name, dim in self.dims.items()}


def parse(space: Mapping[str, Any], *, smooth: bool) -> Space:
    """Check every entry of a search space.

    Args:
        space: name -> (low, high), (low, high, "log") or a list of choices.
        smooth: whether there are labels, and a loss of ours, to smooth.

    Raises:
        ValueError: no entry, or one that is no range and no choice, or is out of range.
    """
    if not space:
        remedy = 'Pass at least one name: space={"lr": (1e-4, 1e-1, "log")}.'
        raise _bad("a space with at least one name", checks.Described("none"), remedy)
    if "label_smoothing" in space and not smooth:
        raise _bad(
            "label_smoothing with labels and the kit's own loss alone",
            checks.Described("a quantity, or a loss that was passed"),
            "Take label_smoothing out of space.",
        )
    for name, dim in space.items():
        _check(name, dim)
    return Space({n: dim if isinstance(dim, list) else tuple(dim) for n, dim in space.items()})


def split(config: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Part a configuration into what the training takes, defaults filled in, and the model's."""
    training = {name: float(config.get(name, value)) for name, value in DEFAULTS.items()}
    return training, {name: value for name, value in config.items() if name not in DEFAULTS}


def told(value: Any) -> str:
    """Return what a search is known by in its journal: functions by name, not by address."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {told(each)}" for key, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(told, value))}]"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value)


def _check(name: str, dim: Any) -> None:
    if isinstance(dim, list):
        if not dim:
            raise _bad(f"a choice for {name!r}", dim, f'Pass some: "{name}": [16, 32].')
        values = dim
    elif isinstance(dim, tuple) and len(dim) in (2, 3) and all(map(_is_number, dim[:2])):
        _check_range(name, dim)
        values = list(dim[:2])
    else:
        expected = f"a range (low, high), (low, high, 'log') or a list for {name!r}"
        raise _bad(expected, dim, f'Pass "{name}": [{dim!r}] for a fixed value.')
    if name in LIMITS:
        condition, holds = LIMITS[name]
        for value in values:
            if not (_is_number(value) and holds(value)):
                raise _bad(condition, value, f"Narrow the range of {name!r} in space.")


def _check_range(name: str, dim: tuple[Any, ...]) -> None:
    low, high = dim[:2]
    if len(dim) == 3 and dim[2] != "log":
        raise checks.unknown_name(WHERE, f"scale of {name!r}", got=dim[2], known=["log"])
    if low > high:
        remedy = f'Turn it round: "{name}": {(high, low, *dim[2:])!r}.'
        raise _bad(f"low <= high for {name!r}", dim, remedy)
    if len(dim) == 3 and low <= 0:
        remedy = f'Begin above 0: "{name}": (1e-6, {high!r}, "log").'
        raise _bad(f"low > 0 for {name!r}, whose scale is logarithmic", dim, remedy)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(name: str, dim: tuple[Any, ...]) -> bool:
    whole = isinstance(dim[0], Integral) and isinstance(dim[1], Integral)
    return whole and name not in DEFAULTS  # "momentum": (0, 1) means every number between


def _distribution(name: str, dim: Any) -> "BaseDistribution":
    from optuna import distributions  # here, not above: Optuna takes a while to load

    if isinstance(dim, list):
        return distributions.CategoricalDistribution(range(len(dim)))
    log = len(dim) == 3
    if _is_whole(name, dim):
        return distributions.IntDistribution(int(dim[0]), int(dim[1]), log=log)
    return distributions.FloatDistribution(float(dim[0]), float(dim[1]), log=log)


def _middle(name: str, dim: Any) -> Any:
    if isinstance(dim, list):
        return dim[0]
    low, high = dim[:2]
    middle = math.sqrt(low * high) if len(dim) == 3 else (low + high) / 2
    return round(middle) if _is_whole(name, dim) else middle


def _bad(expected: str, got: object, remedy: str) -> ValueError:
    return checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
