"""A run leaves a page, a notebook and a record, whatever becomes of it."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4
from papermill.iorw import papermill_io
from reports import DYING, FAILING, GOOD, SLOW, notebook

from kit import report
from kit.base import machine, storage
from kit.report import batch, execute, index, metrics, page, runs
from kit.report.execute import Kernels
from kit.report.job import Job

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "notebooks" / "reports" / "table.ipynb"
RUN = {
    "schema": 1,
    "notebook": "tiny",
    "title": "Tiny",
    "started": "2026-11-22T02:15:30+00:00",
    "status": "ok",
    "error": None,
    "parameters": {"x": 1, "seed": 0, "path": ""},
    "metrics": {"loss": 0.457},
    "seed": 0,
    "seconds": 1.25,
    "peak_memory_mib": 52.5,
    "device": {"name": "cpu", "why": "torch was not loaded"},
    "versions": {"python": "3.11.7"},
    "git": None,
    "files": {"notebook": "tiny.ipynb", "page": "tiny.html", "figure": None, "figure_alt": None},
}
ERROR = {"cell": 2, "source": "y = <1>", "type": "ValueError", "message": "not <this>"}


# ---------------------------------------------------------------- record


def test_record_shows_three_digits_as_text_as_table_and_for_the_record():
    found = report.record(log_loss=0.456789, rows=20_000, best="trees")

    data, metadata = found._repr_mimebundle_()

    assert data["text/plain"] == "log_loss  0.457\nrows      20,000\nbest      trees"
    assert "<tr><th>log_loss</th><td>0.457</td></tr>" in data["text/html"]
    assert data[metrics.MIME] == {"log_loss": 0.457, "rows": 20_000, "best": "trees"}
    assert metadata[metrics.MIME]["name"] in {"cpu", "cuda", "mps"}


@given(st.floats(-1e300, 1e300))
def test_record_keeps_a_fraction_to_half_a_unit_of_its_third_digit(value):
    kept = report.record(value=value).values["value"]

    assert kept == float(f"{kept:.3g}")
    assert kept == pytest.approx(value, rel=0.00501, abs=1e-320)


def test_record_takes_numpy_and_torch_scalars_for_numbers():
    found = report.record(a=np.float32(0.5), b=torch.tensor(2), c=np.bool_(True), d=np.int64(7))

    assert found.values == {"a": 0.5, "b": 2, "c": True, "d": 7}
    assert [type(value) for value in found.values.values()] == [float, int, bool, int]


def test_record_has_no_word_for_what_is_not_finite():
    found = report.record(auc=math.nan, loss=math.inf)

    assert found.values == {"auc": None, "loss": None}
    assert repr(found) == "auc   –\nloss  –"


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), np.array([]), [0.5], {"a": 1}])
def test_record_refuses_what_is_not_one_value(value):
    with pytest.raises(TypeError) as caught:
        report.record(score=value)

    assert str(caught.value).startswith(
        "report.record: expected a number, text, true/false or None for score, got "
    )
    assert str(caught.value).endswith(". Pass one value: record(score=0.5).")


def test_collect_takes_the_last_word_on_each_metric():
    outputs = [_output(a=1, b=2), v4.new_output("stream")]
    cells = [v4.new_code_cell(outputs=outputs), v4.new_markdown_cell()]
    cells.append(v4.new_code_cell(outputs=[_output(b=3)]))

    values, device = metrics.collect(cells)

    assert values == {"a": 1, "b": 3}
    assert device["name"] in {"cpu", "cuda", "mps"}


def _output(**values):
    data, metadata = report.record(**values)._repr_mimebundle_()
    return v4.new_output("display_data", data, metadata=metadata)


# ---------------------------------------------------------------- run.json


def test_validate_returns_a_whole_run():
    assert runs.validate(RUN) is RUN


@pytest.mark.parametrize("field", runs.FIELDS)
def test_validate_misses_every_field(field):
    run = {name: value for name, value in RUN.items() if name != field}

    with pytest.raises(ValueError) as caught:
        runs.validate(run)

    assert str(caught.value) == (
        f"runs.validate: expected the fields {', '.join(runs.FIELDS)}, "
        f"got {field} missing or unknown. Run the report again."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "more missing or unknown"),
        ({"seconds": "1"}, "expected seconds of type int or float, got '1'"),
        ({"seconds": True}, "expected seconds of type int or float, got True"),
        ({"seed": True}, "expected seed of type int or null, got True"),
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"status": "fine"}, "expected status 'ok' or 'failed', got 'fine'"),
        ({"status": "failed"}, "expected an error if, and only if, the run failed"),
        ({"error": ERROR}, "expected an error if, and only if, the run failed"),
        ({"error": {"cell": 1}, "status": "failed"}, "error.source missing or unknown"),
    ],
)
def test_validate_says_what_is_wrong(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        runs.validate(RUN | change)


# ---------------------------------------------------------------- page


def _page(*cells, run=RUN, code=False):
    return page.render(v4.new_notebook(cells=list(cells)), run, code=code)


def test_a_page_loads_nothing_and_runs_nothing():
    outputs = [
        v4.new_output("display_data", {"application/javascript": "alert(1)", "text/plain": "js"}),
        v4.new_output(
            "display_data",
            {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "a dial"},
        ),
    ]
    made = _page(v4.new_markdown_cell("# Head\n\n$x^2$"), v4.new_code_cell("1", outputs=outputs))

    assert not re.search(r"<script|<link|src=.?http|url\(|@import|MathJax|require", made)
    assert "default-src 'none'" in made
    assert "a dial" in made
    assert "alert(1)" not in made


def test_tex_becomes_mathml_except_in_code():
    made = _page(v4.new_markdown_cell("As $x^2$ and\n\n$$\\frac{a}{b}$$\n\nbut `$5` stays."))

    assert made.count("<math") == 2
    assert '<math display="block"' in made
    assert "<mfrac>" in made
    assert "<code>$5</code>" in made
    assert "$$" not in made


def test_tex_in_an_output_becomes_mathml_and_bad_tex_stays_readable():
    output = v4.new_output("display_data", {"text/latex": "$$y^2$$", "text/plain": "Math"})

    made = _page(v4.new_code_cell(outputs=[output]))

    assert "<msup>" in made
    assert page.mathml(r"\left(", display="inline") == r"<code>\left(</code>"


def test_code_is_shown_only_when_asked_for():
    cell = v4.new_code_cell("secret = 42", outputs=[v4.new_output("stream", text="shown")])

    without, with_code = _page(cell), _page(cell, code=True)

    assert "secret" not in without
    assert "shown" in without
    assert "secret" in with_code
    assert ".highlight" in with_code


def test_figures_carry_their_alt_text():
    data, alt = {"image/png": "QUJD", "text/plain": "figure"}, "Rise & fall"
    output = v4.new_output("display_data", data, metadata={"image/png": {"alt": alt}})
    cell = v4.new_code_cell(outputs=[output])

    made = _page(cell)

    assert 'alt="Rise &amp; fall"' in made
    assert page.first_figure(v4.new_notebook(cells=[cell])) == (b"ABC", alt)


def test_the_time_of_the_bundled_run_is_not_this_runs():
    made = _page(v4.new_markdown_cell("Head\n\nTakes 3 s and 0.4 GB · measured 2026-11-22"))

    assert "measured" not in made
    assert "tiny took 1.25 s and 52.5 MiB" in made


def test_a_link_to_a_notebook_that_is_not_there_becomes_its_words():
    made = _page(v4.new_markdown_cell("[3 · Train](03_train.ipynb) and [a site](https://a.org)"))

    assert "ipynb" not in made
    assert "3 · Train" in made
    assert 'href="https://a.org"' in made


def test_the_page_of_a_failed_run_says_why_and_ends_there():
    cells = [v4.new_markdown_cell(f"part {i}") for i in (1, 2, 3)]

    made = _page(*cells, run=RUN | {"status": "failed", "error": ERROR})

    assert "This run failed." in made
    assert made.count("ValueError: not &lt;this&gt;") == 2
    assert "<code>y = &lt;1&gt;</code>" in made
    assert f'href="#{page.FAILED_CELL}"' in made
    assert "part 2" in made
    assert "part 3" not in made


def test_parameters_are_escaped_and_paths_are_shown_by_their_names():
    given = {"data": "/far/away/my<file>.csv", "rows": 20_000, "empty": "", "empty_too": []}

    made = page.parameters(given)

    assert "<b>my&lt;file&gt;.csv</b>" in made
    assert "<b>20,000</b>" in made
    assert "empty" not in made


# ---------------------------------------------------------------- index


def _stored(out, name, **changes):
    storage.write_json(out / name / runs.FILE, RUN | changes)


def test_the_index_puts_runs_side_by_side_the_newest_first(tmp_path):
    _stored(tmp_path, "tiny-1", metrics={"loss": 0.5}, parameters={"x": 1, "seed": 7})
    later = {"started": "2026-11-23T00:00:00+00:00", "metrics": {"loss": 0.25, "auc": None}}
    _stored(tmp_path, "tiny-2", **later, parameters={"x": 2, "seed": 7})

    text = index.rebuild(tmp_path).read_text()

    assert "2 runs, newest first" in text
    assert text.index('href="tiny-2/tiny.html"') < text.index('href="tiny-1/tiny.html"')
    columns = ["x", "loss", "auc", "seconds", "MiB"]
    assert re.findall(r"<th>([^<]+)</th>", text) == columns
    assert "<td>2</td><td>0.25</td><td>–</td>" in text
    assert "<td>1</td><td>0.5</td><td>–</td>" in text
    assert "seed <b>7</b>" in text


def test_the_index_shows_failures_and_names_what_it_cannot_read(tmp_path):
    _stored(tmp_path, "tiny-1", status="failed", error=ERROR)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / runs.FILE).write_text("{")

    text = index.rebuild(tmp_path).read_text()

    assert "1 run, newest first; 1 failed" in text
    assert '<div class="why">ValueError: not &lt;this&gt;</div>' in text
    assert "Not readable: broken/run.json" in text


def test_a_run_that_ends_while_the_index_is_written_is_not_lost(tmp_path, monkeypatch):
    _stored(tmp_path, "first")
    render = index.render

    def slow_render(*given):
        text = render(*given)
        _stored(tmp_path, "second")
        return text

    monkeypatch.setattr(index, "render", slow_render)

    text = index.rebuild(tmp_path).read_text()

    assert 'href="first/tiny.html"' in text
    assert 'href="second/tiny.html"' in text


def test_folders_claimed_at_the_same_time_are_all_different(tmp_path):
    start = threading.Barrier(8)

    def claim(_):
        start.wait()
        return batch.claim(tmp_path, "tiny")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(claim, range(8)))

    assert len(set(folders)) == 8
    assert all(folder.is_dir() for folder in folders)


# ---------------------------------------------------------------- runs, with kernels


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run a good notebook twice and three bad ones, two at a time, into one folder."""
    root = tmp_path_factory.mktemp("runs")
    slow = SLOW.format(note="'asleep'")
    paths = {
        name: notebook(root / f"{name}.ipynb", "1", source)
        for name, source in {"bad": FAILING, "dies": DYING, "slow": slow, "good": GOOD}.items()
    }
    jobs = [Job(path, {}) for path in paths.values()] + [Job(paths["good"], {"x": 2})]
    ended = batch.run_all(jobs, out=root / "out {x}", workers=2, timeout=4)
    return {f"{each.job.name}{each.job.given.get('x', '')}": each for each in ended}


