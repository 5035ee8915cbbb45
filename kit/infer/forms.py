"""The forms that a model can be computed in: each a function from rows to outputs, or a reason."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kit.infer import runtime

Form = Callable[[Tensor], Tensor]
BF16 = torch.bfloat16


class CannotTry(Exception):
    """Say in one line why a form cannot be tried here."""


@dataclass
class Subject:
    """The model that all forms are made from, and rows to make them with."""

    model: nn.Module  # a copy of the user's, in eval mode, whose weights ask for no gradient
    x: Tensor
    dtype: torch.dtype  # of the outputs

    @property
    def where(self) -> torch.device:
        """Return the device of both."""
        return self.x.device

    @cached_property
    def graph(self) -> Any:
        """Return the model as ONNX has it; exporting takes seconds, so once for all forms."""
        if self.where.type != "cpu":
            raise CannotTry("ONNX Runtime is tried on the CPU only: move the model there")
        return runtime.exported(self.model, self.x)


def direct(subject: Subject) -> Form:
    """Call the layers of an nn.Sequential one after the other, without what modules do around it.

    On small layers torch spends longer on looking up weights and hooks than on arithmetic.
    """
    if type(subject.model).forward is not nn.Sequential.forward:
        raise CannotTry("the model is no nn.Sequential")
    layers, x, steps = _layers(subject.model), subject.x[:1], []
    for before, layer in pairwise([subject.model, *layers]):
        steps.append(_step(layer, before, x.ndim))
        x = layer(x)

    def call(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return call


def medium(subject: Subject) -> Form:
    """Let matrix products round inside: bfloat16 on a CPU, TF32 on a GPU.

    The setting is torch's own for the whole process: products of other threads round as well, but
    only while this form computes.
    """
    backend = torch.backends.cuda if subject.where.type == "cuda" else torch.backends.mkldnn
    if not hasattr(backend.matmul, "fp32_precision"):
        raise CannotTry("needs torch 2.9 or later")
    model, settings = subject.model, backend.matmul
    inside = "tf32" if subject.where.type == "cuda" else "bf16"

    def call(x: Tensor) -> Tensor:
        # torch.set_float32_matmul_precision would leave traces in three settings
        before, settings.fp32_precision = settings.fp32_precision, inside
        try:
            return model(x)
        finally:
            settings.fp32_precision = before

    return call


def bfloat16(subject: Subject) -> Form:
    """Convert weights and inputs."""
    _need_bfloat16(subject.where)
    is_float = subject.x.is_floating_point()
    if is_float and any(isinstance(part, nn.Embedding) for part in subject.model.modules()):
        raise CannotTry("the inputs hold codes, and bfloat16 rounds those from 257 on")
    model, dtype = copy.deepcopy(subject.model).to(BF16), subject.dtype
    return lambda x: model(x.to(BF16) if is_float else x).to(dtype)


def autocast(subject: Subject) -> Form:
    """Let torch convert where it thinks it safe: products in bfloat16, sums in float32."""
    _need_bfloat16(subject.where)
    model, kind, dtype = subject.model, subject.where.type, subject.dtype

    def call(x: Tensor) -> Tensor:
        with torch.autocast(kind, dtype=BF16):
            return model(x).to(dtype)

    return call


def int8(subject: Subject) -> Form:
    """Hold the weights of linear layers in int8, and round their inputs batch by batch."""
    if subject.where.type != "cpu":
        raise CannotTry("torch.ao has int8 products for the CPU only")
    if not any(type(part) is nn.Linear for part in subject.model.modules()):
        raise CannotTry("there is no nn.Linear to quantise")
    with runtime.quietly():  # torch.ao is to be replaced by torchao, which is slower here
        return torch.ao.quantization.quantize_dynamic(subject.model, {nn.Linear})


def onnx(subject: Subject) -> Form:
    """Let ONNX Runtime compute in float32."""
    return runtime.session(subject.graph.SerializeToString())


def onnx_int8(subject: Subject) -> Form:
    """Let ONNX Runtime compute with weights in int8."""
    if not runtime.has_products(subject.graph):
        raise CannotTry("there is no matrix product to quantise")
    return runtime.session(runtime.in_int8(subject.graph))


def compiled(subject: Subject) -> Form:
    """Let torch.compile write code for this number of rows."""
    try:
        call = torch.compile(copy.deepcopy(subject.model), dynamic=False)
        call(subject.x)
    except Exception as error:
        if "C++ compiler" in str(error):
            raise CannotTry("no C++ compiler: install g++") from None
        raise
    return call


def graphs(subject: Subject) -> Form:
    """Record the kernels of this number of rows once, and let the GPU replay them."""
    if subject.where.type != "cuda":
        raise CannotTry("CUDA graphs need an NVIDIA GPU")
    model, held = subject.model, subject.x.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # lazy set-up must not be recorded
        for _ in range(3):
            model(held)
    torch.cuda.current_stream().wait_stream(aside)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        outputs = model(held)

    def call(x: Tensor) -> Tensor:
        held.copy_(x)
        recorded.replay()
        return outputs.clone()  # the next replay writes over them

    return call


# for any number of rows, made once
FLEXIBLE: dict[str, Callable[[Subject], Form]] = {
    "direct": direct,
    "medium": medium,
    "bfloat16": bfloat16,
    "autocast": autocast,
    "int8": int8,
    "onnx": onnx,
    "onnx int8": onnx_int8,
}
# for one number of rows each, slow to make: only when asked for
FIXED: dict[str, Callable[[Subject], Form]] = {"compile": compiled, "graphs": graphs}


def _need_bfloat16(where: torch.device) -> None:
    if where.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise CannotTry("this GPU has no bfloat16")


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of nested Sequentials in order."""
    if model._forward_hooks or model._forward_pre_hooks:
        raise CannotTry("a layer has hooks")
    if type(model).forward is nn.Sequential.forward:
        return [layer for child in model for layer in _layers(child)]  # type: ignore[attr-defined]
    return [] if type(model) in (nn.Dropout, nn.Identity) else [model]


def _step(layer: nn.Module, before: nn.Module, ndim: int) -> Form:
    """Return what a layer does to an input of so many axes, after the layer before it."""
    if type(layer) is nn.ReLU and type(before) is nn.Linear:
        return torch.relu_  # in place: what the layer before it made is seen by nobody else
    if type(layer) is not nn.Linear or layer.bias is None or ndim != 2:
        return layer.forward
    weight, bias = layer.weight.t(), layer.bias
    # what F.linear comes to as well, by a detour that costs small layers a fifth of their time
    return lambda x: torch.addmm(bias, x, weight)
