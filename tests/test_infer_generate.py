"""Generation: as without a cache, as alone, as asked for, and what it says where it cannot."""

import copy
import inspect
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from kit import infer
from kit.infer import layout
from kit.infer.sampling import choose
from kit.models import GPT

WHERE = "infer.generate"


def awake(seed=0, **sizes) -> GPT:
    """Return a model in float64 that has something to say; ties are out of the question."""
    sizes = {"depth": 2, "width": 32, "heads": 4, "groups": 2, "context": 16} | sizes
    model = GPT(**sizes).double()
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.4, generator=generator)
    return model


class Bare(nn.Module):
    """The same model without a cache."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.inner, self.context = model, model.context

    def forward(self, tokens):
        return self.inner(tokens)


class Says(nn.Module):
    """Say what was planned, byte by byte, whatever is asked."""

    context, vocabulary = 1000, 256

    def __init__(self, plan: bytes, prompt: int = 1) -> None:
        super().__init__()
        self.plan, self.prompt = torch.tensor(list(plan)), prompt

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1]) - self.prompt + 1
        said = self.plan[places.clamp(0, len(self.plan) - 1)]
        return nn.functional.one_hot(said, 256).double().expand(len(tokens), -1, -1)


def naive(model, prompt: bytes, n: int, pick=lambda logits, i: int(logits.argmax())) -> list[int]:
    """Write without a cache: a window that grows to the context, and then keeps its last half."""
    text, begin = list(prompt), max(0, len(prompt) - model.context)
    for i in range(n):
        if len(text) - begin > model.context:
            begin = len(text) - model.context // 2
        with torch.no_grad():
            text.append(pick(model(torch.tensor([text[begin:]]))[0, -1], i))
    return text[len(prompt) :]


PROMPTS = st.lists(st.binary(min_size=1, max_size=16), min_size=1, max_size=5)


@settings(deadline=None, max_examples=25)
@given(PROMPTS, st.integers(1, 45))
def test_texts_of_unlike_lengths_are_written_as_each_alone_without_a_cache(prompts, n):
    model = awake()

    written = infer.generate(model, prompts, max_tokens=n, temperature=0).tokens

    assert [each.tolist() for each in written] == [naive(model, each, n) for each in prompts]


@settings(deadline=None, max_examples=10)
@given(PROMPTS, st.integers(1, 25))
def test_a_model_without_a_cache_writes_the_same(prompts, n):
    model = awake()

    bare = infer.generate(Bare(model), prompts, max_tokens=n, temperature=0).tokens

    assert [each.tolist() for each in bare] == [naive(model, each, n) for each in prompts]


def test_a_text_that_outgrows_the_context_again_and_again_goes_on_from_its_last_half():
    model = awake()

    written = infer.generate(model, b"ab", max_tokens=200, temperature=0).tokens

    assert written.tolist() == naive(model, b"ab", 200)


def test_the_end_of_a_prompt_beyond_the_context_is_read_and_that_is_said():
    model, prompt = awake(), bytes(range(65, 85))

    with pytest.warns(UserWarning, match="longer") as told:
        written = infer.generate(model, prompt, max_tokens=20, temperature=0).tokens

    assert written.tolist() == naive(model, prompt, 20)
    assert [str(each.message) for each in told] == [
        (
            "infer.generate: a prompt of 20 tokens is longer than the context of 16: its end is "
            'read. Cut the prompt to silence this, or pass beyond="refuse".'
        )
    ]


@pytest.mark.parametrize("temperature", [0, 0.5, 1.3])
@pytest.mark.parametrize("context", [4, 16])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_draft_changes_nothing(temperature, context, n):
    model, told = awake(), {"max_tokens": n, "temperature": temperature, "seed": 3}
    near, far = copy.deepcopy(model), awake(seed=1, context=context, depth=1)

    alone = infer.generate(model, "abc", **told).tokens

    for draft in (near, far, Bare(far)):
        draft.vocabulary = 256
        assert infer.generate(model, "abc", draft=draft, **told).tokens.equal(alone)


def test_a_draft_that_agrees_saves_calls_of_the_model():
    model, calls = awake(), []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(1))

    infer.generate(model, "abc", max_tokens=10, temperature=0, draft=awake()).tokens  # noqa: B018

    assert len(calls) == 2  # four agreed tokens and one more, twice


@pytest.mark.parametrize("told", [{}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.5}])
def test_tokens_are_drawn_as_often_as_a_naive_filter_says(told):
    logits = torch.tensor([2.0, -1.0, 0.5, 1.0, 0.0, 1.5, -3.0]).double()
    luck = (torch.arange(20_000).double() + 0.5) / 20_000
    probs = (logits / 0.8).softmax(0)
    order = sorted(range(7), key=lambda i: -probs[i])[: told.get("top_k", 7)]
    total, kept, mass = sum(float(probs[i]) for i in order), [], 0.0
    for i in order:
        if mass < told.get("top_p", 1.0) * total:
            kept.append(i)
        mass += float(probs[i])
    wanted = torch.zeros(7).double()
    wanted[kept] = probs[kept] / probs[kept].sum()

    drawn = choose(logits.expand(20_000, 7), luck, temperature=0.8, **told)

    assert torch.allclose(drawn.bincount(minlength=7).double() / 20_000, wanted, atol=1e-4)
    assert set(drawn.tolist()) == set(kept)


def test_one_likeliest_token_is_what_temperature_0_takes_and_a_tiny_temperature_too():
    model, told = awake(), {"max_tokens": 12}
    greedy = infer.generate(model, "ab", temperature=0, **told).text

    assert infer.generate(model, "ab", top_k=1, **told).text == greedy
    assert infer.generate(model, "ab", top_p=1e-9, **told).text == greedy
    assert infer.generate(model, "ab", temperature=1e-300, **told).text == greedy


def test_luck_at_either_end_draws_a_token_that_is_kept():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])

    drawn = [int(choose(logits, torch.tensor([u]), temperature=1.0)) for u in (0.0, 1.0)]

    assert drawn == [1, 0]


def test_a_seed_repeats_and_a_row_does_not_depend_on_the_others_or_on_what_comes_later():
    model = awake()
    a, b, c = infer.generate(model, ["ab", "abc", "ab"], max_tokens=30, seed=5).tokens

    again = infer.generate(model, ["ab", "xxxxxx"], max_tokens=30, seed=5).tokens
    longer = infer.generate(model, "ab", max_tokens=60, seed=5).tokens
    other = infer.generate(model, "ab", max_tokens=30, seed=6).tokens

    assert again[0].equal(a)
    assert longer[:30].equal(a)
    assert not other.equal(a)
    assert not c.equal(a)  # the same prompt twice gives two texts
    assert len(b) == 30


@pytest.mark.parametrize("stop", ["END", b"END", ["zz", "END"], torch.tensor(list(b"END"))])
def test_a_stop_ends_a_text_and_is_no_part_of_it(stop):
    stream = infer.generate(Says("ENé ENEND more".encode()), "p", temperature=0, stop=stop)

    pieces = list(stream)

    assert "".join(pieces) == stream.text == "ENé ENE"[:-1]
    assert stream.stopped == "stop"
    assert not any(piece.endswith("E") for piece in pieces[1:-1])  # it may yet become a stop


@pytest.mark.parametrize("stop", [["ND", "END"], ["END", "ND"]])
def test_of_stops_that_end_together_the_longest_is_no_part_of_the_text(stop):
    stream = infer.generate(Says(b"someEND"), "p", temperature=0, stop=stop)

    assert stream.text == "some"


def test_when_a_row_ends_the_others_go_on_as_if_alone():
    model, prompts = awake(), ["ab", "q", "wxyz", "m"]
    alone = [infer.generate(model, each, max_tokens=40, temperature=0).tokens for each in prompts]
    stop = alone[1][3:5]  # what row 1 says after three tokens

    stream = infer.generate(model, prompts, max_tokens=40, temperature=0, stop=stop)

    for whole, cut, why in zip(alone, stream.tokens, stream.stopped, strict=True):
        pairs = [whole[i : i + 2].equal(stop) for i in range(39)]
        end = pairs.index(True) if True in pairs else 40
        assert cut.equal(whole[:end])
        assert why == ("stop" if end < 40 else "max_tokens")
    assert stream.stopped[1] == "stop"
    assert "max_tokens" in stream.stopped


def test_pieces_hold_no_half_character_and_a_cut_one_is_marked_at_the_end():
    said = "aé€😀b"
    stream = infer.generate(Says((said + "é").encode()), "p", temperature=0, max_tokens=12)

    pieces = list(stream)

    assert pieces == [*said, "�"]
    assert stream.text == said + "�"


def test_several_texts_come_as_row_and_piece_and_tokens_as_tokens():
    model, tokens = awake(), torch.tensor([97, 98])

    mixed = list(infer.generate(model, [tokens, "q"], max_tokens=2, temperature=0, seed=1))
    single = list(infer.generate(model, tokens, max_tokens=2, temperature=0))

    assert [piece for row, piece in mixed if row == 0] == single == naive(model, b"ab", 2)
    assert "".join(piece for row, piece in mixed if row == 1) == bytes(
        naive(model, b"q", 2)
    ).decode(errors="replace")


def test_nothing_is_computed_before_it_is_read_and_ctrl_c_leaves_what_was_made():
    model, calls = Says(b"abcdefgh"), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    stream = infer.generate(model, "p", temperature=0, stop="cx")
    assert calls == []

    pieces = list(stream)

    assert pieces == ["a", "b", "c"]
    assert (stream.text, stream.stopped) == ("abc", "interrupted")
    assert repr(stream) == "Stream(1 texts, 0 going on; 3 tokens so far)"


def test_the_model_keeps_its_mode_its_weights_and_its_dropout_is_off():
    model = nn.Sequential(Bare(awake().float()), nn.Dropout(0.9)).train()
    model.context = 16
    before = {name: value.clone() for name, value in model.state_dict().items()}

    texts = {infer.generate(model, "ab", max_tokens=8, temperature=0).text for _ in range(3)}

    assert len(texts) == 1
    assert all(part.training for part in model.modules())
    assert all(value.equal(model.state_dict()[name]) for name, value in before.items())
    assert all(weight.is_contiguous() and weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("rows", [1, 4])
def test_another_layout_gives_the_same_numbers_shares_the_rest_and_leaves_the_model(rows):
    model, x = awake().float(), torch.randint(256, (rows, 7))
    wanted = model(x)

    new = layout.arranged(model, rows=rows)

    assert torch.allclose(new(x), wanted, atol=1e-5)
    assert new.embed.weight is model.embed.weight
    assert type(model.blocks[0].feed.up) is nn.Linear
    assert model(x).equal(wanted)


class Peer(nn.Module):
    """A language model of torch's own layers, which read the weights of their parts themselves."""

    context, vocabulary = 16, 256

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 32)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 256)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        found = self.layer(self.embed(tokens), src_mask=mask, is_causal=True)
        return found @ self.head.weight.T + self.head.bias