def test_a_good_run_is_recorded_with_everything(done):
    run = runs.read(done["good2"].folder / runs.FILE)

    assert run["status"] == "ok"
    assert run["parameters"] == {"x": 2, "seed": 0}
    assert run["metrics"] == {"third": 0.667, "x": 2}
    assert run["seed"] == 0
    assert run["title"] == "Tiny"
    assert run["device"] == {"name": "cpu", "why": "torch was not loaded"}
    assert run["versions"].keys() >= {"python", "modelcare", "torch", "pandas"}
    assert 0 < run["seconds"] < 60
    assert 10 < run["peak_memory_mib"] < machine.memory_mib()


def test_every_run_leaves_a_page_a_notebook_and_a_record(done):
    for each in done.values():
        files = {path.name for path in each.folder.iterdir()}

        assert files == {f"{each.job.name}.ipynb", f"{each.job.name}.html", runs.FILE}
        assert runs.read(each.folder / runs.FILE) == each.run


def test_a_failing_cell_is_named_and_what_came_before_is_kept(done):
    run, folder = done["bad"].run, done["bad"].folder

    cells = json.loads((folder / "bad.ipynb").read_text())["cells"]

    assert run["error"] == {
        "cell": 4,
        "source": "y = 1 / (x - x)",
        "type": "ZeroDivisionError",
        "message": "division by zero",
    }
    assert "ZeroDivisionError" in done["bad"].traceback
    assert len(cells) == 4
    assert cells[2]["outputs"][0]["data"]["text/plain"] == ["1"]
    assert "division by zero" in (folder / "bad.html").read_text()


