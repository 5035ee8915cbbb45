"""`import kit` is instant: heavy packages load only with what needs them."""

import json
import subprocess
import sys

import pytest

import kit

HEAVY = ("torch", "pandas", "numpy", "sklearn", "matplotlib", "IPython", "pyarrow")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_importing_the_kit_loads_no_other_package():
    assert not loaded_after("import kit") & set(HEAVY)


def test_checks_and_params_load_nothing_heavy_either():
    assert not loaded_after("from kit.base import checks, params, progress") & set(HEAVY)


def test_every_module_that_the_kit_names_can_be_reached():
    for name in kit.__all__:
        assert getattr(kit, name).__name__ == f"kit.{name}"
    assert dir(kit) == sorted(kit.__all__)


def test_a_misspelled_module_is_told_with_those_there_are():
    with pytest.raises(AttributeError) as caught:
        kit.trian  # noqa: B018

    names = ", ".join(kit.__all__)
    assert str(caught.value) == f"module 'kit' has no attribute 'trian'; it has {names}"
