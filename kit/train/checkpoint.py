"""Save and restore: a model for later use, and a training to go on from after a crash."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from kit.base import checks, storage
from kit.train import processes
from kit.train.optimizers import numbered

File = tuple[dict[str, Tensor], dict[str, Any]]  # its tensors, and what is said about them


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
    at_once: int = 0  # windows a process, where memory ran out with more


def save(path: str | Path, model: nn.Module, *, about: Mapping[str, Any] | None = None) -> None:
    """Save the weights of `model` as safetensors, whole or not at all; no pickle.

    Of a model that processes share, the first one writes the file, as one process alone would; of
    a sharded one, all have to call this.

    Args:
        path: the file.
        model: any module.
        about: what JSON can hold, such as the sizes to rebuild it and `encoder.state()`.
    """
    weights = _gathered(_own(model))
    if processes.rank() == 0 or not processes.is_shared(model):
        storage.save(path, weights, about=about or {})


def load(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load weights into `model` in place and return what was saved about them.

    Nothing in the file is executed, whoever made it: that is why it is not a pickle.

    Args:
        path: a file that `save` wrote.
        model: a module of the same shape; all processes that share it have to call this.

    Raises:
        ValueError: the file is missing or damaged, or its weights do not fit the model.
    """

    def opened() -> File:
        tensors, about = storage.load(path)
        _check_fits("train.load", model, tensors, path)
        return tensors, about

    tensors, about = _read_by_first(opened) if processes.is_shared(model) else opened()
    _put_in(model, tensors)
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
    """Write a training between two epochs as one file, by the first process.

    Of a sharded model, all have to call this. The file is the same, whoever shares the model.
    """
    prefix = _prefix(model)
    tensors = {f"model/{name}": tensor for name, tensor in _own(model).items()}
    tensors |= {f"best/{name.removeprefix(prefix)}": each for name, each in state.best.items()}
    values: dict[str, Any] = {}
    for i, slots in opt.state_dict()["state"].items():
        for name, value in slots.items():
            (tensors if isinstance(value, Tensor) else values)[f"opt/{i}/{name}"] = value
    tensors = _gathered(tensors)
    if processes.rank() == 0:
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
    where: str = "train.fit",
) -> State:
    """Restore model and optimizer in place and return the state; a fresh one without a file.

    The first process reads, and hands to the others what is theirs.

    Raises:
        ValueError: the file is damaged, is no training, was written with other settings, or has
            done more than `epochs`.
    """

    def opened() -> File:
        if not path.exists():
            return {}, {}
        tensors, about = storage.load(path)
        _check_same(where, path, about, settings, epochs)
        _check_fits(where, model, _under(tensors, "model/"), path)
        return tensors, about

    tensors, about = _read_by_first(opened)
    if not about:
        return State()
    _put_in(model, _under(tensors, "model/"))
    weights = numbered(opt)
    slots: dict[int, dict[str, Any]] = {}
    for key, value in (_under(tensors, "opt/") | _under(about["opt"], "opt/")).items():
        i, name = key.split("/", 1)
        if isinstance(value, Tensor):
            value = _handed_out(value, like=weights[int(i)])
        slots.setdefault(int(i), {})[name] = value
    opt.load_state_dict({"state": slots, "param_groups": opt.state_dict()["param_groups"]})
    own, prefix = _own(model), _prefix(model)
    best = {
        prefix + name: _handed_out(tensor, like=own[name])
        for name, tensor in _under(tensors, "best/").items()
    }
    return State(**about["state"], best=best)


def _read_by_first(read: Callable[[], File]) -> File:
    """Let the first process read a file, and the others know of what shape its tensors are."""
    tensors: dict[str, Tensor] = {}

    def told() -> File:
        found, about = read()
        tensors.update(found)
        return {name: each.to("meta") if each.ndim else each for name, each in found.items()}, about

    shapes, about = processes.by_first(told)
    return shapes | tensors, about


def _own(model: nn.Module) -> dict[str, Tensor]:
    return processes.inner(model).state_dict()


def _prefix(model: nn.Module) -> str:
    """Return what DistributedDataParallel writes before the name of a weight."""
    return "" if processes.inner(model) is model else "module."


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors; those that were in shards in the memory of the first process alone."""
    found = {}
    for name, tensor in tensors.items():
        whole = processes.whole(tensor)
        if whole is tensor:
            found[name] = tensor
        elif processes.rank() == 0:
            found[name] = whole.cpu()  # at once: a GPU has room for one tensor, not for all
    return found


def _put_in(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own, mine = _own(model), dict(tensors)
    if processes.is_shared(model):
        mine = {name: _handed_out(tensor, like=own[name]) for name, tensor in tensors.items()}
    processes.inner(model).load_state_dict(mine)


def _handed_out(tensor: Tensor, *, like: Tensor) -> Tensor:
    """Return this process's part; a lone number it has already."""
    return processes.handed_out(tensor, like=like) if tensor.ndim else tensor


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _check_fits(
    where: str, model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path
) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in _own(model).items()}
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


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back, tuples as lists."""
    return json.loads(json.dumps(dict(settings), default=str))


def _check_same(
    where: str, path: Path, about: Mapping[str, Any], settings: Mapping[str, Any], epochs: int
) -> None:
    if not {"settings", "state", "opt"} <= about.keys():
        expected, got = "a checkpoint that fit wrote", f"{path.name}, written by train.save"
        raise _not_this(
            where, expected, got, "Pass another checkpoint=; train.load reads this one."
        )
    saved = about["settings"]
    odd = [name for name, value in _plain(settings).items() if saved.get(name) != value]
    if odd == ["data"]:
        expected, got = f"the rows that {path.name} was trained on", "other rows"
        raise _not_this(
            where, expected, got, "Pass the same ones, or another checkpoint= to start anew."
        )
    if odd:
        name = next(each for each in odd if each != "data")
        expected = f"the settings of the checkpoint {path.name}, {name}={saved.get(name)!r}"
        remedy = f"Pass {name}={saved.get(name)!r} to go on, or another checkpoint= to start anew."
        raise _not_this(where, expected, f"{name}={settings[name]!r}", remedy)
    done = about["state"]["epoch"]
    if done > epochs:
        expected = f"epochs >= {done}, as many as {path.name} has done"
        raise _not_this(
            where, expected, str(epochs), "Pass more, or another checkpoint= to start anew."
        )


def _not_this(where: str, expected: str, got: str, remedy: str) -> ValueError:
    return checks.bad_value(where, expected=expected, got=checks.Described(got), remedy=remedy)
