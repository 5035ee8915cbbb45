"""The peers of `bench_prune`: Torch-Pruning, and Wanda and SparseGPT rendered from their papers."""

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

DAMP = 0.01  # of the mean diagonal: what the paper of SparseGPT adds
BLOCK = 128  # columns among which SparseGPT chooses at once
Prune = Callable[[Tensor, Tensor], Tensor]  # weight, sums of x xᵀ -> weight with zeros


def torch_pruning(
    model: nn.Module, rows: Any, *, keep: float, heads: Mapping[str, int] | None = None
) -> nn.Module:
    """Return what Torch-Pruning makes of a copy: the smallest norms go, the last layer stays.

    Args:
        model: to be pruned.
        rows: a few, to trace it with.
        keep: fraction of the channels of each layer.
        heads: end of a layer's name -> heads that it computes; whole ones are pruned then.
    """
    import torch_pruning as tp

    twin = copy.deepcopy(model)
    layers = {name: part for name, part in twin.named_modules() if isinstance(part, nn.Linear)}
    told: dict[str, Any] = {}
    if heads:
        ends = tuple(heads)
        told["num_heads"] = {
            part: heads[name.rsplit(".", 1)[-1]]
            for name, part in layers.items()
            if name.endswith(ends)
        }
        told |= {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": 1 - keep}
    tp.pruner.BasePruner(
        twin,
        rows,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=1 - keep,
        ignored_layers=[list(layers.values())[-1]],
        **told,
    ).step()
    return twin


def by_blocks(
    model: nn.Module, blocks: Iterable[nn.Module], run: Callable[[], Any], prune: Prune
) -> nn.Module:
    """Prune the linear layers of each block in place, on inputs that came through those before.

    Args:
        model: whose blocks they are; returned.
        blocks: in the order in which they are called.
        run: shows the model all calibration rows.
        prune: a layer's weight.

    Source:
        Frantar, Alistarh: SparseGPT, 2023; Sun et al.: A Simple and Effective Pruning Approach for
        Large Language Models, 2023. Both go through a model so.
    """
    for block in blocks:
        layers = [part for part in block.modules() if isinstance(part, nn.Linear)]
        sums = {
            layer: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
            for layer in layers
        }

        def gather(layer: nn.Module, given: tuple[Tensor], sums: dict = sums) -> None:
            x = given[0].detach().flatten(0, -2).double()
            sums[layer] += x.T @ x

        hooks = [layer.register_forward_pre_hook(gather) for layer in layers]
        with torch.no_grad():
            run()
            for layer in layers:
                layer.weight.copy_(prune(layer.weight, sums[layer]))
        for hook in hooks:
            hook.remove()
    return model


def wanda(weight: Tensor, moments: Tensor, *, pattern: str) -> Tensor:
    """Drop in each row what has the smallest |weight| times the norm of its input.

    Source:
        Sun et al., 2023, equation 1.
    """
    score = weight.detach().abs() * moments.diagonal().sqrt()
    group = 4 if pattern == "2:4" else weight.shape[1]
    return torch.where(_smaller_half(score.unflatten(1, (-1, group))).flatten(1), 0, weight)


def sparse_gpt(weight: Tensor, moments: Tensor, *, pattern: str) -> Tensor:
    """Drop column by column, and let the columns to the right make up for what is lost.

    Source:
        Frantar, Alistarh, 2023, algorithm 1, without its lazy updates: they save time alone.
    """
    W, H = weight.detach().double().clone(), moments.clone()
    columns = W.shape[1]
    dead = H.diagonal() == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    H.diagonal().add_(DAMP * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    dropped = torch.zeros_like(W, dtype=torch.bool)
    group = 4 if pattern == "2:4" else BLOCK
    for j in range(columns):
        if j % group == 0:
            part = slice(j, min(j + group, columns))
            score = W[:, part] ** 2 / U.diagonal()[part] ** 2
            # free: of all rows of the block together; 2:4: of the four in each row
            score = score if pattern == "2:4" else score.flatten()
            dropped[:, part] = _smaller_half(score).view(len(W), -1)
        error = torch.where(dropped[:, j], W[:, j] / U[j, j], 0)
        W[:, j:] -= error[:, None] * U[j, j:]
    return torch.where(dropped, 0, W).to(weight.dtype)


def _smaller_half(score: Tensor) -> Tensor:
    lowest = score.topk(score.shape[-1] // 2, dim=-1, largest=False).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, lowest, True)


def renderings(pattern: str) -> dict[str, Prune]:
    """Return Wanda and SparseGPT for a pattern."""
    return {
        "Wanda, rendered": partial(wanda, pattern=pattern),
        "SparseGPT, rendered": partial(sparse_gpt, pattern=pattern),
    }


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """Return what `make` made and no words, or None and the error in one line."""
    try:
        return make(), ""
    except Exception as error:
        line = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {line[:120]}"
