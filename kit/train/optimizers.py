"""Optimizers of language models: Muon for the matrices inside, AdamW for the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kit.train import processes

NAMES = ("adamw", "muon")
# with this rule a step of Muon is as long as one of AdamW, and lr means the same to both
LONG_AS_ADAMW = "match_rms_adamw"


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


class SharedMuon(torch.optim.Muon):
    """Muon of a model that processes share: each makes some matrices orthogonal, for all.

    That is most of Muon's work, and wants whole matrices: of a sharded model they are gathered, as
    many at a time as there are processes. Memory and checkpoints are those of torch.optim.Muon.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; every process must."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            weights.sort(key=Tensor.numel)  # those at work side by side should take equally long
            for start in range(0, len(weights), processes.world()):
                self._step_together(weights[start : start + processes.world()], group)

    def _step_together(self, weights: Sequence[Tensor], group: Mapping[str, Any]) -> None:
        # in bfloat16, since that is what Muon computes in
        updates = [processes.whole(self._update(each, group).bfloat16()) for each in weights]
        mine = processes.rank()
        if mine < len(weights):
            updates[mine] = _orthogonal(updates[mine], group)
        for i, weight in enumerate(weights):
            update = processes.handed_out(updates[i].float(), like=weight, source=i)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update, alpha=group["lr"])

    def _update(self, weight: Tensor, group: Mapping[str, Any]) -> Tensor:
        grad: Any = weight.grad
        if not self.state[weight]:
            self.state[weight]["momentum_buffer"] = torch.zeros_like(grad)
        memory = self.state[weight]["momentum_buffer"]
        memory.lerp_(grad, 1 - group["momentum"])
        return grad.lerp(memory, group["momentum"]) if group["nesterov"] else memory


def _orthogonal(update: Tensor, group: Mapping[str, Any]) -> Tensor:
    """Return the step that torch's Muon takes from zero at lr 1, without memory."""
    step = nn.Parameter(torch.zeros_like(update, dtype=torch.float32))
    step.grad = update.float()
    told = {name: group[name] for name in ("adjust_lr_fn", "ns_coefficients", "ns_steps", "eps")}
    torch.optim.Muon([step], lr=1, weight_decay=0, momentum=0, nesterov=False, **told).step()
    return step.detach()


def make(model: nn.Module, name: str, lr: float, weight_decay: float) -> Optimizers:
    """Give Muon the matrices inside the model; tables, the output layer and norms are AdamW's."""
    tables = {id(table) for table in _tables(model)}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    inside = [each for each in weights if each.ndim == 2 and id(each) not in tables]
    if name == "adamw" or not inside:
        matrices = [each for each in weights if each.ndim > 1]
        rest = [each for each in weights if each.ndim <= 1]
        return Optimizers(_adamw(matrices, rest, lr, weight_decay))
    rest = [each for each in weights if not any(each is one for one in inside)]
    kind = SharedMuon if processes.is_shared(model) else torch.optim.Muon
    muon = kind(inside, lr=lr, weight_decay=weight_decay, adjust_lr_fn=LONG_AS_ADAMW)
    return Optimizers(muon, _adamw([], rest, lr, weight_decay))


def numbered(opt: Any) -> dict[int, nn.Parameter]:
    """Return the weights under the numbers that `state_dict` remembers them by."""
    parts = opt.parts if isinstance(opt, Optimizers) else (opt,)
    return {
        i * len(parts) + k: weight
        for k, part in enumerate(parts)
        for i, weight in enumerate(each for group in part.param_groups for each in group["params"])
    }


def _tables(model: nn.Module) -> list[Tensor]:
    """Return the matrices with a row for each token: those that tokens come in by, and go out by.

    The output layer is the last outside the blocks that has as many outputs as a table has rows:
    inside a block, a layer may be as wide as the vocabulary by chance.
    """
    parts = list(model.modules())
    tables = [part for part in parts if isinstance(part, nn.Embedding)]
    sizes = {part.num_embeddings for part in tables}
    lists = [part for part in parts if isinstance(part, nn.ModuleList)]
    inside = {id(part) for blocks in lists for part in blocks.modules()}
    out = [
        part
        for part in parts
        if isinstance(part, nn.Linear) and part.out_features in sizes and id(part) not in inside
    ]
    return [*(table.weight for table in tables), *(layer.weight for layer in out[-1:])]


def _adamw(
    matrices: list[nn.Parameter], rest: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=lr, betas=(0.9, 0.95))
