"""Files come in whole: text stays what it was, numbers are exact, and every change is told."""

import csv
import gzip
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kit import data
from kit.data.read import NULL_TOKENS

SHARED = Path(__file__).parents[2] / "shared" / "data"
# a cell of this text is neither missing, a number, a date nor true: it must stay as it is
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\r\t,;|\"'"), max_size=12
).map(lambda text: f"w{text}w")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("read")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_as(table: data.Table) -> dict[str, str]:
    return dict(zip(table.table["column"], table.table["read_as"], strict=True))


def as_csv(columns: dict[str, list], delimiter: str = ",", line_end: str = "\n") -> str:
    buffer = io.StringIO(newline="")
    # before Python 3.13 a lone carriage return stays unquoted, and ends the line for every reader
    quoting = csv.QUOTE_ALL if "\\r" in repr(columns) else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return buffer.getvalue()


# ---- what is there comes back


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    st.sampled_from("\t;|,"),
    st.sampled_from(["\n", "\r\n"]),
)
def test_every_text_comes_back_with_any_delimiter_and_line_end(folder, rows, delimiter, line_end):
    columns = {f"column {i}": list(cells) for i, cells in enumerate(zip(*rows, strict=True))}
    path = write(
        folder, "words.csv", as_csv({**columns, "end": [1] * len(rows)}, delimiter, line_end)
    )

    frame = data.read(path).frame

    assert frame.to_dict("list") == {**columns, "end": [1] * len(rows)}


@pytest.mark.parametrize("delimiter", list(",\t;|"))
def test_the_delimiter_is_found_although_cells_hold_the_others(tmp_path, delimiter):
    cells = [f"a{other} b" for other in ",\t;|" if other != delimiter]
    columns = {"text": cells, "number": [1.5, 2.5, 3.5], "word": ["x", "y", "z"]}

    frame = data.read(write(tmp_path, "a.txt", as_csv(columns, delimiter))).frame

    assert frame.to_dict("list") == columns


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).map(float), min_size=1))
def test_numbers_are_exact(folder, numbers):
    columns = {"x": [repr(number) for number in numbers], "y": [0.5] * len(numbers)}

    frame = data.read(write(folder, "numbers.csv", as_csv(columns))).frame

    assert frame["x"].astype(float).tolist() == numbers


@given(st.lists(st.none() | st.integers(-(10**15) + 1, 10**15 - 1), min_size=1))
def test_whole_numbers_are_exact_and_gaps_leave_them_whole(folder, numbers):
    columns = {"x": ["" if n is None else n for n in numbers], "y": [1] * len(numbers)}

    table = data.read(write(folder, "whole.csv", as_csv(columns)))

    gaps = numbers.count(None)
    kind = "nothing but missing" if gaps == len(numbers) else "whole numbers"
    assert [None if pd.isna(x) else int(x) for x in table.frame["x"]] == numbers
    assert read_as(table)["x"] == (f"{kind}; missing: '' {gaps:,}" if gaps else kind)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["02134", "10001"], "text"),
        (["-007", "1"], "text"),
        (["+442071838750", "+4930123"], "text"),
        (["1234567890123456", "1"], "text (identifiers of more than 15 digits)"),
        (["1234567890123456", "1.5"], "text (identifiers of more than 15 digits)"),
        (["1e999", "2"], "text"),
        (["1,5", "2,5"], "text"),
        (["5abc", "5"], "text"),
        (["٣", "٤"], "text"),
        (["yes", "no"], "text"),
        (["2013-01-01", "soon"], "text"),
        (["2013-02-30", "2013-02-01"], "text"),
        (["2013-01-01T10:00:00Z", "2013-01-01"], "text"),
        (["01/02/2013", "02/02/2013"], "text"),
        (["true", "1"], "text"),
    ],
    ids=lambda value: str(value),
)
def test_what_a_conversion_would_change_stays_text(tmp_path, cells, kind):
    table = data.read(write(tmp_path, "a.csv", as_csv({"x": cells, "y": ["a", "b"]})))

    assert table.frame["x"].tolist() == cells
    assert read_as(table)["x"] == kind


