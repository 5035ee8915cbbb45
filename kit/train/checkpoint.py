"""Save and restore: a model for later use, and a training to go on from after a crash."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from kit.base import checks, storage


@runtime_checkable
class Remembers(Protocol):
    """An optimizer, or several that are saved as one."""

    def state_dict(self) -> dict[str, Any]:
        """Return its memory of every weight, and its settings."""

    def load_state_dict(self, state: Any) -> None:
        """Restore them."""


@dataclass
class State:
    """What a training must remember between two epochs, apart from model and optimizer."""

    epoch: int = 0  # the next one to run
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best epoch
    stopped: str = ""
    precision: str = ""  # where the training chose it


def save(path: str | Path, model: nn.Module, *, about: Mapping[str, Any] | None = None) -> None:
    """Save the weights of `model` as safetensors, whole or not at all; no pickle.

    Args:
        path: the file.
        model: any module.
        about: what JSON can hold, such as the sizes to rebuild it and `encoder.state()`.
    """
    storage.save(path, model.state_dict(), about=about or {})


def load(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load weights into `model` in place and return what was saved about them.

    Nothing in the file is executed, whoever made it: that is why it is not a pickle.

    Args:
        path: a file that `save` wrote.
        model: a module of the same shape.

    Raises:
        ValueError: the file is missing or damaged, or its weights do not fit the model.
    """
    tensors, about = storage.load(path)
    _fit_in("train.load", model, tensors, path)
    return about


def about(path: str | Path) -> dict[str, Any]:
    """Return what was saved about a model, to build it by before its weights are loaded.

    Args:
        path: a file that `save` wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return storage.load(path)[1]


def write(
    path: Path,
    *,
    model: nn.Module,
    opt: Remembers,
    state: State,
    settings: Mapping[str, Any],
) -> None:
    """Write a training between two epochs as one file."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    values: dict[str, Any] = {}
    for i, slots in opt.state_dict()["state"].items():
        for name, value in slots.items():
            (tensors if isinstance(value, Tensor) else values)[f"opt/{i}/{name}"] = value
    remembered = {name: value for name, value in vars(state).items() if name != "best"}
    about = {"settings": _plain(settings), "state": remembered, "opt": values}
    storage.save(path, tensors, about=about)


def read(
    path: Path,
    *,
    model: nn.Module,
    opt: Remembers,
    settings: Mapping[str, Any],
    epochs: int,
) -> State:
    """Restore model and optimizer in place and return the state; a fresh one without a file.

    Raises:
        ValueError: the file is damaged, is no training, was written with other settings, or has
            done more than `epochs`.
    """
    if not path.exists():
        return State()
    tensors, about = storage.load(path)
    _check_same(path, about, settings, epochs)
    _fit_in("train.fit", model, _under(tensors, "model/"), path)
    slots: dict[int, dict[str, Any]] = {}
    for key, value in (_under(tensors, "opt/") | _under(about["opt"], "opt/")).items():
        i, name = key.split("/", 1)
        slots.setdefault(int(i), {})[name] = value
    opt.load_state_dict({"state": slots, "param_groups": opt.state_dict()["param_groups"]})
    return State(**about["state"], best=_under(tensors, "best/"))


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _fit_in(where: str, model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(own.keys() | saved.keys()):
        if own.get(name) != saved.get(name):
            has = f"{name} of shape {own[name]}" if name in own else f"no {name}"
            got = f"shape {saved[name]}" if name in saved else "none"
            raise checks.bad_value(
                where,
                expected=f"{has}, as the model has it",
                got=checks.Described(f"{got} in {Path(path).name}"),
                remedy="Build the model with the sizes it was saved with.",
            )
    model.load_state_dict(dict(tensors))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back, tuples as lists."""
    return json.loads(json.dumps(dict(settings), default=str))


def _check_same(
    path: Path, about: Mapping[str, Any], settings: Mapping[str, Any], epochs: int
) -> None:
    if not {"settings", "state", "opt"} <= about.keys():
        expected, got = "a checkpoint that fit wrote", f"{path.name}, written by train.save"
        raise _not_this(expected, got, "Pass another checkpoint=; train.load reads this one.")
    saved = about["settings"]
    odd = [name for name, value in _plain(settings).items() if saved.get(name) != value]
    if odd == ["data"]:
        expected, got = f"the rows that {path.name} was trained on", "other rows"
        raise _not_this(expected, got, "Pass the same ones, or another checkpoint= to start anew.")
    if odd:
        name = next(each for each in odd if each != "data")
        expected = f"the settings of the checkpoint {path.name}, {name}={saved.get(name)!r}"
        remedy = f"Pass {name}={saved.get(name)!r} to go on, or another checkpoint= to start anew."
        raise _not_this(expected, f"{name}={settings[name]!r}", remedy)
    done = about["state"]["epoch"]
    if done > epochs:
        expected = f"epochs >= {done}, as many as {path.name} has done"
        raise _not_this(expected, str(epochs), "Pass more, or another checkpoint= to start anew.")


def _not_this(expected: str, got: str, remedy: str) -> ValueError:
    return checks.bad_value(
        "train.fit", expected=expected, got=checks.Described(got), remedy=remedy
    )
