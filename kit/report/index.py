"""The list of all runs in a folder, made from their run.json files and from nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kit.base import storage
from kit.base.numbers import short
from kit.report import page, runs
from kit.report.metrics import shown

FILE = "index.html"
POLICY = "default-src 'none'; img-src * data:; style-src 'unsafe-inline'"
Run = Mapping[str, Any]


def rebuild(out: Path) -> Path:
    """Write the index of the runs below `out`, and return its path.

    Two processes may do so at the same time. The one that wrote with fewer runs in view notices
    when it looks again after writing, so none is lost.
    """
    seen = None
    while seen != (files := _files(out)):
        seen = files
        storage.write_text(out / FILE, render(out, files))
    return out / FILE


def render(out: Path, files: Sequence[Path]) -> str:
    """Return the index page: a table for each notebook, the one that ran last first."""
    found, unreadable = [], []
    for file in files:
        try:
            found.append((file.parent.name, runs.read(file)))
        except (ValueError, OSError):
            unreadable.append(file.relative_to(out).as_posix())
    found.sort(key=lambda pair: (pair[1]["started"], pair[0]), reverse=True)
    by_notebook: dict[str, list[tuple[str, Run]]] = {}
    for folder, run in found:
        by_notebook.setdefault(run["notebook"], []).append((folder, run))
    sections = "".join(_section(name, group) for name, group in by_notebook.items())
    n_failed = sum(run["status"] == runs.FAILED for _, run in found)
    count = f"{len(found)} run{'' if len(found) == 1 else 's'}, newest first"
    count += f"; {n_failed} failed" if n_failed else ""
    notes = "".join(f'<p class="note">Not readable: {escape(name)}</p>' for name in unreadable)
    body = f'<main class="wide"><h1>Runs</h1><p class="note">{count}</p>{sections}{notes}</main>'
    return page.document(title="Runs", body=body, style=page.style(), policy=POLICY)


def _files(out: Path) -> tuple[Path, ...]:
    return tuple(sorted(out.glob(f"*/{runs.FILE}")))


def _section(name: str, group: list[tuple[str, Run]]) -> str:
    """Draw the runs of one notebook side by side; what all share is said once, above."""
    every = [run["parameters"] for _, run in group]
    varied = [key for key in _keys(every) if len({repr(each.get(key)) for each in every}) > 1]
    shared = {key: value for key, value in every[0].items() if key not in varied}
    metrics = _keys(run["metrics"] for _, run in group)
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in [*varied, *metrics])
    rows = "".join(_row(folder, run, varied, metrics) for folder, run in group)
    title = group[0][1]["title"] or name
    return (
        f'<h2 id="{escape(name)}">{escape(title)}</h2>'
        f'<p class="parameters">{page.parameters(shared)}</p>'
        '<div class="scroll"><table class="runs"><thead><tr><th></th><th class="run">run</th>'
        f"{head}<th>seconds</th><th>MiB</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(folder: str, run: Run, varied: Sequence[str], metrics: Sequence[str]) -> str:
    cells = [_value(run["parameters"].get(key)) for key in varied]
    cells += [escape(shown(run["metrics"].get(key))) for key in metrics]
    cells += [short(run["seconds"]), shown(run["peak_memory_mib"])]
    rest = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><td class="thumb">{_thumb(folder, run)}</td>{_run_cell(folder, run)}{rest}</tr>'


def _run_cell(folder: str, run: Run) -> str:
    page_file = run["files"].get("page")
    name = page.when(run["started"])
    link = f'<a href="{escape(folder)}/{escape(page_file)}">{name}</a>' if page_file else name
    why = ""
    if run["error"] is not None:
        line = escape(f"{run['error']['type']}: {run['error']['message']}"[:300])
        why = f'<div class="why">{line}</div>'
    status = f'<span class="status {run["status"]}">{run["status"]}</span>'
    return f'<td class="run">{status} {link}{why}</td>'


def _thumb(folder: str, run: Run) -> str:
    figure = run["files"].get("figure")
    if not figure:
        return ""
    alt = escape(run["files"].get("figure_alt") or "first figure of the run")
    return f'<img src="{escape(folder)}/{escape(figure)}" alt="{alt}" loading="lazy">'


def _keys(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for each in mappings for key in each))


def _value(value: object) -> str:
    return page.named(None if value == "" else value)