def test_each_conversion_is_in_the_table(tmp_path):
    columns = {
        "n": ["7", "NA", "9"],
        "x": [" 0.5", "1e3", "?"],
        "ok": ["True", "FALSE", "null"],
        "day": ["2013-01-01", "2013-01-02 10:30", ""],
        "at": ["2013-01-01T10:00:00+02:00", "2013-01-01T10:00:00Z", "2013-01-01 10:00Z"],
        "gone": ["", "NULL", ""],
        "inf": ["inf", "-Infinity", "1"],
    }

    table = data.read(write(tmp_path, "a.csv", as_csv(columns)))

    assert read_as(table) == {
        "n": "whole numbers; missing: 'NA' 1",
        "x": "numbers; missing: '?' 1",
        "ok": "true/false; missing: 'null' 1",
        "day": "dates; missing: '' 1",
        "at": "dates, turned to UTC",
        "gone": "nothing but missing; missing: '' 2, 'NULL' 1",
        "inf": "numbers",
    }
    assert [str(kind) for kind in table.frame.dtypes] == [
        "Int64",
        "float64",
        "boolean",
        "datetime64[us]",
        "datetime64[us, UTC]",
        "str",
        "float64",
    ]
    assert table.frame["at"].dt.hour.tolist() == [8, 10, 10]
    assert table.frame["inf"].tolist() == [math.inf, -math.inf, 1]
    assert table.table["missing"].tolist() == table.frame.isna().sum().tolist()


@given(st.lists(st.sampled_from([*NULL_TOKENS, "a", "b"]), min_size=1))
def test_null_words_are_missing_and_each_is_counted(folder, cells):
    columns = {"x": [*cells, "a"], "y": [1] * (len(cells) + 1)}

    table = data.read(write(folder, "nulls.csv", as_csv(columns)))

    assert table.frame["x"].isna().tolist() == [*(cell in NULL_TOKENS for cell in cells), False]
    for word in set(cells) & set(NULL_TOKENS):
        assert f"{word!r} {cells.count(word)}" in read_as(table)["x"]


def test_quoted_line_breaks_and_long_cells_stay_in_their_cell(tmp_path):
    columns = {"a": ["one\ntwo\r\nthree", "x" * 300_000, 'say "hi"'], "b": [1, 2, 3]}

    frame = data.read(write(tmp_path, "a.csv", as_csv(columns))).frame

    assert frame.to_dict("list") == columns


def test_old_line_ends_blank_lines_and_unnamed_columns_are_taken(tmp_path):
    old = data.read(write(tmp_path, "old.csv", "a,b\r1,2\r3,4\r")).frame
    blank = data.read(write(tmp_path, "blank.csv", "\n\na, ,c\n1,2,3\n\n4,5,6\n\n")).frame

    assert old.to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert blank.to_dict("list") == {"a": [1, 4], "column_2": [2, 5], "c": [3, 6]}


def test_the_text_of_a_cell_keeps_its_blanks(tmp_path):
    frame = data.read(write(tmp_path, "a.csv", "a,b\n  x ,1\ny,2\n")).frame

    assert frame["a"].tolist() == ["  x ", "y"]


# ---- encodings

PEOPLE = "name,city\n" + "José,Málaga\nAnna,Zürich\nBjörk,Köln\nÅsa,Malmö\nZoë,5 €\n" * 20


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "utf-16-be"]
)
def test_an_encoding_is_found_or_else_may_be_told(tmp_path, encoding):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    path = write(tmp_path, "a.csv", mark + PEOPLE.encode(encoding))

    found, told = data.read(path), data.read(path, encoding=encoding)

    assert found.frame.equals(told.frame)
    assert found.frame["name"].tolist()[:5] == ["José", "Anna", "Björk", "Åsa", "Zoë"]
    assert found.frame.columns.tolist() == ["name", "city"]
    guess = "Not UTF-8: read as cp1252, such as 'José'; pass encoding=… if that looks wrong."
    assert found.notes == ((guess,) if encoding == "cp1252" else ())


