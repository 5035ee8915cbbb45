import inspect
import itertools
import math
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import shap
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lime.lime_text import LimeTextExplainer
from nbconvert import HTMLExporter
from torch import nn

from kit.explain import hiding, lime_text, units
from kit.explain.text import text

PAD, MASK = 0, 1
WORDS = [f"w{i}" for i in range(30)]


class Words:
    """A tokenizer with a token a word, such as shap's Text masker takes."""

    mask_token_id, pad_token_id = MASK, PAD

    def __call__(self, string):
        found = list(re.finditer(r"\S+", string))
        ids = [WORDS.index(match.group()) + 2 for match in found]
        return {"input_ids": ids, "offset_mapping": [match.span() for match in found]}


class Letters:
    """The least protocol: encode and decode, a token a byte."""

    def encode(self, string):
        return list(string.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


class Reader(nn.Module):
    """A small transformer that honours padding and knows how long a text may be."""

    context = 40

    def __init__(self, n_outputs=2, n_ids=32):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(n_ids, 16), nn.Embedding(40, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, n_outputs)

    def forward(self, ids):
        there = ids != PAD
        x = 3 * self.embed(ids) + self.place(torch.arange(ids.shape[1]))
        x = self.body(x, src_key_padding_mask=~there) * there[..., None]
        return 3 * self.head(x.sum(1) / there.sum(1, keepdim=True))


MODEL = Reader().double().eval()
TEXTS = ["w3 w1 w4 w1 w5", "w9 w2", "w6 w5 w3 w5 w8"]


def worth(string, kept, mask):
    """Score a text of which only some units are left, one text at a time."""
    ids = np.array(Words()(string)["input_ids"])
    ids = np.where(kept, ids, MASK) if mask == "token" else ids[kept]
    with torch.inference_mode():
        return MODEL(torch.tensor(ids if len(ids) else [MASK])[None])[0].numpy()


def by_definition(string, mask):
    """Shapley values as the mean over all orders of what a unit adds when it comes."""
    d = len(string.split())
    values = np.zeros((d, 2))
    for order in itertools.permutations(range(d)):
        kept = np.zeros(d, bool)
        before = worth(string, kept, mask)
        for unit in order:
            kept[unit] = True
            after = worth(string, kept, mask)
            values[unit] += (after - before) / math.factorial(d)
            before = after
    return values


@pytest.mark.parametrize("mask", ["token", "delete"])
def test_values_of_short_texts_are_shapley_values_by_definition(mask):
    found = text(MODEL, Words(), TEXTS, mask=mask)

    for i, string in enumerate(TEXTS):
        d = len(string.split())
        np.testing.assert_allclose(found.values[i, :d], by_definition(string, mask), atol=1e-9)
        assert (found.values[i, d:] == 0).all()
    assert found.lengths == [5, 2, 5]
    assert (found.error_std == 0).all()


@pytest.mark.parametrize("mask", ["token", "delete"])
@pytest.mark.parametrize("method", ["shap", "gradients"])
def test_values_and_base_add_up_to_the_prediction(mask, method):
    long = " ".join(WORDS[:20])

    found = text(MODEL, Words(), [*TEXTS, long], mask=mask, method=method)

    np.testing.assert_allclose(
        found.values.sum(1) + found.base_values, found.predictions, atol=1e-9
    )
    np.testing.assert_allclose(found.predictions[3], worth(long, np.ones(20, bool), mask))


def test_sampled_values_lie_within_their_errors_of_the_exact_ones():
    long = [" ".join(np.random.default_rng(i).choice(WORDS, 13)) for i in range(3)]
    exact = text(MODEL, Words(), long, pairs=4095, target=0)

    found = [text(MODEL, Words(), long, pairs=40, target=0, seed=seed) for seed in range(3)]

    assert (exact.error_std == 0).all()
    distance = np.concatenate([np.abs(f.values - exact.values) / f.error_std for f in found])
    assert (distance < 2).mean() >= 0.9
    error = np.linalg.norm(found[0].values - exact.values) / np.linalg.norm(exact.values)
    assert 0 < error < 0.2


def test_a_model_that_counts_gives_each_unit_its_count():
    def n_of_a(ids):
        return (ids == ord("a")).sum(1)

    found = text(n_of_a, Letters(), ["a banana, and", "aa"], unit="word", mask="delete", mask_id=32)

    assert found.data.tolist() == [["a ", "banana", ", ", "and"], ["aa", "", "", ""]]
    np.testing.assert_allclose(found.values, [[1, 3, 0, 1], [2, 0, 0, 0]], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), padded=st.booleans())
