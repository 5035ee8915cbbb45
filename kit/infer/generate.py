"""Let a language model write: token by token, many texts at once, each as if it were alone."""

import warnings
from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from kit import text
from kit.base import checks
from kit.base import seed as seeds
from kit.infer.inputs import check_model, context_of, is_count, within_memory
from kit.infer.layout import arranged
from kit.infer.reading import WHERE, reader
from kit.infer.sampling import choose
from kit.infer.stream import SHORTEN, Choose, Row, Stream, Writer

BEYOND = ("slide", "refuse")


def generate(
    model: nn.Module,
    prompt: Any,
    *,
    max_tokens: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Any = (),
    beyond: str = "slide",
    draft: nn.Module | None = None,
) -> Stream:
    """Continue a text, or several at once; what becomes of each does not depend on the others.

    Args:
        model: takes tokens (batch, length), returns logits, sees no later token, and has a
            `context`; without the `cache` of models.GPT, every token computes all of them again.
        prompt: a str or bytes, whose bytes are the tokens, or tokens (length,); or a list of them.
        max_tokens: to make, of each text.
        temperature: 0 takes the likeliest token each time; 1 draws as the model says.
        top_k: likeliest tokens to draw from; None is all.
        top_p: mass to draw from: the fewest likeliest tokens, of `top_k`, that hold it together.
        seed: of the draws. Row i draws the same whatever the other rows are.
        stop: what ends a text and is no part of it: as a prompt, one or a list.
        beyond: where the context ends. "slide": of a longer prompt the end is read, with a
            warning; a text that outgrows the context goes on from its last half, read anew.
            "refuse": an error at once if the prompt and max_tokens could outgrow it.
        draft: a small model of the same tokens, which writes ahead for one prompt; what is made
            is the same as without it.

    Returns:
        A stream, which computes what is read of it: its pieces, or the whole.

    Raises:
        ValueError: a setting out of range, an empty prompt, or a token that the model lacks.
            While the stream is read, logits from which nothing can be chosen.
        TypeError: a prompt or a stop of another type.
        MemoryError: too many texts at once, also while the stream is read.

    Example:
        >>> from kit import models
        >>> stream = generate(models.GPT(depth=1), ["ab", "c"], max_tokens=3, temperature=0)
        >>> stream.stopped
        ['max_tokens', 'max_tokens']
    """
    check_model(WHERE, model)
    _check_settings(max_tokens, temperature, top_k, top_p, beyond)
    is_one = _is_prompt(prompt)
    prompts = [prompt] if is_one else _listed("prompt", prompt)
    stops = [stop] if _is_prompt(stop) else _listed("stop", stop)
    texts = [_tokens("prompt", each, model) for each in prompts]
    ends = [_tokens("stop", each, model) for each in stops]
    context = context_of(WHERE, model)
    _check_reach(max(map(len, texts)), context, max_tokens, beyond)
    small = None
    if draft is not None:
        _check_draft(draft, model, len(texts))
    at_once = len(texts) if draft is None else 2
    with within_memory(WHERE, f"{len(texts)} texts at once", remedy=SHORTEN):
        if draft is not None:
            small = reader(arranged(draft, rows=1), texts, grow=max_tokens)
        large = reader(arranged(model, rows=at_once), texts, grow=max_tokens)
    pick: Choose = partial(choose, temperature=temperature, top_k=top_k, top_p=top_p)
    luck = torch.zeros(len(texts), max_tokens, dtype=torch.float64)
    for i, row in enumerate(luck if temperature > 0 else ()):
        row.uniform_(generator=seeds.generator(seed, i))
    rows = [Row(ends, max_tokens, is_text=not isinstance(each, Tensor)) for each in prompts]
    if any(row.is_text for row in rows):
        pick = _of_bytes(pick)
    return Stream(rows, Writer(large, small, luck, pick), is_one=is_one)


def _of_bytes(pick: Choose) -> Choose:
    """Refuse to choose from more than bytes: a model may tell its vocabulary by logits alone."""

    def choose_byte(logits: Tensor, luck: Tensor) -> Tensor:
        n = logits.shape[-1]
        if n > text.VOCABULARY:
            raise _no_bytes("prompt", checks.Described(f"a text, and logits of {n:,} tokens"))
        return pick(logits, luck)

    return choose_byte


def _is_prompt(given: Any) -> bool:
    return isinstance(given, str | bytes | Tensor)


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, Sequence) and (given or what == "stop"):
        return list(given)
    if isinstance(given, Sequence):
        raise checks.bad_value(
            WHERE, expected="a prompt or more", got=given, remedy='Pass prompt="def ".'
        )
    raise _bad_prompt(what, given)