def test_a_killed_kernel_fails_its_own_run_alone(done):
    error = done["dies"].run["error"]

    assert error["cell"] == 4
    assert error["message"] == "the kernel died: it was killed, ran out of memory or crashed"
    assert done["good"].run["status"] == "ok"


def test_a_timeout_ends_the_run(done):
    run = done["slow"].run

    assert run["error"]["type"] == "Ended"
    assert run["error"]["message"] == "no end after 4 s, the --timeout"
    assert 4 <= run["seconds"] < 30


def test_the_index_lists_them_all(done):
    text = (done["good"].folder.parent / index.FILE).read_text()

    assert "5 runs, newest first; 3 failed" in text


def test_relative_folders_hold_whatever_directory_papermill_remembers(tmp_path, monkeypatch):
    path = notebook(tmp_path / "tiny.ipynb", "import time\n\ntime.sleep(2 * x)")
    files = papermill_io.get_handler("local")
    before = files.cwd(str(tmp_path / "gone"))
    monkeypatch.chdir(tmp_path)

    ended = batch.run_all([Job(path, {"x": x}) for x in range(2)], out=Path("out"), workers=2)

    assert [(each.run["status"], each.run["error"]) for each in ended] == [("ok", None)] * 2
    assert files.cwd(before) == str(tmp_path / "gone")