def test_batches_of_any_lengths_score_as_each_text_alone(lengths, padded):
    rng = np.random.default_rng(len(lengths))
    texts = [" ".join(rng.choice(WORDS, length)) for length in lengths]

    class Tokenizer(Words):
        pad_token_id = PAD if padded else None

    together = text(MODEL, Tokenizer(), texts, mask="delete", pairs=30, target=1)

    for i, string in enumerate(texts):
        alone = text(MODEL, Tokenizer(), [string], mask="delete", pairs=30, target=1)
        assert together.predictions[i] == pytest.approx(alone.predictions[0], abs=1e-9)
        assert together.base_values[i] == pytest.approx(alone.base_values[0], abs=1e-9)


def test_without_a_padding_id_only_equal_lengths_share_a_batch():
    shapes = []

    def model(ids):
        shapes.append(ids.shape)
        return ids.sum(1)

    text(model, Letters(), ["abcd"], mask="delete", mask_id=32)

    # 14 sets of letters in 7 pairs, by their lengths
    assert {(4, 3), (6, 2), (4, 1)} <= set(shapes)


class Small(nn.Module):
    """A model on a device that holds so many sequences."""

    def __init__(self, most):
        super().__init__()
        self.most, self.failures = most, 0

    def forward(self, ids):
        if len(ids) > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("out of memory")
        return ids.double().sin().sum(1)


def test_out_of_memory_halves_a_batch_and_goes_on():
    model = Small(most=10)

    found = text(model, Words(), TEXTS)

    assert model.failures > 0
    np.testing.assert_allclose(found.values, text(Small(most=10_000), Words(), TEXTS).values)


def test_out_of_memory_at_a_single_text_is_what_it_is_called():
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        text(Small(most=0), Words(), TEXTS)


@pytest.mark.parametrize("method", ["shap", "lime", "gradients"])
def test_an_interrupt_returns_the_texts_that_are_done(method):
    class Impatient(nn.Module):
        """Has its user lose patience when the longest texts are asked about in earnest."""

        def __init__(self):
            super().__init__()
            self.inner, self.seen = MODEL, 0

        def forward(self, ids):
            self.seen += ids.shape[1] == 5
            if self.seen > 1:  # the first one is the look at the model
                raise KeyboardInterrupt
            return self.inner(ids)

    class Embeds(Impatient):
        context = 40

    with pytest.warns(UserWarning, match="interrupted") as caught:
        found = text(Embeds(), Words(), ["w3 w1 w4 w1 w5", "w9 w2", "w8"], method=method)

    assert str(caught[0].message) == (
        "explain.text: interrupted after 2 of 3 texts; those are returned."
    )
    assert found.texts == ["w9 w2", "w8"]
    assert found.lengths == [2, 1]
    expected = text(MODEL, Words(), ["w9 w2", "w8"], method=method)
    np.testing.assert_allclose(found.values[:, :2], expected.values, atol=1e-9)
    assert "w9" in found._repr_html_()


def test_many_sets_share_few_batches(monkeypatch):
    monkeypatch.setitem(hiding.TOKENS, "cpu", 100)
    sizes = []

    def model(ids):
        sizes.append(ids.size)
        return ids.sum(1)

    text(model, Words(), TEXTS)

    assert max(sizes) <= 100
    assert len(sizes) < 20


