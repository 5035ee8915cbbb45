"""What can be removed together, found by tracing models of every make, and what is left whole."""

import copy
import importlib
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kit.prune.narrow import narrow
from kit.prune.trace import CannotTrace, trace

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
masked = importlib.import_module("prune_shapes").masked
sys.path.remove(str(BENCHMARKS))


class Model(nn.Module):
    """A model of parts by name, and what it does with them."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.does = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.does(self, x)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found(model, rows):
    """Each family as (part, units, heads), and what is left whole."""
    traced = trace(model.eval(), rows)
    return [(f.part, f.units, f.heads) for f in traced.families], traced.left


def half(family):
    return max(1, family.units // 2)


def cut_to_half(model, rows):
    torch.manual_seed(0)
    return narrow(model.eval(), rows, counts=half, method="magnitude", where="test")


FLAT, TEXT, IMAGE = drawn(6, 8), torch.arange(30).view(5, 6) % 20, drawn(4, 3, 8, 8)


def attention(m, x, mask=None):
    h = m.embed(x)
    B, T, _ = h.shape
    q, k, v = m.qkv(h).view(B, T, 3, m.heads, -1).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return m.out(h + m.proj(y.transpose(1, 2).reshape(B, T, -1)))


def attentive(forward):
    model = Model(
        forward,
        embed=nn.Embedding(20, 16),
        norm=nn.LayerNorm(16),
        qkv=nn.Linear(16, 48),
        proj=nn.Linear(16, 16),
        out=nn.Linear(16, 3),
    )
    model.heads = 4
    return model


def grouped(m, x):
    h = m.norm(m.embed(x))
    B, T, _ = h.shape
    q = m.q(h).view(B, T, -1, 4).transpose(1, 2)
    k, v = (layer(h).view(B, T, -1, 4).transpose(1, 2) for layer in (m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return m.out(y.transpose(1, 2).flatten(2))


def squeezed(m, x):
    h = F.relu(m.conv(x))
    weight = torch.sigmoid(m.up(F.relu(m.down(h.mean((2, 3))))))
    return m.out((h * weight[:, :, None, None]).amax((2, 3)))


def alibi(m, x):
    places = torch.arange(x.shape[1])
    return attention(m, x, -m.slopes[:, None, None] * (places[:, None] - places).abs())


def with_slopes(model, slopes):
    if isinstance(slopes, nn.Parameter):
        model.slopes = slopes
    else:
        model.register_buffer("slopes", slopes)
    return model


def used_twice(m, x):
    return m.out(F.relu(m.same(F.relu(m.same(m.into(x))))))


def with_scale(m, x):
    return m.out(torch.tanh(m.hidden(x)) * m.scale)


def scaled():
    model = Model(with_scale, hidden=nn.Linear(8, 12), out=nn.Linear(12, 3))
    model.register_buffer("scale", torch.linspace(0.5, 1.5, 12))
    return model


# name -> (model, rows, families as (part, units, heads))
MODELS = {
    "layers in a row": (
        lambda: nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)
        ),
        FLAT,
        [("2", 16, 0), ("4", 12, 0)],
    ),
    "a gate from one product": (
        lambda: Model(
            lambda m, x: m.out(F.silu(m.up(x)[:, :12]) * m.up(x)[:, 12:]),
            up=nn.Linear(8, 24),
            out=nn.Linear(12, 3),
        ),
        FLAT,
        [("out", 12, 0)],
    ),
    "a gate in chunks": (
        lambda: Model(
            lambda m, x: m.out(torch.mul(*m.up(x).chunk(2, -1))),
            up=nn.Linear(8, 24),
            out=nn.Linear(12, 3),
        ),
        FLAT,
        [("out", 12, 0)],
    ),
    "GLU": (
        lambda: nn.Sequential(nn.Linear(8, 24), nn.GLU(), nn.Linear(12, 3)),
        FLAT,
        [("2", 12, 0)],
    ),
    "PReLU": (
        lambda: nn.Sequential(nn.Linear(8, 12), nn.PReLU(12), nn.Linear(12, 3)),
        FLAT,
        [("2", 12, 0)],
    ),
    "fused attention": (
        lambda: attentive(lambda m, x: attention(m, x)),
        TEXT,
        [("qkv", 16, 0), ("proj", 4, 4)],
    ),
    "grouped heads": (
        lambda: Model(
            grouped,
            embed=nn.Embedding(20, 16),
            norm=nn.LayerNorm(16),
            q=nn.Linear(16, 24),
            k=nn.Linear(16, 12),
            v=nn.Linear(16, 12),
            out=nn.Linear(24, 3),
        ),
        TEXT,
        [("out", 3, 6)],
    ),
    "a residual stream with several readers": (
        lambda: Model(
            lambda m, x: (lambda h: m.a(F.relu(h + m.back(F.relu(m.there(h))))) + m.b(h))(
                m.into(x)
            ),
            into=nn.Linear(8, 12),
            there=nn.Linear(12, 20),
            back=nn.Linear(20, 12),
            a=nn.Linear(12, 3),
            b=nn.Linear(12, 3),
        ),
        FLAT,
        [("there", 12, 0), ("back", 20, 0)],
    ),
    "convolutions, norms and flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 10, 3),
            nn.Flatten(),
            nn.Linear(40, 3),
        ),
        IMAGE,
        [("4", 6, 0), ("6", 10, 0)],
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 2, 1),
            nn.Flatten(),
        ),
        IMAGE,
        [("3", 8, 0)],
    ),
    "two branches side by side": (
        lambda: Model(
            lambda m, x: m.out(torch.cat([m.a(x).relu(), m.b(x).tanh()], -1)),
            a=nn.Linear(8, 6),
            b=nn.Linear(8, 10),
            out=nn.Linear(16, 3),
        ),
        FLAT,
        [("out", 16, 0)],
    ),
    "tied embedding and output": (
        lambda: Model(
            lambda m, x: (lambda h: F.linear(h + m.b(m.a(h).relu()), m.embed.weight))(m.embed(x)),
            embed=nn.Embedding(20, 16),
            a=nn.Linear(16, 24),
            b=nn.Linear(24, 16),
        ),
        TEXT,
        [("a", 16, 0), ("b", 24, 0)],
    ),
    "a layer used twice": (
        lambda: Model(
            used_twice, into=nn.Linear(8, 12), same=nn.Linear(12, 12), out=nn.Linear(12, 3)
        ),
        FLAT,
        [("same", 12, 0)],
    ),
    "a buffer as wide as a layer": (scaled, FLAT, [("out", 12, 0)]),
    "squeeze and excite": (
        lambda: Model(
            squeezed,
            conv=nn.Conv2d(3, 12, 3),
            down=nn.Linear(12, 4),
            up=nn.Linear(4, 12),
            out=nn.Linear(12, 3),
        ),
        IMAGE,
        [("down", 12, 0), ("up", 4, 0)],
    ),
    "a slope for each head that is a weight": (
        lambda: with_slopes(
            attentive(lambda m, x: attention(m, x, m.slopes)), nn.Parameter(drawn(4, 6, 6))
        ),
        TEXT,
        [("qkv", 16, 0), ("proj", 4, 4)],
    ),
    "one gate for all channels": (
        lambda: Model(
            lambda m, x: m.out(m.hidden(x).relu() * m.gate(x).sigmoid()),
            hidden=nn.Linear(8, 12),
            gate=nn.Linear(8, 1),
            out=nn.Linear(12, 3),
        ),
        FLAT,
        [("out", 12, 0)],
    ),
    "the largest over time": (
        lambda: Model(
            lambda m, x: m.out(m.embed(x).max(1).values),
            embed=nn.Embedding(20, 12),
            out=nn.Linear(12, 3),
        ),
        TEXT,
        [("out", 12, 0)],
    ),
    "a forward that counts its rows": (
        lambda: Model(
            lambda m, x: m.out(torch.cat([m.a(x).relu(), x.new_ones(len(x), 1)], 1)),
            a=nn.Linear(8, 12),
            out=nn.Linear(13, 3),
        ),
        FLAT,
        [("out", 12, 0)],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_families_are_found(name):
    make, rows, wanted = MODELS[name]

    families, left = found(make(), rows)

    assert (families, left) == (wanted, {} if "grouped" not in name else left)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_cut_to_half_is_the_masked_original(name):
    make, rows, _ = MODELS[name]
    torch.manual_seed(1)
    model = make().eval()

    small = cut_to_half(model, rows).model

    with torch.no_grad():
        torch.testing.assert_close(small(rows), masked(model, small)(rows), atol=1e-5, rtol=0)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(
        p.numel() for p in model.parameters()
    )


UNTOLD = "with numbers of its width that are no weight"
WHOLE = {
    "a norm across a hidden layer": (
        lambda: nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12), nn.Linear(12, 3)),
        FLAT,
        {"input of 2": "layer_norm reads across it"},
    ),
    "convolution in groups": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten()),
        IMAGE,
        {
            "weights of 0": "convolution in 2 groups",
            "weights of 1": "convolution in 2 groups",
        },
    ),
    "part of a weight": (
        lambda: Model(
            lambda m, x: F.linear(m.a(x)[:, :6], m.out.weight[:, :6]),
            a=nn.Linear(8, 12),
            out=nn.Linear(12, 3),
        ),
        FLAT,
        {
            "weights of a": "only a part of a weight is used (linear)",
            "weights of out": "only a part of a weight is used (linear)",
        },
    ),
    "readers of different parts": (
        lambda: Model(
            lambda m, x: (lambda h: m.b(h[:, :8]) + m.c(h[:, 8:]))(m.a(x)),
            a=nn.Linear(8, 12),
            b=nn.Linear(8, 3),
            c=nn.Linear(4, 3),
        ),
        FLAT,
        {
            "input of b": "its units are one, or of different sizes",
            "input of c": "its units are one, or of different sizes",
        },
    ),
    "an operation without a rule": (
        lambda: Model(
            lambda m, x: m.out(m.a(x).cumprod(-1).renorm(2, 0, 1.0)),
            a=nn.Linear(8, 12),
            out=nn.Linear(12, 3),
        ),
        FLAT,
        {"weights of a": "no rule for renorm with such arguments"},
    ),
    "numbers written in the forward": (
        lambda: Model(
            lambda m, x: m.out(m.a(x) * torch.arange(12)), a=nn.Linear(8, 12), out=nn.Linear(12, 3)
        ),
        FLAT,
        {"input of out": f"mul {UNTOLD}"},
    ),
    "a recurrent layer": (
        lambda: Model(
            lambda m, x: m.out(m.cell(m.embed(x))[0][:, -1]),
            embed=nn.Embedding(20, 8),
            cell=nn.GRU(8, 12, batch_first=True),
            out=nn.Linear(12, 3),
        ),
        TEXT,
        {
            "weights of embed": "no rule for gru with such arguments",
            "weights of cell": "no rule for gru with such arguments",
        },
    ),
    "a mask with an axis of heads that is computed": (
        lambda: with_slopes(attentive(alibi), torch.linspace(0.1, 1, 4)),
        TEXT,
        {"input of proj": f"scaled_dot_product_attention {UNTOLD}"},
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_left_whole_is_named_with_its_reason(name):
    make, rows, wanted = WHOLE[name]

    _, left = found(make(), rows)

    assert left == wanted


def test_a_part_that_no_graph_can_hold_is_sealed_and_the_rest_is_found():
    moody = Model(lambda m, x: m.a(x) if x.sum() > 0 else -m.a(x), a=nn.Linear(12, 12))
    model = nn.Sequential(nn.Linear(8, 12), moody, nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))

    families, left = found(model, FLAT)

    assert families == [("4", 20, 0)]
    assert left == {"weights of 0": "1 cannot be traced"}
    assert "forward" not in vars(moody)


def test_a_model_that_no_graph_can_hold_says_so():
    model = Model(lambda m, x: m.a(x) if x.sum() > 0 else -m.a(x), a=nn.Linear(8, 3))

    with pytest.raises(CannotTrace, match=r"^\w+: Could not guard on data-dependent expression"):
        trace(model, FLAT)


def test_writing_in_place_at_a_fixed_unit_leaves_that_unit():
    def forward(m, x):
        h = m.a(x)
        h[:, 3] = 1.0
        return m.out(h)

    torch.manual_seed(0)
    model = Model(forward, a=nn.Linear(8, 12), out=nn.Linear(12, 3))
    with torch.no_grad():
        model.out.weight[:, 3] = 100.0  # so that another unit in its place would show

    done = cut_to_half(model, FLAT)

    wanted = masked(model, done.model)
    torch.testing.assert_close(done.model(FLAT), wanted(FLAT), atol=1e-4, rtol=0)
    assert len(done.table) == 1
    assert done.left


def test_tracing_leaves_mode_and_weights_alone():
    model = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 3))
    before = copy.deepcopy(model.state_dict())

    trace(model, FLAT)

    assert all(part.training for part in model.modules())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


# --- networks put together by chance


class Block(nn.Module):
    """One way to go from a width to a width."""

    def __init__(self, kind, width, hidden):
        super().__init__()
        self.kind = kind
        wide = 2 * hidden if kind in ("gate", "glu") else hidden
        self.a, self.b = nn.Linear(width, wide), nn.Linear(hidden, width)
        self.c = nn.Linear(width, hidden)
        self.one = nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width) if kind == "norm" else nn.BatchNorm1d(width)
        self.both = nn.Linear(2 * hidden, width)
        self.register_buffer("scale", torch.rand(hidden) + 0.5)

    def forward(self, x):
        match self.kind:
            case "plain":
                return F.relu(self.b(torch.tanh(self.a(x))))
            case "residual":
                return x + self.b(F.gelu(self.a(x)))
            case "gate":
                gate, value = self.a(x).chunk(2, -1)
                return x + self.b(F.silu(gate) * value)
            case "glu":
                return self.b(F.glu(self.a(x)))
            case "bilinear":
                return x - self.b(self.a(x).sigmoid() * self.c(x))
            case "norm" | "batch":
                return x + self.b(F.relu(self.a(self.norm(x)))) * 0.5
            case "cat":
                return self.both(torch.cat([F.relu(self.a(x)), torch.tanh(self.c(x))], -1))
            case "scalar":
                return x + self.b(F.relu(self.a(x)) * torch.sigmoid(self.one(x)))
            case "buffer":
                return self.b(F.relu(self.a(x)) * self.scale) + x
            case "twice":
                return self.b(self.a(torch.tanh(self.b(self.a(x)))))
        raise AssertionError(self.kind)


KINDS = ["plain", "residual", "gate", "glu", "bilinear", "norm", "batch", "cat", "scalar"]
KINDS += ["buffer", "twice"]


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    width=st.integers(2, 9),
    hidden=st.integers(2, 9),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=10)
def test_any_network_without_any_units_is_the_masked_original(kinds, width, hidden, seed):
    torch.manual_seed(seed)
    blocks = [Block(kind, width, hidden) for kind in kinds]
    model = nn.Sequential(nn.Linear(5, width), *blocks, nn.Linear(width, 3)).eval()
    for block in blocks:
        nn.init.normal_(getattr(block.norm, "running_mean", torch.empty(1)))
    rows, chance = drawn(7, 5, seed=seed), torch.Generator().manual_seed(seed)

    def some(family):
        return int(torch.randint(1, family.units + 1, (), generator=chance))

    done = narrow(model, rows, counts=some, method="magnitude", where="test")

    # layers that no block uses are no part of the question
    with torch.no_grad():
        wanted, scale = masked(model, done.model)(rows), float(model(rows).abs().max())
        torch.testing.assert_close(done.model(rows), wanted, atol=1e-5 * max(1, scale), rtol=0)
        torch.testing.assert_close(
            done.model(rows[:1]), wanted[:1], atol=1e-4 * max(1, scale), rtol=0
        )
    kept = {row["part"]: row["kept"] for row in done.table}
    assert all(kept.values())


class Picture(nn.Module):
    """One way to go from channels to channels."""

    def __init__(self, kind, width, hidden):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(width, hidden, 3, padding=1), nn.Conv2d(hidden, width, 1)
        self.deep = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.BatchNorm2d(hidden)
        self.down, self.up = nn.Linear(hidden, 3), nn.Linear(3, hidden)

    def forward(self, x):
        h = F.relu(self.norm(self.a(x)))
        match self.kind:
            case "residual":
                return x + self.b(h)
            case "depthwise":
                return self.b(F.relu6(self.deep(h)))
            case "excite":
                weight = torch.sigmoid(self.up(F.relu(self.down(h.mean((2, 3))))))
                return x + self.b(h * weight[..., None, None])
            case "pool":
                return self.b(F.avg_pool2d(F.interpolate(h, scale_factor=2.0), 2))
        raise AssertionError(self.kind)


@given(
    kinds=st.lists(
        st.sampled_from(["residual", "depthwise", "excite", "pool"]), min_size=1, max_size=3
    ),
    width=st.integers(2, 6),
    hidden=st.integers(2, 6),
    flat=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=6)
def test_any_convolutions_without_any_channels_are_the_masked_original(
    kinds, width, hidden, flat, seed
):
    torch.manual_seed(seed)
    blocks = [Picture(kind, width, hidden) for kind in kinds]
    end = [nn.Flatten(), nn.Linear(36 * width, 2)]
    if not flat:
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)]
    model = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *blocks, *end).eval()
    for block in blocks:
        nn.init.normal_(block.norm.running_mean)
    rows, chance = drawn(5, 3, 6, 6, seed=seed), torch.Generator().manual_seed(seed)

    def some(family):
        return int(torch.randint(1, family.units + 1, (), generator=chance))

    small = narrow(model, rows, counts=some, method="magnitude", where="test").model

    with torch.no_grad():
        wanted = masked(model, small)(rows)
        torch.testing.assert_close(small(rows), wanted, atol=1e-5, rtol=1e-5)