def test_a_model_that_reads_the_weights_of_its_layers_writes_several_texts():
    model = Peer().eval()

    written = infer.generate(model, ["ab", "cde"], max_tokens=6, temperature=0).tokens

    assert [each.tolist() for each in written] == [
        naive(model, each, 6) for each in (b"ab", b"cde")
    ]
    assert not any(part.training for part in layout.arranged(model.train(), rows=2).modules())


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_of_a_linear_layer_are_called_and_see_that_layer(register, rows):
    model, seen = awake().float(), []
    getattr(model.blocks[0].feed.up, register)(lambda part, *_: seen.append(type(part)))

    layout.arranged(model, rows=rows)(torch.zeros(rows, 3).long())

    assert seen == [nn.Linear]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_pruned_model_and_one_that_keeps_a_result_write(rows):
    model = awake().float()
    prune.l1_unstructured(model.blocks[0].feed.up, "weight", amount=0.5)
    model.kept = model(torch.zeros(1, 2).long())
    prompts = [b"ab", b"cde"][:rows]

    written = infer.generate(model, prompts, max_tokens=6, temperature=0).tokens

    assert [each.tolist() for each in written] == [naive(model, each, 6) for each in prompts]


def test_a_model_that_cannot_be_copied_is_told():
    model = awake().float()
    model.kept = [model(torch.zeros(1, 2).long())]

    with pytest.raises(ValueError, match="can copy") as error:
        infer.generate(model, "ab")

    assert str(error.value).startswith(
        f"{WHERE}: expected a model that copy.deepcopy can copy, got RuntimeError: Only Tensors "
    )
    assert str(error.value).endswith(
        "Hold no results of a computation in its attributes; of a pruned model, first "
        'prune.remove(module, "weight").'
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_it_writes_under_autocast(rows):
    with torch.autocast("cpu", torch.bfloat16):
        written = infer.generate(awake().float(), ["ab"] * rows, max_tokens=5).tokens

    assert [len(each) for each in written] == [5] * rows


def test_a_model_with_int8_weights_writes_through_its_cache():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.ao.quantization.quantize_dynamic(awake().float().eval(), {nn.Linear})
    # how an activation is rounded depends on those beside it: compare through a cache, too
    cache, wanted, new = model.cache(1), [], torch.tensor([list(b"ab")])
    for _ in range(8):
        new = model(new, cache)[:, -1:].argmax(-1)
        wanted.append(int(new))

    written = infer.generate(model, "ab", max_tokens=8, temperature=0).tokens

    assert written.tolist() == wanted


def test_a_prompt_and_what_is_made_within_the_context_are_not_refused():
    told = {"temperature": 0, "beyond": "refuse"}
    model = awake()

    written = infer.generate(model, "abcd", max_tokens=13, **told).tokens  # the last is not read

    assert written.tolist() == naive(model, b"abcd", 13)


REMEDY = 'Pass prompt="def ", or stop="\\n\\n".'
KINDS = "of str, bytes or int64 tokens of one axis, or a list of them"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"max_tokens": 0}, "max_tokens >= 1, got 0 (int). Pass max_tokens=256."),
        (
            {"temperature": -1.0},
            (
                "a finite temperature >= 0, got -1.0 (float). "
                "Pass temperature=0 for the likeliest token each time, or 1.0 to draw."
            ),
        ),
        (
            {"temperature": float("nan")},
            (
                "a finite temperature >= 0, got nan (float). "
                "Pass temperature=0 for the likeliest token each time, or 1.0 to draw."
            ),
        ),
        ({"top_k": 0}, "top_k >= 1, got 0 (int). Pass top_k=50, or None for all."),
        ({"max_tokens": 2.5}, "max_tokens >= 1, got 2.5 (float). Pass max_tokens=256."),
        (
            {"temperature": None},
            (
                "a finite temperature >= 0, got None (NoneType). "
                "Pass temperature=0 for the likeliest token each time, or 1.0 to draw."
            ),
        ),
        ({"top_k": 2.5}, "top_k >= 1, got 2.5 (float). Pass top_k=50, or None for all."),
        ({"top_p": "x"}, "0 < top_p <= 1, got 'x' (str). Pass top_p=0.95, or None."),
        ({"top_p": 1.5}, "0 < top_p <= 1, got 1.5 (float). Pass top_p=0.95, or None."),
        (
            {"beyond": "slid"},
            "a known way beyond, got 'slid' (str). Did you mean 'slide'? Known: refuse, slide.",
        ),
        (
            {"prompt": ""},
            (
                'a prompt of one token or more, got none. Pass prompt="\\0", the end of the '
                "document before, to begin a new one."
            ),
        ),
        ({"stop": ["x", ""]}, "a stop of one token or more, got none. Leave it out."),
        ({"prompt": []}, 'a prompt or more, got [] (list). Pass prompt="def ".'),
        (
            {"prompt": torch.tensor([1, 300])},
            "a prompt of tokens from 0 to 255, got 300 (int). Pass what the model was trained on.",
        ),
        (
            {"max_tokens": 15, "beyond": "refuse"},
            (
                "prompt and max_tokens within the context of 16, got 3 and 15. "
                'Pass fewer, or beyond="slide" to go on from what was last.'
            ),
        ),
        (
            {"prompt": ["ab", "c"], "draft": awake()},
            (
                "one prompt, for a draft to write ahead, got 2. "
                "Leave out draft=: many texts keep the machine busy without it."
            ),
        ),
        (
            {"draft": awake(vocabulary=128)},
            (
                "a draft with the vocabulary of the model, 256, got 128 (int). "
                "Pass a draft that was trained on the same tokens."
            ),
        ),
        (
            {"model": awake(vocabulary=128), "prompt": "é"},
            "a prompt of tokens from 0 to 127, got 195 (int). Pass what the model was trained on.",
        ),
        (
            {"model": awake(vocabulary=300)},
            (
                "a prompt of tokens, for the model knows more than bytes, got 'abc' (str). "
                "Encode it: torch.tensor(tokenizer.encode(…))."
            ),
        ),
        (
            {"model": nn.Linear(2, 2)},
            (
                "a model with a context, the longest text in tokens, got Linear with context None. "
                "Set model.context = 256."
            ),
        ),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(told, message):
    unchecked = inspect.unwrap(infer.generate)  # without the check of types that tests add

    with pytest.raises(ValueError) as error:
        unchecked(told.pop("model", awake()), told.pop("prompt", "abc"), **told)

    assert str(error.value) == f"{WHERE}: expected {message}"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"prompt": 3}, f"a prompt {KINDS}, got 3 (int). {REMEDY}"),
        ({"prompt": ["a", 3]}, f"a prompt {KINDS}, got 3 (int). {REMEDY}"),
        (
            {"prompt": torch.zeros(2, 3).long()},
            f"a prompt {KINDS}, got Tensor of shape (2, 3). {REMEDY}",
        ),
        ({"stop": 3}, f"a stop {KINDS}, got 3 (int). {REMEDY}"),
    ],
)
def test_what_is_of_another_type_is_refused(told, message):
    with pytest.raises(TypeError) as error:
        infer.generate(told.pop("model", awake()), told.pop("prompt", "abc"), **told)

    assert str(error.value) == f"{WHERE}: expected {message}"


