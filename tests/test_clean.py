"""Cleaning repairs what is sure, leaves the rest to a person, and can take back all that it did."""

import calendar
import datetime as dt
import json
import tracemalloc

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import clean, data
from kit.clean import categories, rules
from kit.clean.columns import first_rows, run
from kit.clean.plan import Doubt, Plan, make
from kit.clean.steps import Step
from kit.data.flights import folder

WORDS = st.text("abcdefgh", min_size=1, max_size=8).map(lambda word: f"w{word}")


@pytest.fixture(scope="module")
def soiled() -> data.Soiled:
    flown = pd.read_parquet(folder() / "flights.parquet")
    wanted = ["dep_time", "dep_delay", "arr_time", "sched_arr_time", "carrier", "origin", "dest"]
    return data.soil(flown[wanted].sample(4_000, random_state=0), seed=0, frac=0.03)


def plan_of(*steps: Step, columns: tuple[str, ...] = ("x",)) -> Plan:
    return make(steps, (), columns)


def compute(rule: str, words: list, **arguments) -> list:
    expression = rules.RULES[rule].build(nw.col("x"), **arguments)
    return run(expression, pa.array(words, pa.string())).to_pylist()


def everything(plan: Plan) -> Plan:
    for kind in sorted({doubt.kind for doubt in plan.doubts if doubt.step}):
        plan = plan.accept(kind)
    return plan


def cleaned(frame: pd.DataFrame) -> clean.Cleaned:
    return clean.apply(frame, clean.plan(clean.look(frame)))


# ---- what was planted is found, and nothing else is touched


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_dirt_is_repaired_or_flagged_and_no_healthy_value_changes(soiled, seed):
    truth = data.soil(soiled.clean[list(soiled.clean)[:7]], seed=seed)

    scored = clean.score(cleaned(truth.frame), truth)

    table = scored.table.set_index("kind")
    assert len(table) == 15
    assert (table["missed"] == 0).sum() >= 13
    assert (table["repaired"] == table["planted"]).sum() >= 9
    assert scored.n_harmed == 0, scored.harmed.to_string()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.none() | st.floats(-100, 100, width=32),
            WORDS,
            st.dates(dt.date(1, 1, 1)),
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_a_clean_table_is_left_as_it_is(rows):
    frame = pd.DataFrame(rows, columns=["n", "x", "word", "day", "ok"])
    frame = frame.astype({"word": "str", "day": "datetime64[us]", "n": "int64", "x": "float64"})
    plan = clean.plan(clean.look(frame))

    after = clean.apply(frame, plan)

    assert set(after.ledger["rule"]) <= {"drop_column"}
    # a column of nothing but gaps is the one thing that is sure without a value
    kept = [name for name in frame if frame[name].notna().any()]
    pd.testing.assert_frame_equal(after.frame, frame[kept])


def test_undo_gives_back_values_types_order_rows_and_columns(soiled):
    frame = soiled.frame.set_index(np.arange(len(soiled.frame))[::-1])
    before = frame.copy()
    after = clean.apply(frame, everything(clean.plan(clean.look(frame))))
    assert len(after.frame) < len(frame)

    back = after.undo()

    pd.testing.assert_frame_equal(back, before)
    pd.testing.assert_frame_equal(frame, before)


def test_undo_gives_back_what_was_there_although_the_caller_changed_it_since():
    frame = pd.DataFrame({"x": [" a", "b"] * 5})
    before = frame.copy()
    after = cleaned(frame)

    frame.loc[0, "x"] = "changed"

    pd.testing.assert_frame_equal(after.undo(), before)


def test_undo_of_polars_is_not_reached_by_what_becomes_of_other_frames():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame({"x": [" a", "b"] * 5})
    before = frame.clone()
    after = cleaned(frame)

    frame[0, "x"] = "changed"
    after.undo()[1, "x"] = "changed"

    assert after.undo().equals(before)


def test_twice_equals_once(soiled):
    plan = everything(clean.plan(clean.look(soiled.frame)))
    once = clean.apply(soiled.frame, plan)

    twice = clean.apply(once.frame, plan)

    pd.testing.assert_frame_equal(twice.frame, once.frame)
    assert twice.ledger["rows"].sum() == 0


