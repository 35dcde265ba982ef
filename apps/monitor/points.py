"""Points as they come in, as JSON or CSV: checked whole, before anything of them is kept.

The rules: a request is taken whole or refused whole. A time is in unix seconds or ISO 8601 with a zone. A
value is a number; null, NaN and an empty field of CSV are missing values. Points of a series are put in order
within a request; of two with the same time the first one counts.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apps.monitor.config import AHEAD_S
from apps.web.replies import Refused, clip

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_CHANNELS = 64
LARGEST = 1e30  # float32 still has room above it
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")

Time = Annotated[float | str, Field(description="Unix seconds, or ISO 8601 with a zone.")]
Value = float | None


class Point(BaseModel):
    """One point of one series."""

    model_config = ConfigDict(extra="forbid", strict=True)

    series: str = Field(description="Up to 64 of A-z, 0-9, dot, - and _.")
    time: Time
    values: list[Value] | dict[str, Value] = Field(description="One value a channel; null is missing.")


class PointsRequest(BaseModel):
    """Points of any number of series."""

    model_config = ConfigDict(extra="forbid", strict=True)

    points: list[Point] = Field(min_length=1)


class SeriesPointsRequest(BaseModel):
    """Points of one series, by column."""

    model_config = ConfigDict(extra="forbid", strict=True)

    channels: list[str] | None = Field(None, description="Their names; the first request fixes them.")
    times: list[Time] = Field(min_length=1)
    values: list[list[Value]] = Field(description="One row a time, one value a channel; null is missing.")


@dataclass(frozen=True)
class Part:
    """Points of one series: `times` float64 (n,) ascending, `values` float64 (n, c), NaN is missing."""

    series: str
    names: tuple[str, ...] | None
    times: np.ndarray
    values: np.ndarray
    repeated: int  # points of a time that the request had already given


def check_name(name: str, what: str = "a series") -> str:
    """Raises Refused (422) for what cannot be a name."""
    if not NAME.fullmatch(name):
        raise Refused(
            422, f"{clip(name)} is no name for {what}; use up to 64 of A-z, 0-9, dot, - and _, as in cpu.load"
        )
    return name


def of_many(request: PointsRequest, now: float) -> list[Part]:
    """The parts of a request of many series. Raises Refused (422)."""
    rows: dict[str, list[tuple[Time, Sequence[Value]]]] = {}
    names: dict[str, tuple[str, ...] | None] = {}
    for point in request.points:
        given = point.values
        told = tuple(given) if isinstance(given, dict) else None
        known = names.setdefault(point.series, told)
        if isinstance(given, dict):
            if known is None or set(known) != set(given):
                raise Refused(422, f"series {clip(point.series)} has points of different channels; send all")
            given = [given[name] for name in known]
        elif known is not None:
            raise Refused(422, f"series {clip(point.series)} has points with and without names; choose one")
        rows.setdefault(point.series, []).append((point.time, given))
    return [
        part(series, names[series], [time for time, _ in found], [values for _, values in found], now)
        for series, found in rows.items()
    ]


def of_one(series: str, request: SeriesPointsRequest, now: float) -> list[Part]:
    """The part of a request of one series. Raises Refused (422)."""
    if len(request.times) != len(request.values):
        raise Refused(
            422, f"{len(request.times)} times and {len(request.values)} rows of values; send one for each"
        )
    names = None if request.channels is None else tuple(request.channels)
    return [part(series, names, request.times, request.values, now)]


def of_csv(text: str, series: str | None, now: float) -> list[Part]:
    """The parts of lines `series,time,value,…`; of one series `time,value,…`, whose header names channels.

    Raises Refused (422) that names the line.
    """
    rows: dict[str, tuple[list[Time], list[list[Value]]]] = {}
    names: tuple[str, ...] | None = None
    for number, fields in enumerate(_lines(text), 1):
        if not fields:
            continue
        if number == 1 and fields[: 1 if series else 2] in (["time"], ["series", "time"]):
            names = tuple(field.strip() for field in fields[1:]) if series else None
            continue
        name, *rest = fields if series is None else (series, *fields)
        if len(rest) < 2:
            raise Refused(422, f"line {number} has too few fields; send {_form(series)}")
        times, values = rows.setdefault(name.strip(), ([], []))
        times.append(_time_field(rest[0].strip()))
        values.append([_value_field(field.strip(), number) for field in rest[1:]])
    if not rows:
        raise Refused(422, f"no points in the body; send lines as {_form(series)}")
    return [part(name, names, *found, now) for name, found in rows.items()]


def part(
    series: str,
    names: tuple[str, ...] | None,
    times: Sequence[Time],
    values: Sequence[Sequence[Value]],
    now: float,
) -> Part:
    """Checks and sorts the points of one series. Raises Refused (422)."""
    check_name(series)
    width = len(values[0])
    if not 1 <= width <= MAX_CHANNELS:
        raise Refused(422, f"series {clip(series)} has {width} values a point; send 1 to {MAX_CHANNELS}")
    if any(len(row) != width for row in values):
        raise Refused(422, f"series {clip(series)} has points of different widths; send {width} values each")
    _check_names(names, width, series)
    at = np.array([seconds(time, now) for time in times])
    table = np.array([[math.nan if v is None else v for v in row] for row in values], dtype=np.float64)
    if (np.abs(table) > LARGEST).any():
        raise Refused(422, f"series {clip(series)} has a value beyond ±{LARGEST:g}; send null where none is")
    at, kept = np.unique(at, return_index=True)  # the first of equal times
    return Part(series, names, at, table[kept], len(times) - len(kept))


def seconds(time: Time, now: float) -> float:
    """Unix seconds of a time. Raises Refused (422)."""
    at = _from_iso(time) if isinstance(time, str) else float(time)
    if at > 1e11:
        raise Refused(422, f"time {at:g} is no unix time in seconds; divide milliseconds by 1000")
    if not 0 <= at <= now + AHEAD_S:  # NaN too
        raise Refused(
            422, f"time {clip(time)} is before 1970 or over {AHEAD_S:g} s ahead of the clock here; set yours"
        )
    return at


def _check_names(names: tuple[str, ...] | None, width: int, series: str) -> None:
    if names is None:
        return
    if len(names) != width:
        raise Refused(422, f"series {clip(series)}: {len(names)} channel names for {width} values; fix one")
    for name in names:
        check_name(name, "a channel")
    if len(set(names)) != width:
        raise Refused(422, f"series {clip(series)}: a channel's name stands twice; name each differently")


def _from_iso(text: str) -> float:
    try:
        found = datetime.fromisoformat(text[:40])
    except ValueError:
        raise Refused(422, f"time {clip(text)} is neither unix seconds nor ISO 8601 with a zone") from None
    if found.tzinfo is None:
        raise Refused(422, f"time {clip(text)} has no zone; write 2026-05-04T09:30:00Z or with +02:00")
    return found.timestamp()


def _lines(text: str) -> Iterable[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text), strict=True)
    except csv.Error as error:
        raise Refused(422, f"the body is no CSV ({clip(error)}); send plain lines") from None


def _form(series: str | None) -> str:
    return "series,time,value" if series is None else "time,value"


def _time_field(field: str) -> Time:
    return float(field) if _NUMBER.fullmatch(field) else field


def _value_field(field: str, line: int) -> Value:
    if field == "" or field.lower() in ("nan", "null"):
        return None
    if not _NUMBER.fullmatch(field):
        raise Refused(422, f"line {line} has {clip(field)} where a number belongs; leave it empty if missing")
    return float(field)
