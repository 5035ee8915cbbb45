"""The command says in one line what is wrong, and its exit code says whose fault it is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from reports import FAILING, GOOD, PARAMETERS, SLOW, notebook

from kit import cli
from kit.report import notebooks, runs

TABLE = Path(__file__).parents[1] / "notebooks" / "reports" / "table.ipynb"


@pytest.fixture
def kit(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kit", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def project(monkeypatch, tmp_path):
    """Put a folder of tiny notebooks in the place of the project's own."""
    (tmp_path / "notebooks" / "reports").mkdir(parents=True)
    notebook(tmp_path / "notebooks" / "01_lesson.ipynb", GOOD, head="# 1 · A lesson")
    typed = PARAMETERS + '\ndata: str = ""  # path of a file\nwidths: list[int] = [2]  # of layers'
    notebook(tmp_path / "notebooks" / "reports" / "tiny.ipynb", GOOD, parameters=typed)
    monkeypatch.setattr(notebooks, "folder", lambda: tmp_path / "notebooks")
    return tmp_path


# a job in the background ignores Ctrl-C, and so would what it starts
CALL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from kit.cli import main; main()"
)


@pytest.fixture
def start(project):
    """Return a function that starts the command in a process; none outlives the test."""
    started = []

    def run(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CALL, *words]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=project, env=os.environ, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def test_list_shows_every_notebook_with_its_parameters(kit, project):
    code, out, err = kit("list")

    assert (code, err) == (0, "")
    assert out == (
        "reports/tiny  Tiny\n"
        "    x: int = 1               what is recorded (0 to 10)\n"
        "    seed: int = 0            of nothing\n"
        "    data: str = ''           path of a file\n"
        "    widths: list[int] = [2]  of layers\n"
        "01_lesson  1 · A lesson\n"
        "    x: int = 1     what is recorded (0 to 10)\n"
        "    seed: int = 0  of nothing\n"
    )


def test_list_knows_the_projects_own_notebooks(kit):
    code, out, _ = kit("list")

    assert code == 0
    assert "reports/table  " in out
    assert "rows: int = 20000" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["tinny"],
            (
                "kit report: expected a known notebook, got 'tinny' (str). "
                "Did you mean 'tiny'? Known: 01_lesson, tiny."
            ),
        ),
        (
            ["tiny", "-p", "sed=1"],
            (
                "kit report: expected a known parameter, got 'sed' (str). "
                "Did you mean 'seed'? Known: data, seed, widths, x."
            ),
        ),
        (
            ["tiny", "-p", "x=many"],
            "kit report: expected x of type int, got 'many'. Type: -p x=1",
        ),
        (["tiny", "-p", "x=11"], "kit report: expected x from 0 to 10, got 11. Type: -p x=1"),
        (
            ["tiny", "-p", "x"],
            "kit report: expected name=value after -p, got 'x'. Type: -p x=…",
        ),
        (
            ["tiny", "--sweep", "widths=1,2"],
            (
                "kit report: expected a parameter with one value after --sweep, "
                "got widths, which is a list[int]. Run it once for each: -p widths=…"
            ),
        ),
        (
            ["tiny", "--sweep", "x=1,many"],
            "kit report: expected x of type int, got 'many'. Type: -p x=1",
        ),
        (
            ["tiny", "--out", "plain_file/out"],
            (
                "kit report: expected a folder to write to after --out, "
                "got 'plain_file/out' (Not a directory). Type: --out out/reports"
            ),
        ),
        (
            ["tiny", "--jobs", "0"],
            (
                "kit report: Invalid value for '--jobs': 0 is not in the range x>=1. "
                "See kit report --help."
            ),
        ),
    ],
)
def test_a_usage_error_is_one_line_and_runs_nothing(kit, project, words, line):
    (project / "plain_file").write_text("")

    code, out, err = kit("report", *words)

    assert (code, out, err) == (2, "", f"{line}\n")
    assert not list(project.glob("out/reports/*"))


def test_an_unknown_command_is_a_usage_error(kit):
    code, _, err = kit("repot")

    assert code == 2
    assert err.startswith("kit: No such command 'repot'.")
    assert err.count("\n") == 1


def test_a_checkout_below_a_hidden_folder_has_its_notebooks(kit, project, monkeypatch):
    hidden = project / ".home"
    hidden.mkdir()
    (project / "notebooks").rename(hidden / "notebooks")
    monkeypatch.setattr(notebooks, "folder", lambda: hidden / "notebooks")

    code, out, _ = kit("list")

    assert code == 0
    assert "reports/tiny  Tiny" in out


def test_a_broken_notebook_is_one_line(kit, project):
    notebook(project / "notebooks" / "02_odd.ipynb", GOOD, parameters="x: complex = 1")

    code, _, err = kit("list")

    assert code == 2
    assert err.count("\n") == 1
    assert "expected" in err


def test_a_report_without_a_name_runs_all_reports(kit, project):
    code, out, err = kit("report")

    (folder,) = (project / "out" / "reports").glob("tiny-*")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(f"tiny  {folder.relative_to(project)}/tiny.html")
    assert out.splitlines()[1] == "All runs: out/reports/index.html"