@pytest.mark.parametrize(
    "kinds", [("near duplicates", "spellings"), ("spellings", "near duplicates")], ids=str
)
def test_twice_equals_once_in_whatever_order_doubts_were_accepted(kinds):
    makers = ["Boeing"] * 100 + ["Boing"] * 3 + ["boing"] + ["Airbus"] * 100
    frame = pd.DataFrame({"maker": makers, "row": range(len(makers))})
    plan = clean.plan(clean.look(frame))
    for kind in kinds:
        plan = plan.accept(kind)

    once = clean.apply(frame, plan).frame
    twice = clean.apply(once, plan).frame

    assert once["maker"].value_counts().to_dict() == {"Boeing": 104, "Airbus": 100}
    pd.testing.assert_frame_equal(twice, once)


STEPS = st.sampled_from(
    [
        Step("x", "strip"),
        Step("x", "missing", {"values": ["a", "3"]}),
        Step("x", "merge", {"values": {"b": "c", " b": "c"}}),
        Step("x", "pad", {"width": 3}),
        Step("x", "number", {"decimal": ".", "thousands": "", "units": {}, "whole": False}),
        Step("x", "limits", {"low": 0, "high": 10}),
        Step(None, "drop_duplicates"),
        Step("x", "yes_no", {"yes": ["a"], "no": ["b", "c"]}),
    ]
)


@given(
    st.lists(st.sampled_from(["a", "b", " b", "3", " 12", "-4", None]), min_size=1, max_size=12),
    st.lists(STEPS, max_size=5),
)
def test_any_plan_once_equals_it_twice_and_can_be_taken_back(cells, steps):
    frame = pd.DataFrame({"x": pd.Series(cells, dtype="str"), "row": range(len(cells))})
    # a step that reads what another has still to make is for the second time
    steps = sorted(
        steps, key=lambda step: list([*rules.RULES, *rules.FRAME_RULES]).index(step.rule)
    )
    plan = plan_of(*steps, columns=("x", "row"))

    once = clean.apply(frame, plan)
    twice = clean.apply(once.frame, plan)

    assert clean.fingerprint(once.undo()) == clean.fingerprint(frame)
    if not once.table["status"].str.startswith("refused").any():
        pd.testing.assert_frame_equal(twice.frame, once.frame)


def test_the_ledger_tells_each_old_value_its_new_one_and_its_rows():
    frame = pd.DataFrame({"fare": ["$1,200", "950", "NA", " 80", "$1,200"]})

    ledger = cleaned(frame).ledger

    assert ledger.to_dict("records") == [
        {"step": 1, "column": "fare", "rule": "strip", "old": " 80", "new": "80", "rows": 1},
        {"step": 2, "column": "fare", "rule": "missing", "old": "NA", "new": None, "rows": 1},
        {"step": 3, "column": "fare", "rule": "number", "old": "$1,200", "new": 1200, "rows": 2},
    ]


def test_the_ledger_accounts_for_every_cell_that_differs(soiled):
    plan = clean.plan(clean.look(soiled.frame)).drop(rule="drop_duplicates")
    after = clean.apply(soiled.frame, plan)

    for name in ("carrier", "origin", "dest"):
        old, new = soiled.frame[name], after.frame[name]
        differs = (old != new) & ~(old.isna() & new.isna())
        pairs = after.ledger[after.ledger["column"] == name]

        assert pairs["rows"].sum() == differs.sum()
        assert set(pairs["old"]) == set(old[differs])
    assert after.table["cells"].sum() == after.ledger["rows"].sum()


# ---- what a look finds