def _bad_prompt(what: str, given: Any) -> TypeError:
    return checks.bad_type(
        WHERE,
        expected=f"a {what} of str, bytes or int64 tokens of one axis, or a list of them",
        got=given,
        remedy='Pass prompt="def ", or stop="\\n\\n".',
    )


def _no_bytes(what: str, given: object) -> ValueError:
    return checks.bad_value(
        WHERE,
        expected=f"a {what} of tokens, for the model knows more than bytes",
        got=given,
        remedy="Encode it: torch.tensor(tokenizer.encode(…)).",
    )


def _tokens(what: str, given: Any, model: Any) -> list[int]:
    """Return the tokens of a prompt or a stop, or say why the model cannot read it."""
    n = getattr(model, "vocabulary", None)
    if isinstance(given, str | bytes):
        if n is not None and n > text.VOCABULARY:
            raise _no_bytes(what, given)
        tokens = list(given.encode() if isinstance(given, str) else given)
    elif isinstance(given, Tensor) and given.ndim == 1 and given.dtype == torch.int64:
        tokens = given.tolist()
    else:
        raise _bad_prompt(what, given)
    if not tokens:
        raise checks.bad_value(
            WHERE,
            expected=f"a {what} of one token or more",
            got=checks.Described("none"),
            remedy='Pass prompt="\\0", the end of the document before, to begin a new one.'
            if what == "prompt"
            else "Leave it out.",
        )
    unknown = [each for each in tokens if each < 0 or (n is not None and each >= n)]
    if unknown:
        raise checks.bad_value(
            WHERE,
            expected=f"a {what} of tokens from 0 to {n - 1}" if n else "tokens from 0 on",
            got=unknown[0],
            remedy="Pass what the model was trained on.",
        )
    return tokens


def _check_reach(longest: int, context: int, max_tokens: int, beyond: str) -> None:
    """Refuse, or say, that the end of the context will be met."""
    # the last token that is made is not read
    if beyond == "refuse" and longest + max_tokens - 1 > context:
        raise checks.bad_value(
            WHERE,
            expected=f"prompt and max_tokens within the context of {context:,}",
            got=checks.Described(f"{longest:,} and {max_tokens:,}"),
            remedy='Pass fewer, or beyond="slide" to go on from what was last.',
        )
    if longest > context:
        warnings.warn(
            f"infer.generate: a prompt of {longest:,} tokens is longer than the context of "
            f"{context:,}: its end is read. Cut the prompt to silence this, or pass "
            'beyond="refuse".',
            stacklevel=3,
        )


def _check_draft(draft: Any, model: Any, prompts: int) -> None:
    check_model(WHERE, draft)
    context_of(WHERE, draft)
    if prompts > 1:
        raise checks.bad_value(
            WHERE,
            expected="one prompt, for a draft to write ahead",
            got=checks.Described(f"{prompts}"),
            remedy="Leave out draft=: many texts keep the machine busy without it.",
        )
    ours, theirs = (getattr(each, "vocabulary", None) for each in (model, draft))
    if ours != theirs:
        raise checks.bad_value(
            WHERE,
            expected=f"a draft with the vocabulary of the model, {ours}",
            got=theirs,
            remedy="Pass a draft that was trained on the same tokens.",
        )


def _check_settings(max_tokens: Any, temperature: Any, top_k: Any, top_p: Any, beyond: str) -> None:
    is_warm = isinstance(temperature, Real) and 0 <= float(temperature) < float("inf")
    is_mass = top_p is None or (isinstance(top_p, Real) and 0 < float(top_p) <= 1)
    rules = [
        ("max_tokens >= 1", is_count(max_tokens), max_tokens, "Pass max_tokens=256."),
        (
            "a finite temperature >= 0",
            is_warm,
            temperature,
            "Pass temperature=0 for the likeliest token each time, or 1.0 to draw.",
        ),
        (
            "top_k >= 1",
            top_k is None or is_count(top_k),
            top_k,
            "Pass top_k=50, or None for all.",
        ),
        ("0 < top_p <= 1", is_mass, top_p, "Pass top_p=0.95, or None."),
    ]
    for expected, holds, got, remedy in rules:
        if not holds:
            raise checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
    if beyond not in BEYOND:
        raise checks.unknown_name(WHERE, "way beyond", got=beyond, known=BEYOND)
