"""Where the notebooks are, and which one a name means."""

import json
from collections.abc import Iterator
from pathlib import Path

from kit.base import checks

REPORTS = "reports/"


def folder() -> Path:
    """Return the folder of the project's notebooks.

    Raises:
        ValueError: the kit was installed without them.
    """
    here = Path(__file__).parents[2] / "notebooks"
    if not here.is_dir():
        raise checks.bad_value(
            "kit report",
            expected="the project's notebooks folder",
            got=str(here),
            remedy="Clone the project and install it from there: pip install -e .",
        )
    return here


def every() -> dict[str, Path]:
    """Return name -> path of all notebooks, the reports first, then the lessons in order."""
    root = folder()
    named = {path.relative_to(root).with_suffix("").as_posix(): path for path in _visible(root)}
    order = sorted(named, key=lambda name: (not name.startswith(REPORTS), name))
    return {name: named[name] for name in order}


def find(name: str) -> Path:
    """Return the notebook that a name means.

    Args:
        name: as `every` gives it, without its folder if you like (`table`), or the path of a
            notebook of one's own.

    Raises:
        ValueError: no notebook of that name; the nearest one is named.
    """
    known = every()
    by_stem = {path.stem: path for path in known.values()}
    if name in known:
        return known[name]
    if name in by_stem:
        return by_stem[name]
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    raise checks.unknown_name("kit report", "notebook", got=name, known=by_stem)


def _visible(root: Path) -> Iterator[Path]:
    for path in root.rglob("*.ipynb"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def title(path: Path) -> str:
    """Return the first heading of a notebook, without its marks; empty without one."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "markdown" else ():
            if line.startswith("#"):
                return line.strip("# ")
    return ""