@pytest.mark.parametrize("text", ["a,b\ncafé,1\n", "a,b\n5 €,1\n", "a,b\nÅsa,1\nÆrø,2\n"])
def test_a_short_western_text_is_read_as_most_software_writes_it(tmp_path, text):
    table = data.read(write(tmp_path, "a.csv", text.encode("cp1252")))

    assert table.frame["a"].tolist() == [line.split(",")[0] for line in text.split("\n")[1:-1]]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "имя,город\nИван,Москва\nПётр,Казань\n" * 20),
        ("shift_jis", "名前,市\n太郎,東京\n花子,大阪\n" * 20),
        ("gb18030", "姓名,城市\n张三,北京\n李四,上海\n" * 20),
        ("latin-1", "name,city\nJosé,Málaga\nAnna,Zürich\n" * 20),
    ],
)
def test_other_encodings_are_guessed_and_the_guess_is_noted(tmp_path, encoding, text):
    table = data.read(write(tmp_path, "a.csv", text.encode(encoding)))

    assert table.frame.iloc[0].tolist() == text.split("\n")[1].split(",")
    assert table.notes[0].startswith("Not UTF-8: read as ")


# ---- other formats


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_packed_file_is_that_file(tmp_path, name):
    frame = pd.DataFrame({"n": [1, 2], "s": ["x", "y"]})
    plain = {
        "a.csv": frame.to_csv(index=False).encode(),
        "a.jsonl": frame.to_json(orient="records", lines=True).encode(),
        "a.parquet": frame.to_parquet(),
    }[name]

    packed = data.read(write(tmp_path, f"{name}.gz", gzip.compress(plain)))

    assert packed.frame.to_dict("list") == frame.to_dict("list")


JSON_VALUES = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e6, 1e6)


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), JSON_VALUES), min_size=1).filter(any),
    st.booleans(),
)
def test_json_values_come_back_as_they_were_with_gaps_or_without(folder, rows, as_list):
    text = json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows))

    frame = data.read(write(folder, "a.json", text)).frame

    for name in frame:
        for row, value in zip(rows, frame[name], strict=True):
            expected = row.get(name)
            assert pd.isna(value) if expected is None else value == expected


def test_json_strings_may_hold_any_line_separator_and_nested_values_stay(tmp_path):
    rows = [{"s": "x\u2028y\x85z", "l": [1, 2], "n": {"a": 1}}, {"s": "w", "l": [], "n": None}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)

    table = data.read(write(tmp_path, "a.jsonl", text))

    assert table.frame.to_dict("records") == rows
    assert table.table["distinct"].tolist() == [2, 2, 1]


def test_a_header_in_brackets_is_csv_not_json(tmp_path):
    frame = data.read(write(tmp_path, "a.csv", "[id],[name]\n1,x\n")).frame

    assert frame.to_dict("list") == {"[id]": [1], "[name]": ["x"]}


def test_parquet_keeps_long_whole_numbers_dates_and_the_index(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "id": pa.array([9007199254740993, None], pa.int64()),
            "ok": pa.array([True, None]),
            "day": pa.array([15000, None], pa.date32()),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, path)
    frame = pd.DataFrame({"x": [1.5, 2.5]}, index=pd.Index(["r", "s"], name="row"))
    frame.to_parquet(tmp_path / "b.parquet")

    read, indexed = data.read(path).frame, data.read(tmp_path / "b.parquet").frame

    assert int(read["id"][0]) == 9007199254740993  # 2**53 + 1: no float holds it
    assert read["id"].isna().tolist() == read["ok"].isna().tolist() == [False, True]
    assert read["day"][0] == pd.Timestamp("2011-01-26")
    assert read["kind"].tolist() == ["a", "b"]
    assert indexed.to_dict("list") == {"row": ["r", "s"], "x": [1.5, 2.5]}


# ---- what cannot be read loses nothing and says so

REPAIR = "Repair that line: often a delimiter or a quote inside an unquoted field."
EXPORT = "Export the table as CSV in UTF-8, or pass encoding=…."
TEXT_FILE = "CSV, TSV, JSON lines or Parquet"


