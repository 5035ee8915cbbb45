"""One set of pins: the lock, conda's environment and pyproject agree."""

import tomllib
from pathlib import Path

import lock
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_the_environment_has_the_pins_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    pins = [line.split("==") for line in listed if not line.startswith("-e")]

    assert {canonicalize_name(name): version for name, version in pins} == locked()


def test_every_requirement_of_the_project_is_locked_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]

    for requirement in map(Requirement, wanted):
        assert locked()[canonicalize_name(requirement.name)] in requirement.specifier


def test_torch_is_pinned_where_a_cpu_build_is_known_to_work():
    assert locked()["torch"] == "2.13.0"


def test_an_environment_is_written_from_pins_alone():
    assert lock.environment(["a==1"]).endswith("  - pip:\n      - a==1\n      - -e .\n")
