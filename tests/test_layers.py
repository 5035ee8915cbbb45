"""The arrows of DESIGN.md §2: who may import whom inside kit."""

import ast
from pathlib import Path

import pytest

KIT = Path(__file__).parents[1] / "kit"
GROUND = {"base"}
STUFF = {"data", "text", "models"}  # what operations eat
FACES = {"show", "widgets", "lesson", "exercises"}
USES = {"tune": {"train"}}  # tuning is training many times: the one arrow between operations
TOP = {"report", "cli", "doctor"}  # may put everything together
MODULES = sorted(KIT.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(KIT).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("kit.")}
    return parts - {part(path)}


def allowed(name: str) -> set[str]:
    if name in GROUND:
        return set()
    if name in STUFF:
        return GROUND | STUFF
    if name in FACES:
        return GROUND | FACES
    if name in TOP:
        return GROUND | STUFF | FACES | TOP
    # an operation: never another operation, but for the arrows that USES names
    return GROUND | STUFF | {"show"} | USES.get(name, set())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(KIT)))
def test_a_module_imports_only_what_lies_below_it(path):
    if path == KIT / "__init__.py":
        return

    assert imported_parts(path) <= allowed(part(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(KIT)))
def test_a_module_says_first_what_it_is_for(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]

    assert first.endswith((".", "`."))
