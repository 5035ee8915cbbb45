"""Ten models as people write them, none of them written with pruning in mind; random weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from shapes_heads import (
    VOCABULARY,
    FusedGPT,
    GroupedGPT,
    OddNorms,
    PostNormEncoder,
    TorchEncoder,
)
from torch import Tensor, nn

Built = tuple[nn.Module, Tensor]  # in eval mode, and rows for it
N_ROWS, LENGTH = 96, 12


class ResidualMLP(nn.Module):
    """Blocks that add to their input, with no norm anywhere."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(20, 32)
        self.fc1 = nn.ModuleList([nn.Linear(32, 64) for _ in range(3)])
        self.fc2 = nn.ModuleList([nn.Linear(64, 32) for _ in range(3)])
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for fc1, fc2 in zip(self.fc1, self.fc2, strict=True):
            x = x + fc2(F.relu(fc1(x)))
        return self.head(x)


class GatedBlock(nn.Module):
    """Norm, gate times value, and back."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        h = self.norm(x)
        return x + self.dropout(self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h)))


def gated_mlp() -> nn.Module:
    """Return gated blocks between two linear layers."""
    blocks = [GatedBlock(32, 48) for _ in range(2)]
    return nn.Sequential(nn.Linear(20, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 5))


class BasicBlock(nn.Module):
    """Two convolutions with a way around them, which is one itself where the size changes."""

    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or in_planes != planes:
            conv = nn.Conv2d(in_planes, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(planes))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return F.relu(out)


class ResNet(nn.Module):
    """Residual convolutions, then every pixel into a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, stride=2), BasicBlock(16, 16))
        self.conv_out = nn.Conv2d(16, 12, 1)
        self.fc = nn.Linear(12 * 4 * 4, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = F.max_pool2d(F.relu(self.conv_out(x)), 2)
        return self.fc(torch.flatten(x, 1))


class SqueezeExcite(nn.Module):
    """Weigh the channels by what a small network makes of their means."""

    def __init__(self, channels, reduction=4):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x):
        b, c, _, _ = x.size()
        return x * self.fc(self.avg_pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


def separable() -> nn.Module:
    """Return a convolutional net, depthwise and pointwise in turns."""

    def block(n_in: int, n_out: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in, bias=False)
        pointwise = nn.Conv2d(n_in, n_out, 1, bias=False)
        norms = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        return [depthwise, norms[0], nn.ReLU6(), pointwise, norms[1], nn.Hardswish()]

    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    body = [*block(16, 24), SqueezeExcite(24), *block(24, 32), SqueezeExcite(32)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


class Moody(nn.Module):
    """What it computes depends on the numbers themselves, which no tracing can follow."""

    def __init__(self, dim):
        super().__init__()
        self.calm, self.back = nn.Linear(dim, 16), nn.Linear(16, dim)

    def forward(self, x):
        if x.sum() > 0:
            return x + self.back(torch.relu(self.calm(x)))
        return x - self.back(torch.relu(self.calm(-x)))


class Odd(nn.Module):
    """Two branches side by side, a layer used twice, a buffer as wide as a layer, and a mood."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(20, 24), nn.Linear(20, 16)
        self.merge = nn.Linear(24 + 16, 32)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 32))
        self.shared = nn.Linear(32, 32)
        self.moody = Moody(32)
        self.fc, self.head = nn.Linear(32, 48), nn.Linear(48, 5)

    def forward(self, x):
        both = torch.cat([torch.relu(self.left(x)), torch.tanh(self.right(x))], dim=-1)
        h = torch.relu(self.merge(both)) * self.scale
        h = torch.relu(self.shared(torch.relu(self.shared(h))))
        h = self.moody(h)
        return self.head(torch.relu(self.fc(h)))


def built(make: Callable[[], nn.Module], *shape: int) -> Built:
    """Return a model with nothing left at zero or one, and rows: tokens where no shape is given."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.ndim == 1 and value.is_floating_point():  # biases, norms, what norms saw
                is_scale = value.min() >= 0.5
                noise = torch.rand_like(value) + 0.5 if is_scale else torch.randn_like(value) / 5
                value.copy_(noise)
    if shape:
        return model, torch.randn(N_ROWS, *shape)
    return model, torch.randint(VOCABULARY, (N_ROWS, LENGTH))


SHAPES: dict[str, Callable[[], Built]] = {
    "residual MLP": lambda: built(ResidualMLP, 20),
    "gated MLP": lambda: built(gated_mlp, 20),
    "fused QKV, tied": lambda: built(FusedGPT),
    "grouped heads": lambda: built(GroupedGPT),
    "post-norm encoder": lambda: built(PostNormEncoder),
    "nn.TransformerEncoder": lambda: built(TorchEncoder),
    "residual convolutions": lambda: built(ResNet, 3, 16, 16),
    "separable convolutions": lambda: built(separable, 3, 16, 16),
    "norms in odd places": lambda: built(OddNorms, LENGTH, 6),
    "odd": lambda: built(Odd, 20),
}
WITH_HEADS = (
    "fused QKV, tied",
    "grouped heads",
    "post-norm encoder",
    "nn.TransformerEncoder",
    "norms in odd places",
)  # and rows that have a length
WITH_LAYERS = ("gated MLP", *WITH_HEADS[:4])  # blocks that add to their input
