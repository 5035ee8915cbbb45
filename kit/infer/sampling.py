"""The next token: the likeliest, or one drawn from those that are likely enough."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kit.base import checks
from kit.infer.reading import WHERE


def choose(
    logits: Float[Tensor, "rows vocabulary"],
    luck: Float[Tensor, " rows"],
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int64[Tensor, " rows"]:
    """Return a token a row; the same luck with the same logits is the same token.

    Args:
        logits: of the next token.
        luck: a number from 0 to 1 a row: how far down the ranking the token lies, by mass.
        temperature: that logits are divided by; 0 takes the likeliest token.
        top_k: tokens to draw from, the likeliest; None is all.
        top_p: mass to draw from: the fewest likeliest tokens, of `top_k`, that hold it together.

    Raises:
        ValueError: logits from which nothing can be chosen.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0, 1.0]])
        >>> [int(choose(logits, torch.tensor([u]), temperature=1.0)) for u in (0.0, 0.7, 0.99)]
        [1, 2, 0]
    """
    if not logits.amax(-1).isfinite().all():
        raise checks.bad_value(
            WHERE,
            expected="logits whose highest is finite",
            got=checks.Described("NaN or an infinite one"),
            remedy="Look at the weights: what the model was trained with may have diverged.",
        )
    if temperature == 0:
        return logits.argmax(-1)
    most = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    # on the CPU, in float64: the same draw on every device
    ranked, order = logits.cpu().double().topk(most, dim=-1)
    # the highest becomes 0 before the division: a tiny temperature would make it infinite
    masses = ((ranked - ranked[:, :1]) / temperature).softmax(-1)
    below = masses.cumsum(-1) - masses  # mass of the tokens that are likelier
    if top_p is not None:
        masses = masses.masked_fill(below >= top_p, 0.0)
    upto = masses.cumsum(-1)
    place = torch.searchsorted(upto, luck[:, None].double() * upto[:, -1:], right=True)
    last = (masses > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, place.minimum(last)).squeeze(1)