def test_a_model_whose_outputs_are_no_logits_is_refused():
    model = nn.Sequential(nn.Embedding(256, 4), nn.Flatten())
    model.context = 8

    with pytest.raises(ValueError) as error:
        infer.generate(model, "abc").text  # noqa: B018

    assert str(error.value) == (
        f"{WHERE}: expected logits of shape (1, 3) and one for each token of the vocabulary, "
        "got Tensor of shape (1, 12). Wrap the model in a module whose forward returns them."
    )


class Answers(nn.Module):
    """Give the same logits to everything."""

    context, cache = 8, None  # and no method of that name

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).float()

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def test_a_model_whose_cache_is_no_method_reads_anew():
    written = infer.generate(Answers(0.0, 2.0, 1.0), "abc", max_tokens=3, temperature=0).tokens

    assert written.tolist() == [1, 1, 1]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("bad", [[0.0, float("nan")], [float("inf"), 0.0], [-float("inf")] * 2])
def test_logits_from_which_nothing_can_be_chosen_are_told(bad, temperature):
    with pytest.raises(ValueError) as error:
        infer.generate(Answers(*bad), "abc", temperature=temperature).text  # noqa: B018

    assert str(error.value) == (
        f"{WHERE}: expected logits whose highest is finite, got NaN or an infinite one. "
        "Look at the weights: what the model was trained with may have diverged."
    )


def test_logits_of_more_than_bytes_are_no_text():
    model = Answers(*range(300))

    with pytest.raises(ValueError) as error:
        infer.generate(model, "abc").text  # noqa: B018

    assert str(error.value) == (
        f"{WHERE}: expected a prompt of tokens, for the model knows more than bytes, got a text, "
        "and logits of 300 tokens. Encode it: torch.tensor(tokenizer.encode(…))."
    )
    written = infer.generate(model, torch.tensor([1]), max_tokens=2, temperature=0).tokens
    assert written.tolist() == [299, 299]


@pytest.mark.parametrize("when", ["making room", "computing"])
def test_too_many_texts_for_memory_are_told_in_one_line(when):
    class Full(Bare):
        def forward(self, tokens):
            raise torch.OutOfMemoryError("CUDA out of memory")

        def room(self, batch, *, room):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model = Full(awake())
    if when == "making room":
        model.cache = model.room

    with pytest.raises(MemoryError) as error:
        infer.generate(model, ["ab", "c"]).text  # noqa: B018

    assert str(error.value) == (
        f"{WHERE}: expected memory for 2 texts at once, got too little. Pass fewer prompts."
    )
