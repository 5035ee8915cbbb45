"""Turn an executed notebook into one page that opens anywhere: no script, no network, no TeX."""

import base64
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pygments.formatters import HtmlFormatter

from kit.base.numbers import short
from kit.report.metrics import shown

FAILED_CELL = "failed-cell"  # anchor
N_TILES = 5
# whatever a notebook shows, the page fetches nothing and runs nothing
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
# what the bundled run took; the foot of the page says what this one did
TO_NOTEBOOK = re.compile(r"\[([^\]]*)\]\([^)\s]+\.ipynb\)")
STAMP = re.compile(r"^Takes .* measured \d{4}-\d\d-\d\d$", re.M)


def render(notebook: NotebookNode, run: Mapping[str, Any], *, code: bool = False) -> str:
    """Return the page of a run.

    Args:
        notebook: executed; it stays as it is.
        run: its record, as `runs.validate` knows it.
        code: show the code cells too.
    """
    body, _ = _exporter(code).from_notebook_node(_for_page(notebook, run["error"], code))
    return document(
        title=run["title"] or run["notebook"],
        body=f"<main>{_head(run)}\n{body}</main>\n{_foot(run)}",
        style=style() + (_code_style() if code else ""),
        policy=POLICY,
    )


def document(*, title: str, body: str, style: str, policy: str) -> str:
    """Return a whole HTML document around `body`."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


@cache
def style() -> str:
    """Return the style sheet of all pages."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def parameters(values: Mapping[str, Any]) -> str:
    """Return parameters as a line of HTML; what is empty, the default, is left out."""
    return " ".join(
        f'<span class="pair" title="{escape(str(value))}">{escape(name)} '
        f"<b>{named(value)}</b></span>"
        for name, value in values.items()
        if value not in ("", [])
    )


def named(value: object) -> str:
    """Return the value of a parameter as HTML: numbers marked in thousands, paths by their ends."""
    if isinstance(value, list):
        return ", ".join(map(named, value))
    if isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value is None:
        return "–"
    return escape(Path(str(value)).name if Path(str(value)).is_absolute() else str(value))


def first_figure(notebook: NotebookNode) -> tuple[bytes, str] | None:
    """Return the first picture of an executed notebook as PNG with its alt text, if it has one."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output["metadata"].get("image/png", {}).get("alt", "")
                return base64.b64decode(output["data"]["image/png"]), alt
    return None


class _Renderer(IPythonRenderer):
    """Markdown with MathML in the place of TeX."""

    def inline_math(self, body: str) -> str:
        return mathml(body, display="inline")

    def block_math(self, body: str) -> str:
        return mathml(body, display="block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display="block")


def mathml(tex: str, *, display: str) -> str:
    """Turn TeX into MathML, which browsers draw by themselves; what cannot be read stays TeX.

    Args:
        tex: without its dollars.
        display: "inline" or "block".
    """
    try:
        return convert(tex.strip(), display=display)
    except Exception:  # any of a dozen kinds, all of them "this is not TeX as I know it"
        return f"<code>{escape(tex)}</code>"


def _markdown(source: str) -> str:
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)


def _exporter(code: bool) -> HTMLExporter:
    exporter = HTMLExporter(template_name="basic")
    exporter.exclude_input = not code
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", _markdown)
    return exporter


def _for_page(notebook: NotebookNode, error: Mapping[str, Any] | None, code: bool) -> NotebookNode:
    """Return a copy with what a page can show; it ends at the cell that failed, if one did."""
    cells = [_cell(cell, code) for cell in notebook.cells]
    if error is not None and error["cell"] is not None:
        failed = error["cell"] - 1
        cells = [*cells[:failed], new_markdown_cell(_error_cell(error)), cells[failed]]
    return NotebookNode(notebook, cells=cells)


def _cell(cell: NotebookNode, code: bool) -> NotebookNode:
    if cell.cell_type == "markdown":
        # no notebook lies beside the page
        source = TO_NOTEBOOK.sub(r"\1", STAMP.sub("", cell.source))
        return NotebookNode(cell, source=source)
    if cell.cell_type != "code":
        return cell
    outputs = [_for_browser(output) for output in cell.outputs]
    if not code:
        # the error's line says it; a traceback through code that is not shown helps nobody
        outputs = [output for output in outputs if output.output_type != "error"]
    return NotebookNode(cell, outputs=outputs)


def _for_browser(output: NotebookNode) -> NotebookNode:
    """Keep the forms of an output that need no script: a widget falls back to its text."""
    if "data" not in output:
        return output
    data = {
        mime: value
        for mime, value in output.data.items()
        if mime != "application/javascript" and not mime.startswith("application/vnd.")
    }
    if "text/latex" in data:
        tex = data.pop("text/latex").strip().strip("$")
        data.setdefault("text/html", mathml(tex, display="block"))
    return NotebookNode(output, data=data)


def _error_cell(error: Mapping[str, Any]) -> str:
    line = escape(f"{error['type']}: {error['message']}")
    source = escape(error["source"])
    return (
        f'<div class="error" id="{FAILED_CELL}"><b>This cell failed</b> <code>{source}</code>'
        f"<br>{line}</div>"
    )


def _head(run: Mapping[str, Any]) -> str:
    banner = ""
    if run["error"] is not None:
        line = escape(f"{run['error']['type']}: {run['error']['message']}")
        where = f'<a href="#{FAILED_CELL}">cell {run["error"]["cell"]}</a>: '
        where = where if run["error"]["cell"] is not None else ""
        banner = f'<p class="error"><b>This run failed.</b> {where}{line}</p>'
    return (
        '<header><p><a href="../index.html">All runs</a>'
        f'<span class="when">{escape(when(run["started"]))}</span></p>'
        f'<p class="parameters">{parameters(run["parameters"])}</p></header>{banner}'
        f"{_tiles(run['metrics'])}"
    )


def _tiles(metrics: Mapping[str, Any]) -> str:
    """Draw the first metrics large: they are what one opens a report for."""
    tiles = "".join(
        f"<div><span>{escape(name.replace('_', ' '))}</span><b>{escape(shown(value))}</b></div>"
        for name, value in list(metrics.items())[:N_TILES]
    )
    return f'<div class="tiles">{tiles}</div>' if tiles else ""


def _foot(run: Mapping[str, Any]) -> str:
    facts = [f"{run['notebook']} took {short(run['seconds'])} s"]
    if run["peak_memory_mib"] is not None:
        facts[0] += f" and {shown(run['peak_memory_mib'])} MiB"
    if run["device"]:
        facts.append(f"on {run['device']['name']}: {run['device']['why']}")
    facts.append(", ".join(f"{name} {version}" for name, version in run["versions"].items()))
    if run["git"]:
        changed = " with changes" if run["git"]["dirty"] else ""
        facts.append(f"revision {run['git']['revision'][:10]}{changed}")
    return f"<footer>{' · '.join(map(escape, facts))}</footer>"


def when(started: str) -> str:
    """Turn 2026-11-22T02:15:30+00:00 into 2026-11-22 02:15 UTC."""
    return f"{started[:10]} {started[11:16]} UTC"


def _code_style() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