@pytest.mark.parametrize(
    ("content", "expected", "got", "remedy"),
    [
        (
            "",
            "a table",
            "'{path}' (an empty file)",
            "Write a header line and at least one row into it.",
        ),
        (
            " \n\n",
            "a table",
            "'{path}' (an empty file)",
            "Write a header line and at least one row into it.",
        ),
        (
            b"\xef\xbb\xbf\n",
            "a table",
            "'{path}' (an empty file)",
            "Write a header line and at least one row into it.",
        ),
        (
            "a,b\n",
            "at least one row",
            "bad.csv: a header with 2 columns and no rows",
            "Add rows below the header.",
        ),
        (
            "[]",
            "at least one row",
            "bad.csv: a header with 0 columns and no rows",
            "Add rows below the header.",
        ),
        (
            "a,b,a,b\n1,2,3,4\n",
            "column names that differ",
            "bad.csv: 'a', 'b' more than once",
            "Rename them in the header line.",
        ),
        ("a,b\n1,2\n3,4,5\n", "2 fields in every row", "bad.csv: 3 in line 3", REPAIR),
        ("a,b\n1,2,9\n3,4,5\n", "2 fields in every row", "bad.csv: 3 in line 2", REPAIR),
        ("a,b\n1,2,\n3,4,\n", "2 fields in every row", "bad.csv: 3 in line 2", REPAIR),
        ("a,b\n1,2\n3\n", "2 fields in every row", "bad.csv: 1 in line 3", REPAIR),
        ('a,b\n1,"x\ny"\n3\n', "2 fields in every row", "bad.csv: 1 in line 4", REPAIR),
        (
            'a,b\n1,"x\n2,y\n',
            "2 fields in every row",
            "bad.csv: a quote that is not closed in line 2",
            REPAIR,
        ),
        (
            'a,b\n1,"x\n2,y\n3,"z\n4,w\n',
            "2 fields in every row",
            "bad.csv: a quote that is not closed in line 2",
            REPAIR,
        ),
        (b"a,b\n\0\1,2\n", TEXT_FILE, "bad.csv: binary data", EXPORT),
        (b"a\1\2\nb\3\4\n" * 50, TEXT_FILE, "bad.csv: binary data", EXPORT),
        (b"PK\3\4\0\0\0\0", TEXT_FILE, "bad.csv: binary data", EXPORT),
        (b"\xff\xfea", TEXT_FILE, "bad.csv: bytes that are not utf-16 at offset 2", EXPORT),
        (
            '{"a": 1}\n{"a": \n',
            "one JSON object a line",
            "bad.csv: Expecting value in line 2",
            "Repair that line.",
        ),
        (
            '[{"a": 1},\n{"a" 2}]',
            "one JSON object a line",
            "bad.csv: Expecting ':' delimiter in line 2",
            "Repair that line.",
        ),
        (
            '{"a": 1}\n[1]\n',
            "one JSON object a line",
            "bad.csv: rows that are none",
            'Write each as {{"column": value, …}}.',
        ),
        (
            '{"a":' * 100_000,
            "one JSON object a line",
            "bad.csv: nested too deep in line 1",
            "Repair that line.",
        ),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, content, expected, got, remedy):
    path = write(tmp_path, "bad.csv", content)

    with pytest.raises(ValueError) as caught:
        data.read(path)

    shown = got.format(path=path)
    assert str(caught.value) == f"data.read: expected {expected}, got {shown}. {remedy.format()}"


def test_a_missing_file_or_a_folder_names_what_may_be_meant(tmp_path):
    write(tmp_path, "flights.csv", "a,b\n1,2\n")

    messages = []
    for path in [tmp_path / "flight.csv", tmp_path / "zzz", tmp_path]:
        with pytest.raises(ValueError) as caught:
            data.read(path)
        messages.append(str(caught.value))

    assert messages == [
        (
            f"data.read: expected a file, got '{tmp_path}/flight.csv' (no such file). "
            "Did you mean 'flights.csv'?"
        ),
        f"data.read: expected a file, got '{tmp_path}/zzz' (no such file). Check the path.",
        (
            f"data.read: expected a file, got '{tmp_path}' (a folder). "
            f"Name the file in it, such as {tmp_path}/flights.csv."
        ),
    ]


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = write(tmp_path, "a.csv", "a,b\n1,2\n")

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)

    with pytest.raises(ValueError) as caught:
        data.read(path)

    assert str(caught.value) == (
        f"data.read: expected a file that can be read, got '{path}' (Permission denied). "
        "Check who may read it."
    )