@pytest.mark.parametrize(
    ("cells", "findings"),
    [
        (["1,234", "5,678,901", "12"], ["number marks"]),
        (["3,5", "12,25", "7"], ["number marks"]),
        (["1.234,5", "7,25"], ["number marks"]),
        (["1 234", "12"], ["number marks"]),
        (["1,234", "2,345"], ["number marks?"]),  # 1234 or 1.234
        (["1,234.5", "1.234,5"], ["number marks?"]),
        (["192.168.100.100", "192.168.100.101"], ["number marks?"]),  # addresses
        (["601 234 100", "+601 234 101"], ["number marks?"]),  # phones
        (["1 234", "-2 345"], ["number marks"]),
        (["1 234.5", "2 345"], ["number marks"]),
        (["€ 1 234", "€ 2 345"], ["number marks", "currency"]),
        (["- 5", "7", "8"], ["number marks?"]),  # no rule reads the blank
        (["€ 5", "7"], ["currency"]),
        (["-$5", "7"], ["currency"]),
        (["$5", "€7"], ["currency?"]),
        (["5%", "0.5"], ["percent"]),
        (["5 km", "7 km"], ["units"]),
        (["5 km", "7 mi", "8 km"], ["units"]),
        (["5 km", "7 mi", "8"], ["units?"]),
        (["5 km", "7 kg"], ["units?"]),
        (["31/12/2013", "2013-12-30"], ["date notations"]),
        (["1/2/2013", "3/4/2013"], ["date order?"]),
        (["31/12/2013", "12/31/2013"], ["date order?"]),
        (["2013-12-31", "31 Dec 2013", "Dec 30, 2013 9:05"], ["date notations"]),
        (["yes", "no", "Y"], ["yes/no variants"]),
        (["true", "false"], []),
        (["1", "2", "n/a"], ["null words"]),
        (["1", "2", "unknown"], ["null words"]),
        (["red", "blue", "unknown"], ["null words?"]),
        (["DE", "FR", "NA"], ["null words?"]),  # Namibia
        (["02134", "10001", "2134"], ["leading zeros?"]),
        (["02134", "10001"], []),
        (["+442071838750", "+4930123"], []),
        (["1234567890123456789", "1"], []),
        (["12A", "14B"], []),
        (["N14228", "N24211"], []),
        (["A320", "A321"], []),
        (["2013-02-30", "2013-02-01"], []),
        (["2013-01-01T10:00:00Z", "2013-01-02T10:00:00Z"], []),
        (["1e999", "2"], []),
        (["7 beds", "8 beds"], []),
        (["Iran", "Iraq"], []),
        (["South Dakota", "South Carolina"], []),
        (["٣", "٤"], []),
        ([" a", "b"], ["blanks"]),
        (["a\n b ", "c"], ["blanks?"]),
        ([-999, 5, 7, 9], ["sentinels?"]),
    ],
    ids=str,
)
def test_each_fault_is_found_and_what_is_none_is_not(cells, findings):
    table = clean.look(pd.DataFrame({"x": cells, "row": range(len(cells))})).table

    found = table["finding"] + np.where(table["action"] == "flag", "?", "")
    assert found.tolist() == findings


def test_numbers_that_mean_missing_are_told_from_those_that_may():
    rng = np.random.default_rng(0)
    far = np.append(rng.integers(0, 50, 500), [-999] * 5)
    near = np.append(rng.integers(-2000, 2000, 500), [999] * 30)
    dear = np.append(rng.integers(0, 50, 525), [999] * 5)
    columns = {"far": far, "near": near, "dear": dear}

    table = clean.look(pd.DataFrame({k: pd.Series(v) for k, v in columns.items()})).table

    table = table[table["finding"] == "sentinels"]
    assert table[["column", "finding", "examples", "action"]].to_numpy().tolist() == [
        ["far", "sentinels", "-999", "repair"],
        ["near", "sentinels", "999", "flag"],
        ["dear", "sentinels", "999", "flag"],
    ]


