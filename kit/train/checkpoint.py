"""Save and restore: a model for later use, and a training to go on from after a crash."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks, storage


@dataclass
class State:
    """What a training must remember between two epochs, apart from model and optimizer."""

    epoch: int = 0  # the next one to run
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best epoch
    stopped: str = ""


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
    _fit_in(model, tensors, path)
    return about


def write(
    path: Path,
    *,
    model: nn.Module,
    opt: torch.optim.Optimizer,
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
    about = {"settings": dict(settings), "state": remembered, "opt": values}
    storage.save(path, tensors, about=about)


def read(
    path: Path,
    *,
    model: nn.Module,
    opt: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> State:
    """Restore model and optimizer in place and return the state; a fresh one without a file.

    Raises:
        ValueError: the file is damaged, or was written by a training with other settings.
    """
    if not path.exists():
        return State()
    tensors, about = storage.load(path)
    _check_same(path, about.get("settings", {}), settings)
    _fit_in(model, _under(tensors, "model/"), path)
    slots: dict[int, dict[str, Any]] = {}
    for key, value in (_under(tensors, "opt/") | _under(about["opt"], "opt/")).items():
        i, name = key.split("/", 1)
        slots.setdefault(int(i), {})[name] = value
    opt.load_state_dict({"state": slots, "param_groups": opt.state_dict()["param_groups"]})
    return State(**about["state"], best=_under(tensors, "best/"))


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _fit_in(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if own != saved:
        odd = sorted(set(own.items()) ^ set(saved.items()))[0][0]
        raise checks.bad_value(
            "train.load",
            expected=f"{odd} of shape {own.get(odd, 'none')}, as the model has it",
            got=checks.Described(f"{saved.get(odd, 'none')} in {Path(path).name}"),
            remedy="Build the model with the sizes it was saved with.",
        )
    model.load_state_dict(dict(tensors))


def _check_same(path: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    odd = {name: (saved.get(name), value) for name, value in settings.items() if saved.get(name) != value}
    if odd:
        name, (was, now) = next(iter(odd.items()))
        raise checks.bad_value(
            "train.fit",
            expected=f"the settings of the checkpoint {path.name}, {name}={was!r}",
            got=checks.Described(f"{name}={now!r}"),
            remedy=f"Pass {name}={was!r} to go on, or another checkpoint= to start anew.",
        )