def test_sweeps_run_every_combination_and_failures_are_counted(kit, project):
    notebook(project / "bad.ipynb", FAILING)
    words = ["-p", "x=2", "--sweep", "seed=5,6", "--out", "o", "--jobs", "2"]

    code, out, err = kit("report", "tiny", "bad.ipynb", *words)

    found = [runs.read(path) for path in project.glob(f"o/*/{runs.FILE}")]
    assert sorted((run["notebook"], run["seed"], run["status"]) for run in found) == [
        ("bad", 5, "failed"),
        ("bad", 6, "failed"),
        ("tiny", 5, "ok"),
        ("tiny", 6, "ok"),
    ], [run["error"] for run in found]
    assert code == 1
    assert out.count("\nfailed ") + out.startswith("failed ") == 2
    assert sorted(err.splitlines()) == [
        "2 of 4 runs failed.",
        "bad x=2 seed=5: cell 4: ZeroDivisionError: division by zero",
        "bad x=2 seed=6: cell 4: ZeroDivisionError: division by zero",
    ]


def test_debug_shows_the_traceback(kit, project):
    notebook(project / "bad.ipynb", FAILING)

    code, _, err = kit("report", "bad.ipynb", "--debug")

    assert code == 1
    assert "Traceback (most recent call last)" in err


def test_a_relative_path_is_recorded_as_an_absolute_one(project):
    (job,) = cli._jobs("tiny", ["data=some.csv"], [])

    assert job.given == {"data": str(Path("some.csv").resolve())}


def test_two_commands_at_once_into_one_folder_lose_nothing(project, start):
    notebook(project / "mine.ipynb", GOOD)
    words = ["report", "mine.ipynb", "--out", "o"]

    started = [start(*words) for _ in range(2)]
    codes = [process.wait(60) for process in started]

    assert codes == [0, 0]
    assert len(list(project.glob(f"o/*/{runs.FILE}"))) == 2
    assert "2 runs, newest first" in (project / "o" / "index.html").read_text()


def test_ctrl_c_ends_the_kernels_and_leaves_what_is_done(project, start):
    note = "Path('pid').write_text(str(os.getpid()))"
    notebook(project / "slow.ipynb", SLOW.format(note=note))
    notebook(project / "mine.ipynb", GOOD)
    process = start("report", "mine.ipynb", "slow.ipynb", "mine.ipynb", "--out", "o")
    deadline = time.monotonic() + 60
    while not (project / "pid").exists() or not (project / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert err == "Interrupted.\n"
    assert not psutil.pid_exists(int((project / "pid").read_text()))
    found = {r["notebook"]: r for r in map(runs.read, project.glob(f"o/*/{runs.FILE}"))}
    assert found["mine"]["status"] == "ok"
    assert found["slow"]["error"]["message"] == "interrupted by Ctrl-C"
    assert "2 runs, newest first; 1 failed" in (project / "o" / "index.html").read_text()


def test_the_command_line_starts_without_torch_pandas_and_papermill():
    code = (
        "import sys, kit.cli; from kit.report import notebooks; notebooks.every(); "
        "print(sorted({'torch', 'pandas', 'numpy', 'papermill', 'nbconvert'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


# ---------------------------------------------------------------- bad tables, in the table report


@pytest.fixture(scope="module")
def first_half():
    """Return a function that runs the table report up to its encoder, in this process."""
    import nbformat

    sources = [c.source for c in nbformat.read(TABLE, 4).cells if c.cell_type == "code"]
    last = next(i for i, source in enumerate(sources) if "Encoder.fit" in source)

    def run(**values) -> dict:
        scope: dict = {}
        exec(sources[0], scope)
        scope |= {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}
        for source in sources[1 : last + 1]:
            exec(source, scope)
        return scope

    return run


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60).round(3), "b": list("xyz") * 20})
    return frame.assign(y=["yes", "no"] * 30)


def _bad(frame: pd.DataFrame | str | bytes):
    def write(path: Path) -> None:
        if isinstance(frame, bytes):
            path.write_bytes(frame)
        else:
            path.write_text(frame if isinstance(frame, str) else frame.to_csv(index=False))

    return write


