"""Train code-gpt, the language model that ships: data/code-gpt.safetensors and its JSON card.

    python data/train_code_gpt.py

It takes about 75 minutes on one CPU core, less on a GPU. What was stopped goes on from
out/code-gpt.safetensors when it is called again. The same machine gives the same bits.
"""

from importlib.metadata import version
from pathlib import Path

import torch

from kit import models, text, train
from kit.base import device, seed, storage

OUT = Path(__file__).parent / "code-gpt.safetensors"
PARTIAL = Path(__file__).parents[1] / "out" / OUT.name
SHAPE = {"depth": 5, "context": 256}
RECIPE = {
    "steps": 2200,
    "batch": 16,
    "lr": 4e-3,
    "warmup": 0.02,
    "decay": 0.6,
    "precision": "bfloat16",
    "every": 100,
}
SOURCES = {"networkx": "BSD-3-Clause", "sympy": "BSD-3-Clause"}


def main() -> None:
    """Train, judge what is stored, and write both files."""
    torch.set_num_threads(1)
    seed.everything(0)
    corpus = text.corpus("code")
    model = models.GPT(**SHAPE).to(device.pick())
    told = RECIPE | {"validation": corpus.validation, "checkpoint": PARTIAL}
    fitted = train.fit_language(model, corpus.train, **told)
    if not fitted.stopped.startswith("after"):
        raise SystemExit(f"{fitted.stopped}; the same command goes on, and {OUT.name} is as it was")
    model.bfloat16()  # half the bytes
    storage.save(OUT, model.state_dict(), about={"model": "GPT", "shape": model.shape})
    model = models.load_gpt(OUT)  # what is judged is what is stored
    bits = train.bits_per_byte(model, corpus.validation, most=1_000_000)
    card = {
        "what": "A language model of Python source, one byte a token; for lessons, not for work.",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "shape": model.shape,
        "recipe": RECIPE | {"optimizer": "Muon and AdamW", "seed": 0},
        "bytes_seen": RECIPE["steps"] * RECIPE["batch"] * SHAPE["context"],
        "corpus": {
            "packages": {name: f"{version(name)}, {licence}" for name, licence in SOURCES.items()},
            "sha256": corpus.sha256,
            "train_bytes": len(corpus.train),
            "validation_bytes": len(corpus.validation),
        },
        "validation_bits_per_byte": round(bits, 4),
        "stopped": fitted.stopped,
        "trained_on": str(device.choose()),
        "torch": torch.__version__.split("+")[0],
        "licence": "The weights: as this project. They were made from the sources named above.",
    }
    storage.write_json(OUT.with_suffix(".json"), card)
    print(fitted.table.to_string(index=False), f"\n{bits:.3f} bits a byte of unseen files")


if __name__ == "__main__":
    main()
