"""One plan gives one result on every engine, and a query stays one until it is asked."""

import importlib.util
import os
import shutil
import subprocess
import sys
from decimal import Decimal

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import clean, data
from kit.clean.plan import Plan, make
from kit.clean.steps import Step
from kit.clean.table import wrapped
from kit.data.flights import folder

NEEDED = {
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "polars": "polars",
    "polars lazy": "polars",
    "duckdb": "duckdb",
    "dask": "dask.dataframe",
    "pyspark": "pyspark",
}
QUERIES = ("polars lazy", "duckdb", "dask", "pyspark")


def installed(module: str) -> bool:
    return importlib.util.find_spec(module.split(".")[0]) is not None


@pytest.fixture(params=NEEDED)
def engine(request) -> str:
    if not installed(NEEDED[request.param]):
        pytest.skip(f"{request.param} is not installed: pip install 'modelcare[scale]'")
    if request.param == "pyspark":
        if not shutil.which("java"):
            pytest.skip("PySpark needs Java 17, and there is none on this machine")
        request.getfixturevalue("spark")
    return request.param


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "1")
    # to compile each query takes longer than to interpret it on 600 rows
    builder = builder.config("spark.sql.codegen.wholeStage", "false")
    builder = builder.config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def dirty() -> pd.DataFrame:
    flown = pd.read_parquet(folder() / "flights.parquet")
    wanted = ["dep_time", "dep_delay", "arr_time", "sched_arr_time", "carrier", "origin", "dest"]
    return data.soil(flown[wanted].head(600), seed=0, frac=0.05).frame


@pytest.fixture(scope="module")
def plan(dirty) -> Plan:
    made = clean.plan(clean.look(dirty))
    for kind in sorted({doubt.kind for doubt in made.doubts if doubt.step}):
        made = made.accept(kind)
    assert {step.rule for step in made.steps} >= {"number", "date", "yes_no", "merge", "pad"}
    return made


def sorted_ledger(cleaned: clean.Cleaned) -> pd.DataFrame:
    ledger = cleaned.ledger.astype(str)
    return ledger.sort_values(list(ledger.columns), ignore_index=True)


def test_a_plan_has_the_same_result_and_the_same_ledger_on_every_engine(engine, dirty, plan):
    expected = clean.apply(dirty, plan)

    there = clean.on(dirty, engine)
    after = clean.apply(there, plan)

    assert clean.fingerprint(after.frame) == clean.fingerprint(expected.frame)
    pd.testing.assert_frame_equal(sorted_ledger(after), sorted_ledger(expected))
    assert clean.fingerprint(after.undo()) == clean.fingerprint(dirty)
    assert type(after.frame) is type(there)


def test_a_query_stays_one_and_counts_nothing_until_it_is_asked(engine, dirty, plan):
    after = clean.apply(clean.on(dirty, engine), plan)

    is_query = isinstance(wrapped(after.frame), nw.LazyFrame)
    assert is_query == (engine in QUERIES)
    assert after.table["cells"].isna().any() == is_query
    assert set(after.table["status"]) == {"planned" if is_query else "done"}


def test_nothing_of_a_query_is_computed_by_applying_a_plan(dirty, plan, monkeypatch):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    query = polars.LazyFrame(dirty.to_dict("list"))

    def computed(*_, **__):
        raise AssertionError("the query was run")

    monkeypatch.setattr(polars.LazyFrame, "collect", computed)

    assert isinstance(clean.apply(query, plan).frame, polars.LazyFrame)


def test_the_stream_of_a_file_ends_like_the_frame(dirty, plan, tmp_path):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    dirty.to_csv(tmp_path / "dirty.csv", index=False)
    text = polars.read_csv(tmp_path / "dirty.csv", infer_schema=False)
    plan = clean.plan(clean.look(text))
    query = polars.scan_csv(tmp_path / "dirty.csv", infer_schema=False)

    clean.apply(query, plan).frame.sink_parquet(tmp_path / "clean.parquet", engine="streaming")

    wanted = clean.fingerprint(clean.apply(text, plan).frame)
    assert clean.fingerprint(polars.read_parquet(tmp_path / "clean.parquet")) == wanted


