"""Let a small model write ahead, and a large one read all of it at once."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from kit.infer.reading import Reader

AHEAD = 4  # tokens: each one more is agreed to less often

Pick = Callable[[Float[Tensor, "new vocabulary"], int], list[int]]


def ahead(large: Reader, small: Reader, pick: Pick, *, at: int, most: int) -> list[int]:
    """Return the next tokens of the one text of both readers, as `large` alone would choose them.

    Args:
        large: the model that is asked for.
        small: the model that writes ahead; the nearer to `large`, the more is saved.
        pick: chooses the tokens of logits, the first of which is the n-th that is made. It is the
            same for both: they agree as often as they can.
        at: tokens made so far.
        most: tokens to return at most.

    Returns:
        One token, and one more for each that both agreed on.

    Source:
        Leviathan et al.: Fast Inference from Transformers via Speculative Decoding, 2023. Ours
        picks with the same luck in both models, so that the text is the same, too.
    """
    text = large.texts[0]
    # half of the small one's window always stays, so that what was not agreed to can be forgotten
    limits = AHEAD, most - 1, large.room(), small.context // 2 - 1
    n, drafts = len(text), max(0, min(limits))
    for i in range(drafts):
        text += pick(small.logits()[0], at + i)
    chosen = pick(large.logits(last=drafts + 1)[0], at)
    agreed = 0
    while agreed < drafts and text[n + agreed] == chosen[agreed]:
        agreed += 1
    for each in (large, small):
        each.rewind(n + agreed)
    text[n:] = chosen[: agreed + 1]
    return chosen[: agreed + 1]
