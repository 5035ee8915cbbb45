"""The five of the ten shapes that attend: hand-written, fused, in groups, and torch's own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 50


class FusedAttention(nn.Module):
    """Attention with one product for queries, keys and values, and a mask in a buffer."""

    def __init__(self, n_embd=32, n_head=4, block_size=24):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.n_head, self.n_embd = n_head, n_embd
        mask = torch.tril(torch.ones(block_size, block_size))
        self.register_buffer("bias", mask.view(1, 1, block_size, block_size))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class FusedBlock(nn.Module):
    """Attention and feed-forward, each on a normed copy."""

    def __init__(self, n_embd=32):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attn = FusedAttention(n_embd)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(n_embd, 4 * n_embd), "c_proj": nn.Linear(4 * n_embd, n_embd)}
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class FusedGPT(nn.Module):
    """A GPT of the year 2019 with tied embeddings and an assertion on the length."""

    def __init__(self, block_size=24, n_embd=32, n_layer=2):
        super().__init__()
        self.block_size = block_size
        self.wte, self.wpe = nn.Embedding(VOCABULARY, n_embd), nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList([FusedBlock(n_embd) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, VOCABULARY, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx):
        _, t = idx.size()
        assert t <= self.block_size, f"cannot forward {t} tokens, block size is {self.block_size}"
        x = self.wte(idx) + self.wpe(torch.arange(0, t, dtype=torch.long, device=idx.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def repeat_kv(x: Tensor, n_rep: int) -> Tensor:
    """Give every head of a group the keys or values of its group."""
    B, G, T, D = x.shape
    return x[:, :, None].expand(B, G, n_rep, T, D).reshape(B, G * n_rep, T, D)


class RMSNorm(nn.Module):
    """The norm written out."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class GroupedBlock(nn.Module):
    """Heads that share keys and values in groups, rotary positions, a gated feed-forward."""

    def __init__(self, dim=48, n_heads=6, n_kv_heads=3, hidden=64):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, dim // n_heads
        self.q_proj = nn.Linear(dim, n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(dim, n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * self.head_dim, dim, bias=False)
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.input_norm, self.post_norm = RMSNorm(dim), RMSNorm(dim)

    def rotate(self, x):
        half = self.head_dim // 2
        freqs = 10000.0 ** (-torch.arange(half, device=x.device) / half)
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * freqs[None]
        cos, sin = torch.cos(angles), torch.sin(angles)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def attend(self, x):
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.n_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)
        q, k = self.rotate(q), self.rotate(k)
        n_rep = self.n_heads // self.n_kv_heads
        k, v = repeat_kv(k, n_rep), repeat_kv(v, n_rep)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).contiguous().view(B, T, -1))

    def forward(self, x):
        x = x + self.attend(self.input_norm(x))
        h = self.post_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class GroupedGPT(nn.Module):
    """A decoder of the Llama shape."""

    def __init__(self, dim=48):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, dim)
        self.layers = nn.ModuleList([GroupedBlock(dim) for _ in range(2)])
        self.norm = RMSNorm(dim)
        self.lm_head = nn.Linear(dim, VOCABULARY, bias=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


class PostNormLayer(nn.Module):
    """Separate queries, keys and values; the norm comes after the sum."""

    def __init__(self, hidden_size=32, num_heads=4, intermediate_size=64):
        super().__init__()
        self.num_heads, self.head_size = num_heads, hidden_size // num_heads
        self.query, self.key, self.value, self.dense = (
            nn.Linear(hidden_size, hidden_size) for _ in range(4)
        )
        self.intermediate = nn.Linear(hidden_size, intermediate_size)
        self.output = nn.Linear(intermediate_size, hidden_size)
        self.attention_norm, self.output_norm = (nn.LayerNorm(hidden_size) for _ in range(2))

    def transpose_for_scores(self, x):
        return x.view(*x.size()[:-1], self.num_heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, x):
        q, k, v = (
            self.transpose_for_scores(layer(x)) for layer in (self.query, self.key, self.value)
        )
        probs = torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.head_size), -1)
        context = torch.matmul(probs, v).permute(0, 2, 1, 3).contiguous()
        context = context.view(*context.size()[:-2], self.num_heads * self.head_size)
        x = self.attention_norm(self.dense(context) + x)
        return self.output_norm(self.output(F.gelu(self.intermediate(x))) + x)


class PostNormEncoder(nn.Module):
    """An encoder of the BERT shape with a pooler."""

    def __init__(self, hidden_size=32):
        super().__init__()
        self.words, self.positions = nn.Embedding(VOCABULARY, hidden_size), nn.Embedding(24, 32)
        self.register_buffer("position_ids", torch.arange(24).expand((1, -1)))
        self.norm = nn.LayerNorm(hidden_size)
        self.layers = nn.ModuleList([PostNormLayer(hidden_size) for _ in range(2)])
        self.pooler, self.classifier = nn.Linear(hidden_size, hidden_size), nn.Linear(32, 4)

    def forward(self, input_ids):
        length = input_ids.size(1)
        x = self.norm(self.words(input_ids) + self.positions(self.position_ids[:, :length]))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class TorchEncoder(nn.Module):
    """The encoder that comes with torch."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        for weight in self.encoder.parameters():  # else both layers are the same
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)).mean(dim=1))


class OddNorms(nn.Module):
    """A norm between convolutions, after the heads of attention, and on a hidden layer."""

    def __init__(self, dim=24, heads=3):
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.conv1, self.conv2 = nn.Conv1d(6, 16, 3, padding=1), nn.Conv1d(16, dim, 3, padding=1)
        self.norm_conv = nn.LayerNorm(16)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.norm_heads = nn.LayerNorm(self.head_dim)
        self.to_out = nn.Linear(dim, dim)
        self.fc1, self.norm_hidden, self.fc2 = (
            nn.Linear(dim, 40),
            nn.LayerNorm(40),
            nn.Linear(40, 32),
        )
        self.fc3 = nn.Linear(32, 5)

    def forward(self, x):  # (B, T, 6)
        h = F.gelu(self.conv1(x.permute(0, 2, 1)))
        h = self.norm_conv(h.permute(0, 2, 1)).permute(0, 2, 1)
        h = self.conv2(h).permute(0, 2, 1)
        B, T, C = h.shape
        qkv = self.to_qkv(h).chunk(3, dim=-1)
        q, k, v = (t.reshape(B, T, self.heads, self.head_dim).transpose(1, 2) for t in qkv)
        weights = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).softmax(dim=-1)
        found = self.norm_heads(weights @ v).transpose(1, 2).reshape(B, T, C)
        h = h + self.to_out(found)
        h = torch.relu(self.fc2(torch.relu(self.norm_hidden(self.fc1(h)))))
        return self.fc3(h.mean(dim=1))
