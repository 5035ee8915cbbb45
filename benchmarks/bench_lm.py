"""Measure the training of language models: what it costs over a bare loop, Muon, two processes."""

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from kit import models, text, train
from kit.base import checks

OURS = "train.fit_language"
BARE = "bare loop"
LR = 3e-3
SPEED = {"depth": 4, "context": 256, "batch": 8, "steps": 8}
LEARN = {"depth": 3, "context": 128, "batch": 16, "steps": 300}
SHARED = {"depth": 4, "context": 256, "batch": 16, "steps": 8}
QUICK = {"depth": 1, "context": 32, "batch": 4, "steps": 4}
ADAMW_LRS = (5e-4, 1e-3, 2e-3)
MUON_LR = 6e-3
SHARE = 0.39  # of AdamW's steps are Muon's: a step of it takes longer
TEXT_BYTES = 300_000  # for two processes, so that judging the model takes no time
SAME = 0.02  # largest difference in final loss between trainings that are said to be the same
BARS = {
    "tokens/s, times a bare bfloat16 loop": 0.97,
    "CPU time to AdamW's end loss, of AdamW's": 0.5,
    "two processes, times one": 1.7,
}

TEXT = """\
`models.GPT` on `text.corpus("code")`: bytes are the tokens. Ratios of the first part are taken
inside a round, by CPU time."""
AGAINST_BARE = f"""\
The loop that one would write: autocast to bfloat16, AdamW, clipping, the same windows, start
weights and learning rate ({LR:g}, level). `final_bits`: bits per byte of unseen text afterwards."""
MUON = f"""\
AdamW at three learning rates, each decayed to zero; Muon at {MUON_LR:g} with {SHARE:g} times as
many steps. `share_of_cpu`: CPU time by that of the AdamW that ended best."""
CURVES = "Bits per byte of the batches since the row before, and the CPU time so far."
PROCESSES = """\
`python -m kit.train` against `torchrun --nproc-per-node 2 -m kit.train`, by the clock on the wall,
the same batch in all: tokens/s of the last row, when everything is warm; median over rounds. Two
cores must be free for it."""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=5)
    corpus = text.corpus("code")
    speed = against_bare(corpus, given)
    ends, curves = muon(corpus, given)
    shared = two_processes(corpus, given)
    sections = [
        common.Section("Against a bare loop", AGAINST_BARE, speed),
        common.Section("Muon against AdamW", MUON, ends),
        common.Section("Loss over CPU time", CURVES, curves),
        common.Section("Two processes", PROCESSES, shared),
        common.Section("Bars", "All must be reached.", bars(speed, ends, shared)),
    ]
    common.write(
        "lm",
        title="Language models: training",
        text=TEXT,
        sections=sections,
        facts=common.machine(),
        skipped=[],
        given=given,
    )


# ---- a bare loop


def against_bare(corpus: text.Corpus, given: Namespace) -> pd.DataFrame:
    """Race `fit_language` with AdamW against the plainest loop that does the same."""
    size = QUICK if given.quick else SPEED
    variants = {
        name: partial(_prepared, run, corpus.train, size)
        for name, run in ((OURS, ours), (BARE, bare))
    }
    judge = partial(train.bits_per_byte, tokens=corpus.validation, most=8 * size["context"])
    timed = common.race(variants, rounds=given.rounds, judge=judge)
    work = size["steps"] * size["batch"] * size["context"]
    table = common.compare(timed, ours=OURS, work=work, unit="tokens")
    table = table.rename(columns={"score": "final_bits", "score_sd": "final_bits_sd"})
    check_same_training(table)
    return table


def _prepared(
    run: Callable[..., nn.Module], tokens: np.ndarray, size: Mapping[str, int], seed: int
) -> Callable[[], nn.Module]:
    return partial(run, _gpt(size, seed), tokens, size, seed)


def _gpt(size: Mapping[str, int], seed: int) -> models.GPT:
    torch.manual_seed(seed)
    return models.GPT(depth=size["depth"], context=size["context"])


def ours(model: nn.Module, tokens: np.ndarray, size: Mapping[str, int], seed: int) -> nn.Module:
    """Train with the kit."""
    told = {"steps": size["steps"], "batch": size["batch"], "seed": seed, "lr": LR}
    told |= {"precision": "bfloat16", "optimizer": "adamw", "warmup": 0.0, "decay": 0.0}
    return train.fit_language(model, tokens, **told).model


