"""Models as ONNX Runtime computes them: exported once, in float32 or with weights in int8."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from kit.base import checks

NAME_IN, NAMES_OUT = "x", ["y"]
PRODUCTS = ["MatMul", "Gemm"]  # what int8 makes faster; its convolutions are slower than float's


def exported(model: nn.Module, x: Tensor) -> Any:
    """Return `model` as an onnx.ModelProto that takes any number of rows.

    Args:
        model: in eval mode, on the CPU.
        x: example rows; all axes but the first keep their lengths.

    Raises:
        ModuleNotFoundError: the extra `onnx` is not installed.
    """
    for package in ("onnxruntime", "onnx", "onnxscript"):
        checks.need(package, purpose="infer.optimise", extra="onnx")
    pair = x[torch.arange(2) % len(x)]  # torch.export takes an axis of length 1 for fixed
    with quietly():
        program = torch.onnx.export(
            model,
            (pair,),
            dynamo=True,
            verbose=False,
            input_names=[NAME_IN],
            output_names=NAMES_OUT,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
    assert program is not None  # it is only where a file is written
    return program.model_proto


def has_products(graph: Any) -> bool:
    """Tell whether there is something in the graph that int8 makes faster."""
    return any(node.op_type in PRODUCTS for node in graph.graph.node)


def in_int8(graph: Any) -> bytes:
    """Return the graph with the weights of its matrix products in int8, serialised."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = copy.deepcopy(graph)
    del graph.graph.value_info[:]  # the shapes in there are wrong once a product is in int8
    # one scale for each matrix: one a column takes a sixth longer at one row
    with TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            graph,
            path,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=PRODUCTS,
        )
        return path.read_bytes()


def session(graph: bytes) -> Callable[[Tensor], Tensor]:
    """Return a function from a tensor to a tensor that computes on torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    run = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run

    def call(x: Tensor) -> Tensor:
        # NumPy's view of the same memory: binding the pointers by hand takes 4 µs more
        return torch.from_numpy(run(NAMES_OUT, {NAME_IN: x.numpy()})[0])

    return call


@contextmanager
def quietly() -> Iterator[None]:
    """Silence what other packages warn, log and print inside the block; errors are still raised."""
    level, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.CRITICAL)
    nowhere = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers  # logging.warning() itself adds one where there is none