WIDTHS = [f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", [*WIDTHS, "float16", "float32"])
def test_numbers_are_judged_alike_in_every_width(dtype):
    limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    top, low = min(int(limits.max), 1_999), max(int(limits.min), -128)
    scores = np.tile(np.arange(top + 1), 2)
    frame = pd.DataFrame({"score": scores, "late": np.resize([*range(1, 101)], len(scores))})
    frame.loc[0, "late"] = low
    wide, narrow = (clean.look(frame.astype(kind)).table for kind in ("int64", dtype))

    about = ["column", "finding", "cells", "action", "why"]
    assert "score" not in set(narrow["column"])
    pd.testing.assert_frame_equal(narrow[about], wide[about])


def test_spellings_that_differ_in_case_are_merged_only_where_one_is_usual():
    frame = pd.DataFrame({"usual": ["UA"] * 12 + ["ua"] * 2, "none": ["a", "A"] * 7})

    audit = clean.look(frame)

    assert [step.arguments for step in audit.steps] == [{"values": {"ua": "UA"}}]
    assert [(doubt.column, doubt.kind) for doubt in audit.doubts if doubt.column == "none"] == [
        ("none", "spellings")
    ]


def test_near_names_are_a_doubt_that_can_be_accepted():
    makers = ["AIRBUS"] * 40 + ["AIRBUS INDUSTRIE"] * 10 + ["BOEING"] * 60 + ["BOENG"] * 2
    frame = pd.DataFrame({"maker": makers})
    plan = clean.plan(clean.look(frame))
    assert plan.steps == ()

    after = clean.apply(frame, plan.accept("near duplicates", column="maker"))

    assert after.frame["maker"].value_counts().to_dict() == {"BOEING": 62, "AIRBUS": 50}


@pytest.mark.parametrize("word", ["abcdefgh", "ab cdefg "], ids=["letters", "words"])
def test_a_long_text_is_no_slip_and_takes_no_memory_by_its_square(word):
    rare = (word * 1_000)[:-1]
    words = pd.Series([word * 1_000, rare, "BOEING AIRCRAFT", "BOENG AIRCRAFT"])
    tracemalloc.start()

    found = categories.near(words, np.array([100, 1, 100, 1]))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"BOENG AIRCRAFT": "BOEING AIRCRAFT"}
    assert peak < 2**20


def test_impossible_values_are_flagged_with_a_step_that_takes_them_out():
    ages = [*range(1, 90), 999_999, -5]
    frame = pd.DataFrame({"age": ages})
    plan = clean.plan(clean.look(frame))

    after = clean.apply(frame, plan.accept("impossible values"))

    assert plan.steps == ()
    assert after.frame["age"].isna().sum() == 2
    assert str(after.frame["age"].dtype) == "Int64"


def test_duplicates_are_sure_only_where_chance_would_not_make_them():
    rng = np.random.default_rng(0)
    few = pd.DataFrame({"side": rng.choice(["head", "tail"], 50)})
    many = pd.DataFrame(rng.random((500, 4)), columns=list("abcd"))
    many = pd.concat([many, many.head(3)], ignore_index=True)

    actions = [
        clean.look(frame).table.query("finding == 'duplicated rows'") for frame in (few, many)
    ]

    assert [table["action"].tolist() for table in actions] == [["flag"], ["repair"]]
    assert cleaned(many).kept.tolist() == list(range(500))


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), max_size=30))
def test_first_rows_are_those_that_pandas_keeps(rows):
    codes = np.array(rows, np.int64).reshape(-1, 2)

    left = first_rows(list(codes.T), len(codes))

    assert left.tolist() == np.flatnonzero(~pd.DataFrame(codes).duplicated()).tolist()


# ---- rules agree with slower code


@given(st.dates(), st.sampled_from(["%d/%m/%Y", "%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%d.%m.%Y"]))
def test_a_day_is_read_in_every_notation(day, notation):
    text = day.strftime(notation.replace("%Y", f"{day.year:04d}"))

    read = compute("date", [text], order="day first")

    assert read == [dt.datetime.combine(day, dt.time())]


@given(st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32))
def test_a_day_that_never_was_is_missing(year, month, day):
    there = 1 <= month <= 12 and year >= 1 and 1 <= day <= calendar.monthrange(year, month)[1]

    read = compute("date", [f"{year:04d}-{month:02d}-{day:02d}"], order="day first")

    assert (read[0] is not None) == there


