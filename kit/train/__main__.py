"""Train a GPT from the command line, in one process or, by torchrun, in several.

python -m kit.train code --depth 4
torchrun --nproc-per-node 2 -m kit.train my_texts/ --depth 8 --parallel fsdp
"""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from torch import nn

from kit import models, text, train
from kit.base import checks, device
from kit.train import inputs, optimizers, processes

WHERE = "kit.train"
FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(hours=4)  # of those who wait while the first gathers a corpus
FILE = click.Path(dir_okay=False, path_type=Path)
COUNT = click.IntRange(min=1)


def main() -> None:
    """Run the command line; an error is one line on stderr."""
    os.environ["KIT_QUIET"] = "1"  # rows are printed as they come: no bar between them
    warnings.showwarning = lambda message, *_: _tell(str(message))
    try:
        code = command(prog_name=f"python -m {WHERE}", standalone_mode=False) or 0
    except click.UsageError as error:
        _tell(f"{WHERE}: {error.format_message().splitlines()[0]} See --help.")
        code = USAGE
    except (ValueError, TypeError) as error:
        _tell(str(error))
        code = USAGE
    except (KeyboardInterrupt, click.Abort):
        _tell(f"{WHERE}: interrupted. With --checkpoint, the same command goes on.")
        code = INTERRUPTED
    except (OSError, MemoryError, RuntimeError) as error:  # in this process alone
        line = next(iter(str(error).splitlines()), type(error).__name__)
        click.echo(f"{WHERE}: process {_rank()}: {line}", err=True)
        code = FAILED
    sys.stdout.flush()
    # not sys.exit: to part in an orderly way, one would wait for processes that may be gone
    os._exit(code)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("source", default="code")
@click.option("--depth", type=COUNT, default=6, help="Blocks; sets the rest of the model.")
@click.option("--context", type=COUNT, default=256, help="The longest text, in bytes.")
@click.option("--steps", type=COUNT, default=1000, help="Gradient steps.")
@click.option("--batch", type=COUNT, default=32, help="Windows a step, of all processes together.")
@click.option("--accumulate", type=COUNT, default=1, help="Parts of a process's share of a batch.")
@click.option("--lr", type=float, default=3e-3, help="The highest learning rate.")
@click.option("--optimizer", type=click.Choice(optimizers.NAMES), default="muon")
@click.option("--precision", type=click.Choice(inputs.PRECISIONS), default="auto")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--every", type=COUNT, default=100, help="Steps a row, and between checkpoints.")
@click.option("--checkpoint", type=FILE, help="Save to, and go on from; any number of processes.")
@click.option("--out", type=FILE, help="Save the trained model, for models.load_gpt.")
@click.option(
    "--parallel",
    type=click.Choice(["ddp", "fsdp"]),
    default="ddp",
    help="Under torchrun: a copy of the model in each process, or a part of it.",
)
def command(
    source: str, depth: int, context: int, seed: int, out: Path | None, parallel: str, **told: Any
) -> int:
    """Train a GPT on SOURCE: "code", a folder, a pattern or a file of text.

    Exit code: 0 trained to the end, 1 stopped before it or failed, 2 a wrong argument.
    """
    with _together(parallel) as where:
        processes.by_first(lambda: text.corpus(source))  # the others then find it gathered
        corpus = text.corpus(source)
        torch.manual_seed(seed)  # the same weights in every process
        model = models.GPT(depth=depth, context=context)
        fitted = train.fit_language(
            _shared(model, where, parallel),
            corpus.train,
            validation=corpus.validation,
            seed=seed,
            tell=_Rows(told["steps"], told["batch"] * context),
            **told,
        )
        if out:
            train.save(out, fitted.model, about={"model": "GPT", "shape": model.shape})
        if processes.rank() == 0:
            click.echo("  ".join(f"{label} {fact}" for label, fact in fitted.facts().items()))
    return 0 if fitted.stopped.startswith("after") else FAILED


@contextmanager
def _together(parallel: str) -> Iterator[torch.device]:
    """Join the processes that torchrun has started, and give the device of this one."""
    given = [name for name in BY_TORCHRUN if name in os.environ]
    world = os.environ.get("WORLD_SIZE", "1")
    if "WORLD_SIZE" not in given:
        if parallel == "fsdp":
            raise _no_torchrun("several processes to part the model among", "one")
        yield device.pick()
        return
    if len(given) < len(BY_TORCHRUN):
        missing = [name for name in BY_TORCHRUN if name not in given]
        raise _no_torchrun("what torchrun sets", f"WORLD_SIZE={world} without {', '.join(missing)}")
    where = _device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield where
    dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    where = device.pick()
    if where.type != "cuda":
        return torch.device("cpu")  # gloo knows no other
    if local_rank >= torch.cuda.device_count():
        raise checks.bad_value(
            WHERE,
            expected="a GPU for each process",
            got=checks.Described(f"{torch.cuda.device_count()} for process {local_rank}"),
            remedy="Start fewer with --nproc-per-node, or set KIT_DEVICE=cpu.",
        )
    where = torch.device("cuda", local_rank)
    torch.cuda.set_device(where)
    return where


def _shared(model: models.GPT, where: torch.device, parallel: str) -> nn.Module:
    """Return the model as its processes train it."""
    if not dist.is_initialized():
        return model.to(where)
    if parallel == "ddp":
        return nn.parallel.DistributedDataParallel(model.to(where))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(where.type, (processes.world(),))
    for part in (*model.blocks, model):  # one after the other, so that no device holds a whole one
        fully_shard(part, mesh=mesh)
    return model


class _Rows:
    """Print the rows of a training as they come, each with the time that is left."""

    def __init__(self, steps: int, tokens: int) -> None:
        """Take how many steps there are, and how many tokens a step."""
        self.steps, self.tokens, self.is_first = steps, tokens, True

    def __call__(self, row: Mapping[str, float]) -> None:
        left_s = (self.steps - row["step"]) * self.tokens / row["tokens_per_s"]
        cells = {"step": f"{row['step']:,.0f}", "bits_per_byte": f"{row['bits_per_byte']:.3f}"}
        cells["validation_bits"] = f"{row['validation_bits']:.3f}"
        cells["tokens_per_s"] = f"{row['tokens_per_s']:,.0f}"
        cells["left"] = str(timedelta(seconds=round(left_s)))
        if self.is_first:
            click.echo("  ".join(cells))
        self.is_first = False
        click.echo("  ".join(cell.rjust(len(name)) for name, cell in cells.items()))


def _no_torchrun(expected: str, got: str) -> ValueError:
    remedy = "Type: torchrun --nproc-per-node 2 -m kit.train …"
    return checks.bad_value(WHERE, expected=expected, got=checks.Described(got), remedy=remedy)


def _tell(line: str) -> None:
    """Print what all processes have met, once."""
    if _rank() == 0:
        click.echo(line, err=True)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


if __name__ == "__main__":
    main()