DECIMALS = pa.array([Decimal("1.50"), Decimal("50.00")])


@pytest.mark.parametrize(
    ("cells", "step", "expected"),
    [
        ([1.5, -999.0], Step("x", "missing", {"values": [-999]}), [1.5, None]),
        ([0.5, -999.0], Step("x", "missing", {"values": [-999.0, 0.5]}), [None, None]),
        ([1, 7, 20], Step("x", "missing", {"values": [0.5, 7.0]}), [1, None, 20]),
        (["YES", "no "], Step("x", "yes_no", {"yes": ["Yes"], "no": ["No "]}), [True, False]),
        (DECIMALS, Step("x", "limits", {"low": 0, "high": 10}), DECIMALS),
        ([0.0, -0.0, 1.0], Step(None, "drop_duplicates"), [0.0, 1.0]),
    ],
    ids=["float", "fraction", "whole", "yes/no", "decimals", "zeros"],
)
def test_a_step_of_a_person_has_one_result_on_every_engine(engine, cells, step, expected):
    expected = pa.array(expected, pa.array(cells).type if step.rule == "missing" else None)
    there = clean.on(pa.table({"x": cells}), engine)

    after = clean.apply(there, make([step], (), ("x",)))

    assert clean.fingerprint(after.frame) == clean.fingerprint(pa.table({"x": expected}))


def test_a_number_that_was_text_and_means_missing_is_found_on_every_engine(engine):
    arguments = {"decimal": ".", "thousands": "", "units": {}, "whole": False}
    steps = [Step("x", "number", arguments), Step("x", "missing", {"values": [-999]})]
    there = clean.on(pa.table({"x": ["1.5", "-999"]}), engine)

    after = clean.apply(there, make(steps, (), ("x",)))

    assert clean.fingerprint(after.frame) == clean.fingerprint(pa.table({"x": [1.5, None]}))
    assert after.ledger[["rule", "old"]].to_numpy().tolist() == [["missing", -999.0]]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32()], ids=str)
def test_a_fingerprint_does_not_depend_on_the_width_of_numbers(kind):
    narrow, wide = (pa.table({"x": pa.array([-1, 5, None], type)}) for type in (kind, pa.int64()))

    assert clean.fingerprint(narrow) == clean.fingerprint(wide)


def test_undo_of_dask_is_not_reached_by_what_becomes_of_other_frames(dirty):
    pytest.importorskip("dask", reason="dask is not installed")
    frame = clean.on(dirty, "dask")
    after = clean.apply(frame, make([Step("carrier", "strip")], (), tuple(dirty)))

    frame["carrier"] = frame["dest"]
    after.undo()["origin"] = after.undo()["dest"]

    assert clean.fingerprint(after.undo()) == clean.fingerprint(dirty)


TEXTS = st.text("0123456789.,-+ %$kmJan/:eE\u00a0'", max_size=12) | st.none()
RULES = [
    Step("x", "strip"),
    Step("x", "missing", {"values": ["0", "-", ""]}),
    Step("x", "pad", {"width": 4}),
    Step("x", "date", {"order": "day first"}),
    Step(
        "x",
        "number",
        {"decimal": ".", "thousands": ",", "units": {"%": 0.01, "km": 2.5}, "whole": False},
    ),
]


@settings(max_examples=40)
@given(st.lists(TEXTS, min_size=1, max_size=20), st.sampled_from(RULES))
@pytest.mark.parametrize("engine", ["polars lazy", "duckdb"])
def test_odd_texts_are_read_alike(engine, texts, step):
    if not installed(NEEDED[engine]):
        pytest.skip(f"{engine} is not installed: pip install 'modelcare[scale]'")
    frame = pa.table({"x": pa.array(texts, pa.string())})
    here, there = nw.from_native(frame), nw.from_native(clean.on(frame, engine))
    from kit.clean.rules import RULES as known

    expression = known[step.rule].build(nw.col("x"), **step.arguments)

    read = [each.lazy().select(x=expression).collect("pyarrow") for each in (here, there)]

    assert clean.fingerprint(read[0].to_native()) == clean.fingerprint(read[1].to_native())


