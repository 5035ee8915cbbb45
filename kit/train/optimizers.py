"""Optimizers of language models: Muon for the matrices inside, AdamW for the rest."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

NAMES = ("adamw", "muon")


class Optimizers:
    """Several optimizers that step, and are saved, as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        """Take optimizers of different weights."""
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Take a step with each, and drop the gradients."""
        for part in self.parts:
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of all, under numbers that tell the parts apart."""
        states = [part.state_dict() for part in self.parts]
        memory = {
            i * len(states) + k: slots
            for k, state in enumerate(states)
            for i, slots in state["state"].items()
        }
        groups = [group for state in states for group in state["param_groups"]]
        return {"state": memory, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        n = len(self.parts)
        for k, part in enumerate(self.parts):
            mine = {i // n: slots for i, slots in state["state"].items() if i % n == k}
            groups = part.state_dict()["param_groups"]
            part.load_state_dict({"state": mine, "param_groups": groups})


def make(model: nn.Module, name: str, lr: float, weight_decay: float) -> Optimizers:
    """Give Muon the matrices inside the model; tables of vectors and norms are AdamW's."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    inside = [each for each in weights if each.ndim == 2 and id(each) not in tables]
    if name == "adamw" or not inside:
        matrices = [each for each in weights if each.ndim > 1]
        rest = [each for each in weights if each.ndim <= 1]
        return Optimizers(_adamw(matrices, rest, lr, weight_decay))
    rest = [each for each in weights if not any(each is one for one in inside)]
    # with this rule a step of Muon is as long as one of AdamW, and lr means the same to both
    muon = torch.optim.Muon(
        inside, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Optimizers(muon, _adamw([], rest, lr, weight_decay))


def _adamw(
    matrices: list[nn.Parameter], rest: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=lr, betas=(0.9, 0.95))
