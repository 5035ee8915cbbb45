"""Measure `infer.optimise` and `infer.generate` against quantisers, runtimes and transformers."""

import argparse
import copy
import itertools
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import common
import generation
import pandas as pd
import torch
from torch import Tensor, nn

from kit import infer
from kit.base import timing
from kit.infer import runtime

OURS = "infer.optimise"
SHAPES = [(784, 1024, 1024, 10), (100, 50, 10)]
BATCHES = (1, 16, 256)
TOLERANCE = 0.2  # standard deviations of the outputs
RUN_S = 0.05  # of eager: so many calls make a run, or the clock would be measured
PEERS = {"torchao": "torchao", "transformers": "transformers"}
EAGER_BAR, PEER_BAR = 0.98, 0.95  # at every shape: of eager, and of the fastest peer
BARS = {(SHAPES[0], 1): 4.2, (SHAPES[0], 256): 7.4}  # times as fast as eager

TEXT = f"""\
The same weights and rows for everyone, a tensor in and a tensor out, calls one after the other. All
variants take turns in one process, each round in another order; figures are medians over rounds,
ratios are taken inside a round. `infer.optimise` was called once for each network, with a tolerance
of {TOLERANCE}: the largest difference from eager, in standard deviations of eager's outputs. Peers
are set up as their documentation shows; what that takes is not timed."""
COMPARED = """\
`ratio_cpu`, `ratio_wall`: how many times as fast as the variant `infer.optimise` is (low and high:
of a single round). `drift`: as above."""
CHOSEN = "What `infer.optimise` kept for each number of rows, and what it measured itself."

Call = Callable[[Tensor], Tensor]


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=15)
    skipped = common.missing(PEERS)
    sections = forward(given, skipped) + generation.sections(given, skipped)
    common.write(
        "infer",
        title="Inference: rows per second",
        text=TEXT,
        sections=sections,
        facts=common.machine(
            ["onnxruntime", *(PEERS[name] for name in PEERS if name not in skipped)]
        ),
        skipped=skipped,
        given=given,
    )


def forward(given: argparse.Namespace, skipped: list[str]) -> list[common.Section]:
    """Return one section for each network and batch, the bars, and what was chosen."""
    shapes, batches = (SHAPES[1:], BATCHES[:2]) if given.quick else (SHAPES, BATCHES)
    compared, chosen, sections = {}, [], []
    for shape in shapes:
        model, X = network(shape), rows(max(batches), shape[0])
        fast = infer.optimise(model, X, tolerance=TOLERANCE, sizes=batches)
        chosen.append(fast.table[fast.table["kept"]].assign(network=named(shape)))
        calls = {OURS: fast, **peers(model, X, skipped, given)}
        for batch in batches:
            table = raced(calls, X[:batch].clone(), given.rounds)
            compared[shape, batch] = table
            title = f"{named(shape)}, batch {batch}"
            sections.append(common.Section(title, COMPARED, table))
    kept = pd.concat(chosen)[["network", "rows", "form", "median_ms", "speedup", "drift"]]
    return [
        *sections,
        common.Section("Bars", "By CPU time.", bars(compared)),
        common.Section("What was kept", CHOSEN, kept),
    ]


def peers(
    model: nn.Module, X: Tensor, skipped: list[str], given: argparse.Namespace
) -> dict[str, Call]:
    """Set the peers up: name -> function of rows."""
    graph = runtime.exported(model, X)
    calls: dict[str, Call] = {
        "eager": without_gradients(model),
        "torch.ao int8": without_gradients(torch_ao(model)),
        "ONNX Runtime": session(graph.SerializeToString(), given.threads),
        "ONNX Runtime int8": session(quantised(graph), given.threads),
    }
    if "torchao" not in skipped:
        calls["torchao int8"] = without_gradients(torchao(model))
    if not given.quick:  # it takes longer than all others together
        calls["torch.compile"] = without_gradients(torch.compile(copy.deepcopy(model)))
    return calls


def without_gradients(model: Callable[[Tensor], Tensor]) -> Call:
    """Return the fastest way to call a module that torch's documentation knows."""

    def call(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(x)

    return call


def torch_ao(model: nn.Module) -> nn.Module:
    """Quantise with the quantiser that comes with torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def torchao(model: nn.Module) -> nn.Module:
    """Quantise with its successor."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    twin = copy.deepcopy(model)
    quantize_(twin, Int8DynamicActivationInt8WeightConfig())
    return twin


def session(graph: bytes, threads: int) -> Call:
    """Run a graph in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(made.run(None, {"x": x.numpy()})[0])


def quantised(graph) -> bytes:
    """Quantise a graph with ONNX Runtime's own defaults."""
    from onnxruntime.quantization import quantize_dynamic

    graph = copy.deepcopy(graph)
    del graph.graph.value_info[:]  # it stumbles over the shapes in there
    with TemporaryDirectory() as folder, runtime.quietly():
        quantize_dynamic(graph, Path(folder) / "int8.onnx")
        return (Path(folder) / "int8.onnx").read_bytes()


def raced(calls: dict[str, Call], x: Tensor, rounds: int) -> pd.DataFrame:
    """Return rows per second of every call, and how far its outputs are from eager's."""
    expected = calls["eager"](x)
    once = timing.measure(lambda: calls["eager"](x), repeats=5)
    repeats = max(1, round(1e3 * RUN_S / once.median_ms))
    # by the rows of the batch alone: of one row the spread over outputs would be chance
    spread = float(expected.std(correction=0))

    def prepare(call: Call, i: int) -> Callable[[], Tensor]:
        def run() -> Tensor:
            for _ in range(repeats):
                outputs = call(x)
            return outputs

        return run

    timed = common.race(
        {name: partial(prepare, call) for name, call in calls.items()},
        rounds=rounds,
        judge=lambda outputs: float((outputs - expected).abs().max()) / spread,
    )
    table = common.compare(timed, ours=OURS, work=repeats * len(x), unit="rows")
    return table.rename(columns={"score": "drift"}).drop(columns="score_sd")


def bars(compared: dict[tuple[tuple[int, ...], int], pd.DataFrame]) -> pd.DataFrame:
    """Return every bar beside the ratio that was measured."""
    judged = []
    for (shape, batch), table in compared.items():
        ratios = table.set_index("variant")["ratio_cpu"].drop(OURS)
        fastest = ratios.drop("eager").idxmin()
        rules = [("eager", EAGER_BAR), (fastest, PEER_BAR)]
        rules += [("eager", BARS[shape, batch])] if (shape, batch) in BARS else []
        for against, bar in rules:
            reached = "yes" if ratios[against] >= bar else "no"
            judged.append((named(shape), batch, against, bar, ratios[against], reached))
    columns = ["network", "batch", "against", "bar", "measured", "reached"]
    return pd.DataFrame(judged, columns=columns)


def network(shape: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with ReLU between them, in eval mode."""
    torch.manual_seed(0)
    layers = [(nn.Linear(n_in, n_out), nn.ReLU()) for n_in, n_out in pairwise(shape)]
    return nn.Sequential(*list(itertools.chain(*layers))[:-1]).eval()


def rows(n: int, width: int) -> Tensor:
    """Return rows of normal numbers."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def named(shape: tuple[int, ...]) -> str:
    """Return such as 100-50-10."""
    return "-".join(map(str, shape))


if __name__ == "__main__":
    main()
