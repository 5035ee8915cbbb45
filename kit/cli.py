"""The `kit` command: list the notebooks, run them as reports, look at the machine, open the lab."""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.base import checks, params
from kit.report import notebooks
from kit.report.job import Job

if TYPE_CHECKING:
    from kit.report.batch import Done

OUT = Path("out/reports")
FAILED, USAGE = 1, 2  # exit codes


def main() -> None:
    """Run the command line; an error is one line on stderr, and the exit code says whose it is."""
    try:
        sys.exit(cli(prog_name="kit", standalone_mode=False) or 0)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "kit"
        _complain(f"{command}: {error.format_message().splitlines()[0]} See {command} --help.")
        sys.exit(USAGE)
    except ValueError as error:
        if "--debug" in sys.argv:
            raise
        _complain(str(error))
        sys.exit(USAGE)
    except click.Abort:
        sys.exit(FAILED)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelcare")
def cli() -> None:
    """Look after models with notebooks: lessons to read, reports to run."""


@cli.command("list")
def list_notebooks() -> None:
    """List the notebooks with their parameters."""
    for name, path in notebooks.every().items():
        click.echo(f"{name}  {notebooks.title(path)}")
        rows = [(f"{p.name}: {p.type} = {p.default!r}", p.comment) for p in params.read(path)]
        width = max((len(left) for left, _ in rows), default=0)
        for left, comment in rows:
            click.echo(f"    {left:<{width}}  {comment}".rstrip())


@cli.command()
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option("-p", "given", metavar="NAME=VALUE", multiple=True, help="Set a parameter.")
@click.option(
    "--sweep",
    "swept",
    metavar="NAME=A,B,…",
    multiple=True,
    help="Run once for each value; with several sweeps, once for each combination.",
)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a run that takes longer.",
)
@click.option("--code", is_flag=True, help="Show the code cells on the page.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def report(
    names: Sequence[str],
    given: Sequence[str],
    swept: Sequence[str],
    out: Path,
    jobs: int,
    timeout: float | None,
    code: bool,
    debug: bool,
) -> int:
    """Run notebooks with parameters, each into a folder of its own.

    NAME is one that `kit list` shows, or the path of a notebook; without one, all reports run on
    the bundled data. A folder holds the page (.html), the executed notebook, and run.json;
    index.html beside the folders compares the runs.

    \b
    kit report table -p data=mine.csv -p target=churned
    kit report table --sweep seed=0,1,2,3 --jobs 2

    Exit code: 0 all runs went well, 1 some failed, 2 nothing was run: a usage error.
    """
    todo = [job for name in names or _reports() for job in _jobs(name, given, swept)]
    _check_writable(out)
    with _without("rfc3987_syntax"):
        from kit.report import batch  # here, not above: `kit list` has no need of papermill

    try:
        done = batch.run_all(
            todo,
            out=out,
            workers=jobs,
            timeout=timeout,
            code=code,
            tell=lambda each: _tell(each, debug),
        )
    except KeyboardInterrupt:
        _complain("Interrupted.")
        return FAILED
    except OSError as error:
        if debug:
            raise
        _complain(f"kit report: expected to write {out / 'index.html'}, got {error}.")
        return FAILED
    click.echo(f"All runs: {out / 'index.html'}")
    n_failed = sum(each.run["error"] is not None for each in done)
    if n_failed:
        _complain(f"{n_failed} of {len(done)} runs failed.")
    return FAILED if n_failed else 0


@cli.command()
def doctor() -> None:
    """Show versions, cores, memory, GPU, and what is missing with the command that adds it."""
    from kit.doctor import examine

    click.echo(examine().text())


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: Sequence[str]) -> int:
    """Open JupyterLab in the folder of the notebooks; further ARGUMENTS are passed on to it."""
    command = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(notebooks.folder())]
    try:
        return subprocess.run([*command, *arguments], check=False).returncode
    except KeyboardInterrupt:  # how one leaves JupyterLab
        return 0


def _reports() -> list[str]:
    return [name for name in notebooks.every() if name.startswith(notebooks.REPORTS)]


def _jobs(name: str, given: Sequence[str], swept: Sequence[str]) -> list[Job]:
    """Return the runs that were asked of one notebook, every value checked."""
    path = notebooks.find(name)
    known = params.read(path)
    fixed = params.parse_all(given, known)
    axes = [_values(each, known) for each in swept]
    combined = [{**fixed, **dict(pairs)} for pairs in itertools.product(*axes)]
    return [Job(path, _absolute(values, known)) for values in combined]


def _values(sweep: str, known: Sequence[params.Parameter]) -> list[tuple[str, params.Value]]:
    name, equals, texts = sweep.partition("=")
    kinds = {each.name: each.type for each in known}
    if equals and kinds.get(name, "").startswith("list"):
        raise checks.bad_value(
            "kit report",
            expected="a parameter with one value after --sweep",
            got=checks.Described(f"{name}, which is a {kinds[name]}"),
            remedy=f"Run it once for each: -p {name}=…",
        )
    pairs = [f"{name}={text}" for text in texts.split(",")] if equals else [sweep]
    return [item for pair in pairs for item in params.parse_all([pair], known).items()]


def _absolute(
    values: dict[str, params.Value], known: Sequence[params.Parameter]
) -> dict[str, params.Value]:
    """Make relative paths absolute: the record has to say which file it was, from anywhere."""
    paths = {each.name for each in known if each.comment.startswith("path")}
    return {
        name: str(Path(value).expanduser().resolve())
        if name in paths and isinstance(value, str) and value
        else value
        for name, value in values.items()
    }


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise checks.bad_value(
            "kit report",
            expected="a folder to write to after --out",
            got=checks.Described(f"{str(out)!r} ({error.strerror})"),
            remedy=f"Type: --out {OUT}",
        ) from None


def _tell(done: "Done", debug: bool) -> None:
    run = done.run
    parameters = " ".join(f"{name}={value}" for name, value in done.job.given.items())
    named = f"{done.job.name} {parameters}".strip()
    if run["error"] is None:
        page = done.folder / run["files"]["page"]
        click.echo(f"ok      {run['seconds']:6.1f} s  {named}  {page}")
        return
    error = run["error"]
    click.echo(f"failed  {run['seconds']:6.1f} s  {named}  {done.folder}")
    where = f"cell {error['cell']}: " if error["cell"] is not None else ""
    if debug and done.traceback:
        _complain(done.traceback)
    _complain(f"{named}: {where}{error['type']}: {error['message']}")


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Import what is imported in the block as if `package` were not installed.

    jsonschema, which reads notebooks, builds a grammar of internationalised addresses with it on
    import: 1.4 s, over half of the start of a report, for addresses that notebooks do not have.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _complain(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