@given(
    st.lists(st.decimals(-(10**9), 10**9, places=2), min_size=1),
    st.sampled_from([("{:,.2f}", ".", ","), ("{:.2f}", ".", ""), ("german", ",", ".")]),
)
def test_numbers_come_back_exactly_from_their_notation(numbers, notation):
    form, decimal, thousands = notation
    texts = [f"{n:,.2f}" if form == "german" else form.format(n) for n in numbers]
    if form == "german":
        texts = [text.translate(str.maketrans(",.", ".,")) for text in texts]

    read = compute("number", texts, decimal=decimal, thousands=thousands, units={}, whole=False)

    assert read == [float(n) for n in numbers]


@given(st.integers(0, 10_000))
def test_a_percent_is_the_nearest_float_of_its_hundredth(n):
    arguments = {"decimal": ".", "thousands": "", "units": {"%": 0.01}, "whole": False}

    assert compute("number", [f"{n}%", f" {n} %"], **arguments) == [n / 100, n / 100]


def test_units_are_turned_into_the_commonest_one():
    frame = pd.DataFrame({"x": ["5 km", "1.5 km", "500 m"]})

    assert cleaned(frame).frame["x"].tolist() == [5.0, 1.5, 0.5]


# ---- nothing is silent


def test_what_must_not_change_does_not():
    frame = pd.DataFrame(
        {
            "huge": pd.Series([2**62 + 1, 2**62 + 3, None], dtype="Int64"),
            "beyond": [2**70, 2**70 + 1, 5],
            "zip": ["02134", "10001", "00501"],
            "old": ["1850-01-31", "1066-10-14", "0001-01-01"],
            "at": pd.date_range("2013-01-01", periods=3, tz="America/New_York"),
            "zoned": ["2013-01-01T10:00+02:00", "2013-01-01T10:00Z", "2013-06-01T10:00Z"],
            "list": [[1], [2], [1]],
            "mixed": [1, "a", 2.5],
            "": ["x", "y", "z"],
        }
    )

    after = cleaned(frame).frame

    assert after["old"].tolist() == [
        dt.datetime(1850, 1, 31),
        dt.datetime(1066, 10, 14),
        dt.datetime(1, 1, 1),
    ]
    same = [name for name in frame if name != "old"]
    pd.testing.assert_frame_equal(after[same], frame[same])


def test_gaps_do_not_make_whole_numbers_floats():
    frame = pd.DataFrame({"n": [*range(2**60, 2**60 + 40), -999, -999]})
    step = Step("n", "missing", {"values": [-999]})

    after = clean.apply(frame, plan_of(step, columns=("n",))).frame["n"]

    assert str(after.dtype) == "Int64"
    assert after.dropna().tolist() == list(range(2**60, 2**60 + 40))


def test_a_step_that_would_lose_values_is_refused_and_told():
    frame = pd.DataFrame({"x": ["1", "2", "many", "12345678901234567890"]})
    step = Step("x", "number", {"decimal": ".", "thousands": "", "units": {}, "whole": True})

    after = clean.apply(frame, plan_of(step))

    assert after.table["status"].tolist() == [
        (
            "refused: it cannot read 2 cells such as 'many', '12345678901234567890', "
            "and would lose them"
        )
    ]
    pd.testing.assert_frame_equal(after.frame, frame)


def test_one_failing_step_does_not_lose_the_rest(monkeypatch):
    def broken(x):
        raise RuntimeError("no such thing\nsecond line")

    monkeypatch.setitem(rules.RULES, "strip", rules.Rule(broken, "text"))
    frame = pd.DataFrame({"x": [" a", "NA"]})
    plan = plan_of(Step("x", "strip"), Step("x", "missing", {"values": ["NA"]}))

    after = clean.apply(frame, plan)

    assert after.table["status"].tolist() == ["failed: no such thing", "done"]
    assert after.frame["x"].isna().tolist() == [False, True]


# types that Arrow cannot compute with
FOREIGN = [
    pd.DataFrame({"x": pd.period_range("2020-01", periods=3, freq="M"), "y": [" a", "b", "c"]}),
    pd.DataFrame({"x": pd.interval_range(0, 3), "y": [" a", "b", "c"]}),
    pd.DataFrame({"x": np.arange(3) * 1j, "y": [" a", "b", "c"]}),
]