@pytest.mark.parametrize("n_words", [5, 12])
def test_lime_weights_are_those_of_the_mean_stock_run(n_words):
    string = " ".join(WORDS[:n_words])

    def predict(strings):
        kept = [np.isin(string.split(), one.split()) for one in strings]
        scores = np.stack([worth(string, one, "token") for one in kept])
        return 1 / (1 + np.exp(-scores))

    runs = []
    for seed in range(8):
        stock = LimeTextExplainer(
            split_expression=r"\s+", feature_selection="none", random_state=seed
        )
        one = stock.explain_instance(string, predict, labels=(1,), num_samples=1000)
        weights = dict(one.as_list(label=1))
        runs.append([weights.get(word, 0) for word in string.split()])
    mean, error = np.mean(runs, 0), np.std(runs, 0, ddof=1) / np.sqrt(len(runs))

    class Sigmoid(nn.Module):
        def forward(self, ids):
            return MODEL(ids).sigmoid()

    ours = text(Sigmoid(), Words(), [string], method="lime", samples=8000, output="raw", target=1)

    # its ridge weighs as much next to 1,000 samples as ours does next to 5,000
    assert np.abs(ours.values[0] - mean).max() < 5 * error.max() + 0.02 * np.abs(mean).max()


def test_lime_is_exact_where_it_takes_every_set_and_says_its_error_elsewhere():
    long = " ".join(WORDS[:14])
    exact = text(MODEL, Words(), [long], method="lime", samples=2**14, target=0)

    found = [
        text(MODEL, Words(), [long], method="lime", samples=300, target=0, seed=s) for s in range(8)
    ]

    assert (exact.error_std == 0).all()
    distance = np.stack([np.abs(f.values - exact.values) / f.error_std for f in found])
    assert (distance < 2).mean() > 0.85
    assert (distance < 0.5).mean() < 0.6
    assert 0.3 < exact.extra["r2"][0] <= 1


def test_gradients_are_those_of_scaling_each_embedding():
    found = text(MODEL, Words(), TEXTS[:1], method="gradients")

    slopes = []
    for place in range(5):
        scores = []
        for scale in (1 - 1e-5, 1 + 1e-5):
            model = Reader().double().eval()
            model.load_state_dict(MODEL.state_dict())

            def scaled(_, __, vectors, place=place, scale=scale):
                factors = torch.ones(5, dtype=vectors.dtype)
                factors[place] = scale
                return vectors * factors[:, None]

            model.embed.register_forward_hook(scaled)
            ids = torch.tensor([Words()(TEXTS[0])["input_ids"]])
            scores.append(model(ids)[0].detach().numpy())
        slopes.append((scores[1] - scores[0]) / 2e-5)
    np.testing.assert_allclose(found.values[0], slopes, atol=1e-6)
    assert found.method == "gradient × embedding, not Shapley"


