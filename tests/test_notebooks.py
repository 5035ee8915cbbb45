"""The gates of DESIGN.md §3: what every notebook must have before nbval compares its outputs."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from kit.base import params

ROOT = Path(__file__).parents[1]
ALL = sorted(
    p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
LESSONS = [path for path in ALL if path.parent.name == "notebooks"]
HEADER = re.compile(
    r"^Takes \d+ s and \d+\.\d GB on \d+ CPU cores · measured \d{4}-\d\d-\d\d$", re.M
)
SECTIONS = ["Explore", "Exercises", "With your own", "Beyond one machine", "What we found"]
MOST_LINES, MOST_BYTES, MOST_SECONDS = 12, 1_500_000, 90
MOST_IGNORED_FRAC = 0.25
TAGS = {
    "parameters",
    "long",
    "nbval-ignore-output",
    "raises-exception",
    "exercise-stub",
    "exercise-hint",
    "exercise-solution",
}

every = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list:
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == kind and cell.source.strip()]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


@every
def test_every_code_cell_was_executed_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code")]

    # nbval checks a cell without a count laxly: a stripped notebook would pass anything
    assert counts == list(range(1, len(counts) + 1))


@every
def test_no_stored_output_is_an_error_or_a_warning(path):
    outputs = [out for cell in cells(path, "code") for out in cell.outputs]

    assert [out for out in outputs if out.output_type == "error"] == []
    assert [out.text for out in outputs if out.get("name") == "stderr"] == []


@every
def test_parameters_parse_and_every_one_is_explained(path):
    found = params.read(path)

    assert found, "no cell tagged `parameters`"
    assert [each.name for each in found if not each.comment] == []


@every
def test_exactly_one_cell_holds_the_parameters(path):
    tagged = [cell for cell in cells(path, "code") if "parameters" in tags(cell)]

    assert len(tagged) == 1


@every
def test_cells_are_short(path):
    long = [
        cell.source
        for cell in cells(path, "code")
        if len(cell.source.splitlines()) > MOST_LINES and not tags(cell) & {"long", "parameters"}
    ]

    assert long == []


@every
def test_the_header_says_what_the_run_takes(path):
    head = cells(path, "markdown")[0].source

    assert head.startswith("# ")
    assert HEADER.search(head)
    assert int(re.search(r"Takes (\d+) s", head)[1]) <= MOST_SECONDS


@every
def test_the_file_is_small(path):
    assert path.stat().st_size <= MOST_BYTES


@every
def test_metadata_is_clean_and_tags_are_known(path):
    notebook = json.loads(path.read_text())
    seen = {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])}

    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert seen <= TAGS
    assert all(set(cell["metadata"]) <= {"tags", "jupyter"} for cell in notebook["cells"])


@every
def test_few_cells_escape_the_comparison(path):
    code = cells(path, "code")
    ignored = [cell for cell in code if "nbval-ignore-output" in tags(cell)]

    assert len(ignored) <= MOST_IGNORED_FRAC * len(code)


@every
def test_every_figure_stores_its_digest_and_its_alt_text(path):
    for cell in cells(path, "code"):
        for out in cell.outputs:
            if "image/png" in out.get("data", {}):
                assert out.data["text/plain"].startswith("figure: ")
                assert out.metadata["image/png"]["alt"]


@every
def test_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    links = re.findall(r"\]\(([^)#:\s]+)\)", text)

    assert [link for link in links if not (path.parent / link).exists()] == []


@every
def test_no_magics_no_path_tricks_no_prints_of_tables(path):
    source = "\n".join(cell.source for cell in cells(path, "code"))

    assert not re.search(r"^\s*[%!]|sys\.path|plt\.show|clear_output|widgets\.Output", source, re.M)


@lesson
def test_a_lesson_has_its_sections_in_order(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    places = [f"\n{text}".find(f"\n## {name}") for name in SECTIONS]

    assert -1 not in places
    assert places == sorted(places)


@lesson
def test_a_lesson_explores_and_ends_by_asserting_its_claims(path):
    code = [cell.source for cell in cells(path, "code")]

    assert sum("widgets.explore(" in source for source in code) == 1
    assert "assert " in code[-1]
    assert "Further reading" in cells(path, "markdown")[-1].source


@lesson
def test_prose_stands_before_code(path):
    kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
    runs = re.findall(r"c+", "".join(kind[0] for kind in kinds))

    assert max(map(len, runs)) <= 4, "more than four code cells without a word between them"


@lesson
def test_hints_and_solutions_are_folded(path):
    answers = [c for c in cells(path, "code") if tags(c) & {"exercise-hint", "exercise-solution"}]

    assert len(answers) >= 4
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in answers)
