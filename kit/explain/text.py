"""Explain decisions about texts: which tokens, words or sentences moved the model, and how far."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from kit.base import checks
from kit.explain import coalitions, estimate, game, gradients, inputs, lime_text, scorer, units
from kit.explain.attribution import Attribution, record
from kit.explain.hiding import MASKS, Hider

WHERE = "explain.text"
METHODS = {
    "shap": "Shapley, up to {pairs} pairs",
    "lime": "LIME, up to {samples} samples",
    "gradients": "gradient × embedding, not Shapley",
}
PAIRS_PER_UNIT, AUTO_PAIRS = 8, (64, 1024)  # of "auto", and its bounds
TOGETHER = 16  # texts of one number of units that LIME asks about at once: they fill a GPU's batch
# what models call the length of their longest text
CONTEXT = ("context", "block_size", "max_position_embeddings")


def text(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    unit: str = "token",
    mask: str = "token",
    method: str = "shap",
    target: int | str | None = None,
    output: str = "logit",
    pairs: int | str = "auto",
    samples: int = 1000,
    seed: int = 0,
    mask_id: int | None = None,
    pad_id: int | None = None,
    context: int | None = None,
) -> Attribution:
    """Compute how much each unit of each text moved the model's scores.

    A Ctrl-C returns the texts that are done.

    Args:
        model: a module from token ids (B, T) to scores (B, K), or such a function of NumPy arrays.
        tokenizer: see `units.cut`: encode and decode, a fast tokenizer of transformers, or a
            function from a text to ids and offsets.
        texts: the texts.
        unit: what gets a value: "token", "word" or "sentence".
        mask: how a unit is hidden: "token" puts `mask_id` in the place of each of its tokens;
            "delete" takes them out, and the model sees a shorter text.
        method: "shap" for Shapley values; "lime" for the weights of lime_text, on all units;
            "gradients" for gradient times embedding, which hides nothing.
        target: the class to explain; None explains the only output or every one.
        output: "logit" or "raw" for what the model returns, "probability" for the sigmoid of one
            output or the softmax of several; a function is explained as it is.
        pairs: "shap": pairs of sets of units a text; all sets come where there are no more.
        samples: "lime": sets of units a text, likewise.
        seed: of the sets.
        mask_id: the id of a hidden token; None takes the tokenizer's `mask_token_id`.
        pad_id: the id that the model ignores at the end of a text; None takes the tokenizer's
            `pad_token_id`, and without one only texts of one length share a batch.
        context: tokens that the model takes at most; None asks the model or its `config`.

    Returns:
        Values (texts, units), or (texts, units, K), padded with 0; `lengths` has the units of each
        text, `names` are their places, and `data` has the units themselves. Base values are the
        scores of the text without any unit ("lime": the intercepts; "gradients": the prediction
        less all values).

    Raises:
        ValueError: no texts, an empty or a too long one, an unknown unit, mask, method, scale or
            class, no id to mask with, too few pairs or samples, or scores that are not finite.
        TypeError: no tokenizer, or for gradients a model without an embedding.

    Example:
        >>> letters = lambda text: (list(map(ord, text)), [(i, i + 1) for i in range(len(text))])
        >>> found = text(lambda ids: (ids == ord("a")).sum(1), letters, ["banana"], mask_id=0)
        >>> found.values.round(6).tolist()
        [[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]]
    """
    given = {name: value for name, value in locals().items() if name != "model"}
    _check_names(texts, unit, mask, method)
    cuts = [units.cut(WHERE, tokenizer, each, unit=unit) for each in texts]
    mask_id = _id(tokenizer, "mask_token_id", mask_id)
    pad_id = _id(tokenizer, "pad_token_id", pad_id)
    if method != "gradients":
        _check_ids(cuts, mask, mask_id, pad_id)
    n_units = max(len(cut.spans) for cut in cuts)
    n_pairs, n_samples = _pairs(pairs, n_units), _samples(samples, n_units)
    solve = {
        "shap": partial(_shapley, pairs=n_pairs, seed=seed),
        "lime": partial(_lime, samples=n_samples, seed=seed),
        "gradients": partial(_gradients, model=model),
    }[method]
    with scorer.evaluating(WHERE, model):
        ask = _scorer(model, cuts, output, target, context)
        hider = Hider(WHERE, ask, cuts, mask, mask_id, pad_id)
        parts = estimate.finished(WHERE, _parts(hider, solve), len(cuts), what="texts")
    done = sorted(place for part in parts for place in part.places)
    found = {name: array[done] for name, array in _together(parts, len(cuts), n_units).items()}
    cuts = [cuts[place] for place in done]
    outputs, last = scorer.names(target, found["predictions"].shape[1])
    return record(
        values=found["values"][..., last],
        base_values=found["base_values"][:, last],
        predictions=found["predictions"][:, last],
        error_std=found["error_std"][..., last] if "error_std" in found else None,
        data=np.array([cut.words + [""] * (n_units - len(cut.spans)) for cut in cuts]),
        names=[str(place) for place in range(n_units)],
        outputs=outputs,
        method=METHODS[method].format(pairs=n_pairs, samples=n_samples),
        lengths=[len(cut.spans) for cut in cuts],
        extra={"unit": unit, "mask": mask}
        | ({"r2": found["r2"][:, last]} if "r2" in found else {}),
        rerun=partial(text, **given),
        model=model,
        texts=[cut.text for cut in cuts],
        spans=[cut.spans for cut in cuts],
    )


@dataclass(frozen=True)
class _Part:
    """What was found of some texts: an array a figure, with a row a text."""

    places: np.ndarray  # of the texts, among all of them
    found: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.places)


_Solve = Callable[[Hider, np.ndarray], Iterator[_Part]]  # texts of one number of units


def _parts(hider: Hider, solve: _Solve) -> Iterator[_Part]:
    """Explain texts that have as many units together: they share their sets of units."""
    lengths = np.array([len(cut.spans) for cut in hider.texts])
    for length in np.unique(lengths):
        yield from solve(hider, np.flatnonzero(lengths == length))


def _shapley(hider: Hider, places: np.ndarray, *, pairs: int, seed: int) -> Iterator[_Part]:
    d = len(hider.texts[places[0]].spans)
    ends = hider.worths(places, np.array([[False] * d, [True] * d]))  # (texts, 2, K)
    n_all = coalitions.all_pairs(d)
    n = min(pairs, n_all)
    effort = estimate.Effort(d=d, exact=n == n_all, first=n, most=n)
    odd_all, done = (ends[:, 1] - ends[:, 0]) / 2, 0
    for block in estimate.blocks(hider.odd, places, odd_all, effort, seed=seed):
        here = slice(done, done + len(block))
        found = {"values": block.values, "error_std": block.error_std}
        found |= {"base_values": ends[here, 0], "predictions": ends[here, 1]}
        yield _Part(places[here], found)
        done += len(block)


def _lime(hider: Hider, places: np.ndarray, *, samples: int, seed: int) -> Iterator[_Part]:
    operator = lime_text.operator(len(hider.texts[places[0]].spans), samples, seed)
    for start in range(0, len(places), TOGETHER):
        some = places[start : start + TOGETHER]
        worths = hider.worths(some, operator.members)  # (texts, sets, K)
        fits = [operator.fit(each) for each in worths]
        found = {name: np.stack([fit[name] for fit in fits]) for name in fits[0]}
        yield _Part(some, found | {"predictions": worths[:, -1]})


def _gradients(hider: Hider, places: np.ndarray, *, model: Any) -> Iterator[_Part]:
    for place in places:
        values, scores = gradients.of(WHERE, model, hider.ask, hider.texts[place])
        game.finite(WHERE, scores)
        found = {"values": values, "base_values": scores - values.sum(0), "predictions": scores}
        yield _Part(np.array([place]), {name: each[None] for name, each in found.items()})


def _together(parts: list[_Part], n_texts: int, n_units: int) -> dict[str, np.ndarray]:
    """Put the texts back in their order, with 0 for units that they do not have."""
    found: dict[str, np.ndarray] = {}
    for name, first in parts[0].found.items():
        width = (n_units,) if first.ndim == 3 else ()
        found[name] = np.zeros((n_texts, *width, first.shape[-1]))
        for part in parts:
            if width:
                found[name][part.places, : part.found[name].shape[1]] = part.found[name]
            else:
                found[name][part.places] = part.found[name]
    return found


def _scorer(
    model: Any,
    cuts: list[units.Text],
    output: str,
    target: int | str | None,
    context: int | None,
) -> scorer.Scorer:
    """Ask the model about the longest text first: if that works, all others will."""
    longest = max(cuts, key=lambda cut: len(cut.ids))
    n = len(longest.ids)
    owners = (model, getattr(model, "config", None))
    known = [getattr(owner, name, None) for owner in owners for name in CONTEXT]
    limit = context or next((length for length in known if isinstance(length, int)), n)
    if n > limit:
        raise checks.bad_value(
            WHERE,
            expected=f"texts of at most {limit} tokens, the model's context",
            got=checks.Described(f"{n} tokens in text {cuts.index(longest)}"),
            remedy="Cut it, or pass its paragraphs as texts of their own.",
        )
    try:
        # not in inference mode: gradients have to pass through the weights taken here
        with torch.inference_mode(False), torch.no_grad():
            return scorer.make(
                WHERE, model, longest.ids[None], output=output, target=target, dtype="auto"
            )
    except torch.OutOfMemoryError:  # a RuntimeError, too, which says nothing of ids
        raise
    except (IndexError, RuntimeError) as error:
        raise checks.bad_value(
            WHERE,
            expected="ids and lengths that the model takes",
            got=checks.Described(f"{type(error).__name__} at the longest text, of {n} tokens"),
            remedy="Cut it to the model's context; take the tokenizer that it was trained with.",
        ) from error


def _id(tokenizer: Any, name: str, given: int | None) -> int | None:
    return getattr(tokenizer, name, None) if given is None else given


def _pairs(pairs: Any, d: int) -> int:
    if pairs == "auto":
        low, high = AUTO_PAIRS
        return max(low, min(PAIRS_PER_UNIT * d, high), coalitions.fewest(d))
    fewest = min(coalitions.fewest(d), coalitions.all_pairs(d))
    pairs = inputs.whole(WHERE, pairs, what="pairs", remedy="Pass pairs='auto'.")
    if pairs < fewest:
        raise checks.bad_value(
            WHERE,
            expected=f"at least {fewest} pairs for {d} units (1.2 a unit)",
            got=pairs,
            remedy="Pass pairs='auto'.",
        )
    return pairs


def _samples(samples: Any, d: int) -> int:
    samples = inputs.whole(WHERE, samples, what="samples", remedy="Pass samples=1000.")
    if samples < 2 * d:
        raise checks.bad_value(
            WHERE,
            expected=f"at least {2 * d} samples for {d} units (2 a unit)",
            got=samples,
            remedy="Pass samples=1000.",
        )
    return samples


def _check_names(texts: Sequence[str], unit: str, mask: str, method: str) -> None:
    choices = [("unit", unit, units.UNITS), ("mask", mask, MASKS)]
    for what, got, known in [*choices, ("method", method, tuple(METHODS))]:
        if got not in known:
            raise checks.unknown_name(WHERE, what, got=got, known=known)
    if isinstance(texts, str):
        raise checks.bad_type(
            WHERE, expected="a list of texts", got=texts, remedy="Pass a list: [text]."
        )
    if len(texts) == 0:
        raise checks.bad_value(
            WHERE, expected="at least one text", got=texts, remedy="Pass a list: [text]."
        )


def _check_ids(cuts: list[units.Text], mask: str, mask_id: int | None, pad_id: int | None) -> None:
    """Refuse to hide units without an id to put there, or to leave nothing at all of a text."""
    if mask == "token" and mask_id is None:
        raise checks.bad_value(
            WHERE,
            expected="an id for hidden tokens",
            got=mask_id,
            remedy="Pass mask_id=tokenizer.encode('…')[0], or mask='delete'.",
        )
    bare = any((cut.owner >= 0).all() for cut in cuts)
    if mask == "delete" and bare and mask_id is None and pad_id is None:
        raise checks.bad_value(
            WHERE,
            expected="an id that stands for a text without units",
            got=mask_id,
            remedy="Pass mask_id, such as the id of a space.",
        )
