"""The doctor says what is here, what is missing, and what to type."""

import sys
from importlib import metadata

import pytest

from kit import cli, doctor
from kit.base import machine


def _without(monkeypatch, **versions: str):
    """Pretend that packages have other versions, or are not there ("")."""
    real = metadata.version

    def version(name: str) -> str:
        given = versions.get(name.replace("-", "_"))
        if given == "":
            raise metadata.PackageNotFoundError(name)
        return given or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_a_whole_installation_lacks_nothing():
    found = doctor.examine()

    rows = found.table.set_index("what")
    assert found.commands == ()
    assert found.facts()["missing"] == "nothing"
    assert rows.loc["cores", "found"] == str(machine.cores())
    assert rows.loc["torch", "found"] == metadata.version("torch")
    assert rows.loc["device", "note"]


@pytest.mark.parametrize(
    ("versions", "package", "note", "command"),
    [
        ({"nbval": ""}, "nbval", "expected nbval>=0.11 (for modelcare[test])", ".[test]"),
        ({"torch": "1.0"}, "torch", "expected torch>=2.6", "."),
    ],
)
def test_what_is_missing_or_too_old_comes_with_its_command(
    monkeypatch, versions, package, note, command
):
    _without(monkeypatch, **versions)

    found = doctor.examine()

    row = found.table.set_index("what").loc[package]
    assert row["note"] == note
    assert row["found"] == (versions[package] or "missing")
    (typed,) = found.commands
    assert typed.replace("'", "") == f"pip install -e {command}"
    assert found.facts()["missing"] == typed


def test_the_command_prints_the_table_and_what_to_type(monkeypatch, capsys):
    _without(monkeypatch, nbval="")
    monkeypatch.setattr(sys, "argv", ["kit", "doctor"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert any(line.startswith("python ") for line in lines)
    assert any(line.startswith("nbval ") and "missing" in line for line in lines)
    assert lines[-1] == "To add what is missing: pip install -e '.[test]'"


def test_a_process_knows_its_peak_and_a_dead_one_has_none():
    import os

    assert 1 < machine.peak_mib(os.getpid()) < machine.memory_mib()
    assert machine.peak_mib(2**22 + 1) is None
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
