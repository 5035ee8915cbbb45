"""The flights as published, joined without a look into the future."""

import hashlib
import importlib
import re
from pathlib import Path

import pandas as pd
import pytest

from kit import data

module = importlib.import_module("kit.data.flights")  # its name in kit.data is the function
FOLDER = Path(__file__).parents[1] / "data" / "flights"
KNOWN_BEFORE = {
    *("departure", "late", "sched_arr_hour", "carrier", "origin", "dest", "distance"),
    *(
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "wind_gust",
        "precip",
        "pressure",
        "visib",
    ),
    *("plane_year", "manufacturer", "seats", "engines"),
}


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return pd.read_parquet(FOLDER / "flights.parquet")


@pytest.fixture(scope="module")
def dropped() -> data.Table:
    return data.flights()


@pytest.fixture(scope="module")
def counted() -> data.Table:
    return data.flights(cancelled="late")


def test_the_files_are_those_of_the_data_card():
    card = (FOLDER / "CARD.md").read_text()
    told = dict(re.findall(r"^\|\s*(\w+\.parquet)\s*\|.*\|\s*([0-9a-f]{64})\s*\|$", card, re.M))

    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in FOLDER.glob("*.parquet")}

    assert len(told) == 5
    assert found == told


def test_every_row_is_there_and_the_cancelled_ones_are_left_out_or_late(raw, dropped, counted):
    assert len(raw) == len(counted.frame) == 336_776
    assert len(dropped.frame) == 336_776 - 8_255 - 1_175
    assert dropped.notes == ("8,255 cancelled and 1,175 diverted flights left out",)
    assert counted.notes == ("8,255 cancelled and 1,175 diverted flights counted as late",)


def test_the_target_is_fifteen_minutes_at_arrival(raw, dropped, counted):
    late = raw["arr_delay"] >= 15

    assert dropped.frame["late"].dtype == counted.frame["late"].dtype == bool
    assert dropped.frame["late"].sum() == late.sum()
    assert counted.frame["late"].sum() == late.sum() + 8_255 + 1_175


def test_only_what_is_known_before_departure_goes_in(dropped):
    assert set(dropped.frame.columns) == KNOWN_BEFORE


def test_no_column_tells_the_delay_of_the_same_flight(raw, dropped):
    """Whatever tells the delay would give it away: each column alone must leave it open."""
    delay = raw["arr_delay"].dropna()
    assert delay.corr(raw.loc[delay.index, "dep_delay"].astype(float)) > 0.9  # such a one would

    numbers = dropped.frame.select_dtypes("number").astype("float64")

    assert numbers.corrwith(dropped.frame["late"].astype(float)).abs().max() < 0.3


def test_the_rows_are_in_the_order_of_departure_in_new_york(raw, dropped):
    frame = dropped.frame
    flown = raw[raw["arr_delay"].notna()]

    assert frame["departure"].is_monotonic_increasing
    assert str(frame["departure"].dt.tz) == "America/New_York"
    hours = frame["departure"].dt.hour.value_counts().sort_index()
    assert hours.tolist() == flown["hour"].value_counts().sort_index().tolist()
    minutes = frame["departure"].dt.minute.value_counts().sort_index()
    assert minutes.tolist() == flown["minute"].value_counts().sort_index().tolist()


@pytest.mark.parametrize(
    ("origin", "departure"),
    [
        ("EWR", "2013-01-01 05:15"),  # the first flight
        ("JFK", "2013-03-10 05:40"),  # the day that summer time began
        ("LGA", "2013-07-04 12:00"),
        ("EWR", "2013-11-03 06:00"),  # the day that it ended
    ],
)
def test_the_weather_is_that_of_the_hour_before(dropped, origin, departure):
    moment = pd.Timestamp(departure, tz="America/New_York")
    rows = dropped.frame.query("origin == @origin and departure == @moment")
    weather = pd.read_parquet(FOLDER / "weather.parquet")
    hour_before = moment.floor("h").tz_convert("UTC") - pd.Timedelta(hours=1)
    seen = weather[(weather["origin"] == origin) & (weather["time_hour"] == hour_before)]

    assert len(rows) >= 1
    assert len(seen) == 1
    for name in module.SKY:
        expected, found = seen[name].iloc[0], rows[name]
        assert found.isna().all() if pd.isna(expected) else (found == expected).all()


def test_the_plane_is_found_by_its_tail_number(raw, dropped):
    planes = pd.read_parquet(FOLDER / "planes.parquet").set_index("tailnum")
    flown = raw[raw["arr_delay"].notna()]

    assert dropped.frame["seats"].sum() == planes["seats"].reindex(flown["tailnum"]).sum()
    assert dropped.frame["plane_year"].sum() == planes["year"].reindex(flown["tailnum"]).sum()


def test_a_clock_becomes_an_hour_without_holes():
    clock = pd.Series([0, 59, 100, 1745, 2359], dtype="Int32")

    assert module._hour_of_day(clock).round(4).tolist() == [0, 0.9833, 1, 17.75, 23.9833]


def test_a_split_by_time_shares_no_moment(dropped):
    parts = data.split(dropped.frame, target="late", time="departure")

    ends = [
        (part["departure"].min(), part["departure"].max())
        for part in (parts.train, parts.validation, parts.test)
    ]
    assert ends[0][1] < ends[1][0]
    assert ends[1][1] < ends[2][0]
    assert sum(map(len, (parts.train, parts.validation, parts.test))) == len(dropped.frame)


def test_a_sample_is_drawn_by_its_seed_and_stays_in_order():
    one, again, other = (data.flights(rows=500, seed=seed).frame for seed in (1, 1, 2))

    assert one.equals(again)
    assert not one.equals(other)
    assert len(one) == 500
    assert one["departure"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"cancelled": "lat"},
            (
                "data.flights: expected a known way with cancelled flights, got 'lat' (str). "
                "Did you mean 'late'? Known: drop, late."
            ),
        ),
        (
            {"rows": 0},
            "data.flights: expected rows >= 1 or None, got 0 (int). Pass rows=20_000.",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        data.flights(**settings)

    assert str(caught.value) == message


def test_without_the_data_folder_the_remedy_is_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "kit" / "data" / "flights.py"))

    with pytest.raises(ValueError) as caught:
        data.flights()

    assert str(caught.value) == (
        f"data.flights: expected the project's data folder, got '{tmp_path}/data/flights' (str). "
        "Clone the project and install it from there: pip install -e ."
    )