@pytest.mark.parametrize("frame", FOREIGN, ids=["periods", "intervals", "complex"])
def test_a_table_of_foreign_types_has_a_fingerprint(frame):
    other = frame.assign(x=frame["x"].iloc[[0, 1, 1]].array)

    assert clean.fingerprint(frame.iloc[::-1]) == clean.fingerprint(frame)
    assert clean.fingerprint(other) != clean.fingerprint(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": pd.Series([], dtype="str")}),
        pd.DataFrame(),
        pd.DataFrame({"x": [None, None]}),
        pd.DataFrame({"x": [np.nan], "y": [pd.NaT]}),
        pd.DataFrame({"x": ["a\0b", "\ufeffc", "d" * 10**6]}),
        pd.DataFrame({"x": [True, None], "y": [b"raw", b"bytes"]}),
        pd.DataFrame({"x": pd.Categorical(["a ", "b"])}),
        pd.DataFrame({"x": [1.5, np.inf, -np.inf, np.nan]}),
        *FOREIGN,
    ],
    ids=[
        *("no rows", "nothing", "all null", "all gaps", "odd text", "bytes", "category", "inf"),
        *("periods", "intervals", "complex"),
    ],
)
def test_odd_tables_are_looked_at_and_cleaned_without_a_word(frame):
    after = cleaned(frame)

    pd.testing.assert_frame_equal(after.undo(), frame)
    assert not after.table["status"].str.startswith("failed").any()


def test_a_file_is_taken_by_its_path(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufefffare,ok\n$5,yes\n7,no\n".encode())

    after = clean.apply(path, clean.plan(clean.look(str(path))))

    assert after.frame.to_dict("list") == {"fare": [5, 7], "ok": [True, False]}


# ---- plans are for people


def test_a_plan_survives_json_and_can_be_edited(soiled):
    plan = clean.plan(clean.look(soiled.frame))
    content = json.loads(plan.to_json())
    content["steps"] = [step for step in content["steps"] if step["rule"] == "strip"]

    whole, edited = Plan.from_json(plan.to_json()), Plan.from_json(json.dumps(content))

    assert (whole.steps, whole.doubts, whole.columns) == (plan.steps, plan.doubts, plan.columns)
    assert [step.rule for step in edited.steps] == ["strip"]
    assert plan.drop(column="carrier", rule="strip").drop(rule="number").steps != plan.steps


X = {"column": "x", "why": "", "rows": 0}
NUMBER = {"decimal": ".", "thousands": "", "units": {}, "whole": True}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"rule": "stirp", "arguments": {}},
            (
                "a known rule, got 'stirp' (str). Did you mean 'strip'? Known: date, drop_column, "
                "drop_duplicates, limits, merge, missing, number, pad, strip, yes_no."
            ),
        ),
        (
            {"rule": "pad", "arguments": {"width": -1}},
            (
                "width to be a whole number from 1 to 50, got -1 in step 1 (pad of 'x'). "
                "Mend the plan."
            ),
        ),
        (
            {"rule": "pad", "arguments": {"widht": 5}},
            (
                "a known argument in step 1 (pad of 'x'), got 'widht' (str). Did you mean 'width'? "
                "Known: width."
            ),
        ),
        (
            {"rule": "merge", "arguments": {"values": {"a": "b", "b": "c"}}},
            (
                "values to be {old: new} in which no new word is an old one, got "
                "{'a': 'b', 'b': 'c'} in step 1 (merge of 'x'). Mend the plan."
            ),
        ),
        (
            {"rule": "number", "arguments": {**NUMBER, "units": {"km": 0}}},
            (
                "units to be {unit: factor} with factors above 0, got {'km': 0} in step 1 "
                "(number of 'x'). Mend the plan."
            ),
        ),
        (
            {"rule": "drop_duplicates", "arguments": {}},
            (
                "a column for 'drop_duplicates', got step 1 (drop_duplicates of 'x'). "
                "drop_duplicates alone has none."
            ),
        ),
        (
            {
                "rule": "number",
                "arguments": {**NUMBER, "thousands": ".", "whole": False},
            },
            (
                "thousands to be no decimal mark, got decimal=., thousands=., units={}, "
                "whole=False in step 1 (number of 'x'). Mend the plan."
            ),
        ),
        (
            {"rule": "number", "arguments": {**NUMBER, "units": {"%": 0.01}}},
            (
                "whole numbers to have units of factor 1, got decimal=., thousands=, "
                "units={'%': 0.01}, whole=True in step 1 (number of 'x'). Mend the plan."
            ),
        ),
        (
            {"rule": "limits", "arguments": {"low": 10, "high": 5}},
            (
                "low to be at most high, got low=10, high=5 in step 1 (limits of 'x'). "
                "Mend the plan."
            ),
        ),
        (
            {"rule": "yes_no", "arguments": {"yes": ["On", "1"], "no": [" on"]}},
            (
                "no word to be both yes and no, got yes=['On', '1'], no=[' on'] in step 1 "
                "(yes_no of 'x'). Mend the plan."
            ),
        ),
        (
            {"rule": "strip", "arguments": ["x"]},
            "arguments by name, got step 1 (strip of 'x'). Write {\"name\": value}.",
        ),
    ],
    ids=lambda value: value["rule"] if isinstance(value, dict) else "",
)
def test_a_plan_edited_into_nonsense_is_refused_in_one_line(step, message):
    text = json.dumps({"columns": ["x"], "doubts": [], "steps": [{**X, **step}]})

    with pytest.raises(ValueError) as caught:
        Plan.from_json(text)

    assert str(caught.value) == f"clean.apply: expected {message}"


