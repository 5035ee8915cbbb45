"""Docs and public names agree: what is public is documented, what is documented exists."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import kit

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    m.name for m in pkgutil.walk_packages(kit.__path__, "kit.") if "__main__" not in m.name
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def public(module) -> list[tuple[str, object]]:
    own = [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return [
        (name, value) for name, value in own if inspect.isfunction(value) or inspect.isclass(value)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring_that_is_a_sentence(name):
    for own, value in public(importlib.import_module(name)):
        first = (inspect.getdoc(value) or "").split("\n")[0]

        assert first.endswith((".", "?")), f"{name}.{own}: {first!r}"


@pytest.mark.parametrize("name", MODULES)
def test_every_argument_of_a_public_function_is_explained(name):
    for own, value in public(importlib.import_module(name)):
        if not inspect.isfunction(value):
            continue
        doc = inspect.getdoc(value) or ""
        if "Args:" in doc:
            for argument in inspect.signature(value).parameters:
                assert re.search(rf"\b{argument}\b.*?:", doc), f"{name}.{own}: {argument}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_docs_exist(page):
    text = page.read_text()
    modules = "|".join(kit.__all__)
    spoken = set(re.findall(rf"`((?:{modules})\.[a-z_]\w*)", text))

    for dotted in spoken:
        module, name = dotted.split(".")[:2]
        if (ROOT / "kit" / dotted.replace(".", "/")).exists() or name in ("py", "ipynb"):
            continue
        assert hasattr(getattr(kit, module), name), f"{page.name}: {dotted}"


def test_the_readme_lists_every_notebook():
    readme = (ROOT / "README.md").read_text()
    notebooks = [p.relative_to(ROOT).as_posix() for p in (ROOT / "notebooks").rglob("*.ipynb")]

    missing = [name for name in notebooks if name not in readme and "checkpoints" not in name]

    assert missing == []


def test_the_readme_names_every_make_target():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    readme = (ROOT / "README.md").read_text()

    assert [t for t in targets if f"make {t}" not in readme and t != "help"] == []
