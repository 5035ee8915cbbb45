"""Measure how well a ladder of language models foresees a larger one, beside simpler guesses."""

from functools import partial

import common
import numpy as np
import pandas as pd

from kit import models, text, tune

DEPTHS, CONTEXT, BATCH = (1, 2, 3, 4), 128, 8
LENGTHS = (131_072, 262_144, 524_288)
VALIDATION = 65_536  # bytes that every run is judged on
BAR = 0.02  # largest fraction by which the loss of the held-out rung may be missed

TEXT = f"""\
`tune.sizes_language` on `text.corpus("code")`: GPTs of depth {", ".join(map(str, DEPTHS[:-1]))} on
{", ".join(f"{n:,}" for n in LENGTHS)} tokens (context {CONTEXT}, batch {BATCH}, Muon) foresee the
bits per byte of depth {DEPTHS[-1]} on the most, before it is trained. A round is a seed."""
GUESSES = """\
`miss`: mean over rounds of |guess - found| / found; lowest and highest of a round beside it. The
simpler guesses see the same runs: the loss of the rung below, and the straight line of log loss
over log parameters through the rungs below, at the same length."""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=3)
    corpus = text.corpus("code")
    ladders = [_ladder(corpus, seed, quick=given.quick) for seed in range(given.rounds)]
    misses = pd.DataFrame([_misses(each) for each in ladders])
    summary = misses.agg(["mean", "min", "max"]).T.reset_index()
    summary.columns = ["guess", "miss", "miss_low", "miss_high"]
    summary["bar"] = [BAR, np.nan, np.nan]
    summary["reached"] = ["yes" if summary["miss"][0] <= BAR else "no", "", ""]
    runs = pd.concat([each.table.assign(round=i) for i, each in enumerate(ladders)])
    common.write(
        "sizes",
        title="A larger language model, foreseen",
        text=TEXT,
        sections=[
            common.Section("Guesses", GUESSES, summary),
            common.Section("Runs", "All that was trained.", runs),
        ],
        facts=common.machine(),
        skipped=[],
        given=given,
    )


def _ladder(corpus: text.Corpus, seed: int, *, quick: bool) -> tune.Ladder:
    shape = {"context": 32, "width": 16} if quick else {"context": CONTEXT}
    return tune.sizes_language(
        partial(models.GPT, **shape),
        corpus.train,
        validation=corpus.validation[: 2_000 if quick else VALIDATION],
        depths=DEPTHS,
        lengths=(512, 1024) if quick else LENGTHS,
        batch=BATCH,
        seed=seed,
    )


def _misses(ladder: tune.Ladder) -> dict[str, float]:
    """Return by how much each guess missed, as a fraction."""
    held, below = ladder.table.iloc[-1], ladder.table.iloc[:-1]
    last = below[below["tokens"] == held["tokens"]].sort_values("parameters")
    slope, level = np.polyfit(np.log(last["parameters"]), np.log(last["bits_per_byte"]), 1)
    line = float(np.exp(level + slope * np.log(held["parameters"])))
    guesses = {"straight line": line, "the rung below": float(last["bits_per_byte"].iloc[-1])}
    simple = {name: abs(guess - ladder.found) / ladder.found for name, guess in guesses.items()}
    return {"the law": ladder.miss, **simple}


if __name__ == "__main__":
    main()