def test_a_merge_that_makes_what_an_earlier_one_takes_away_is_refused():
    first = Step("x", "merge", {"values": {"b": "c"}})
    second = Step("x", "merge", {"values": {"a": "b"}})
    frame = pd.DataFrame({"x": ["a"]})

    with pytest.raises(ValueError) as caught:
        clean.apply(frame, plan_of(first, second))

    assert str(caught.value) == (
        "clean.apply: expected no new word of a merge to be an old one of a merge before it, got "
        "'b' in step 2 (merge of 'x'). Put it before that one."
    )
    assert clean.apply(frame, plan_of(second, first)).frame["x"].tolist() == ["c"]


def test_a_doubt_edited_into_nonsense_is_refused_as_a_step_is():
    doubt = Doubt("x", "blanks", step=Step("x", "stirp"))

    with pytest.raises(ValueError) as caught:
        Plan.from_json(make([], [doubt], ["x"]).to_json())

    assert str(caught.value) == (
        "clean.apply: expected a known rule, got 'stirp' (str). Did you mean 'strip'? Known: date, "
        "drop_column, drop_duplicates, limits, merge, missing, number, pad, strip, yes_no."
    )


@pytest.mark.parametrize("name", ["column", "rule"])
def test_a_step_whose_column_or_rule_is_no_text_is_refused_in_one_line(name):
    content = json.loads(plan_of(Step("x", "strip")).to_json())
    content["steps"][0][name] = ["x"]

    with pytest.raises(ValueError) as caught:
        Plan.from_json(json.dumps(content))

    assert str(caught.value) == (
        f"clean.plan: expected the JSON of a plan, got TypeError: {name} of a step is ['x'], "
        "which is no text. Write it with plan.to_json(), and edit that."
    )


def test_a_plan_of_another_version_is_refused():
    content = json.loads(plan_of().to_json()) | {"plan": 99}

    with pytest.raises(ValueError) as caught:
        Plan.from_json(json.dumps(content))

    assert str(caught.value) == (
        "clean.plan: expected a plan of version 1, got 99. "
        "Read it with the modelcare that wrote it, or plan anew."
    )


@pytest.mark.parametrize("text", ["", "[]", '{"steps": [{}], "doubts": [], "columns": []}', "{"])
def test_what_is_no_plan_is_refused_in_one_line(text):
    with pytest.raises(ValueError) as caught:
        Plan.from_json(text)

    message = str(caught.value)
    assert message.startswith("clean.plan: expected the JSON of a plan, got ")
    assert message.endswith(". Write it with plan.to_json(), and edit that.")
    assert len(message.splitlines()) == 1