@pytest.mark.parametrize(
    ("encoding", "expected", "got", "remedy"),
    [
        (
            "ascii",
            TEXT_FILE,
            "a.csv: bytes that are not ascii at offset 13",
            EXPORT,
        ),
        (
            "utf-99",
            "an encoding that Python knows",
            "'utf-99' (str)",
            "Pass encoding='utf-8', or leave it out to have it found.",
        ),
        (
            "rot13",
            "an encoding that Python knows",
            "'rot13' (str)",
            "Pass encoding='utf-8', or leave it out to have it found.",
        ),
    ],
)
def test_a_wrong_encoding_is_refused(tmp_path, encoding, expected, got, remedy):
    path = write(tmp_path, "a.csv", PEOPLE)

    with pytest.raises(ValueError) as caught:
        data.read(path, encoding=encoding)

    assert str(caught.value) == f"data.read: expected {expected}, got {got}. {remedy}"


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        data.read(path)
    message = str(caught.value)
    assert message.startswith("data.read: expected ")
    assert len(message.splitlines()) == 1
    return message


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 9, 32, 128]), st.integers(200, 5000))
def test_random_bytes_are_refused_whatever_bytes_they_lack(folder, seed, lowest, size):
    garbage = np.random.default_rng(seed).integers(lowest, 256, size, np.uint8).tobytes()

    refusal(write(folder, "garbage.bin", garbage))


@settings(deadline=None)
@given(st.sampled_from(["csv.gz", "parquet"]), st.floats(0, 0.999), st.booleans())
def test_a_damaged_file_is_refused_or_read_whole(folder, kind, where, is_cut):
    frame = pd.DataFrame({"n": range(500), "s": [f"w{i}" for i in range(500)]})
    whole = {
        "csv.gz": gzip.compress(frame.to_csv(index=False).encode(), mtime=0),
        "parquet": frame.to_parquet(compression="gzip"),
    }[kind]
    at = 8 + int(where * (len(whole) - 8))
    raw = bytearray(whole[:at] if is_cut else whole)
    if not is_cut:
        raw[at] ^= 0xFF
    path = write(folder, f"a.{kind}", bytes(raw))

    try:
        read = data.read(path).frame
    except ValueError as error:
        message = str(error)
        assert message.startswith("data.read: expected ")
        assert len(message.splitlines()) == 1
    else:  # a byte that is of no importance, such as the time in a .gz header
        assert read.shape == frame.shape


def test_three_hundred_thousand_rows_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "n": rng.integers(0, 10**9, 300_000),
            "x": rng.random(300_000),
            "s": rng.choice(["ash", "oak, red", "elm"], 300_000),
        }
    )
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False)

    start = time.process_time()
    read = data.read(path).frame
    seconds = time.process_time() - start

    assert read["x"].tolist() == frame["x"].tolist()
    assert read["s"].tolist() == frame["s"].tolist()
    assert seconds < 10  # about 1 on one core


# ---- files that nobody here wrote

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not on this machine")


@needs_shared
@pytest.mark.parametrize(("name", "rows"), [("code", 8_819), ("conv", 19_366)])
def test_a_trace_of_a_language_model_service_is_read(name, rows):
    table = data.read(SHARED / f"azure_llm_2023_{name}.csv")

    assert len(table.frame) == rows
    assert read_as(table) == {
        "TIMESTAMP": "dates",
        "ContextTokens": "whole numbers",
        "GeneratedTokens": "whole numbers",
    }
    assert table.frame["TIMESTAMP"].is_monotonic_increasing


@needs_shared
def test_customer_questions_are_read_as_the_csv_module_reads_them():
    path = SHARED / "banking77_train.csv"
    with path.open(newline="", encoding="utf-8") as file:
        expected = list(csv.reader(file))

    table = data.read(path)

    assert [table.frame.columns.tolist(), *table.frame.to_numpy().tolist()] == expected
    assert read_as(table) == {"text": "text", "category": "text"}
    assert table.frame["category"].nunique() == 77


def test_an_index_that_only_numbers_rows_is_made_anew(tmp_path):
    half = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]})
    pd.concat([half, half]).to_parquet(tmp_path / "t.parquet")

    frame = data.read(tmp_path / "t.parquet").frame

    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame.columns.tolist() == ["a", "b"]


def test_a_cell_of_a_million_letters_and_a_hundred_blank_lines_are_read(tmp_path):
    (tmp_path / "t.csv").write_text("\n" * 120 + "a,b\n" + "x" * 1_000_000 + ",1\ny,2\n")

    frame = data.read(tmp_path / "t.csv").frame

    assert frame["a"].str.len().tolist() == [1_000_000, 1]
    assert frame["b"].tolist() == [1, 2]