def test_plain_papermill_runs_the_same_notebook(tmp_path):
    path = notebook(tmp_path / "tiny.ipynb", GOOD)

    made = papermill.execute_notebook(
        path, tmp_path / "out.ipynb", {"x": 3}, progress_bar=False, kernel_name="python3"
    )

    assert metrics.collect(made.cells)[0] == {"third": 1.0, "x": 3}


def test_a_kernel_that_starts_after_the_end_was_called_is_ended_too():
    kernels = Kernels()
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)

    kernels.end_all("interrupted")
    with kernels.watched(timeout=None) as watch:
        watch.started(process.pid)

    assert process.wait(10) == -signal.SIGKILL
    assert watch.reason == "interrupted"


@pytest.mark.parametrize(("n_bad_starts", "status"), [(1, "ok"), (2, "failed")])
def test_a_kernel_that_does_not_come_up_gets_a_second_start(
    tmp_path, monkeypatch, n_bad_starts, status
):
    real, calls = execute.execute_notebook, []

    def start(*given, **named):
        calls.append(given)
        if len(calls) <= n_bad_starts:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return real(*given, **named)

    monkeypatch.setattr(execute, "execute_notebook", start)
    job = Job(notebook(tmp_path / "tiny.ipynb", GOOD), {})

    (ended,) = batch.run_all([job], out=tmp_path / "out")

    assert ended.run["status"] == status
    assert len(calls) == 2


@pytest.mark.parametrize("full", ["always", "after the notebook"])
def test_a_full_disk_leaves_no_half_written_file_and_says_so(tmp_path, monkeypatch, full):
    path, out, calls = notebook(tmp_path / "tiny.ipynb", GOOD), tmp_path / "out", []

    def fsync(handle):
        calls.append(handle)
        if full == "always" or len(calls) > 2:  # the notebook and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    options = {"kernels": Kernels(), "threads": 1, "timeout": None, "code": False}

    ended = batch.run_one(Job(path, {}), out=out, **options)

    left = [file.name for file in out.rglob("*") if file.is_file()]
    assert left == ([] if full == "always" else ["tiny.ipynb"])
    assert ended.run["error"]["message"] == (
        f"kit report: expected room on the disk, got none left below {ended.folder}. "
        "Free some, or type --out with a folder on another disk."
    )


# ---------------------------------------------------------------- the report on a table


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Run the table report on a quantity, on three classes split by time, and on the flights."""
    root = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    frame = pd.DataFrame({"a": a, "b": rng.choice(list("xyz"), 300), "size": 10 * a + 3})
    frame["kind"] = np.select([a < -0.4, a < 0.4], ["low", "mid"], "high")
    frame["day"] = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d")
    frame.to_csv(root / "mine.csv", index=False)
    mine = {"data": str(root / "mine.csv"), "epochs": 8, "columns": ["a", "b"]}
    asked = {
        "quantity": mine | {"target": "size"},
        "classes": mine | {"target": "kind", "time": "day"},
        "flights": {"rows": 2000, "epochs": 1},
    }
    jobs = {name: Job(TABLE, values) for name, values in asked.items()}
    ended = batch.run_all(list(jobs.values()), out=root / "out", workers=2)
    by_job = {id(each.job): each for each in ended}
    return {name: by_job[id(job)] for name, job in jobs.items()}


@pytest.mark.slow
def test_the_table_report_handles_quantities_classes_and_the_flights(tables):
    assert {name: each.run["error"] for name, each in tables.items()} == dict.fromkeys(tables)
    assert tables["quantity"].run["metrics"].keys() >= {"mae", "rmse", "r2", "mean_mae"}
    for name in ("classes", "flights"):
        found = tables[name].run["metrics"]
        assert found["log_loss"] < found["majority_log_loss"] * 1.2
        assert found["best_log_loss"] <= found["log_loss"]


@pytest.mark.slow
def test_the_pages_of_the_table_report_stand_alone(tables):
    for each in tables.values():
        made = (each.folder / "table.html").read_text()

        assert not re.search(r"<script|<link|src=.?http|url\(", made)
        assert made.count("<img") == len(re.findall(r'<img[^>]+alt="[^"]+"', made)) >= 4
        assert (each.folder / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_runs_of_the_table_report_name_their_device(tables):
    assert {each.run["device"]["name"] for each in tables.values()} <= {"cpu", "cuda", "mps"}