def bare(model: nn.Module, tokens: np.ndarray, size: Mapping[str, int], seed: int) -> nn.Module:
    """Train with a loop of nanoGPT's kind."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    rest = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))
    told = {"context": size["context"], "batch": size["batch"], "seed": seed}
    model.train()
    for step in range(size["steps"]):
        x, y = text.windows(tokens, **told, step=step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
    return model


def check_same_training(table: pd.DataFrame) -> None:
    """Refuse to compare the speed of trainings that end at different losses."""
    bits = table.set_index("variant")["final_bits"]
    if abs(bits[OURS] - bits[BARE]) > SAME:
        raise checks.bad_value(
            "bench_lm.main",
            expected=f"a final loss within {SAME} of {bits[OURS]:.4f}",
            got=checks.Described(f"{bits[BARE]:.4f} by the {BARE}"),
            remedy="Make both train the same thing.",
        )


# ---- Muon


def muon(corpus: text.Corpus, given: Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train with AdamW at several learning rates, and with Muon for a part of the time."""
    size = QUICK if given.quick else LEARN
    runs = [("adamw", lr, size["steps"]) for lr in ADAMW_LRS]
    runs.append(("muon", MUON_LR, round(SHARE * size["steps"])))
    ends, curves = [], []
    for optimizer, lr, steps in runs:
        rows = pd.DataFrame(_learned(corpus, size, optimizer=optimizer, lr=lr, steps=steps))
        curves.append(rows.iloc[:-1].drop(columns="validation_bits"))
        ends.append(rows.iloc[-1].drop("bits_per_byte"))
    table = pd.DataFrame(ends).reset_index(drop=True)
    adamw = table[table["optimizer"] == "adamw"]
    table["share_of_cpu"] = table["cpu_s"] / adamw.loc[adamw["validation_bits"].idxmin(), "cpu_s"]
    return table, pd.concat(curves, ignore_index=True)


def _learned(
    corpus: text.Corpus, size: Mapping[str, int], *, optimizer: str, lr: float, steps: int
) -> Iterator[dict[str, Any]]:
    """Yield what a training has reached by which CPU time; last, how well it does on new text."""
    rows: list[dict[str, Any]] = []

    def tell(row: Mapping[str, float]) -> None:
        cpu_s = time.process_time() - start
        rows.append({"optimizer": optimizer, "lr": lr, "step": int(row["step"]), "cpu_s": cpu_s})
        rows[-1]["bits_per_byte"] = row["bits_per_byte"]

    told = {"steps": steps, "batch": size["batch"], "lr": lr, "optimizer": optimizer}
    told |= {"precision": "bfloat16", "warmup": 0.02, "decay": 0.6, "every": max(1, steps // 8)}
    model, start = _gpt(size, 0), time.process_time()
    train.fit_language(model, corpus.train, **told, tell=tell)
    yield from rows
    most = 8 * size["context"] if steps < 10 else 200_000
    yield rows[-1] | {"validation_bits": train.bits_per_byte(model, corpus.validation, most=most)}


# ---- two processes


def two_processes(corpus: text.Corpus, given: Namespace) -> pd.DataFrame:
    """Clock one process, and two that share the model in either way."""
    size, rounds = (QUICK, 1) if given.quick else (SHARED, min(3, given.rounds))
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    starts = {"one": [], "ddp": torchrun, "fsdp": torchrun}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "code.txt"
        source.write_bytes(corpus.train[:TEXT_BYTES].tobytes().replace(b"\0", b"\n"))
        told = [str(source), "--every", str(size["steps"] // 2), "--precision", "bfloat16"]
        told += [f"--{name}={value}" for name, value in size.items()]
        for _ in range(rounds):
            for name, start in starts.items():
                command = [sys.executable, "-m", *start, "kit.train", *told]
                command += [] if name == "one" else ["--parallel", name]
                rows.append((name, _tokens_per_s(command, Path(folder))))
    table = pd.DataFrame(rows, columns=["processes", "tokens_per_s"])
    table["round"] = table.groupby("processes").cumcount()
    speeds = table.pivot(index="round", columns="processes", values="tokens_per_s")[list(starts)]
    ratios = speeds.div(speeds["one"], axis=0)
    summed = {"tokens_per_wall_s": speeds.median(), "times_one": ratios.median()}
    summed |= {"times_one_low": ratios.min(), "times_one_high": ratios.max()}
    return pd.DataFrame(summed).rename_axis("processes").reset_index()


def _tokens_per_s(command: list[str], cache: Path) -> float:
    """Return what the command printed in its last row."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "KIT_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    head, *_, last, _ = done.stdout.splitlines()
    return float(last.split()[head.split().index("tokens_per_s")].replace(",", ""))


def bars(speed: pd.DataFrame, ends: pd.DataFrame, shared: pd.DataFrame) -> pd.DataFrame:
    """Return every bar beside what was measured."""
    adamw, by_muon = (ends[ends["optimizer"] == name] for name in ("adamw", "muon"))
    is_better = by_muon["validation_bits"].iloc[0] <= adamw["validation_bits"].min()
    measured = {
        # compare() tells how many times as fast ours is as the other
        "tokens/s, times a bare bfloat16 loop": speed.set_index("variant")["ratio_cpu"][BARE],
        "CPU time to AdamW's end loss, of AdamW's": by_muon["share_of_cpu"].iloc[0],
        "two processes, times one": shared.set_index("processes")["times_one"]["ddp"],
    }
    rows = []
    for name, bar in BARS.items():
        reached = measured[name] >= bar
        if "of AdamW's" in name:
            reached = is_better and measured[name] <= bar
        rows.append((name, bar, measured[name], "yes" if reached else "no"))
    return pd.DataFrame(rows, columns=["what", "bar", "measured", "reached"])


if __name__ == "__main__":
    main()