def test_gradients_go_through_every_embedding_of_the_ids_and_leave_nothing_behind():
    class TwoWays(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.deep = nn.Embedding(32, 1), nn.Embedding(32, 4)

        def forward(self, ids):
            return self.wide(ids).sum((1, 2)) + 2 * self.deep(ids).sum((1, 2))

    model = TwoWays()
    ids = torch.tensor(Words()(TEXTS[0])["input_ids"])

    found = text(model, Words(), TEXTS[:1], method="gradients")

    each = model.wide(ids).sum(1) + 2 * model.deep(ids).sum(1)
    np.testing.assert_allclose(found.values[0], each.detach().numpy(), rtol=1e-5)
    assert not model.wide._forward_hooks
    assert model.wide.weight.grad is None


def test_lime_takes_out_every_number_of_units_equally_often():
    drawn = lime_text.operator(20, 200, 0)

    n_out = 20 - drawn.members.sum(1)

    assert np.bincount(n_out).tolist() == [1] + 20 * [10]  # the whole text comes once
    assert drawn.members[-1].all()


def test_probabilities_and_one_class_can_be_explained():
    both = text(MODEL, Words(), TEXTS, output="probability")
    one = text(MODEL, Words(), TEXTS, output="probability", target=1)

    assert both.outputs == ["0", "1"]
    assert one.outputs is None
    np.testing.assert_allclose(both.values.sum(2), 0, atol=1e-9)
    np.testing.assert_allclose(one.values, both.one(1).values)


def test_rerun_asks_another_model_with_the_same_settings():
    long = " ".join(WORDS[:13])
    other = Reader().double().eval()
    nn.init.zeros_(other.head.weight)
    settings = {"mask": "delete", "pairs": 40, "seed": 3, "target": 1, "output": "probability"}
    found = text(MODEL, Words(), [long], **settings)

    again, elsewhere = found.rerun(MODEL), found.rerun(other)

    assert again.values.tolist() == found.values.tolist()
    np.testing.assert_allclose(elsewhere.values, 0, atol=1e-9)


def test_a_text_is_shown_with_the_output_that_the_model_favours():
    found = text(MODEL, Words(), TEXTS)

    shown = [repr(found.highlight(i)) for i in range(3)]

    favoured = found.predictions.argmax(1)
    assert set(favoured) == {0, 1}
    assert shown == [repr(found.highlight(i, output=int(k))) for i, k in enumerate(favoured)]


def test_units_are_tokens_words_or_sentences_and_cover_what_is_said():
    string = "No. It is 3.14 – déjà vu! 真的吗？是的\nend"

    cuts = {unit: units.cut("x", Letters(), string, unit=unit).words for unit in units.UNITS}

    assert "".join(cuts["token"]) == string  # a letter of several bytes is one unit
    assert [word.strip() for word in cuts["word"]] == [
        *["No", ".", "It", "is", "3", ".", "14", "–", "déjà", "vu", "!"],
        *["真的吗", "？", "是的", "end"],
    ]
    assert [sentence.strip() for sentence in cuts["sentence"]] == [
        *["No.", "It is 3.14 – déjà vu!", "真的吗？", "是的", "end"]
    ]


@settings(max_examples=50, deadline=None)
@given(string=st.text(min_size=1).filter(str.strip), unit=st.sampled_from(units.UNITS))
def test_every_token_is_in_one_unit_and_units_stand_in_order(string, unit):
    found = units.cut("x", Letters(), string.replace(units.PARTIAL, "?"), unit=unit)

    assert found.owner.min() == 0
    assert (np.diff(found.owner) >= 0).all()
    assert set(np.diff(found.owner)) <= {0, 1}
    ends = [0, *(end for _, end in found.spans)]
    assert all(start >= end for (start, _), end in zip(found.spans, ends[:-1], strict=True))


def test_added_tokens_belong_to_no_unit_and_always_stay():
    seen = []

    def model(ids):
        seen.extend(ids.tolist())
        return ids.sum(1)

    class Fast:
        is_fast, mask_token_id, pad_token_id = True, MASK, PAD

        def __call__(self, string, *, return_offsets_mapping):
            assert return_offsets_mapping
            return {"input_ids": [7, 8, 9], "offset_mapping": [(0, 0), (0, len(string)), (0, 0)]}

    found = text(model, Fast(), ["hello"], mask="delete")

    assert found.data.tolist() == [["hello"]]
    assert {tuple(i for i in ids if i) for ids in seen} == {(7, 9), (7, 8, 9)}


def test_the_picture_is_static_escaped_and_says_in_words_what_colours_say():
    def model(ids):
        return (ids == ord("<")).sum(1) - 2.0 * (ids == ord("&")).sum(1)

    found = text(model, Letters(), ["a<b & c", "<"], mask_id=32)

    html = found._repr_html_()
    assert html.count("<p ") == 2
    assert "<script" not in html
    assert "a<b" not in html
    assert '" title="+1">&lt;</span><sup>+1</sup>' in html
    assert repr(found.highlight(0)) == "score -1; raised by '<' +1; lowered by '&' -2"
    assert "raised by &#x27;&lt;&#x27; +1; lowered by &#x27;&amp;&#x27; -2" in html
    shown = re.sub(r"<sup>.*?</sup>|<small>.*?</small>|<[^>]+>", "", found.highlight(0).html)
    assert shown == "a&lt;b &amp; c"


def test_what_is_in_no_unit_is_shown_too():
    found = text(MODEL, Words(), [" w1  w2 \n"], target=0)

    html = found.highlight(0).html

    shown = re.sub(r"<sup>.*?</sup>|<small>.*?</small>|<[^>]+>", "", html)
    assert shown == " w1  w2 \n"


def test_the_picture_survives_nbconvert():
    found = text(lambda ids: (ids == 97).sum(1), Letters(), ["a<b"], mask_id=1)
    shown = nbformat.v4.new_output("display_data", {"text/html": found._repr_html_()})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[shown])])

    page, _ = HTMLExporter().from_notebook_node(notebook)

    spans = re.findall(r"<span.*?</span>", found.highlight(0).html)
    assert len(spans) == 3
    assert all(span in page for span in spans)
    assert repr(found.highlight(0)) in page


