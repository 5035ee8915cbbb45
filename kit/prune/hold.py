"""Keep the zeros of a pruned model through later training, whatever the optimizer."""

from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks

WHERE = "prune.hold"


def hold(model: nn.Module) -> "Held":
    """Keep zero weights of `model` zero, in place, while it is trained; it is otherwise as it was.

    Adam brings zeros back as soon as they have a gradient; momentum from before, weight decay and
    Muon do as well. While they are held, zeros have no gradient, and whatever a step makes of them
    is undone before the next forward pass, before the weights are read with `state_dict`, and at
    the end.

    Held are the zeros of all matrices and convolutions. Those of biases and norms are not, and
    neither is a weight that is zero throughout: those are how layers begin, not what was pruned.

    Args:
        model: any module, sparse here and there.

    Returns:
        What lets go at the end of a `with` block, also after an error, or when it is told to.

    Raises:
        TypeError: no module.
        ValueError: no zeros, or weights in the form of 2:4 kernels, which cannot be trained.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.0, 1.0]]))
        >>> opt = torch.optim.Adam(model.parameters())
        >>> with hold(model):
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     opt.step()
        >>> model.weight[0, 0].item()
        0.0
    """
    if not isinstance(model, nn.Module):
        raise checks.bad_type(
            WHERE,
            expected="a torch.nn.Module",
            got=checks.Described(type(model).__name__),
            remedy="Pass the model: prune.hold(pruned.model).",
        )
    weights = [
        weight for weight in model.parameters() if weight.ndim >= 2 and weight.is_floating_point()
    ]
    if any(isinstance(weight, torch.sparse.SparseSemiStructuredTensor) for weight in weights):
        raise checks.bad_value(
            WHERE,
            expected="weights that can be trained",
            got=checks.Described("the form that 2:4 kernels multiply"),
            remedy="Train in float32 first: prune.sparsify(model.float(), rows, …).",
        )
    held = {weight: weight.detach() == 0 for weight in weights}
    held = {weight: mask for weight, mask in held.items() if mask.any() and not mask.all()}
    if not held:
        raise checks.bad_value(
            WHERE,
            expected="a model with zeros among its weights",
            got=checks.Described("none"),
            remedy="Make some first: prune.sparsify(model, rows, amount=0.5).model.",
        )
    return Held(model, held)


class Held:
    """Zeros that are kept; let go by `release`, or by the end of a `with` block."""

    def __init__(self, model: nn.Module, masks: dict[nn.Parameter, Tensor]) -> None:
        """Hang the hooks.

        Args:
            model: whose forward passes and `state_dict` find zeros in place.
            masks: True where a weight is held.
        """
        # numbers, not truth values: torch multiplies several times as fast as it fills by a mask
        self._keep = {weight: (~mask).to(weight.dtype) for weight, mask in masks.items()}
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._enforce, prepend=True),
            model.register_state_dict_pre_hook(self._enforce),
        ]
        for weight in masks:
            if weight.requires_grad:
                handle = weight.register_post_accumulate_grad_hook(self._without_gradient)
                self._handles.append(handle)

    @property
    def zeros(self) -> int:
        """Count the weights that are held."""
        return sum(int((kept == 0).sum()) for kept in self._keep.values())

    def release(self) -> None:
        """Zero for the last time and let go; once is enough."""
        if self._handles:
            self._enforce()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "Held":
        """Hold on."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go."""
        self.release()

    def _enforce(self, *_: object) -> None:
        for weight in self._keep:
            # .data: a pass whose gradients are still to come must not find its weights changed
            weight.data.mul_(self._kept(weight))

    def _without_gradient(self, weight: Tensor) -> None:
        if weight.grad is not None:
            weight.grad.mul_(self._kept(weight))

    def _kept(self, weight: Any) -> Tensor:
        kept = self._keep[weight]
        if kept.device != weight.device or kept.dtype != weight.dtype:  # the model has moved
            kept = self._keep[weight] = kept.to(weight)
        return kept