@given(st.permutations(range(6)))
def test_a_fingerprint_does_not_depend_on_the_order_of_rows(order):
    frame = pd.DataFrame({"a": [1.0, None, 3.0, -0.0, 0.5, 1.0], "b": list("xyzxyx")})

    assert clean.fingerprint(frame.iloc[list(order)]) == clean.fingerprint(frame)


@pytest.mark.parametrize(
    "other",
    [
        pd.DataFrame({"a": [1, 2], "b": ["x", "z"]}),
        pd.DataFrame({"a": [2, 1], "b": ["x", "y"]}),
        pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
        pd.DataFrame({"a": [1, 2], "c": ["x", "y"]}),
        pd.DataFrame({"a": [1, 2, 2], "b": ["x", "y", "y"]}),
        pd.DataFrame({"b": ["x", "y"], "a": [1, 2]}),
    ],
    ids=["cell", "pairing", "kind", "name", "rows", "columns"],
)
def test_a_fingerprint_tells_tables_apart(other):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

    assert clean.fingerprint(other) != clean.fingerprint(frame)


@pytest.mark.parametrize("engine", ["polars", "duckdb", "dask", "pyspark"])
def test_an_engine_that_is_not_installed_is_told_in_one_line(engine, tmp_path):
    package = NEEDED[engine].split(".")[0]
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    code = (
        "import pandas as pd\nfrom kit import clean\n"
        f"try: clean.on(pd.DataFrame({{'a': [1]}}), {engine!r})\n"
        "except ModuleNotFoundError as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    named = {"dask": "dask.dataframe", "pyspark": "pyspark.sql"}.get(engine, package)
    assert done.stdout == (
        f"clean.on: expected the package {named!r}, got none. "
        "Install it: pip install 'modelcare[scale]'\n"
    )


def test_spark_without_java_is_told_in_one_line(monkeypatch):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(ModuleNotFoundError) as caught:
        clean.on(pd.DataFrame({"a": [1]}), "pyspark")

    assert str(caught.value) == (
        "clean.on: expected Java for PySpark, got none. Install it: "
        "apt-get install openjdk-17-jre-headless, or conda install openjdk=17"
    )


def test_an_unknown_engine_is_told_with_those_there_are():
    with pytest.raises(ValueError) as caught:
        clean.on(pd.DataFrame({"a": [1]}), "polar")

    assert str(caught.value) == (
        "clean.on: expected a known engine, got 'polar' (str). Did you mean 'polars'? Known: "
        "dask, duckdb, pandas, polars, polars lazy, pyarrow, pyspark."
    )


def test_a_look_at_a_query_takes_its_first_rows_and_says_so(monkeypatch):
    import importlib

    polars = pytest.importorskip("polars", reason="polars is not installed")
    monkeypatch.setattr(importlib.import_module("kit.clean.look"), "HEAD", 10)
    query = polars.LazyFrame({"x": np.arange(50)})

    audit = clean.look(query)

    assert audit.n_rows == 10
    assert audit.notes == ("A query: its first 10 rows were looked at.",)


def test_words_that_a_query_cannot_read_become_missing_and_stand_in_its_ledger(engine):
    if engine not in QUERIES:
        return
    arguments = {"decimal": ".", "thousands": "", "units": {}, "whole": True}
    frame = clean.on(pd.DataFrame({"x": ["1", "many", "2"]}), engine)

    after = clean.apply(frame, make([Step("x", "number", arguments)], (), ("x",)))

    assert after.ledger[["old", "rows"]].to_numpy().tolist() == [["many", 1]]
    assert pd.isna(after.ledger["new"][0])
    expected = pd.DataFrame({"x": pd.Series([1, None, 2], dtype="Int64")})
    assert clean.fingerprint(after.frame) == clean.fingerprint(expected)