def test_a_plan_for_another_table_says_which_columns_differ():
    plan = plan_of(Step("x", "strip"), Step("y", "strip"), columns=("x", "y", "z"))

    with pytest.raises(ValueError) as caught:
        clean.apply(pd.DataFrame({"y": ["a"], "other": ["b"]}), plan)

    assert str(caught.value) == (
        "clean.apply: expected the table that the plan was made for, got one without 'x', and "
        "with 'other' that it does not know. Look at this table and plan anew, or leave it out: "
        "plan.drop(column='x')."
    )


def test_what_is_no_table_no_plan_or_no_audit_is_refused():
    frame = pd.DataFrame({"x": [1]})

    with pytest.raises(TypeError) as no_table:
        clean.look([1, 2])
    with pytest.raises(TypeError) as no_plan:
        clean.apply(frame, {"steps": []})
    with pytest.raises(TypeError) as no_audit:
        clean.plan(frame)

    assert str(no_table.value) == (
        "clean.look: expected a path, or a table of pandas, PyArrow, Polars, DuckDB, Dask or "
        "PySpark, got [1, 2] (list). Pass pd.DataFrame(…)."
    )
    assert str(no_plan.value) == (
        "clean.apply: expected a plan, got {'steps': []} (dict). "
        "Pass clean.plan(clean.look(frame))."
    )
    assert str(no_audit.value) == (
        "clean.plan: expected an audit, got DataFrame of shape (1, 1). Pass clean.look(frame)."
    )


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "column names that differ, got 'a' more than once",
        ),
        (
            pa.table([[1], [2]], names=["a", "a"]),
            "column names that differ, got 'a' more than once",
        ),
        (pd.DataFrame([[1, 2]]), "column names that are text, got 0, 1"),
    ],
    ids=["pandas", "pyarrow", "numbers"],
)
def test_names_alike_or_no_names_are_refused(frame, got):
    with pytest.raises(ValueError) as caught:
        clean.look(frame)

    remedy = "Rename them: frame.columns = ['a', 'b', …]."
    assert str(caught.value) == f"clean.look: expected {got}. {remedy}"


def test_a_doubt_that_is_not_there_is_told_with_those_that_are():
    doubt = Doubt("x", "blanks", step=Step("x", "strip"))
    plan = make([], [doubt], ["x"])

    with pytest.raises(ValueError) as unknown:
        plan.accept("blank")
    with pytest.raises(ValueError) as elsewhere:
        plan.accept("blanks", column="y")
    with pytest.raises(ValueError) as no_step:
        plan.drop(column="x")

    assert str(unknown.value) == (
        "plan.accept: expected a known doubt with a step, got 'blank' (str). "
        "Did you mean 'blanks'? Known: blanks."
    )
    assert str(elsewhere.value) == (
        "plan.accept: expected a doubt about blanks in column 'y', got none. Pass one of: 'x'."
    )
    assert str(no_step.value) == (
        "plan.drop: expected a step of 'x', got none in this plan. "
        "Look at plan.table for those there are."
    )


def test_a_score_of_another_table_or_of_a_query_is_refused(soiled):
    plan = plan_of()

    with pytest.raises(ValueError) as other:
        clean.score(clean.apply(soiled.frame.head(10), plan), soiled)

    assert str(other.value) == (
        f"clean.score: expected the table of this truth, {len(soiled.frame):,} rows, "
        "got one of 10. Pass clean.apply(truth.frame, plan)."
    )


def test_a_score_sees_what_was_missed_and_what_was_harmed(soiled):
    nothing = clean.score(clean.apply(soiled.frame, plan_of()), soiled)
    harm = plan_of(Step("carrier", "merge", {"values": {"UA": "DL"}}), columns=("carrier",))

    harmed = clean.score(clean.apply(soiled.frame, harm), soiled)

    assert (nothing.table["missed"] == nothing.table["planted"]).all()
    assert nothing.n_harmed == 0
    assert set(harmed.harmed["column"]) == {"carrier"}
    healthy = (soiled.frame["carrier"] == "UA").sum()
    assert harmed.n_harmed == pytest.approx(healthy, rel=0.05)
