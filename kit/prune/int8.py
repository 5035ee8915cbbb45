"""A linear layer with its weights in int8, and what puts it in another's place."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# without VNNI, products of 8-bit inputs overflow 16 bits: torch then gives inputs 7
HALF_RANGE = not getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
PRODUCT = torch.ops.quantized.linear_dynamic.default  # looked up once: small layers notice


class Int8Linear(nn.Module):
    """Multiply by weights in int8, a scale for each output; inputs are rounded batch by batch.

    On the CPU the product is one of integers. Elsewhere the weights are expanded for each product:
    less memory, no more speed. Its state is plain tensors.
    """

    scales: Tensor  # (out,)

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        """Build it with zeros.

        Args:
            in_features: columns of the inputs.
            out_features: of the outputs.
            bias: whether one is added.
        """
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        codes = torch.zeros(out_features, in_features, dtype=torch.int8)
        # parameters, not buffers: so that a model's device and number of weights are as before
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False) if bias else None
        self.register_buffer("scales", torch.ones(out_features))
        self._packed: Any = None

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weights as floats, for who reads them."""
        return self.codes * self.scales[:, None]

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        """Return the product with the weights, plus the bias."""
        # who writes the model down for another runtime cannot write what is packed
        if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() == 0:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.linear(x, self.weight.to(x.dtype), bias)
        if self._packed is None:
            self._packed = self._pack()
        y = PRODUCT(x.float(), self._packed, HALF_RANGE)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Say what shape it has."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"

    def _pack(self) -> Any:
        zeros = torch.zeros(self.out_features, dtype=torch.long)
        with warnings.catch_warnings():  # these tensors are to go, but not yet the product
            warnings.simplefilter("ignore", UserWarning)
            weight = torch._make_per_channel_quantized_tensor(
                self.codes.detach(), self.scales.double(), zeros, 0
            )
        bias = None if self.bias is None else self.bias.detach().float()
        return torch.ops.quantized.linear_prepack(weight, bias)

    # what is packed is made from the tensors: it goes where they change, and is never stored
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._packed = None

    def _apply(self, fn: Any, recurse: bool = True) -> "Int8Linear":
        self._packed = None
        return super()._apply(fn, recurse)


def placed(model: nn.Module, shapes: Mapping[str, tuple[int, int, bool]]) -> nn.Module:
    """Put empty layers in the place of linear ones, in place; their state is to be loaded.

    Args:
        model: of which they are parts.
        shapes: name -> columns of the inputs, of the outputs, and whether there is a bias.

    Returns:
        The model, or the new layer where it is the model.
    """
    around = nn.ModuleDict({"model": model})  # so that a model that is one layer has a parent
    for name, (n_in, n_out, bias) in shapes.items():
        above, _, own = f"model.{name}".rstrip(".").rpartition(".")
        parent = around.get_submodule(above)
        old = parent.get_submodule(own)
        new = Int8Linear(n_in, n_out, bias=bias).train(old.training)
        parent.register_module(own, new.to(next(old.parameters()).device))
        if isinstance(parent, nn.TransformerEncoderLayer):
            # else its fused kernel would read all weights as floats and pass this layer by
            parent.activation_relu_or_gelu = 0
    return around["model"]


def shapes(model: nn.Module) -> dict[str, tuple[int, int, bool]]:
    """Return the shapes of all such layers of a model, as `placed` takes them.

    Example:
        >>> shapes(nn.Sequential(Int8Linear(3, 2, bias=True)))
        {'0': (3, 2, True)}
    """
    return {
        name: (part.in_features, part.out_features, part.bias is not None)
        for name, part in model.named_modules()
        if isinstance(part, Int8Linear)
    }
