"""Hand a table to another engine, and tell by one number whether two engines agree."""

import hashlib
import os
import shutil
from collections.abc import Callable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from kit.base import checks
from kit.clean import columns
from kit.clean import table as tables
from kit.clean.columns import GAP

LOCAL_LIMIT = "spark.sql.execution.arrow.localRelationThreshold"
JAVA = "Install it: apt-get install openjdk-17-jre-headless, or conda install openjdk=17"


def on(frame: Any, engine: str) -> Any:
    """Hand a table to an engine: the same plan then runs there.

    Args:
        frame: a path or a table in memory.
        engine: "pandas", "pyarrow", "polars", "polars lazy", "duckdb", "dask" or "pyspark"; Spark
            takes the session that is there, or starts one on this machine.

    Returns:
        The table as that engine holds it; of the last four, as a query.

    Raises:
        ModuleNotFoundError: the engine, or Java for Spark, is not installed.
        ValueError: an unknown engine.

    Example:
        >>> type(on(pd.DataFrame({"a": [1, 2]}), "pyarrow")).__name__
        'Table'
    """
    if engine not in ENGINES:
        raise checks.unknown_name("clean.on", "engine", got=engine, known=ENGINES)
    taken = tables.collected(tables.take(frame, "clean.on"))
    return ENGINES[engine](taken.to_arrow())


def fingerprint(frame: Any) -> str:
    """Return a number that is the same wherever a table was made, if it holds the same rows.

    Names, kinds of columns and rows count; the order of rows, which engines do not keep, does not.

    Args:
        frame: a path or a table of any engine; a query is run.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> a, b = pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [2, 1]}, dtype="Int64")
        >>> fingerprint(a) == fingerprint(b)
        True
    """
    taken = tables.collected(tables.take(frame, "clean.fingerprint"))
    rows = np.zeros(len(taken), np.uint64)
    total = hashlib.blake2b(digest_size=16)
    for name in taken.columns:
        kind, cells = _cells(taken[name])
        total.update(f"{name}\0{kind}\0".encode())
        rows = _mixed(rows + cells)
    total.update(np.sort(rows).tobytes())
    return total.hexdigest()


def _cells(column: nw.Series) -> tuple[str, np.ndarray]:
    """Return the kind of a column and a number for each cell, equal where the cells are."""
    coded = columns.encode(column)
    if coded is None:
        words = [repr(value) for value in column.to_list()]
        return "other", pd.util.hash_array(np.array(words, dtype=object), categorize=False)
    values, kind = coded.values, "text"
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        kind = "true/false" if pa.types.is_boolean(values.type) else "integer"
        plain = values.to_numpy(zero_copy_only=False)
        # of fewer bits, -1 would have another number
        plain = plain.astype("int64") if plain.dtype.kind == "i" else plain
    elif pa.types.is_floating(values.type):
        kind, plain = "decimal", values.to_numpy(zero_copy_only=False).astype("float64") + 0.0
    elif pa.types.is_temporal(values.type):
        kind, plain = "time", _microseconds(values)
    else:
        plain = np.array([str(value) for value in values.to_pylist()], dtype=object)
    hashed = pd.util.hash_array(plain, categorize=False) if len(plain) else np.zeros(0, np.uint64)
    assert coded.codes.min(initial=0) >= GAP
    return kind, np.append(hashed, np.uint64(0))[coded.codes]  # GAP takes the last


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spread 64 bits, so that the order of columns counts (a step of MurmurHash3)."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return x ^ (x >> np.uint64(33))


def _microseconds(values: pa.Array) -> np.ndarray:
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz))
    return values.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=columns.NULLABLE.get)


def _to_polars(table: pa.Table) -> Any:
    return _need("polars").from_arrow(table)


def _to_duckdb(table: pa.Table) -> Any:
    return _need("duckdb").from_arrow(table)


def _to_dask(table: pa.Table) -> Any:
    dask = _need("dask.dataframe")
    return dask.from_pandas(_to_pandas(table), npartitions=max(1, len(table) // 100_000))


def _to_spark(table: pa.Table) -> Any:
    sql = _need("pyspark.sql")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise ModuleNotFoundError(f"clean.on: expected Java for PySpark, got none. {JAVA}")
    session = sql.SparkSession.getActiveSession() or sql.SparkSession.builder.getOrCreate()
    # a table inside the query itself is looked through with every step that is written into it
    before = session.conf.get(LOCAL_LIMIT)
    session.conf.set(LOCAL_LIMIT, "0")
    try:
        return session.createDataFrame(table)
    finally:
        session.conf.set(LOCAL_LIMIT, before)


def _need(package: str) -> Any:
    return checks.need(package, purpose="clean.on", extra="scale")


ENGINES: dict[str, Callable[[pa.Table], Any]] = {
    "pandas": _to_pandas,
    "pyarrow": lambda table: table,
    "polars": _to_polars,
    "polars lazy": lambda table: _to_polars(table).lazy(),
    "duckdb": _to_duckdb,
    "dask": _to_dask,
    "pyspark": _to_spark,
}
