"""Gradient times embedding: one pass back through the model, quick, and not Shapley values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from kit.base import checks
from kit.explain.scorer import Scorer
from kit.explain.units import Text


def of(
    where: str, model: Any, ask: Scorer, text: Text
) -> tuple[Float64[np.ndarray, "units outputs"], Float64[np.ndarray, " outputs"]]:
    """Return the sums over each unit's tokens of gradient times embedding, and the scores.

    Args:
        where: the public function that was called, for errors.
        model: the module, whose embeddings of the ids are all taken.
        ask: its scores.
        text: the text.

    Raises:
        TypeError: a function, or a module that does not embed the ids with nn.Embedding.
    """
    found: list[Tensor] = []
    with torch.inference_mode(False), torch.enable_grad():
        ids = ask.tensor(text.ids[None])
        with _caught(model, ids, found):
            scores = ask(ids)[0]  # (K,)
        if not found:
            raise checks.bad_type(
                where,
                expected="a module that embeds token ids with nn.Embedding",
                got=checks.Described(type(model).__name__),
                remedy="Pass method='shap', which only asks the model for scores.",
            )
        slopes = [
            torch.autograd.grad(score, found, retain_graph=True, materialize_grads=True)
            for score in scores
        ]
    per_token = [
        torch.stack(
            [(slope * v.detach()).sum((0, 2)) for slope, v in zip(each, found, strict=True)]
        )
        for each in slopes
    ]  # for each output (embeddings, T)
    values = np.zeros((len(text.spans), len(scores)))
    real = text.owner >= 0
    tokens = torch.stack(per_token).sum(1).T.cpu().double().numpy()  # (T, K)
    np.add.at(values, text.owner[real], tokens[real])
    return values, scores.detach().cpu().double().numpy()


@contextmanager
def _caught(model: Any, ids: Tensor, found: list[Tensor]) -> Iterator[None]:
    """Take hold of the vectors that the model embeds `ids` as, for gradients to stop at."""

    def hook(_: nn.Module, given: tuple[Tensor, ...], vectors: Tensor) -> Tensor:
        # positions are embedded too: only what is asked with the ids themselves counts
        if given[0].shape != ids.shape or not torch.equal(given[0], ids):
            return vectors
        found.append(vectors.detach().requires_grad_())
        return found[-1]

    modules = model.modules() if isinstance(model, nn.Module) else []
    handles = [m.register_forward_hook(hook) for m in modules if isinstance(m, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
