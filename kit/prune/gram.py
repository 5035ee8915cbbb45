"""What the rows say about the inputs of one layer: how they vary together."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from kit.base import checks

DAMP = 1e-2  # of the mean variance, added to each: what SparseGPT adds


@dataclass
class Gram:
    """Sums of products of a layer's inputs, in float64, batch after batch; rows are not kept."""

    columns: int
    where: str  # the public function that asks
    rows: int = 0
    total: Float64[Tensor, " columns"] = field(init=False)  # sums
    products: Float64[Tensor, "columns columns"] = field(init=False)  # sums of x xᵀ

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.total = torch.zeros(self.columns, dtype=torch.float64)
        self.products = torch.zeros(self.columns, self.columns, dtype=torch.float64)

    def add(self, x: Shaped[Tensor, "*rows columns"]) -> None:
        """Take in a batch of inputs.

        Raises:
            ValueError: numbers that are not finite.
        """
        x = exact(x.detach().reshape(-1, self.columns))
        if not x.isfinite().all():
            raise checks.bad_value(
                self.where,
                expected="a model whose activations are finite",
                got=checks.Described("NaN or infinity inside it"),
                remedy="Look for the layer with train.evaluate on the same rows, or use float32.",
            )
        self.total, self.products = self.total.to(x.device), self.products.to(x.device)
        self.rows += len(x)
        self.total += x.sum(0)
        self.products += x.T @ x

    @property
    def short(self) -> bool:
        """Tell whether there were fewer rows than columns, so that only the damping decides."""
        return self.rows < self.columns

    def second_moments(self) -> Float64[Tensor, "columns columns"]:
        """Return the mean of x xᵀ."""
        return self.products / max(1, self.rows)

    def means(self) -> Float64[Tensor, " columns"]:
        """Return the mean of x."""
        return self.total / max(1, self.rows)

    def covariance(self) -> Float64[Tensor, "columns columns"]:
        """Return the mean of (x - mean)(x - mean)ᵀ."""
        mean = self.means()
        return self.second_moments() - mean[:, None] * mean


def exact(x: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return numbers in float64; on the CPU where the device has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def damped(
    moments: Float64[Tensor, "columns columns"], damp: float = DAMP
) -> Float64[Tensor, "columns columns"]:
    """Add a ridge of `damp` times the mean of the diagonal, so that there is an inverse.

    Example:
        >>> damped(torch.zeros(2, 2, dtype=torch.float64) + 1, damp=0.5).tolist()
        [[1.5, 1.0], [1.0, 1.5]]
    """
    ridge = damp * moments.diagonal().mean().clamp_min(1e-12)
    return moments + ridge * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)


@dataclass
class Pairs(Gram):
    """The same with what a layer is to return beside its inputs, so that it can be refitted."""

    outputs: int = 0
    cross: Float64[Tensor, "columns outputs"] = field(init=False)  # sums of x yᵀ
    total_out: Float64[Tensor, " outputs"] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        super().__post_init__()
        self.cross = torch.zeros(self.columns, self.outputs, dtype=torch.float64)
        self.total_out = torch.zeros(self.outputs, dtype=torch.float64)

    def add_pair(
        self, x: Shaped[Tensor, "*rows columns"], y: Shaped[Tensor, "*rows outputs"]
    ) -> None:
        """Take in a batch of inputs and of what is to come out.

        Raises:
            ValueError: numbers that are not finite.
        """
        self.add(x)
        x, y = exact(x.reshape(-1, self.columns)), exact(y.reshape(-1, self.outputs))
        self.cross, self.total_out = self.cross.to(x.device), self.total_out.to(x.device)
        self.cross += x.T @ y
        self.total_out += y.sum(0)

    def cross_moments(self) -> Float64[Tensor, "columns outputs"]:
        """Return the mean of x yᵀ."""
        return self.cross / max(1, self.rows)

    def cross_covariance(self) -> Float64[Tensor, "columns outputs"]:
        """Return the mean of (x - mean)(y - mean)ᵀ."""
        return self.cross_moments() - self.means()[:, None] * self.means_out()

    def means_out(self) -> Float64[Tensor, " outputs"]:
        """Return the mean of y."""
        return self.total_out / max(1, self.rows)