def test_colours_of_units_keep_dark_text_readable():
    def brightness(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    found = text(
        lambda ids: 1.0 * (ids == 97).sum(1) - (ids == 98).sum(1), Letters(), ["ab"], mask_id=1
    )

    colours = re.findall(r'<span style="background-color:(#\w{6})', found.highlight(0).html)
    assert len(set(colours)) == 2
    for colour in colours:
        assert (brightness(colour) + 0.05) / (brightness("#222222") + 0.05) > 4.5


def test_shap_and_lime_get_their_own_objects():
    found = text(MODEL, Words(), TEXTS)

    theirs = found.to_shap()
    stock = found.to_lime(1)

    assert [list(row) for row in theirs.data] == [string.split() for string in TEXTS]
    assert stock.as_list(label=1)[0][0] in ("w9", "w2")
    assert all(word in shap.plots.text(theirs[:, :, 1], display=False) for word in ("w9", "w8"))


class Short:
    """A model whose context nothing tells, but an index error."""

    def __call__(self, ids):
        return np.zeros(9)[np.arange(ids.shape[1])].sum() + ids.sum(1)


BAD = [
    ({"texts": []}, "at least one text, got [] (list). Pass a list: [text]."),
    (
        {"texts": ["w1", " \n"]},
        (
            "texts with at least one token, got ' \\n' (str). "
            "Drop it: [text for text in texts if text.strip()]."
        ),
    ),
    (
        {"texts": ["w1", "w1 " * 41]},
        (
            "texts of at most 40 tokens, the model's context, got 41 tokens in text 1. "
            "Cut it, or pass its paragraphs as texts of their own."
        ),
    ),
    (
        {"context": 4},
        (
            "texts of at most 4 tokens, the model's context, got 5 tokens in text 0. "
            "Cut it, or pass its paragraphs as texts of their own."
        ),
    ),
    (
        {"model": Short(), "texts": ["w1 " * 10]},
        (
            "ids and lengths that the model takes, "
            "got IndexError at the longest text, of 10 tokens. "
            "Cut it to the model's context; take the tokenizer that it was trained with."
        ),
    ),
    (
        {"unit": "words"},
        "a known unit, got 'words' (str). Did you mean 'word'? Known: sentence, token, word.",
    ),
    (
        {"mask": "deleted"},
        "a known mask, got 'deleted' (str). Did you mean 'delete'? Known: delete, token.",
    ),
    (
        {"method": "shapley"},
        "a known method, got 'shapley' (str). Did you mean 'shap'? Known: gradients, lime, shap.",
    ),
    (
        {"output": "logits"},
        "a known output, got 'logits' (str). Did you mean 'logit'? Known: logit, probability, raw.",
    ),
    (
        {"target": 2},
        "a class from 0 to 1, 'all' or None, got 2 (int). Pass target=0 for the first class.",
    ),
    (
        {"texts": ["w1 " * 20], "pairs": 3},
        "at least 24 pairs for 20 units (1.2 a unit), got 3 (int). Pass pairs='auto'.",
    ),
    (
        {"method": "lime", "samples": 3},
        "at least 10 samples for 5 units (2 a unit), got 3 (int). Pass samples=1000.",
    ),
    (
        {"tokenizer": lambda s: (list(map(ord, s)), [(i, i + 1) for i in range(len(s))])},
        (
            "an id for hidden tokens, got None (NoneType). "
            "Pass mask_id=tokenizer.encode('…')[0], or mask='delete'."
        ),
    ),
    (
        {"tokenizer": Letters(), "mask": "delete"},
        (
            "an id that stands for a text without units, got None (NoneType). "
            "Pass mask_id, such as the id of a space."
        ),
    ),
    (
        {"tokenizer": SimpleNamespace(encode=lambda s: [1], decode=lambda ids: "?")},
        (
            "a tokenizer whose decode(encode(text)) is the text, got '?' (str). "
            "Pass a function instead: lambda text: (ids, [(start, end), ...])."
        ),
    ),
    (
        {"model": lambda ids: ids.sum(1) / 0.0},
        (
            "finite outputs of the model on texts with units hidden, got 2 NaN or infinite of 2. "
            "Look for a log, a root or a division in the model."
        ),
    ),
]
BAD_TYPES = [
    ({"texts": "w1 w2"}, "a list of texts, got 'w1 w2' (str). Pass a list: [text]."),
    (
        {"tokenizer": 3},
        (
            "a tokenizer with encode and decode, or a function that gives ids and offsets, "
            "got int. Pass for example lambda text: (ids, [(start, end), ...])."
        ),
    ),
    (
        {"model": lambda ids: ids.sum(1), "method": "gradients"},
        (
            "a module that embeds token ids with nn.Embedding, got function. "
            "Pass method='shap', which only asks the model for scores."
        ),
    ),
]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [(ValueError, *case) for case in BAD] + [(TypeError, *case) for case in BAD_TYPES],
)
def test_what_cannot_be_explained_is_refused_in_one_line(kind, arguments, message):
    arguments = {"model": MODEL, "tokenizer": Words(), "texts": TEXTS} | arguments

    with pytest.raises(kind) as caught:
        text(**arguments)

    assert str(caught.value) == f"explain.text: expected {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pairs": 100.5},
            "a whole number of pairs, got 100.5 (float). Pass pairs='auto'.",
        ),
        (
            {"samples": 1e3, "method": "lime"},
            "a whole number of samples, got 1000.0 (float). Pass samples=1000.",
        ),
    ],
)
def test_pairs_and_samples_are_whole_numbers(arguments, message):
    unchecked = inspect.unwrap(text)  # without the check of types that tests put around it

    with pytest.raises(TypeError) as caught:
        unchecked(MODEL, Words(), TEXTS, **arguments)

    assert str(caught.value) == f"explain.text: expected {message}"


def test_a_model_in_training_mode_is_explained_without_dropout_and_put_back():
    model = nn.Sequential(MODEL, nn.Dropout(0.9)).train()

    with pytest.warns(UserWarning, match="train mode"):
        found = text(model, Words(), TEXTS)

    assert model.training
    np.testing.assert_allclose(found.values, text(MODEL, Words(), TEXTS).values)
    MODEL.eval()
