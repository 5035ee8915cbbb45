"""Write requirements.lock and environment.yml from the packages of this Python; see `make lock`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = (
    "# The pins that make, CI, conda and Binder share. Made by `make lock`; do not edit by hand.\n"
)
LEFT_OUT = {"modelcare", "pip", "setuptools", "wheel"}


def pins() -> list[str]:
    """Return name==version of every package that is installed here, without local labels."""
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    # "+cpu" names a build, not a version: the pin must fit a GPU machine too
    named = (line.split("+")[0] for line in frozen)
    return sorted((p for p in named if p.split("==")[0].lower() not in LEFT_OUT), key=str.lower)


def environment(pinned: list[str]) -> str:
    """Return the conda environment with the same pins."""
    lines = "\n".join(f"      - {pin}" for pin in pinned)
    return (
        f"{HEAD}name: modelcare\nchannels:\n  - conda-forge\ndependencies:\n"
        f"  - python=3.11\n  - pip\n  - pip:\n{lines}\n      - -e .\n"
    )


if __name__ == "__main__":
    found = pins()
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(found) + "\n")
    (ROOT / "environment.yml").write_text(environment(found))