WIDE = ",".join(f"c{i}" for i in range(9_999)) + ",y\n"
WIDE += "".join("1," * 9_999 + f"{i % 2}\n" for i in range(40))
RARE = _frame().assign(y=["maybe", *["yes", "no"] * 29, "no"])
BAD_TABLES = {
    "missing": (
        lambda path: (path.parent / "tabel.csv").write_text("a\n"),
        "data.read: expected a file, got '{path}' (no such file). Did you mean 'tabel.csv'?",
    ),
    "folder": (
        lambda path: (path.mkdir(), (path / "inside.csv").write_text("a\n")),
        (
            "data.read: expected a file, got '{path}' (a folder). "
            "Name the file in it, such as {path}/inside.csv."
        ),
    ),
    "empty": (
        _bad(""),
        (
            "data.read: expected a table, got '{path}' (an empty file). "
            "Write a header line and at least one row into it."
        ),
    ),
    "header": (
        _bad("a,b,y\n"),
        (
            "data.read: expected at least one row, got table.csv: a header with 3 columns and no "
            "rows. Add rows below the header."
        ),
    ),
    "one column": (
        _bad("y\n" + "0\n1\n" * 20),
        "data.split: expected a column beside the target, got a table of one column. Add a column.",
    ),
    "binary": (
        _bad(bytes(range(256)) * 8),
        (
            "data.read: expected CSV, TSV, JSON lines or Parquet, got table.csv: binary data. "
            "Export the table as CSV in UTF-8, or pass encoding=…."
        ),
    ),
    "10,000 columns": (
        _bad(WIDE),
        (
            "data.read: expected at most 2,000 columns, got 10,000. Pass the ones that matter: "
            "columns=['a', 'b'] (in a report: -p columns=a,b)."
        ),
    ),
    "names twice": (
        _bad("a,a,y\n" + "1,2,0\n3,4,1\n" * 20),
        (
            "data.read: expected column names that differ, got table.csv: 'a' more than once. "
            "Rename them in the header line."
        ),
    ),
    "target constant": (
        _bad(_frame().assign(y="yes")),
        (
            "data.split: expected two values or more in the target 'y', got 'yes' in every row. "
            "Choose another target."
        ),
    ),
    "target empty": (
        _bad(_frame().assign(y="")),
        (
            "data.split: expected values in the target 'y', got nothing but missing cells. "
            "Choose another target."
        ),
    ),
    "target misspelled": (
        _bad(_frame().rename(columns={"y": "yy"})),
        "data.split: expected a known column, got 'y' (str). Did you mean 'yy'? Known: a, b, yy.",
    ),
    "a class of one row": (
        _bad(RARE),
        (
            "data.split: expected at least 3 rows of each class in the target 'y', got 1 of "
            "'maybe'. Merge or drop it: frame[frame['y'] != 'maybe']."
        ),
    ),
    "infinities": (
        _bad(_frame().assign(a="inf")),
        (
            "data.Encoder: expected finite numbers in 'a', got 42 infinities. "
            "Replace them: frame['a'].replace([inf, -inf], nan)."
        ),
    ),
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_a_bad_table_gets_one_line_that_says_what_to_do(first_half, tmp_path, what):
    write, line = BAD_TABLES[what]
    path = tmp_path / "table.csv"
    write(path)

    with pytest.raises(ValueError) as caught:
        first_half(data=path, target="y")

    assert str(caught.value) == line.format(path=path)


def test_a_table_without_a_target_is_told_its_columns(first_half, tmp_path):
    _frame().to_csv(tmp_path / "table.csv", index=False)

    with pytest.raises(ValueError) as caught:
        first_half(data=tmp_path / "table.csv")

    assert str(caught.value) == (
        "data.split: expected the name of the column to predict, got none. "
        "Pass target='y', or another of: a, b, y (in a report: -p target=y)."
    )


def test_a_table_in_another_encoding_is_read_and_the_guess_is_noted(first_half, tmp_path):
    frame = _frame().assign(b=["Zürich", "Genève", "Château-d'Œx"] * 20)
    frame.to_csv(tmp_path / "table.csv", index=False, encoding="cp1252")

    names = first_half(data=tmp_path / "table.csv", target="y", columns=["a", "b"])

    assert set(names["frame"]["b"]) == {"Zürich", "Genève", "Château-d'Œx"}
    assert any("cp1252" in note for note in names["table"].notes)


def test_a_few_columns_of_a_wide_table_are_read(first_half, tmp_path):
    (tmp_path / "table.csv").write_text(WIDE.replace("\n1,", "\n7,", 20))

    names = first_half(data=tmp_path / "table.csv", target="y", columns=["c0", "c7"])

    assert list(names["frame"]) == ["c0", "c7", "y"]


def test_an_unknown_column_is_named_with_its_neighbour(first_half, tmp_path):
    _frame().assign(age=1).to_csv(tmp_path / "table.csv", index=False)

    with pytest.raises(ValueError) as caught:
        first_half(data=tmp_path / "table.csv", target="y", columns=["a", "aged"])

    assert str(caught.value) == (
        "data.read: expected a known column, got 'aged' (str). "
        "Did you mean 'age'? Known: a, age, b, y."
    )


@pytest.mark.slow
def test_a_bad_table_fails_its_run_with_one_line(kit, tmp_path):
    code, _, err = kit("report", "table", "-p", "data=nowhere.csv", "-p", "target=y")

    assert code == 1
    assert err.splitlines() == [
        (
            f"table data={tmp_path}/nowhere.csv target=y: cell 6: ValueError: data.read: expected "
            f"a file, got '{tmp_path}/nowhere.csv' (no such file). Check the path."
        ),
        "1 of 1 runs failed.",
    ]
